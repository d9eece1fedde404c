"""What a server may do instead: first come, first served, alone or in batches of whole tails."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass

from adaptive_split.clock import Clock
from adaptive_split.errors import LinkError
from adaptive_split.runtime.serving.scheduler import Steps
from adaptive_split.runtime.serving.stage_queues import Finished
from adaptive_split.runtime.wire import TailRequest

POLL_S = 0.0005


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    request: TailRequest
    last: int
    arrived_s: float
    deadline_s: float
    future: Future[Finished]


class Fifo:
    """Whole tails in the order of arrival; used as a `Scheduler` is, and refuses nobody."""

    load = 0.0

    def __init__(
        self, steps: Steps, clock: Clock, *, max_batch: int = 1, window_s: float = 0.0,
        drops: bool = False,
    ) -> None:  # fmt: skip
        """Choose how.

        Args:
            steps: Runs the parts.
            clock: Real or virtual.
            max_batch: Requests of one split point that may be computed together; this is also the
                size it waits for.
            window_s: How long the first waits for others to fill its batch.
            drops: Whether to drop what is past its deadline before it begins.
        """
        self._steps, self._clock = steps, clock
        self._max_batch, self._window_s, self._drops = max_batch, window_s, drops
        self._jobs: deque[_Job] = deque()
        self._change = threading.Condition()
        self._closed = False

    @property
    def num_waiting(self) -> int:
        """Requests that wait."""
        return len(self._jobs)

    def submit(self, request: TailRequest, last: int, *, slack_s: float) -> Future[Finished]:
        """Queue a request."""
        now_s = self._clock.now_s()
        job = _Job(request, last, now_s, now_s + slack_s, Future())
        with self._change:
            self._jobs.append(job)
            self._change.notify()
        return job.future

    def wait(self) -> bool:
        """Block until there is work; `False` once closed, whatever waits."""
        with self._change:
            self._change.wait_for(lambda: self._jobs or self._closed)
            return not self._closed

    def close(self) -> None:
        """Leave it at that."""
        with self._change:
            self._closed = True
            self._change.notify()

    def step(self) -> None:
        """Run the tails of one batch from end to end."""
        self._drop_late()
        if not self._jobs:
            return
        due_s = self._jobs[0].arrived_s + self._window_s
        while len(batch := self._mates()) < self._max_batch and self._clock.now_s() < due_s:
            self._clock.sleep_until(min(due_s, self._clock.now_s() + POLL_S))
        with self._change:
            for job in batch:
                self._jobs.remove(job)
        begin_s = self._clock.now_s()
        first, last = batch[0].request.split_point + 1, batch[0].last
        features = self._steps.enter(first - 1, [job.request.payload for job in batch])
        for stage in range(first, last + 1):
            features = self._steps.advance(stage, features)  # type: ignore[arg-type, assignment]
        answers = self._steps.ask(last, features)  # type: ignore[arg-type]
        took_s = self._clock.now_s() - begin_s
        for job, answer in zip(batch, answers, strict=True):
            if job.future.set_running_or_notify_cancel():
                job.future.set_result(Finished(answer, last, begin_s - job.arrived_s, took_s))

    def _mates(self) -> list[_Job]:
        with self._change:
            split_point = self._jobs[0].request.split_point
            same = [job for job in self._jobs if job.request.split_point == split_point]
        return same[: self._max_batch]

    def _drop_late(self) -> None:
        now_s = self._clock.now_s()
        while self._drops and self._jobs and self._jobs[0].deadline_s < now_s:
            with self._change:
                job = self._jobs.popleft()
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(LinkError("the deadline has passed"))
