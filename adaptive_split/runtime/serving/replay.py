"""Frames a device has sent already, so that the same one is not computed twice.

TLS lets nobody on the way replay a request. What is left is a device that is let in and repeats
itself, through a bug or on purpose. So a request names its run, a number drawn at random whenever
the count of frames begins anew, and a frame is answered once per run. A device that invents runs
is held back by its limits alone; a request without a run, as foreign clients send, is not checked.
"""

from __future__ import annotations

from collections import OrderedDict

from adaptive_split.errors import PayloadError

WINDOW = 1024
"""Frames behind the newest one that are remembered; what is older is refused."""
MAX_RUNS = 8
"""Runs remembered of one device; the oldest makes room."""


class ReplayedError(PayloadError):
    """A frame came again."""


class Runs:
    """The newest frames of a device's last runs; whoever owns it sees to locking."""

    def __init__(self) -> None:
        self._runs: OrderedDict[str, _Window] = OrderedDict()

    def take(self, run_id: str, frame_index: int) -> None:
        """Note a frame.

        Raises:
            ReplayedError: If it was noted before, or is too old to tell.
        """
        window = self._runs.setdefault(run_id, _Window())
        self._runs.move_to_end(run_id)
        if len(self._runs) > MAX_RUNS:
            self._runs.popitem(last=False)
        if not window.take(frame_index):
            raise ReplayedError(
                f"a frame must be sent once, and at most {WINDOW} frames late; "
                f"got frame {frame_index} of run {run_id!r}"
            )

    def give_back(self, run_id: str, frame_index: int) -> None:
        """Forget a frame that was not answered, so that it may be sent again."""
        if run_id in self._runs:
            self._runs[run_id].give_back(frame_index)


class _Window:
    """Bit `i` of `_seen` stands for the frame `i` before the newest."""

    def __init__(self) -> None:
        self._newest, self._seen = -1, 0

    def take(self, index: int) -> bool:
        ahead = index - self._newest
        if ahead > 0:
            kept = (self._seen << ahead) & ((1 << WINDOW) - 1) if ahead < WINDOW else 0
            self._newest, self._seen = index, kept | 1
            return True
        if -ahead >= WINDOW or self._seen >> -ahead & 1:
            return False
        self._seen |= 1 << -ahead
        return True

    def give_back(self, index: int) -> None:
        self._seen &= ~(1 << min(self._newest - index, WINDOW))
