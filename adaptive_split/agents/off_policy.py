"""What a policy would have brought on recorded frames, most of which another one decided.

Per frame the direct method puts chances through the planner's formula, backlog prices included: the
labels of `log_labels` where they are known, elsewhere the chance of a judge that belongs to neither
policy. On the frames where the policy decides what was decided, its estimate is replaced by what
was observed; elsewhere the mean error of the direct method on what was decided is added (a doubly
robust estimate as far as a log without chance in its decisions allows one: Dudik et al., arXiv
1103.4601, with the switch of Wang et al., arXiv 1612.01205, at propensities of 0 and 1).

Observed is what happened: who answered, when, for how many joules and bytes. Whether the answer was
right is seldom known on a device, and luck with pictures is noise: its share among the pictures of
the outcomes takes its place.

The estimate holds for the states that the log has seen, and it is a little kind to a policy that
was trained on the same link: where the simulator knew a gain of 0.0002 it told 0.0018. It tells
broken from sound; it is no claim about a gain. About payloads that the log never sent it knows
nothing: a controller that always stays local cannot be taught, nor replaced, by its own records.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from adaptive_split.agents.intervals import PERCENTILES, ROUNDS, Estimate
from adaptive_split.agents.log_frames import LogFrames
from adaptive_split.agents.sac import UNKNOWN
from adaptive_split.candidates import CandidateTable, Floats
from adaptive_split.observation import CANDIDATE_COLUMNS, PAYLOAD_COLUMNS
from adaptive_split.planner import BacklogPrices, combine
from adaptive_split.runtime.controller import (
    ForecastController,
    ForecastWeights,
    forecast,
    value_residual,
)

_PAYLOAD = [column.name for column in PAYLOAD_COLUMNS]
_OWN = [column.name for column in CANDIDATE_COLUMNS]
SLOPES = (1.0, 0.75, 0.5, 0.25, 1.25, 1.5)
OFFSETS = (0.0, 0.5, -0.5, 1.0, -1.0, 1.5, -1.5, 2.0, -2.0, 3.0, -3.0)
"""Corrections of the log odds tried, the smallest first."""
NUM_BLOCKS, MIN_BLOCK_FRAMES = 30, 10
"""Neighbors are alike, so blocks of time are drawn again instead of frames."""


def decisions(controller: ForecastController, log: LogFrames) -> NDArray[np.int64]:
    """What a controller would have decided, from the recorded observations, `(T,)`."""
    context, payloads, own = log.parts(controller.table)
    table, weights = controller.table, controller.weights
    chance = forecast(weights, context, payloads)
    values = combine(table, own[..., 0], own[..., 1], chance)
    values += value_residual(weights, context, payloads, own, chance, table.grid.payload_index)
    best: NDArray[np.int64] = np.asarray(values.argmax(1))
    guard = controller.guard_candidate
    if guard is None:
        return best
    return np.where(values.max(1) > values[:, guard] + controller.guard_margin, best, guard)


def observed_utility(log: LogFrames, table: CandidateTable) -> Floats:
    """Utility of what happened, the answer right as often as among the outcomes' pictures, `(T,)`.

    Joules are charged at the price in force when the frame was decided.
    """
    chosen, exit_index = log.candidate, log.exit_index
    stopped = 1 - np.cumsum(table.exit_share, 1)[chosen, exit_index - 1]
    accuracy = table.outcomes.exit_right.mean(0)[exit_index - 1]

    def given(right: Floats, share: Floats) -> Floats:
        return np.where(share > 1e-9, right / np.maximum(share, 1e-9), accuracy)

    correct = np.select(
        [log.by_server, log.fell_back],
        [given(table.server_right[chosen], table.send_share[chosen]),
         given(table.stop_right[chosen, exit_index], stopped)],
        given(table.exit_right[chosen, exit_index - 1], table.exit_share[chosen, exit_index - 1]),
    )  # fmt: skip
    price = log.context("energy_price") * log.energy_j
    return np.asarray(
        correct * log.on_time - price - table.objective.byte_price * log.payload_bytes * 1e-6
    )


def judge_chances(
    log: LogFrames, table: CandidateTable, labels: NDArray[np.int8], weights: ForecastWeights
) -> Floats:
    """Chance of every payload, favoring no policy: its label, else a recalibrated forecast.

    Slope and offset of the forecast's log odds are those that fit the known labels best by
    cross-entropy (Platt's scaling), on a coarse grid: few labels carry no finer one.

    Returns:
        Shape `(T, P)`.
    """
    chance = forecast(weights, *log.parts(table)[:2]).clip(1e-4, 1 - 1e-4)
    odds = np.log(chance / (1 - chance))
    known = labels != UNKNOWN
    sign = 2.0 * labels[known] - 1

    def loss(scale: tuple[float, float]) -> float:
        return float(np.logaddexp(0, -sign * (scale[0] * odds[known] + scale[1])).sum())

    slope, offset = min(product(SLOPES, OFFSETS), key=loss)
    fitted = 1 / (1 + np.exp(-(slope * odds + offset)))
    return np.where(known, labels, fitted)


def estimates(
    log: LogFrames,
    table: CandidateTable,
    prices: BacklogPrices,
    chance: Floats,
    chosen: NDArray[np.int64],
) -> Floats:
    """Utility of every frame, backlog prices taken off, had a policy decided it; `(T,)`.

    Args:
        log: The frames.
        table: The candidates.
        prices: Backlog prices.
        chance: Of every payload, shape `(T, P)`.
        chosen: What the policy would have decided, shape `(T,)`.
    """
    _, payloads, own = log.parts(table)
    rows = np.arange(len(log))
    direct = combine(table, own[..., 0], own[..., 1], chance)
    taken = log.candidate
    payload = np.maximum(table.grid.payload_index[taken], 0)
    over = payloads[rows, payload, _PAYLOAD.index("uplink_over")] * table.send_share[taken]
    backlog = prices.device * own[rows, taken, _OWN.index("overrun")] + prices.uplink * over
    missed = observed_utility(log, table) - backlog - direct[rows, taken]
    return np.asarray(direct[rows, chosen] + np.where(chosen == taken, missed, missed.mean()))


def blocks_of(log: LogFrames) -> NDArray[np.int64]:
    """Number the blocks of neighboring frames, none across two runs, `(T,)`."""
    size = max(len(log) // NUM_BLOCKS, MIN_BLOCK_FRAMES)
    first = np.searchsorted(log.run, log.run)
    piece = (np.arange(len(log)) - first) // size
    _, block = np.unique(np.stack([log.run, piece], 1), axis=0, return_inverse=True)
    return np.asarray(block).reshape(-1)


def mean_of_blocks(values: Floats, block: NDArray[np.int64], seed: int = 0) -> Estimate:
    """Mean of the frames with a 95 % interval from drawing the blocks again."""
    sums, sizes = np.bincount(block, weights=values), np.bincount(block)
    count = len(sums)
    generator = np.random.default_rng(seed)
    times = generator.multinomial(count, np.full(count, 1 / count), ROUNDS)
    low, high = np.percentile((times @ sums) / (times @ sizes), PERCENTILES)
    return Estimate(float(values.mean()), float(low), float(high))


@dataclass(frozen=True, slots=True)
class Judged:
    """Two policies on the same frames."""

    old: Estimate
    new: Estimate
    gain: Estimate
    """New minus old, paired."""
    agreement: float
    """Share of the frames in which both decide alike."""


def judge(
    log: LogFrames,
    labels: NDArray[np.int8],
    old: ForecastController,
    new: ForecastController,
) -> Judged:
    """Estimate what two policies would have brought on frames that neither was trained on."""
    table, block = old.table, blocks_of(log)
    chance = judge_chances(log, table, labels, old.weights)
    decided = [decisions(policy, log) for policy in (old, new)]
    before, after = (estimates(log, table, old.prices, chance, each) for each in decided)
    return Judged(
        old=mean_of_blocks(before, block), new=mean_of_blocks(after, block),
        gain=mean_of_blocks(after - before, block),
        agreement=float((decided[0] == decided[1]).mean()),
    )  # fmt: skip
