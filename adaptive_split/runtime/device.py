"""The device: computes one frame at a time, sends, and has an answer for every frame in time.

How the promise is kept. A frame starts only if its first exit can be reached before its deadline
and every sent picture can still get its fallback (stage 1 and exit 1) in time, earliest deadline
first. Before each part (a stage with its exit, an encoder) the device looks ahead: would a
picture's latest start pass before the part ends, its fallback is computed first, at the boundary,
instead of too late. A reply that comes before the give-up moment still wins over it. So parts are
never interrupted and no margin has to cover the longest of them; `MARGIN_S` covers jitter only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from adaptive_split.candidates import MARGIN_S
from adaptive_split.clock import Clock
from adaptive_split.decision import NEVER, Decision
from adaptive_split.measurement import FrameReport
from adaptive_split.runtime.backend import Situation
from adaptive_split.runtime.capture import Capture
from adaptive_split.runtime.head import Head
from adaptive_split.runtime.ledger import EnergyModel, FrameEnergy, Ledger, OpenFrame
from adaptive_split.runtime.parts import Stages
from adaptive_split.runtime.probes import ProbeBudget
from adaptive_split.runtime.run_clock import RunClock
from adaptive_split.runtime.sender import Sender
from adaptive_split.runtime.sensors.battery import Battery
from adaptive_split.runtime.setup import Setup
from adaptive_split.runtime.source import FrameSource
from adaptive_split.runtime.stages import Tensor
from adaptive_split.runtime.transport import Transport

GREETING_S = 3.0
LONGEST_NAP_S = 0.1
"""A sleeping device looks this often whether the server has failed a picture."""


class Device:
    """Plays captured frames one at a time: `next_frame`, then `run_frame` with a decision."""

    def __init__(
        self,
        setup: Setup,
        stages: Stages,
        transport: Transport,
        clock: Clock,
        battery: Battery,
        *,
        slowdown: float = 1.0,
        probes: bool = True,
        probe_budget: ProbeBudget | None = None,
        energy: FrameEnergy | None = None,
        on_answer: Callable[[FrameReport], None] = lambda report: None,
    ) -> None:
        """Take the collaborators.

        Args:
            setup: Bundle, profiles, objective, radio.
            stages: Runs the bundle.
            transport: Reaches the server.
            clock: Real, or a test's.
            battery: Tells the state of charge.
            slowdown: No part takes less than this multiple of its profiled time, which makes a
                fast machine play a slow one; 0 on the device that was profiled.
            probes: Whether to measure a link whose rate nothing tells.
            probe_budget: How many bytes that may cost; by default 1 % of the rate and 8 kB/s.
            energy: What frames draw; by default as profile and radio model it.
            on_answer: Called with every report the moment a frame is answered, on any thread.
        """
        self._setup, self._battery, self._tell = setup, battery, on_answer
        self.clock = RunClock(clock)
        self._stages, self._slowdown = stages, slowdown
        self._head = Head(setup, stages, self.clock, slowdown)
        self.ledger = Ledger(
            self.clock, setup.objective, energy or EnergyModel.of(setup), self._answered
        )
        self.sender = Sender(
            transport,
            self.ledger,
            self.clock,
            bundle=setup.bundle,
            server_profile=setup.server_profile,
            overhead_bytes=setup.radio.overhead_bytes,
            probes=probes,
            probe_budget=probe_budget,
        )
        self._capture = Capture(setup.objective, 0)
        self._confidences: deque[float] = deque(maxlen=8)
        self._source: FrameSource | None = None

    def start(self, source: FrameSource, num_frames: int) -> None:
        """Begin a run: meet the server, then capture frame 0 now."""
        self.ledger.clear()
        self.clock.restart()
        self.sender.reset()
        for future in self.sender.greet():
            while not future.done() and self.clock.now_s() < GREETING_S:
                self.clock.sleep_until(self.clock.now_s() + 0.005)
        self._source = source
        self._confidences.clear()
        self._head = Head(self._setup, self._stages, self.clock, self._slowdown)
        self._capture = Capture(self._setup.objective, num_frames)
        self.clock.restart()
        self.sender.rebase()

    def finish(self) -> None:
        """Capture no more frames; those captured by now are still answered."""
        self._capture.finish(self.clock.now_s())

    def next_frame(self) -> Situation | None:
        """Wait until a frame can start; `None` once all are captured and settled."""
        while True:
            self.ledger.expire()
            self.sender.tend()
            now_s = self.clock.now_s()
            self._drop(self._capture.advance(now_s, self._head.first_s + MARGIN_S))
            newest, pictures = self._capture.newest(), self._pictures()
            # No reply can come for these, so nothing is gained by waiting.
            failed = [frame for frame in pictures if frame.reason]
            more_deadlines_s = [] if newest is None else [self._capture.deadline_s(newest)]
            due_s = self._latest_start_s(*more_deadlines_s)
            if failed or (pictures and due_s <= now_s):
                self._fall_back(*failed[:1])
            elif newest is not None:
                return self.situation()
            elif self._capture.next_s == float("inf") and not self.ledger.num_open:
                return None
            else:
                expiry_s, nap_s = self.ledger.next_expiry_s(), now_s + LONGEST_NAP_S
                self.clock.sleep_until(min(self._capture.next_s, due_s, expiry_s, nap_s))

    def situation(self) -> Situation:
        """Tell what is known now, about the newest waiting frame or the end of the run."""
        now_s = self.clock.now_s()
        newest = self._capture.newest()
        index = self._capture.captured if newest is None else newest
        oldest_s, oldest_bytes = self.sender.oldest()
        return Situation(
            now_s=now_s,
            arrival_s=self._capture.arrival_s(index),
            frame_index=index,
            uplink_free_s=self.sender.free_s(),
            oldest_unanswered_s=oldest_s,
            oldest_unanswered_bytes=oldest_bytes,
            samples=self.sender.samples,
            timeouts=self.sender.timeouts(now_s),
            recent_confidences=tuple(self._confidences),
            device_slowdown=self._head.slowdown,
            soc=self._battery.soc(),
            server_usable=not self.sender.obstacle,
            waiting=max(self._capture.waiting - 1, 0),
        )

    def run_frame(self, decision: Decision) -> None:
        """Compute the frame of the last situation until it is answered or sent."""
        assert self._source is not None
        index = self._capture.take()
        deadline_s = self._capture.deadline_s(index)
        picture = self._source.picture(index)
        if picture is None:
            self.ledger.drop(index, None, self._capture.arrival_s(index))
            return
        frame = OpenFrame(
            index=index,
            picture=picture,
            decision=decision,
            arrival_s=self._capture.arrival_s(index),
            deadline_s=deadline_s,
            give_up_s=deadline_s - MARGIN_S,
        )
        if decision.split_point > 0 or not self._send_picture(frame):
            self.ledger.open(frame)
            self._run_stages(frame)

    def _send_picture(self, frame: OpenFrame) -> bool:
        """Send a picture, keeping its fallback in reserve, unless there is a reason not to."""
        give_up_s = frame.give_up_s - self._head.first_s
        ready_s = self.clock.now_s() + self._head.encoder_s(0)
        in_reserve = ready_s <= self._latest_start_s(frame.deadline_s)
        frame.reason = self._obstacle(ready_s, give_up_s) or ("" if in_reserve else "unsent")
        if frame.reason:
            return False
        frame.give_up_s = give_up_s
        payload, frame.encode_s = self._head.encode(
            0, frame.decision.bits, None, frame.picture.pixels
        )
        self.ledger.open(frame)
        self.sender.send(frame, payload)
        return True

    def _run_stages(self, frame: OpenFrame) -> None:
        """Run stages and exits up to the split point, then send, or stay local for a reason.

        A frame that was to be sent and cannot be because the server is out of reach goes on to
        the last exit if that still fits.
        """
        split_point, last = frame.decision.split_point, self._head.num_stages
        alone = frame.reason in ("breaker", "bundle") and self._fits(frame, 0, last)
        target = last if alone else max(split_point, 1)
        feature: Tensor | None = None
        for index in range(1, last + 1):
            if index > 1 and not self._fits(frame, index - 1, index):
                frame.reason = frame.reason or "late"
                break
            feature, sure = self._run_stage(frame, index, feature)
            if sure or frame.settled:
                break
            if index == split_point < last:
                if self._send_feature(frame, feature):
                    return
                if frame.reason != "unsent" and self._fits(frame, index, last):
                    target = last
            if index == target:
                break
        self.ledger.settle_on_device(frame)

    def _run_stage(
        self, frame: OpenFrame, index: int, tensor: Tensor | None
    ) -> tuple[Tensor, bool]:
        """Run one stage and its exit; tell whether the exit is sure enough to answer."""
        self._make_room(self._head.stages_s(index - 1, index))
        feature, answer, took_s = self._head.run_stage(index, tensor, frame.picture.pixels)
        frame.head_s += took_s
        if index == 1:
            self._confidences.append(answer.confidence)
        self.ledger.offer(frame, index, answer)
        threshold = frame.decision.exit_threshold
        return feature, threshold < NEVER and answer.confidence >= threshold

    def _send_feature(self, frame: OpenFrame, feature: Tensor) -> bool:
        """Encode and send a feature, unless there is a reason not to; then note it."""
        split_point, bits = frame.decision.split_point, frame.decision.bits
        encoder_s = self._head.encoder_s(split_point)
        frame.reason = self._obstacle(self.clock.now_s() + encoder_s, frame.give_up_s)
        if frame.reason:
            return False
        self._make_room(encoder_s)
        payload, frame.encode_s = self._head.encode(
            split_point, bits, feature, frame.picture.pixels
        )
        self.sender.send(frame, payload)
        return True

    def _obstacle(self, ready_s: float, give_up_s: float) -> str:
        """Why a payload that is ready at a moment should not be sent; empty if it should."""
        blocked = max(ready_s, self.sender.blocked_until_s(ready_s)) >= give_up_s
        return self.sender.obstacle or ("unsent" if blocked else "")

    def _make_room(self, part_s: float) -> None:
        """Compute first the fallbacks that could not wait until a part of `part_s` has ended."""
        while self.clock.now_s() + part_s > self._latest_start_s():
            self._fall_back()

    def _fall_back(self, *choice: OpenFrame) -> None:
        """Compute stage 1 and exit 1 of a sent picture, by default the one due first."""
        for frame in choice or self._pictures()[:1]:
            frame.redo_s = self._head.first_s  # a reply may settle the frame meanwhile
            _, answer, frame.redo_s = self._head.run_stage(1, None, frame.picture.pixels)
            self.ledger.offer(frame, 1, answer)
            if frame.reason:
                self.ledger.settle_on_device(frame)
        self.ledger.expire()

    def _pictures(self) -> list[OpenFrame]:
        """Sent pictures that have no answer yet, the earliest deadline first."""
        return [frame for frame in self.ledger.unanswerable() if frame.ready_s is not None]

    def _latest_start_s(self, *more_deadlines_s: float) -> float:
        """When the first of all fallbacks must start, so that each is ready at its deadline."""
        deadlines = [frame.deadline_s for frame in self._pictures()]
        start_s = float("inf")
        for deadline_s in sorted([*deadlines, *more_deadlines_s], reverse=True):
            start_s = min(start_s, deadline_s - MARGIN_S) - self._head.first_s
        return start_s

    def _fits(self, frame: OpenFrame, done: int, last: int) -> bool:
        """Whether the stages after `done` up to `last` would end before the give-up moment."""
        return self.clock.now_s() + self._head.stages_s(done, last) <= frame.give_up_s

    def _drop(self, indices: list[int]) -> None:
        assert self._source is not None
        for index in indices:
            if self._head.first_s + MARGIN_S > self._setup.objective.slo_s:
                self._head.doubt()
            self.ledger.drop(index, self._source.picture(index), self._capture.arrival_s(index))

    def _answered(self, report: FrameReport) -> None:
        self._battery.drain(report.energy_j)
        self._tell(report)
