"""What a front door knows of its replicas: how far away, how busy, and what became of requests."""

from __future__ import annotations

import threading
from collections import Counter, deque

from adaptive_split.clock import Clock
from adaptive_split.runtime.serving.scheduler import LOAD_WINDOW_S, SchedulerCounts
from adaptive_split.runtime.wire import RefusedError

HOPS_REMEMBERED, HOP_QUANTILE = 32, 0.75
"""Most answers shall come in time, yet one slow hop must not have everybody refused."""
HOP_FADES_S = 1.0
"""Older hops tell nothing, or who is refused for them might never learn of better ones."""


class Accounts:
    """Safe to use from several threads."""

    def __init__(self, clock: Clock, num_replicas: int, *, most_open: int) -> None:
        """Take how many replicas there are and how many requests may be open."""
        self._clock, self._num_replicas, self._most_open = clock, num_replicas, most_open
        self._lock = threading.Lock()
        self._hops_s: deque[tuple[float, float]] = deque(maxlen=HOPS_REMEMBERED)
        self._loads: dict[str, tuple[float, float]] = {}
        self._totals: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._waiting: Counter[int] = Counter()

    @property
    def hop_s(self) -> float:
        """What the way to a replica and back takes, as a rule; 0 where nothing took it of late."""
        since_s = self._clock.now_s() - HOP_FADES_S
        with self._lock:
            ordered = sorted(hop_s for told_s, hop_s in self._hops_s if told_s >= since_s)
        return ordered[int(HOP_QUANTILE * len(ordered))] if ordered else 0.0

    @property
    def load(self) -> float:
        """Mean load of all replicas, in [0, 1]; one that told none of late counts as idle."""
        since_s = self._clock.now_s() - LOAD_WINDOW_S
        with self._lock:
            told = sum(load for told_s, load in self._loads.values() if told_s >= since_s)
        return min(told / self._num_replicas, 1.0)

    @property
    def counts(self) -> SchedulerCounts:
        """Totals so far; sizes of batches stay with the replicas."""
        with self._lock:
            totals = self._totals
            return SchedulerCounts(
                answered=totals["answered"], answered_early=totals["early"],
                refused=dict(self._refused), failed=totals["failed"],
                cancelled=totals["cancelled"], batches={}, waiting=dict(+self._waiting),
            )  # fmt: skip

    def open(self, stage: int, slack_s: float) -> float:
        """Let a request in that enters at a stage; return what is left of its slack at a replica.

        Raises:
            RefusedError: If as many as may be are open, or nothing is left.
        """
        hop_s = self.hop_s
        try:
            if slack_s <= hop_s:
                raise RefusedError(
                    f"slack must be more than {hop_s:.4f} s, to a replica and back; got "
                    f"{slack_s:.4f} s", hop_s, "no-time",
                )  # fmt: skip
            with self._lock:
                if self._waiting.total() >= self._most_open:
                    raise RefusedError(
                        f"the queue must be shorter than {self._most_open} requests; got a full "
                        "one", hop_s, "queue-full",
                    )  # fmt: skip
                self._waiting[stage] += 1
        except RefusedError as error:
            with self._lock:
                self._refused[error.reason] += 1
            raise
        return slack_s - hop_s

    def shut(self, stage: int, what: str) -> None:
        """Note what became of a request: `answered`, `early`, `failed`, `cancelled` or a refusal.

        Args:
            stage: Where it entered.
            what: One of those words, or why it was refused.
        """
        with self._lock:
            self._waiting[stage] -= 1
            if what == "early":
                self._totals["answered"] += 1
            known = what in ("answered", "early", "failed", "cancelled")
            (self._totals if known else self._refused)[what] += 1

    def hear(self, replica: str, load: float, hop_s: float) -> None:
        """Note what a reply told of its replica, and how long it was on the way there and back."""
        now_s = self._clock.now_s()
        with self._lock:
            self._hops_s.append((now_s, max(hop_s, 0.0)))
            self._loads[replica] = (now_s, load)
            since_s = now_s - LOAD_WINDOW_S
            self._loads = {name: told for name, told in self._loads.items() if told[0] >= since_s}
