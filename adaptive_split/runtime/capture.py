"""The camera's frames: which are waiting, which is taken next, which are too old."""

from __future__ import annotations

from adaptive_split.objective import Objective


class Capture:
    """A stack of captured frames: the newest goes first, and what is too old falls out."""

    def __init__(self, objective: Objective, num_frames: int) -> None:
        self._objective = objective
        self._num_frames = num_frames
        self._next = 0
        self._waiting: list[int] = []

    @property
    def waiting(self) -> int:
        """Captured frames that have not started."""
        return len(self._waiting)

    @property
    def captured(self) -> int:
        """How many frames have been captured."""
        return self._next

    @property
    def next_s(self) -> float:
        """When the next frame is captured; infinite after the last."""
        return float("inf") if self._next >= self._num_frames else self.arrival_s(self._next)

    def finish(self, now_s: float) -> None:
        """Capture no frame after a moment; safe to call from a signal handler."""
        num_arrived = int(now_s * self._objective.fps) + 1
        self._num_frames = min(self._num_frames, max(self._next, num_arrived))

    def arrival_s(self, index: int) -> float:
        """When a frame is captured."""
        return index / self._objective.fps

    def deadline_s(self, index: int) -> float:
        """When its answer is due."""
        return self.arrival_s(index) + self._objective.slo_s

    def advance(self, now_s: float, needed_s: float) -> list[int]:
        """Capture what has arrived; return the frames that can no longer make it.

        Args:
            now_s: The moment.
            needed_s: What a frame needs at least until it has an answer.
        """
        while self.next_s <= now_s:
            self._waiting.append(self._next)
            self._next += 1
        # Deadlines rise with the index. A clock that stood still for an hour leaves 100,000 frames.
        num_late = sum(now_s + needed_s > self.deadline_s(index) for index in self._waiting)
        late, self._waiting = self._waiting[:num_late], self._waiting[num_late:]
        return late

    def newest(self) -> int | None:
        """The newest waiting frame."""
        return self._waiting[-1] if self._waiting else None

    def take(self) -> int:
        """Take the newest waiting frame."""
        return self._waiting.pop()
