"""The controllers that run on a device: planners, and the learned forecast on top of them.

Every controller answers `choose(moment)` for a batch of lanes with one candidate index each; numpy
alone is needed. `LiveController` puts one of them behind the device's `decide(situation)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from adaptive_split.candidates import CandidateTable, Floats
from adaptive_split.errors import BundleError
from adaptive_split.observation import PAYLOAD_COLUMNS, View, observe
from adaptive_split.planner import (
    BacklogPrices,
    Moment,
    Readings,
    combine,
    link_pairs,
    read_link,
    utility_terms,
)

Choice = NDArray[np.int64]
NEWEST_WEIGHT = 0.3
"""Of the newest request in the planner's mean."""


class Policy(Protocol):
    """Whatever decides: a candidate index for every lane of a moment."""

    name: str
    probes: bool
    """Whether it needs the link measured while it sends nothing."""

    def choose(self, moment: Moment) -> Choice:
        """Choose one candidate per lane, shape `(L,)`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannerSettings:
    """The knobs of the planners, picked on training traces."""

    device_price: float = 0.3
    """Utility per frame of backlog on the device."""
    uplink_price: float = 0.1
    """Utility per frame of backlog on the uplink."""
    occupied_price: float = 0.0
    """Utility per frame period on the uplink."""
    safety: float = 1.0
    """Factor on every rate."""
    rate_window: int = 16
    rtt_window: int = 16

    @property
    def prices(self) -> BacklogPrices:
        """The backlog prices."""
        return BacklogPrices(
            device=self.device_price, uplink=self.uplink_price, occupied=self.occupied_price
        )


def _best(
    table: CandidateTable, moment: Moment, prices: BacklogPrices, readings: Readings
) -> Choice:
    base, gain = utility_terms(table, moment, prices, readings)
    return np.asarray(combine(table, base, gain, readings.share()).argmax(1))


class Planner:
    """Greedy on an exponentially weighted mean of rate and delay."""

    name = "planner"
    probes = True

    def __init__(self, table: CandidateTable, settings: PlannerSettings) -> None:
        self.table, self.settings = table, settings

    def choose(self, moment: Moment) -> Choice:
        """Take the candidate of highest predicted utility at the mean link."""
        rate, delay, valid = link_pairs(moment)
        weight = NEWEST_WEIGHT * (1 - NEWEST_WEIGHT) ** np.arange(rate.shape[1]) * valid
        weight /= weight.sum(1, keepdims=True)
        mean_rate = (rate * weight).sum(1, keepdims=True) * self.settings.safety
        mean_delay = (delay * weight).sum(1, keepdims=True)
        readings = read_link(self.table, moment, mean_rate, mean_delay)
        return _best(self.table, moment, self.settings.prices, readings)


class DistributionPlanner:
    """Greedy on the expected utility over the last 16 observed (rate, delay) pairs."""

    name = "distribution-planner"
    probes = True

    def __init__(self, table: CandidateTable, settings: PlannerSettings) -> None:
        self.table, self.settings = table, settings

    def choose(self, moment: Moment) -> Choice:
        """Take the candidate of highest mean utility over the observed pairs."""
        readings = read_link(self.table, moment, *link_pairs(moment))
        return _best(self.table, moment, self.settings.prices, readings)


class TwoWindowPlanner:
    """The distribution planner with separate windows for rate and delay and a safety factor."""

    name = "two-window-planner"
    probes = True

    def __init__(self, table: CandidateTable, settings: PlannerSettings) -> None:
        self.table, self.settings = table, settings

    def choose(self, moment: Moment) -> Choice:
        """Average over all pairs of a recent rate (times the factor) and a recent delay."""
        knobs = self.settings
        rate, delay, valid = link_pairs(moment)
        lanes, size = len(rate), rate.shape[1]
        rates = rate[:, : knobs.rate_window] * knobs.safety
        delays = delay[:, : knobs.rtt_window]
        rate_valid = valid[:, : knobs.rate_window]
        rate_valid[:, 0] |= ~rate_valid.any(1)
        delay_valid = valid[:, : knobs.rtt_window]
        delay_valid[:, 0] |= ~delay_valid.any(1)
        if knobs.rate_window == knobs.rtt_window == size:
            pairs = (rates, delays, valid)
        else:
            count = rates.shape[1] * delays.shape[1]
            shape = (lanes, rates.shape[1], delays.shape[1])
            pairs = (
                np.broadcast_to(rates[:, :, None], shape).reshape(lanes, count),
                np.broadcast_to(delays[:, None, :], shape).reshape(lanes, count),
                (rate_valid[:, :, None] & delay_valid[:, None, :]).reshape(lanes, count),
            )
        return _best(self.table, moment, knobs.prices, read_link(self.table, moment, *pairs))


@dataclass(frozen=True, slots=True, eq=False)
class ForecastWeights:
    """The two small networks; weights are `(in, out)`, inputs normalized by means and scales.

    Forecast: context through two layers; with each payload row through two more, to 1.
    Residual: context and each candidate's row with its payload's row and chance to 64 to 32 to 1.
    """

    context_mean: NDArray[np.float32]
    context_scale: NDArray[np.float32]
    payload_mean: NDArray[np.float32]
    payload_scale: NDArray[np.float32]
    forecast: tuple[NDArray[np.float32], ...]
    """`W, b` of the two context layers, then of the three payload layers."""
    residual: tuple[NDArray[np.float32], ...]
    """`W, b` of the three layers."""


def forecast(weights: ForecastWeights, context: Floats, payloads: Floats) -> Floats:
    """Chance that each payload is on time: the planner's log odds plus a learned residual.

    Args:
        weights: The networks.
        context: Shape `(L, C)`; columns after those that the networks were trained on are left out.
        payloads: Shape `(L, P, F)`; its first column is the planner's log odds.

    Returns:
        Shape `(L, P)`, in (0, 1).
    """
    w1, b1, w2, b2, w3, b3, w4, b4, w5, b5 = weights.forecast
    known = context[:, : weights.context_mean.size].astype(np.float32)
    scaled = (known - weights.context_mean) / weights.context_scale
    hidden = np.maximum(np.maximum(scaled @ w1 + b1, 0) @ w2 + b2, 0)
    rows = (payloads.astype(np.float32) - weights.payload_mean) / weights.payload_scale
    width = hidden.shape[1]
    # The context's part of the third layer is the same for every payload of a lane.
    mixed = rows @ w3[width:] + (hidden @ w3[:width] + b3)[:, None, :]
    deep = np.maximum(np.maximum(mixed, 0) @ w4 + b4, 0)
    residual = (deep @ w5 + b5)[..., 0]
    return np.asarray(1 / (1 + np.exp(-(payloads[..., 0] + residual))), np.float64)


VALUE_CLIP = 2.0
"""Base utilities are clipped to +- this before they enter the residual network."""


def value_residual(
    weights: ForecastWeights,
    context: Floats,
    payloads: Floats,
    candidates: Floats,
    chance: Floats,
    payload_index: NDArray[np.int64],
) -> Floats:
    """Learned part of every candidate's value: what the planner's formula leaves out, `(L, N)`.

    Args:
        weights: The networks.
        context: Shape `(L, C)`, as for `forecast`.
        payloads: Shape `(L, P, F)`.
        candidates: Shape `(L, N, G)`.
        chance: Forecast chance of every payload, shape `(L, P)`.
        payload_index: Payload of every candidate, -1 where it is local, shape `(N,)`.
    """
    w1, b1, w2, b2, w3, b3 = weights.residual
    known = context[:, : weights.context_mean.size].astype(np.float32)
    scaled = (known - weights.context_mean) / weights.context_scale
    rows = (payloads.astype(np.float32) - weights.payload_mean) / weights.payload_scale
    size, columns = scaled.shape[1], rows.shape[2]
    # Parts of the first layer that are the same for many candidates are computed once.
    of_payload = rows @ w1[size : size + columns] + chance[..., None].astype(np.float32) * w1[-1]
    nothing = np.zeros_like(of_payload[:, :1])  # the row of -1
    first = np.concatenate([of_payload, nothing], 1).take(payload_index, 1)
    first += (scaled @ w1[:size] + b1)[:, None, :]
    first += np.clip(candidates, -VALUE_CLIP, 10).astype(np.float32) @ w1[size + columns : -1]
    hidden = np.maximum(first, 0, out=first) @ w2
    hidden += b2
    np.maximum(hidden, 0, out=hidden)
    return np.asarray((hidden @ w3 + b3)[..., 0], np.float64)


class ForecastController:
    """The learned controller: forecast chances, put through the planner's own formula.

    A guard keeps the best static decision unless another one promises more than a margin above it.
    Where nothing can be won a decision is kept for every frame, and the link is not probed.
    """

    name = "sac"

    def __init__(
        self,
        table: CandidateTable,
        weights: ForecastWeights,
        prices: BacklogPrices,
        *,
        guard_candidate: int | None = None,
        guard_margin: float = 0.0,
        kept: int | None = None,
    ) -> None:
        if weights.payload_mean.shape != (len(PAYLOAD_COLUMNS),):
            raise BundleError(
                f"the network must have been trained on {len(PAYLOAD_COLUMNS)} payload columns; "
                f"got {weights.payload_mean.shape}; train it with this version"
            )
        self.table, self.weights, self.prices = table, weights, prices
        self.has_residual = bool(np.any(weights.residual[-2]) or np.any(weights.residual[-1]))
        self.guard_candidate, self.guard_margin = guard_candidate, guard_margin
        self.kept, self.probes = kept, kept is None

    def values(self, view: View) -> Floats:
        """Value of every candidate, shape `(L, N)`."""
        weights = self.weights
        on_time = forecast(weights, view.context, view.payloads)
        planned = combine(self.table, view.base, view.gain, on_time)
        if not self.has_residual:
            return planned
        index = self.table.grid.payload_index
        return planned + value_residual(
            weights, view.context, view.payloads, view.candidates, on_time, index
        )

    def choose(self, moment: Moment) -> Choice:
        """Take the candidate of highest value, or the guard's."""
        if self.kept is not None:
            return np.full(len(moment.slack_s), self.kept)
        return self.pick(self.values(observe(self.table, moment, self.prices)))

    def pick(self, values: Floats) -> Choice:
        """Take the candidate of highest value, or the guard's; values are `(L, N)`."""
        best: Choice = np.asarray(values.argmax(1))
        if self.guard_candidate is None:
            return best
        kept = values[:, self.guard_candidate] + self.guard_margin
        return np.where(values.max(1) > kept, best, self.guard_candidate)
