"""Play a recorded live run again in the simulator: decisions, pictures, links, server load."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adaptive_split.agents.fidelity import Block, LiveRun, Script
from adaptive_split.calibration import Calibration
from adaptive_split.candidates import CandidateTable
from adaptive_split.errors import ConfigError
from adaptive_split.measurement import SERVER, FrameReport
from adaptive_split.runtime.backend import Controller
from adaptive_split.runtime.live import play
from adaptive_split.runtime.simulated.backend import SimulatorBackend
from adaptive_split.runtime.simulated.streams import LOST_RTT_S, Stream
from adaptive_split.scenario import Scenario
from adaptive_split.server_load import server_wait

LINK_PERIOD_S, LOAD_PERIOD_S = 0.01, 0.001
"""Links and server load are replayed this finely; where in a slot of the usual 0.1 s a link changed
is not to count as an error of the simulator."""
AFTER_S = 2.0
"""Replayed of a link after its last frame, as in a comparison."""
LEADS_S = np.arange(-0.02, 0.0401, 0.001)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Load:
    """The other users' work at the server of one run."""

    wait_s: NDArray[np.float64]
    """What a request would wait, on a grid of `LOAD_PERIOD_S` since the load began."""
    lead_s: float
    """How long before the server was known to listen the load began."""

    def after(self, load_s: float, duration_s: float) -> NDArray[np.float64]:
        """The waits from a block's frame 0 on."""
        first = round((load_s + self.lead_s) / LOAD_PERIOD_S)
        moments = first + np.arange(round(duration_s / LOAD_PERIOD_S))
        return np.where(moments < 0, 0.0, self.wait_s.take(moments, mode="clip"))


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """A frame as it was live, and as it is when played again."""

    block: Block
    live: FrameReport
    again: FrameReport

    @property
    def alike(self) -> bool:
        """Whether the same side answered at the same exit, for the same reason."""
        return self._way(self.live) == self._way(self.again) and self.live.latency_s is not None

    def _way(self, report: FrameReport) -> tuple[str, int | None, str]:
        return report.answered_by, report.exit_index, report.fallback_reason


def load_of(run: LiveRun, speedup: float) -> Load:
    """Compute the load that a run's server played, and when it began.

    The arrivals are known exactly but for their start, some milliseconds before the server told its
    address. That one number is what makes the waits that the server reported fit best.
    """
    if not run.utilization:
        return Load(wait_s=np.zeros(1), lead_s=0.0)
    last_s = max(block.load_s + len(block.reports) for block in run.blocks) + 60.0
    wait = server_wait(run.seed, last_s, run.utilization, speedup, LOAD_PERIOD_S)
    moments, waits = _seen_waits(run.blocks)
    if len(moments) == 0:
        return Load(wait_s=wait, lead_s=0.0)
    misfit = []
    for lead_s in LEADS_S:
        slots = np.maximum(np.rint((moments + lead_s) / LOAD_PERIOD_S), 0).astype(int)
        error = waits - wait.take(slots, mode="clip")
        misfit.append(float(np.median(np.abs(error - np.median(error)))))
    return Load(wait_s=wait, lead_s=float(LEADS_S[int(np.argmin(misfit))]))


def _seen_waits(blocks: Iterable[Block]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """When requests reached the server, since it began to listen, and what they waited there."""
    seen = [
        (block.load_s + one.arrival_s + one.latency_s - one.downlink_s - one.tail_s
         - one.server_wait_s, one.server_wait_s)
        for block in blocks
        for one in block.reports
        if one.answered_by == SERVER and one.latency_s is not None
    ]  # fmt: skip
    moments, waits = np.array(seen, np.float64).reshape(-1, 2).T
    return moments, waits


class Replay:
    """Plays the blocks of a run in the simulator."""

    def __init__(
        self, scenario: Scenario, run: LiveRun, calibration: Calibration | None = None
    ) -> None:
        """Take a run of that scenario.

        Raises:
            ConfigError: If it was made with another scenario or model bundle.
        """
        if run.scenario != scenario.name:
            raise ConfigError(
                f"a run must be of scenario {scenario.name!r}; got one of {run.scenario!r}"
            )
        if run.bundle_hash != scenario.bundle.hash:
            raise ConfigError(
                f"a run must have been made with bundle {scenario.bundle.hash[:12]}; "
                f"got {run.bundle_hash[:12]}"
            )
        self.run, self.calibration, self._fps = run, calibration, scenario.objective.fps
        self.table: CandidateTable = scenario.table("judge")
        self._load = load_of(run, scenario.load.speedup)

    def stream(self, block: Block) -> Stream:
        """What a block met."""
        trace = self.run.windows[block.window]
        duration_s = len(block.reports) / self._fps + AFTER_S
        link = trace.slice(block.lag_s, block.lag_s + duration_s).resample(LINK_PERIOD_S)
        rtt = np.minimum(np.nan_to_num(link.rtt_s, nan=LOST_RTT_S), LOST_RTT_S)
        return Stream(
            trace.name, trace.family, link.uplink_mbps, rtt,
            self._load.after(block.load_s, duration_s),
            np.array([one.sample_index for one in block.reports]), trace.source,
            period_s=LINK_PERIOD_S, wait_period_s=LOAD_PERIOD_S,
        ).calibrated(self.calibration)  # fmt: skip

    def play(self, block: Block, controller: Controller | None = None) -> tuple[FrameReport, ...]:
        """Play a block; reports in order of capture.

        Args:
            block: What it met is met again.
            controller: Decides; by default as was decided live.
        """
        backend = SimulatorBackend(self.table, lambda seed: self.stream(block), probes=block.probes)
        reports = play(backend, controller or Script(block.decisions))
        return tuple(sorted(reports, key=lambda one: one.frame_index))

    def pairs(self, blocks: Iterable[Block]) -> list[Pair]:
        """Every frame of some blocks, live and simulated."""
        return [
            Pair(block, live, again)
            for block in blocks
            for live, again in zip(block.reports, self.play(block), strict=True)
        ]
