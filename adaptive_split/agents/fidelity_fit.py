"""Fit the simulator's constants to a live run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from adaptive_split.agents.fidelity import Block, LiveRun
from adaptive_split.agents.fidelity_replay import Pair, Replay
from adaptive_split.calibration import Calibration, Overheads
from adaptive_split.errors import ConfigError
from adaptive_split.measurement import SERVER, FrameReport
from adaptive_split.runtime.serving.scheduler import OTHERS_SLACK_S
from adaptive_split.scenario import Scenario
from adaptive_split.server_load import arrivals

LEAST_FRAMES = 20
"""Of each kind, that a constant is fitted on."""
LOAD_S = 600.0
IDLE_S = 1e-4


def fit(scenario: Scenario, run: LiveRun, blocks: Sequence[Block]) -> Calibration:
    """Fit every constant by the median over frames that were answered alike live and simulated.

    The server's order, by slack or first come first served, is the one that leaves the smaller mean
    error of its waits.

    Args:
        scenario: Its profiles are corrected.
        run: Live.
        blocks: Some of it; the rest is left to judge on.

    Raises:
        ConfigError: If the blocks hold too few frames that the server, or the device, answered.
    """
    pairs = [pair for pair in Replay(scenario, run).pairs(blocks) if pair.alike]
    served = [pair for pair in pairs if pair.live.answered_by == SERVER]
    heads = [pair for pair in pairs if pair.again.head_s > 0]
    _check(served, "answered by the server")
    _check(heads, "whose stage 1 ran on the device")
    idle = [pair for pair in pairs if pair.again.wait_s < IDLE_S]
    unqueued = [pair for pair in served if pair.again.server_wait_s < IDLE_S]
    overheads = Overheads(
        start_s=_excess_s(idle, lambda one: one.wait_s),
        message_s=_excess_s(served, lambda one: one.uplink_s + one.downlink_s),
        queue_s=_excess_s(unqueued or served, lambda one: one.server_wait_s),
    )
    first = Calibration(
        bundle_hash=scenario.bundle.hash, fitted_on=_words(run, blocks), overheads=overheads,
        device_slowdown=_ratio(heads, lambda one: one.head_s),
        server_slowdown=_ratio(served, lambda one: one.tail_s),
    )  # fmt: skip
    if not run.utilization:
        return first
    by_slack = replace(first, others_start_s=_others_start_s(run, scenario.load.speedup))
    return min((first, by_slack), key=lambda one: _wait_error_s(scenario, run, blocks, one))


def _others_start_s(run: LiveRun, speedup: float) -> float:
    """Within what time of its arrival the scheduler lets other users' mean work begin."""
    _, work_s = arrivals(run.seed, LOAD_S, run.utilization, speedup)
    return max(OTHERS_SLACK_S - float(work_s.mean()), 0.0)


def _wait_error_s(
    scenario: Scenario, run: LiveRun, blocks: Sequence[Block], calibration: Calibration
) -> float:
    pairs = Replay(scenario, run, calibration).pairs(blocks)
    errors = [
        abs(pair.again.server_wait_s - pair.live.server_wait_s)
        for pair in pairs
        if pair.alike and pair.live.answered_by == SERVER
    ]
    return float(np.mean(errors))


def _excess_s(pairs: Sequence[Pair], part: Callable[[FrameReport], float]) -> float:
    """By how much a part takes longer live than simulated, at the median; 0 if it does not."""
    over = [part(pair.live) - part(pair.again) for pair in pairs]
    return max(float(np.median(over)), 0.0) if over else 0.0


def _ratio(pairs: Sequence[Pair], part: Callable[[FrameReport], float]) -> float:
    return float(np.median([part(pair.live) / part(pair.again) for pair in pairs]))


def _check(pairs: Sequence[Pair], kind: str) -> None:
    if len(pairs) < LEAST_FRAMES:
        raise ConfigError(
            f"a live run must hold {LEAST_FRAMES} frames or more {kind}, as its simulation does; "
            f"got {len(pairs)}; record a longer one, or with other controllers"
        )


def _words(run: LiveRun, blocks: Sequence[Block]) -> str:
    num_frames = sum(len(block.reports) for block in blocks)
    return (
        f"{num_frames} frames of scenario {run.scenario} in {len(blocks)} blocks, link "
        f"{run.link}, {run.utilization:.0%} other load, on {run.machine}"
    )
