"""The frames that have started and are not answered yet, and how each becomes a report."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from adaptive_split.clock import Clock
from adaptive_split.decision import Decision
from adaptive_split.measurement import DEVICE, NO_PICTURE, NOBODY, SERVER, FrameReport
from adaptive_split.objective import Objective
from adaptive_split.runtime.setup import Setup
from adaptive_split.runtime.source import Picture
from adaptive_split.runtime.stages import ExitAnswer
from adaptive_split.runtime.wire import TailReply


@dataclass(slots=True, eq=False, kw_only=True)
class OpenFrame:
    """A frame on its way. The device's thread writes to it until it is settled."""

    index: int
    picture: Picture
    decision: Decision
    arrival_s: float
    deadline_s: float
    give_up_s: float
    """From then on a reply is of no use."""
    head_s: float = 0.0
    encode_s: float = 0.0
    redo_s: float = 0.0
    """Time of the fallback's stage 1 and exit 1, at split point 0."""
    ready_s: float | None = None
    """When the payload was handed to the sender."""
    wire_bytes: int = 0
    upload_s: float = 0.0
    """Time on the uplink, estimated."""
    downlink_s: float = 0.0
    """Half a round trip, estimated."""
    exit_index: int = 0
    """The deepest exit computed; 0 = none yet."""
    best: ExitAnswer | None = None
    """What that exit said."""
    reason: str = ""
    """Why the server will not answer."""
    settled: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyModel:
    """What a frame draws: `compute_w` while it computes, a radio while it sends."""

    compute_w: float
    send_w: float
    joules_per_mbit: float
    provenance: str

    @classmethod
    def of(cls, setup: Setup) -> EnergyModel:
        """By a device's profile and radio."""
        return cls(
            compute_w=setup.device_profile.compute_w,
            send_w=setup.radio.watts,
            joules_per_mbit=setup.radio.joules_per_mbit,
            provenance=setup.device_profile.energy_provenance,
        )

    def price(self, frame: OpenFrame, slo_s: float) -> tuple[float, str]:
        """Joules of one frame, and how they are known."""
        busy_s = frame.head_s + frame.encode_s + frame.redo_s
        return self.compute_w * busy_s + self.sending_j(frame, slo_s), self.provenance

    def sending_j(self, frame: OpenFrame, slo_s: float) -> float:
        """Joules of the radio for one frame."""
        megabits = frame.wire_bytes * 8e-6
        return self.send_w * min(frame.upload_s, slo_s) + self.joules_per_mbit * megabits


class FrameEnergy(Protocol):
    """Tells what frames draw; `EnergyModel` is one."""

    @property
    def provenance(self) -> str:
        """How joules are known now."""
        ...

    def price(self, frame: OpenFrame, slo_s: float) -> tuple[float, str]:
        """Joules of one frame, and how they are known; called once for every frame."""
        ...


@dataclass(slots=True)
class Ledger:
    """Settles every frame once, by whoever is first: server, device, or the clock.

    Safe to use from several threads: replies come on the transport's, answers of the device on its
    own, and give-up moments on the watchdog's.
    """

    clock: Clock
    objective: Objective
    energy: FrameEnergy
    on_answer: Callable[[FrameReport], None]
    """Called with every report, on the thread that settled it; must not block."""
    _open: dict[int, OpenFrame] = field(default_factory=dict)
    _settled: list[FrameReport] = field(default_factory=list)
    change: threading.Condition = field(default_factory=threading.Condition)
    alarm_s: float = float("inf")
    """When whoever waits for `change` looks at the clock again of its own accord."""

    def open(self, frame: OpenFrame) -> None:
        """Take in a frame that starts."""
        with self.change:
            self._open[frame.index] = frame

    def offer(self, frame: OpenFrame, exit_index: int, answer: ExitAnswer) -> None:
        """Note the deepest exit of a frame; from now on it can be answered."""
        with self.change:
            frame.exit_index, frame.best = exit_index, answer
            # A thread woken for nothing takes turns with the one that computes.
            if frame.give_up_s < self.alarm_s:
                self.change.notify_all()

    def drop(self, index: int, picture: Picture | None, arrival_s: float) -> None:
        """Report a frame that never started."""
        sample_index = picture.sample_index if picture else NO_PICTURE
        report = FrameReport(
            frame_index=index, sample_index=sample_index, arrival_s=arrival_s,
            decision=None, answer=None, answered_by=NOBODY, exit_index=None, confidence=None,
            correct=False, on_time=False, fallback_reason="dropped", latency_s=None,
            energy_provenance=self.energy.provenance,
        )  # fmt: skip
        with self.change:
            self._settled.append(report)
        self.on_answer(report)

    def settle_on_device(self, frame: OpenFrame, reason: str = "") -> None:
        """Answer with the deepest exit, unless the frame is settled already."""
        with self.change:
            if frame.settled or frame.best is None:
                return
            report = self._report(frame, self.clock.now_s(), None, reason or frame.reason)
            self._close(frame, report)
        self.on_answer(report)

    def settle_by_server(self, frame: OpenFrame, reply: TailReply, reply_s: float) -> None:
        """Answer with the server's reply, unless it is late."""
        with self.change:
            if frame.settled or reply_s > frame.give_up_s:
                return
            report = self._report(frame, reply_s, reply, "")
            self._close(frame, report)
        self.on_answer(report)

    def fail(self, frame: OpenFrame, reason: str) -> None:
        """Note that the server will not answer: settle now if an exit has, else leave it open."""
        with self.change:
            frame.reason = frame.reason or reason
        self.settle_on_device(frame)

    def expire(self) -> None:
        """Settle every frame that has an answer and whose give-up moment has passed."""
        with self.change:
            now_s = self.clock.now_s()
            due = [f for f in self._open.values() if f.best is not None and f.give_up_s <= now_s]
        for frame in due:
            self.settle_on_device(frame, frame.reason or "late")

    def next_expiry_s(self) -> float:
        """The earliest give-up moment of a frame that can be answered, or infinity."""
        with self.change:
            moments = (f.give_up_s for f in self._open.values() if f.best is not None)
            return min(moments, default=float("inf"))

    def unanswerable(self) -> list[OpenFrame]:
        """Open frames without any exit computed, the earliest deadline first."""
        with self.change:
            frames = [f for f in self._open.values() if f.best is None]
        return sorted(frames, key=lambda frame: frame.deadline_s)

    @property
    def num_open(self) -> int:
        """Frames not settled yet."""
        return len(self._open)

    def take(self) -> list[FrameReport]:
        """Hand over the frames settled since the last call."""
        with self.change:
            taken, self._settled = self._settled, []
            return taken

    def clear(self) -> None:
        """Forget everything."""
        with self.change:
            for frame in self._open.values():
                frame.settled = True
            self._open.clear()
            self._settled.clear()

    def _close(self, frame: OpenFrame, report: FrameReport) -> None:
        frame.settled = True
        del self._open[frame.index]
        self._settled.append(report)

    def _report(
        self, frame: OpenFrame, answered_s: float, reply: TailReply | None, reason: str
    ) -> FrameReport:
        latency_s = answered_s - frame.arrival_s
        by_server = reply is not None
        answer = reply if reply is not None else frame.best
        assert answer is not None
        on_time = latency_s <= self.objective.slo_s
        correct = on_time and answer.answer == frame.picture.label
        energy_j, provenance = self.energy.price(frame, self.objective.slo_s)
        parts = self._parts(frame, answered_s, reply, reason)
        return FrameReport(
            frame_index=frame.index, sample_index=frame.picture.sample_index,
            arrival_s=frame.arrival_s, decision=frame.decision, answer=answer.answer,
            answered_by=SERVER if by_server else DEVICE,
            exit_index=reply.exit_index if reply is not None else frame.exit_index,
            confidence=answer.confidence, correct=correct, on_time=on_time, fallback_reason=reason,
            latency_s=latency_s, wait_s=latency_s - sum(parts.values()), **parts,
            payload_bytes=frame.wire_bytes, energy_j=energy_j, energy_provenance=provenance,
            utility=self.objective.utility(
                correct_on_time=float(correct), energy_j=energy_j, payload_bytes=frame.wire_bytes
            ),
            arm="",
        )  # fmt: skip

    def _parts(
        self, frame: OpenFrame, answered_s: float, reply: TailReply | None, reason: str
    ) -> dict[str, float]:
        """Parts of the latency; what they leave open is waiting for the device."""
        parts = {"head_s": frame.head_s, "encode_s": frame.encode_s}
        if frame.ready_s is None:
            if reason:
                parts["fallback_s"] = frame.redo_s
            return parts
        after_s = answered_s - frame.ready_s
        if reply is None:
            return {**parts, "fallback_s": after_s}
        server_s = reply.queue_s + reply.compute_s
        crossing_s = max(after_s - server_s, 0.0)
        downlink_s = min(frame.downlink_s, crossing_s)
        return {
            **parts,
            "uplink_s": after_s - server_s - downlink_s,
            "server_wait_s": reply.queue_s,
            "tail_s": reply.compute_s,
            "downlink_s": downlink_s,
        }
