"""Who is served next: one queue per stage, least slack first, batches formed at every boundary."""

from __future__ import annotations

import bisect
import math
from collections import Counter
from concurrent.futures import Future
from dataclasses import dataclass, field

from adaptive_split.runtime.serving.batch_cost import BatchCosts
from adaptive_split.runtime.stages import ExitAnswer, Tensor
from adaptive_split.runtime.wire import RefusedError, TailRequest

OTHERS = 0
"""The stage at which other users' work waits."""
PRESSED_SHARE = 0.2
"""The queue presses once the work up to someone's answer takes this much of the time left."""
CALM_SAVING, PRESSED_SAVING = 0.5, 0.03
"""What a batch must save per request: sharing a batch delays its first member, which pays for all
only where one more costs less than half of one alone; under pressure any saving is welcome."""
SHARE_MEMORY, SHARE_PRIOR = 0.02, 0.3
"""Of the running share of requests that an exit answers."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The answer to a request, and what it cost."""

    answer: ExitAnswer
    exit_index: int
    queue_s: float
    compute_s: float


@dataclass(slots=True, eq=False)
class Ticket:
    """A request in a stage's queue, or (`request` is `None`) work of other users."""

    request: TailRequest | None
    stage: int
    """The next one."""
    last: int
    """The exit that answers; falls when time gets short."""
    arrived_s: float
    deadline_s: float
    rest_s: float
    """Expected work from here on, alone."""
    least_s: float
    """The same up to the first exit worth an answer."""
    shared_s: float
    """What it adds to a full queue: in batches, and perhaps done at an exit on the way."""
    latest_start_s: float
    """`deadline_s - rest_s` when it was queued: whoever has the earliest has the least slack."""
    future: Future[Finished] = field(default_factory=Future)
    feature: Tensor | None = None
    """Input of the next stage; `None` before the payload is decoded."""
    best: tuple[int, ExitAnswer] | None = None
    """The deepest exit asked so far and what it said."""
    compute_s: float = 0.0
    asked_last: int = field(init=False)
    """The exit asked for."""

    def __post_init__(self) -> None:
        """Remember what was asked for."""
        self.asked_last = self.last

    @property
    def entering(self) -> bool:
        """Whether its payload is still to be decoded."""
        return self.feature is None

    @property
    def first_useful(self) -> int:
        """The first exit that the device would not have asked anyway.

        It has the exits up to the split point, and keeps time for exit 1 where it sent the picture.
        """
        split_point = self.request.split_point if self.request else OTHERS
        return min(max(split_point + 1, 2), self.last)


@dataclass(frozen=True, slots=True)
class Batch:
    """What runs next."""

    stage: int
    tickets: list[Ticket]
    asked: list[Ticket]
    """Those of them for whom the stage's exit is asked."""
    expected_s: float
    """Time it takes by the costs."""


class StageQueues:
    """Tickets by slack, the least first; those that wait for one stage are that stage's queue."""

    def __init__(self, costs: BatchCosts, *, max_queue: int, max_batch: int) -> None:
        self.costs, self._max_queue, self._max_batch = costs, max_queue, max_batch
        self._tickets: list[Ticket] = []
        self._sure_share = [SHARE_PRIOR] * len(costs.exit)
        self._later_s = 0.0
        self.slowness = 1.0
        """How much longer than `costs` say steps take at the moment."""
        self.pressed = False
        """Whether somebody might be late; told by `take_batch`."""

    def __len__(self) -> int:
        """Number of tickets that wait."""
        return len(self._tickets)

    @property
    def full(self) -> bool:
        """Whether no more may wait."""
        return len(self._tickets) >= self._max_queue

    @property
    def lengths(self) -> dict[int, int]:
        """Number of tickets by the stage they wait for; `OTHERS` is other users' work."""
        return dict(Counter(ticket.stage for ticket in self._tickets))

    def make(self, request: TailRequest, last: int, now_s: float, slack_s: float) -> Ticket:
        """Write the ticket of a request that arrives now."""
        stage, deadline_s = request.split_point + 1, now_s + slack_s
        ticket = Ticket(request, stage, last, now_s, deadline_s, 0.0, 0.0, 0.0, 0.0)
        self._expect(ticket)
        return ticket

    def admit(self, ticket: Ticket, now_s: float, busy_s: float) -> None:
        """Let a ticket in.

        Args:
            ticket: The newcomer.
            now_s: The moment.
            busy_s: Until the running batch ends.

        Raises:
            RefusedError: If the queue is full, or the newcomer or one behind it would be too late.
        """
        ahead_s = self._ahead_s(ticket, busy_s)
        if self.full:
            raise RefusedError(
                f"the queue must be shorter than {self._max_queue} requests; got a full one",
                ahead_s,
                "queue-full",
            )
        needed_s, slack_s = ahead_s + self.slowness * ticket.least_s, ticket.deadline_s - now_s
        if needed_s > slack_s:
            raise RefusedError(
                f"slack must be at least {needed_s:.4f} s; got {slack_s:.4f} s", ahead_s, "no-time"
            )
        if self._displaces(ticket, now_s + ahead_s):
            raise RefusedError(
                f"slack must leave room for {len(self._tickets)} others; got {slack_s:.4f} s",
                ahead_s,
                "no-room",
            )
        self.put(ticket)

    def put(self, ticket: Ticket) -> None:
        """Let a ticket in unasked: it was in before, or is other users' work."""
        bisect.insort(self._tickets, ticket, key=lambda other: other.latest_start_s)

    def move_on(self, ticket: Ticket) -> None:
        """Put a ticket into the queue of the stage after the one it has passed."""
        ticket.stage += 1
        self._expect(ticket)
        self.put(ticket)

    def take_late(self, now_s: float) -> list[Ticket]:
        """Take out who has no time for a useful exit, or waits no more; shorten who has for one."""
        late = [ticket for ticket in self._tickets if not self._keeps_up(ticket, now_s)]
        if late:
            gone = set(map(id, late))
            self._tickets = [ticket for ticket in self._tickets if id(ticket) not in gone]
        return late

    def take_batch(self, now_s: float) -> Batch | None:
        """Take out whoever has the least slack, and those at the same stage that may join."""
        if not self._tickets:
            return None
        self.pressed = self._presses(now_s)
        batch = self._form(self._tickets[0], now_s)
        taken = set(map(id, batch.tickets))
        self._tickets = [ticket for ticket in self._tickets if id(ticket) not in taken]
        if batch.stage != OTHERS:
            self._later_s = sum(self._shared_s(one, batch.stage + 1) for one in batch.tickets)
        return batch

    def finish_batch(self) -> None:
        """Forget the batch taken last: those of it that go on have been put back."""
        self._later_s = 0.0

    def note_asked(self, stage: int, sure: bool) -> None:
        """Remember how often an exit answers."""
        share = self._sure_share[stage - 1]
        self._sure_share[stage - 1] = share + SHARE_MEMORY * (sure - share)

    def _expect(self, ticket: Ticket) -> None:
        stage, last, entering = ticket.stage, ticket.last, ticket.entering
        useful = max(ticket.first_useful, stage)
        ticket.rest_s = self.costs.rest_s(stage, last, entering=entering)
        ticket.least_s = self.costs.rest_s(stage, useful, entering=entering)
        ticket.shared_s = self._shared_s(ticket, stage)
        ticket.latest_start_s = ticket.deadline_s - ticket.rest_s

    def _shared_s(self, ticket: Ticket, first: int) -> float:
        """Expected work of a ticket among many: in batches, stopping at exits that are sure.

        Args:
            ticket: Whose.
            first: The first stage to count.
        """
        if first > ticket.last:
            return 0.0
        costs, share = self.costs, 1.0
        entering = ticket.entering and first == ticket.stage
        work_s = costs.decoder[first - 1].more_s if entering else 0.0
        for stage in range(first, ticket.last):
            work_s += share * costs.stage[stage - 1].more_s
            if stage >= ticket.first_useful:
                work_s += share * costs.exit[stage - 1].more_s
                share *= 1.0 - self._sure_share[stage - 1]
        last = ticket.last - 1
        return work_s + share * (costs.stage[last].more_s + costs.exit[last].more_s)

    def _ahead_s(self, ticket: Ticket, busy_s: float) -> float:
        """How long a ticket would wait before its first step."""
        work_s = self._later_s
        for other in self._tickets:
            if other.latest_start_s > ticket.latest_start_s:
                break
            work_s += other.shared_s
        return busy_s + self.slowness * work_s

    def _displaces(self, ticket: Ticket, start_s: float) -> bool:
        """Whether one behind the newcomer would be in time without it only."""
        added_s = self.slowness * ticket.shared_s
        for other in self._tickets:
            if other.latest_start_s > ticket.latest_start_s:
                end_s = start_s + self.slowness * other.least_s
                if end_s <= other.deadline_s < end_s + added_s:
                    return True
                start_s += self.slowness * other.shared_s
        return False

    def _keeps_up(self, ticket: Ticket, now_s: float) -> bool:
        if ticket.future.cancelled():
            return False
        left_s = (ticket.deadline_s - now_s) / self.slowness
        if ticket.stage == OTHERS or ticket.rest_s <= left_s:
            return True
        for last in range(ticket.last - 1, max(ticket.first_useful, ticket.stage) - 1, -1):
            rest_s = self.costs.rest_s(ticket.stage, last, entering=ticket.entering)
            if rest_s <= left_s:
                ticket.last, ticket.rest_s = last, rest_s
                return True
        return False

    def _presses(self, now_s: float) -> bool:
        ahead_s = 0.0
        for ticket in self._tickets:
            ahead_s += self.slowness * ticket.rest_s
            if ahead_s > PRESSED_SHARE * (ticket.deadline_s - now_s):
                return True
        return False

    def _form(self, head: Ticket, now_s: float) -> Batch:
        """Add those who may share the head's batch: it pays, and nobody is late for it."""
        if head.stage == OTHERS:
            return Batch(OTHERS, [head], [], head.rest_s)
        costs, stage = self.costs, head.stage
        room_s = min(self._room_s(head, now_s), self._patience_s(head, now_s))
        batch, num_entering, num_last = [head], int(head.entering), int(head.last == stage)
        step_s = costs.step_s(stage, 1, num_entering, num_last)
        for mate in self._tickets[1:]:
            if mate.stage != stage:
                continue
            if len(batch) >= self._max_batch or not self._pays(mate):
                break
            counts = num_entering + mate.entering, num_last + (mate.last == stage)
            longer_s = costs.step_s(stage, len(batch) + 1, *counts)
            room_with_s = min(room_s, self._room_s(mate, now_s))
            if longer_s > room_with_s:
                break
            (num_entering, num_last), step_s, room_s = counts, longer_s, room_with_s
            batch.append(mate)
        asked = [ticket for ticket in batch if ticket.last == stage]
        more = [ticket for ticket in batch if self._may_stop(ticket)]
        longer_s = costs.step_s(stage, len(batch), num_entering, num_last + len(more))
        if longer_s <= room_s:
            asked, step_s = [*asked, *more], longer_s
        return Batch(stage, batch, asked, step_s)

    def _may_stop(self, ticket: Ticket) -> bool:
        """Whether asking an exit on the way is called for, and saves more than it costs."""
        stage = ticket.stage
        if not self.pressed or not ticket.first_useful <= stage < ticket.last:
            return False
        rest_s = self.costs.rest_s(stage + 1, ticket.last, entering=False)
        return self._sure_share[stage - 1] * rest_s > self.costs.exit[stage - 1].more_s

    def _pays(self, mate: Ticket) -> bool:
        """Whether one more in a batch is enough cheaper than one alone."""
        stage, decoder = self.costs.stage[mate.stage - 1], self.costs.decoder[mate.stage - 1]
        one_s, more_s = stage.one_s, stage.more_s
        if mate.entering:
            one_s, more_s = one_s + decoder.one_s, more_s + decoder.more_s
        saving = PRESSED_SAVING if self.pressed else CALM_SAVING
        return more_s <= (1 - saving) * one_s

    def _room_s(self, ticket: Ticket, now_s: float) -> float:
        """How long its next step may take, in seconds of `costs`."""
        stage, last = ticket.stage, int(ticket.last == ticket.stage)
        alone_s = self.costs.step_s(stage, 1, int(ticket.entering), last)
        return (ticket.deadline_s - now_s) / self.slowness - (ticket.rest_s - alone_s)

    def _patience_s(self, head: Ticket, now_s: float) -> float:
        """How long a batch may take before it costs others, at other stages, their answers."""
        alone_s = self.costs.step_s(head.stage, 1, int(head.entering))
        rest = (ticket for ticket in self._tickets if ticket.stage != head.stage)
        slacks_s = ((t.deadline_s - now_s) / self.slowness - t.least_s for t in rest)
        return min((slack_s for slack_s in slacks_s if slack_s >= alone_s), default=math.inf)
