"""Where an edge server has its tails computed: the contract behind the door."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Protocol

from adaptive_split.runtime.serving.scheduler import SchedulerCounts
from adaptive_split.runtime.serving.stage_queues import Finished
from adaptive_split.runtime.wire import TailRequest


class Tails(Protocol):
    """Takes checked requests from any thread; a `Scheduler` with its worker is one."""

    def submit(self, request: TailRequest, last: int, *, slack_s: float) -> Future[Finished]:
        """Have the stages up to `last` run for a request whose answer is of use within the slack.

        The future may be cancelled, or end with `RefusedError` or `PayloadError`.

        Raises:
            RefusedError: If no more can be taken, or not in time.
        """
        ...

    @property
    def load(self) -> float:
        """Busy share of the last second, in [0, 1]."""
        ...

    @property
    def counts(self) -> SchedulerCounts:
        """Totals so far; cheap enough for every scrape."""
        ...
