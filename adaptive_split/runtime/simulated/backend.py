"""The simulator as a backend: one lane, one decision at a time, the reports of a live run."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from adaptive_split.candidates import MARGIN_S, CandidateTable
from adaptive_split.decision import Decision
from adaptive_split.measurement import DEVICE, NOBODY, SERVER, FrameReport, LinkSample
from adaptive_split.planner import Moment
from adaptive_split.runtime.backend import Situation
from adaptive_split.runtime.simulated.simulator import Simulator
from adaptive_split.runtime.simulated.step import Step
from adaptive_split.runtime.simulated.streams import Stream
from adaptive_split.scenario import Battery, Thermal

FALLBACK_REASONS = ("", "late", "unsent")
"""By `Step.fallback`."""
PARTS = (
    "wait_s", "head_s", "encode_s", "uplink_s", "server_wait_s", "tail_s", "downlink_s",
    "fallback_s",
)  # fmt: skip
"""Parts of the latency."""


class SimulatorBackend:
    """Steps a one-lane simulator; what a frame costs is known as soon as it is decided.

    Attributes:
        decided: The report of the frame decided last, before it settles; `None` after a reset.
    """

    def __init__(
        self,
        table: CandidateTable,
        draw: Callable[[int], Stream],
        *,
        probes: bool = True,
        battery: Battery | None = None,
        thermal: Thermal | None = None,
    ) -> None:
        """Take what to play.

        Args:
            table: The candidates.
            draw: Called with the seed before every run; gives the stream.
            probes: Whether an idle link is measured.
            battery: The device's battery, if the charge counts.
            thermal: How the device heats up, if it does.
        """
        self._table, self._draw, self._probes = table, draw, probes
        self._battery, self._thermal = battery, thermal
        self._simulator: Simulator | None = None
        self._stream: Stream | None = None
        self._in_flight: list[FrameReport] = []
        self._waiting: set[int] = set()
        self._captured = 0
        self.decided: FrameReport | None = None

    def reset(self, seed: int) -> Situation:
        """Draw a stream and return at its first decision."""
        stream = self._draw(seed)
        self._simulator = Simulator(
            self._table, [stream], probes=self._probes, battery=self._battery,
            thermal=self._thermal,
        )  # fmt: skip
        self._stream, self.decided = stream, None
        self._in_flight, self._waiting, self._captured = [], set(), 0
        return self.situation()

    def step(self, decision: Decision) -> tuple[Situation, list[FrameReport], bool]:
        """Run the current frame; see `Backend.step`."""
        simulator = self._started()
        candidate = np.array([self._table.grid.index(decision)])
        self.decided = report_of(self._table, simulator.step(candidate))
        self._in_flight.append(self.decided)
        done = bool(simulator.done[0])
        now_s = np.inf if done else float(simulator.start_s[0])
        settled = [r for r in self._in_flight if r.arrival_s + (r.latency_s or 0.0) <= now_s]
        self._in_flight = [report for report in self._in_flight if report not in settled]
        return self.situation(), settled + self._dropped(now_s), done

    def close(self) -> None:
        """Nothing is held."""

    def moment(self) -> Moment:
        """What the controllers know; equal to `moment_of(situation())`, and faster."""
        return self._started().moment()

    def payload_on_time(self) -> NDArray[np.bool_]:
        """For the current frame, which payloads the true link and server answer in time, `(P,)`."""
        return np.asarray(self._started().payload_on_time()[0][0])

    def situation(self) -> Situation:
        """What is known at the current decision."""
        simulator = self._started()
        moment = simulator.moment()
        now_s = float(simulator.start_s[0])
        known = ~np.isnan(moment.sample_mbps[0])
        columns = (
            now_s - moment.sample_age_s[0], moment.sample_mbps[0], moment.sample_rtt_s[0],
            moment.sample_wait_s[0], moment.sample_slowdown[0],
        )  # fmt: skip
        samples = [LinkSample(*(float(v) for v in row)) for row in np.stack(columns, 1)[known]]
        sure = moment.confidences[0][~np.isnan(moment.confidences[0])]
        pending = float(moment.unanswered_s[0])
        return Situation(
            now_s=now_s,
            arrival_s=float(simulator.arrival_s[0]),
            frame_index=int(simulator.frame_index[0]),
            uplink_free_s=float(simulator.uplinks.believed_free_s[0]),
            oldest_unanswered_s=now_s - pending if moment.unanswered_bytes[0] > 0 else None,
            oldest_unanswered_bytes=int(moment.unanswered_bytes[0]),
            samples=tuple(samples[::-1]),
            timeouts=int(moment.timeouts[0]),
            recent_confidences=tuple(float(value) for value in sure[::-1]),
            device_slowdown=float(moment.device_slowdown[0]),
            soc=float(moment.soc[0]),
            server_usable=bool(moment.server_usable[0]),
            waiting=int(moment.waiting[0]),
        )

    def _started(self) -> Simulator:
        assert self._simulator is not None, "reset the backend first"
        return self._simulator

    def _dropped(self, now_s: float) -> list[FrameReport]:
        """Frames that never started and cannot reach their first exit any more."""
        assert self._stream is not None
        assert self.decided is not None
        # A device that throttles may still resume, so the least time is what counts.
        first_s = float(self._table.head_s[1]) * self._stream.device_slowdown
        objective, needed_s = self._table.objective, first_s + MARGIN_S
        captured = self._stream.num_frames
        if np.isfinite(now_s):
            captured = min(int(now_s * objective.fps + 1e-9) + 1, captured)
        self._waiting |= set(range(self._captured, captured))
        self._captured = captured
        self._waiting.discard(self.decided.frame_index)
        latest = {i: i / objective.fps + objective.slo_s - needed_s for i in self._waiting}
        late = sorted(index for index in self._waiting if now_s > latest[index] + 1e-9)
        self._waiting -= set(late)
        return [self._drop(index) for index in late]

    def _drop(self, index: int) -> FrameReport:
        assert self._stream is not None
        return FrameReport(
            frame_index=index, sample_index=int(self._stream.samples[index]),
            arrival_s=index / self._table.objective.fps, decision=None, answer=None,
            answered_by=NOBODY, exit_index=None, confidence=None, correct=False, on_time=False,
            fallback_reason="dropped", latency_s=None,
            energy_provenance=self._table.device.energy_provenance,
        )  # fmt: skip


def report_of(table: CandidateTable, step: Step, lane: int = 0) -> FrameReport:
    """Lay one lane of a simulated step out as the report that a live run gives."""
    outcomes, by_server = table.outcomes, bool(step.by_server[lane])
    sample, candidate = int(step.sample_index[lane]), int(step.candidate[lane])
    exit_index = int(step.exit_index[lane])
    if by_server:
        payload = table.grid.payload_index[candidate]
        confidence = float(outcomes.server_confidence[sample, payload])
    else:
        confidence = float(outcomes.exit_confidence[sample, exit_index - 1])
    parts = {name: float(getattr(step, name)[lane]) for name in PARTS}
    reason = FALLBACK_REASONS[int(step.fallback[lane])]
    return FrameReport(
        frame_index=int(step.frame_index[lane]), sample_index=sample,
        arrival_s=float(step.arrival_s[lane]), decision=table.grid.candidates[candidate],
        answer=int(step.answer[lane]), answered_by=SERVER if by_server else DEVICE,
        exit_index=outcomes.num_stages if by_server else exit_index, confidence=confidence,
        correct=bool(step.correct[lane]), on_time=bool(step.on_time[lane]), fallback_reason=reason,
        latency_s=float(step.latency_s[lane]), **parts,
        payload_bytes=round(float(step.payload_bytes[lane])),
        energy_j=float(step.energy_j[lane]), energy_provenance=table.device.energy_provenance,
        utility=float(step.utility[lane]), arm="",
    )  # fmt: skip
