"""The server's queue: bounded, first in first out, one worker."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Generic, TypeVar

from adaptive_split.clock import Clock
from adaptive_split.runtime.wire import RefusedError

Result = TypeVar("Result")
LOAD_WINDOW_S = 1.0


@dataclass(frozen=True, slots=True)
class Finished(Generic[Result]):
    """The result of a job, and when things happened to it."""

    result: Result
    queue_s: float
    compute_s: float


@dataclass(frozen=True, slots=True)
class _Job(Generic[Result]):
    work: Callable[[], Result]
    future: Future[Finished[Result]]
    expected_s: float
    queued_s: float
    latest_start_s: float


class Scheduler:
    """Runs one job at a time in the order of arrival and refuses what would come too late.

    First in first out, as in the simulator; with one device per server least slack first would
    choose the same.
    """

    def __init__(self, clock: Clock, *, max_queue: int = 16) -> None:
        self._clock, self._max_queue = clock, max_queue
        self._jobs: deque[_Job[object]] = deque()
        self._change = threading.Condition()
        self._closed = False
        self._busy: deque[tuple[float, float]] = deque()
        self._running: tuple[float, float] | None = None
        self._thread = threading.Thread(target=self._work, name="scheduler", daemon=True)
        self._thread.start()

    def submit(
        self, work: Callable[[], Result], *, expected_s: float, slack_s: float = math.inf
    ) -> Future[Finished[Result]]:
        """Queue a job.

        Args:
            work: What to run.
            expected_s: How long it should take.
            slack_s: From now until its result is of no use.

        Raises:
            RefusedError: If the queue is full or the job could not be done in time.
        """
        future: Future[Finished[Result]] = Future()
        with self._change:
            wait_s = self._wait_s()
            if self._closed:
                raise RefusedError("the server must be serving; got a request while it drains")
            if len(self._jobs) >= self._max_queue:
                raise RefusedError(
                    f"the queue must be shorter than {self._max_queue} jobs; got a full one", wait_s
                )
            needed_s = wait_s + expected_s
            if needed_s > slack_s:
                raise RefusedError(
                    f"slack must be at least {needed_s:.4f} s; got {slack_s:.4f} s", wait_s
                )
            now_s = self._clock.now_s()
            job = _Job(work, future, expected_s, now_s, now_s + slack_s - expected_s)
            self._jobs.append(job)  # type: ignore[arg-type]
            self._change.notify()
        return future

    @property
    def load(self) -> float:
        """Busy share of the last second."""
        with self._change:
            now_s = self._clock.now_s()
            since_s = now_s - LOAD_WINDOW_S
            while self._busy and self._busy[0][1] < since_s:
                self._busy.popleft()
            busy_s = sum(end - max(begin, since_s) for begin, end in self._busy)
            if self._running:
                busy_s += now_s - max(self._running[0], since_s)
            return min(busy_s / LOAD_WINDOW_S, 1.0)

    def close(self) -> None:
        """Finish what is queued and stop."""
        with self._change:
            self._closed = True
            self._change.notify()
        self._thread.join()

    def _wait_s(self) -> float:
        rest_s = 0.0
        if self._running:
            begin_s, expected_s = self._running
            rest_s = max(begin_s + expected_s - self._clock.now_s(), 0.0)
        return rest_s + sum(job.expected_s for job in self._jobs)

    def _work(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._jobs or self._closed)
                if not self._jobs:
                    return
                job = self._jobs.popleft()
                begin_s = self._clock.now_s()
                self._running = (begin_s, job.expected_s)
            self._run(job, begin_s)
            with self._change:
                self._running = None
                self._busy.append((begin_s, self._clock.now_s()))

    def _run(self, job: _Job[object], begin_s: float) -> None:
        if not job.future.set_running_or_notify_cancel():
            return
        queue_s = begin_s - job.queued_s
        if begin_s > job.latest_start_s:
            job.future.set_exception(
                RefusedError(f"the queue must leave enough slack; got {queue_s:.4f} s", queue_s)
            )
            return
        try:
            result = job.work()
        except Exception as error:  # belongs to whoever waits for the job, not to the worker
            job.future.set_exception(error)
        else:
            job.future.set_result(Finished(result, queue_s, self._clock.now_s() - begin_s))
