"""The server's worker: one stage for one batch at a time, formed anew at every boundary."""

from __future__ import annotations

import threading
from collections import Counter, deque
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from adaptive_split.clock import Clock
from adaptive_split.errors import PayloadError
from adaptive_split.runtime.serving.batch_cost import BatchCosts
from adaptive_split.runtime.serving.stage_queues import OTHERS, Batch, Finished, StageQueues, Ticket
from adaptive_split.runtime.stages import ExitAnswer, Tensor
from adaptive_split.runtime.wire import RefusedError, TailRequest

LOAD_WINDOW_S = 1.0
MAX_BATCH = 16
SLOWNESS_MEMORY, MOST_SLOWNESS = 0.1, 4.0
SLOWNESS_FADES_S = 1.0
"""An idle server forgets how slow it was, or it might refuse everyone and never learn better."""
OTHERS_SLACK_S = 0.1
"""Where other users' work stands in the order: as if promised within this time."""


class Steps(Protocol):
    """What runs a batch; `TailSteps` is one."""

    def enter(self, split_point: int, payloads: list[bytes]) -> list[Tensor | PayloadError]:
        """Decode payloads to features, a damaged one to why."""
        ...

    def advance(self, stage: int, features: list[Tensor]) -> list[Tensor]:
        """Run a stage."""
        ...

    def ask(self, exit_index: int, features: list[Tensor]) -> list[ExitAnswer]:
        """Ask an exit."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerCounts:
    """What a scheduler did since it began, and what waits now."""

    answered: int
    answered_early: int
    """Of those, at an exit before the last one asked for."""
    refused: dict[str, int]
    """By reason: `queue-full`, `no-time` or `no-room` at arrival, `late` later, `draining`."""
    failed: int
    """Damaged payloads, and steps that broke."""
    cancelled: int
    batches: dict[int, int]
    """Steps run, by size of the batch."""
    waiting: dict[int, int]
    """By the stage they wait for; 0 is other users' work."""


class Scheduler:
    """Takes requests from any thread; one worker calls `step`, such as a `WorkerThread`.

    Attributes:
        exit_threshold: Under pressure an exit on the way answers from this confidence on.
    """

    def __init__(
        self, steps: Steps, costs: BatchCosts, clock: Clock, *, max_queue: int = 64,
        max_batch: int = MAX_BATCH, exit_threshold: float = 0.8,
    ) -> None:  # fmt: skip
        self._steps, self._clock, self.exit_threshold = steps, clock, exit_threshold
        self._queues = StageQueues(costs, max_queue=max_queue, max_batch=max_batch)
        self._change = threading.Condition()
        self._closed = False
        self._busy: deque[tuple[float, float]] = deque()
        self._running: tuple[float, float] | None = None
        self._totals: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._batches: Counter[int] = Counter()

    def submit(self, request: TailRequest, last: int, *, slack_s: float) -> Future[Finished]:
        """Queue a request for the stages up to `last`, whose answer is of use within the slack.

        The future may end with `RefusedError` (too late after all) or `PayloadError`.

        Raises:
            RefusedError: If the queue is full or the answer would come too late.
        """
        with self._change:
            now_s = self._clock.now_s()
            self._forget_slowness(now_s)
            try:
                if self._closed:
                    message = "the server must be serving; got a request while it drains"
                    raise RefusedError(message, reason="draining")
                ticket = self._queues.make(request, last, now_s, slack_s)
                self._queues.admit(ticket, now_s, self._busy_s(now_s))
            except RefusedError as error:
                self._refused[error.reason] += 1
                raise
            self._change.notify()
        return ticket.future

    def occupy(self, work_s: float) -> None:
        """Queue other users' work: it takes the worker that long when its turn comes.

        A full queue turns other users away as well.
        """
        with self._change:
            if self._queues.full:
                return
            now_s = self._clock.now_s()
            latest_s = now_s + OTHERS_SLACK_S - work_s
            self._queues.put(
                Ticket(None, OTHERS, OTHERS, now_s, float("inf"), work_s, work_s, work_s, latest_s)
            )
            self._change.notify()

    @property
    def load(self) -> float:
        """Busy share of the last second."""
        with self._change:
            now_s = self._clock.now_s()
            since_s = now_s - LOAD_WINDOW_S
            recent = ((max(begin_s, since_s), end_s) for begin_s, end_s in self._busy)
            busy_s = sum(max(end_s - begin_s, 0.0) for begin_s, end_s in recent)
            if self._running:
                busy_s += now_s - max(self._running[0], since_s)
            return min(busy_s / LOAD_WINDOW_S, 1.0)

    @property
    def counts(self) -> SchedulerCounts:
        """Totals so far; cheap enough for every scrape."""
        with self._change:
            totals = self._totals
            return SchedulerCounts(
                answered=totals["answered"], answered_early=totals["early"],
                refused=dict(self._refused), failed=totals["failed"],
                cancelled=totals["cancelled"], batches=dict(self._batches),
                waiting=self._queues.lengths,
            )  # fmt: skip

    def wait(self) -> bool:
        """Block until there is work; `False` once closed and empty."""
        with self._change:
            self._change.wait_for(lambda: len(self._queues) or self._closed)
            return len(self._queues) > 0

    def close(self) -> None:
        """Take no more; what waits is still served."""
        with self._change:
            self._closed = True
            self._change.notify()

    def step(self) -> None:
        """Refuse who is too late, then run one stage for the next batch."""
        with self._change:
            begin_s = self._clock.now_s()
            late = self._queues.take_late(begin_s)
            batch = self._queues.take_batch(begin_s)
            if batch:
                self._running = (begin_s, self._queues.slowness * batch.expected_s)
        for ticket in late:
            self._give_up(ticket, begin_s)
        if not batch:
            return
        if batch.stage == OTHERS:
            self._clock.sleep_until(begin_s + batch.expected_s)
        else:
            self._run(batch, begin_s)
        with self._change:
            end_s = self._clock.now_s()
            self._running = None
            self._queues.finish_batch()
            while self._busy and self._busy[0][1] < end_s - LOAD_WINDOW_S:
                self._busy.popleft()
            self._busy.append((begin_s, end_s))
            if batch.stage != OTHERS:
                self._batches[len(batch.tickets)] += 1
                self._note_speed(end_s - begin_s, batch.expected_s)

    def _run(self, batch: Batch, begin_s: float) -> None:
        """Run one stage; answer who is done and queue the others for the next stage."""
        stage, tickets = batch.stage, batch.tickets
        try:
            tickets = self._enter(stage, tickets)
            if not tickets:
                return
            features = self._steps.advance(stage, [_feature(ticket) for ticket in tickets])
            for ticket, feature in zip(tickets, features, strict=True):
                ticket.feature = feature
            asked = [ticket for ticket in batch.asked if not ticket.future.done()]
            if asked:
                answers = self._steps.ask(stage, [_feature(ticket) for ticket in asked])
                for ticket, answer in zip(asked, answers, strict=True):
                    ticket.best = (stage, answer)
        except Exception as error:  # belongs to whoever waits, not to the worker
            for ticket in tickets:
                self._fail(ticket, error)
            return
        self._settle(tickets, stage, begin_s)

    def _enter(self, stage: int, batch: list[Ticket]) -> list[Ticket]:
        """Decode the payloads of those who enter; leave out who sent a damaged one."""
        new = [ticket for ticket in batch if ticket.entering]
        if not new:
            return batch
        payloads = [ticket.request.payload for ticket in new if ticket.request]
        for ticket, found in zip(new, self._steps.enter(stage - 1, payloads), strict=True):
            if isinstance(found, PayloadError):
                self._fail(ticket, found)
            else:
                ticket.feature = found
        return [ticket for ticket in batch if not ticket.entering]

    def _settle(self, batch: list[Ticket], stage: int, begin_s: float) -> None:
        now_s = self._clock.now_s()
        for ticket in batch:
            ticket.compute_s += now_s - begin_s
            asked, answer = ticket.best or (0, None)
            sure = answer is not None and answer.confidence >= self.exit_threshold
            if asked == stage and stage < ticket.last:
                self._queues.note_asked(stage, sure)
            if ticket.future.cancelled():
                self._count("cancelled")
            elif asked == stage and (sure or stage >= ticket.last):
                self._answer(ticket, now_s)
            else:
                with self._change:
                    self._queues.move_on(ticket)

    def _answer(self, ticket: Ticket, now_s: float) -> None:
        assert ticket.best is not None
        assert ticket.request is not None
        exit_index, answer = ticket.best
        queue_s = now_s - ticket.arrived_s - ticket.compute_s
        if ticket.future.set_running_or_notify_cancel():
            self._count("answered")
            if exit_index < ticket.asked_last:
                self._count("early")
            ticket.future.set_result(
                Finished(answer, exit_index, max(queue_s, 0.0), ticket.compute_s)
            )
        else:
            self._count("cancelled")

    def _give_up(self, ticket: Ticket, now_s: float) -> None:
        """Answer with what an exit on the way said, if one was asked in time, or refuse."""
        if ticket.best is not None and now_s <= ticket.deadline_s:
            self._answer(ticket, now_s)
        elif ticket.future.set_running_or_notify_cancel():
            queue_s = now_s - ticket.arrived_s - ticket.compute_s
            with self._change:
                self._refused["late"] += 1
            message = f"the queue must leave enough slack; got {queue_s:.4f} s of waiting"
            ticket.future.set_exception(RefusedError(message, queue_s, "late"))
        else:
            self._count("cancelled")

    def _fail(self, ticket: Ticket, error: Exception) -> None:
        if ticket.future.set_running_or_notify_cancel():
            self._count("failed")
            ticket.future.set_exception(error)

    def _count(self, what: str) -> None:
        with self._change:
            self._totals[what] += 1

    def _busy_s(self, now_s: float) -> float:
        if self._running is None:
            return 0.0
        begin_s, expected_s = self._running
        return max(begin_s + expected_s - now_s, 0.0)

    def _forget_slowness(self, now_s: float) -> None:
        idle = self._running is None and not len(self._queues)
        if idle and self._busy and now_s - self._busy[-1][1] > SLOWNESS_FADES_S:
            self._queues.slowness = 1.0

    def _note_speed(self, took_s: float, expected_s: float) -> None:
        if expected_s > 0:
            ratio = min(max(took_s / expected_s, 1.0), MOST_SLOWNESS)
            queues = self._queues
            queues.slowness += SLOWNESS_MEMORY * (ratio - queues.slowness)


class WorkerThread:
    """Steps a scheduler until it is closed and empty."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._thread = threading.Thread(target=self._work, name="scheduler", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Finish what is queued and stop."""
        self._scheduler.close()
        self._thread.join()

    def _work(self) -> None:
        while self._scheduler.wait():
            self._scheduler.step()


def _feature(ticket: Ticket) -> Tensor:
    assert ticket.feature is not None
    return ticket.feature
