"""Observation and forecast for one lane: equal to `observe` and `forecast`, and faster.

See `one_lane`. Means, scales and units of the columns are multiplied into the first layers, and a
layer's bias is a row of its matrix, for an input that stays 1 from layer to layer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from adaptive_split.candidates import MARGIN_S, CandidateTable, Floats
from adaptive_split.objective import Objective
from adaptive_split.observation import CHANCE_CLIP, CONTEXT, PAYLOAD_COLUMNS, WINDOW, Column
from adaptive_split.planner import BacklogPrices
from adaptive_split.runtime.controller import ForecastWeights
from adaptive_split.runtime.one_lane import Link, Look, Now, OneLane, inverse

_FASTEST_MBPS, _CAUTION = 1e3, 0.6
_MEAN, _NEWEST = 0, 2
"""Readings: the mean link, the fastest conceivable, then the requests, then two cautious ones."""
_ROWS = (
    "chance_16", "chance_4", "chance_cautious", "slack_mean", "slack_floor", "slack_last",
    "slack_worst_4", "upload_mean", "upload_last", "ready", "tail", "keep_back", "uplink_over",
    "bytes",
)  # fmt: skip
"""The order in which the columns of a payload are computed."""
_ZERO, _ZERO32 = np.zeros(()), np.zeros((), np.float32)


class OneLaneForecast:
    """The learned controller's values for one lane."""

    def __init__(
        self, table: CandidateTable, weights: ForecastWeights, prices: BacklogPrices
    ) -> None:
        self._plan, self._objective = OneLane(table, prices), table.objective
        self._network = _Network(weights, table.objective)
        self._log_kilobytes = np.log(table.mean_bytes / 1e3)
        self._shares = [_shares(count) for count in range(WINDOW + 1)]
        self._promised = math.log(table.objective.slo_s), math.log(table.objective.fps)

    def values(self, now: Now) -> Floats:
        """Value of every candidate, shape `(N,)`."""
        link = Link(now)
        count = len(link.rate_mbps)
        look = self._plan.look(now, link, _readings(link), _NEWEST, count, self._shares[count])
        chance = self._network.chance(self._context(now, link), self._payload_rows(look, count))
        return self._plan.values(look, chance)

    def _payload_rows(self, look: Look, count: int) -> Floats:
        plan = self._plan
        rows = np.empty((len(_ROWS), plan.num_payloads))
        chances = np.minimum(np.maximum(look.chances, CHANCE_CLIP), 1 - CHANCE_CLIP)
        np.log(chances / (1.0 - chances), out=rows[:3])
        rows[3:6] = look.slack_s[:3]
        look.slack_s[_NEWEST : _NEWEST + min(count, 4)].min(0, out=rows[6])
        rows[7:9] = look.upload_s[_MEAN : _NEWEST + 1 : 2]
        rows[9:12] = look.times[plan.num_stages : -plan.num_payloads].reshape(3, -1)
        rows[12], rows[13] = look.uplink_over_s, self._log_kilobytes
        return rows

    def _context(self, now: Now, link: Link) -> list[float]:
        """The columns of `CONTEXT`, in seconds and frames."""
        missing = WINDOW - len(link.rate_mbps)
        rate = [_log_rate(value) for value in link.rate_mbps]
        rate += rate[:1] * missing
        rtt = link.rtt_s + link.rtt_s[:1] * missing
        wait = link.server_wait_s + link.server_wait_s[:1] * missing
        rate_4, rate_16, rtt_4, rtt_16 = _mean(rate[:4]), _mean(rate), _mean(rtt[:4]), _mean(rtt)
        sure = now.confidences or [0.5]
        sure_8 = (sum(sure) + sure[0] * (8 - len(sure))) / 8
        return [
            rate[0], _mean(rate[:2]), rate_4, rate_16, _spread(rate, rate_16), min(rate),
            rate[0] - rate_4,
            rtt[0], rtt_4, rtt_16, _spread(rtt, rtt_16), min(rtt), max(rtt), rtt[0] - rtt_4,
            wait[0], _mean(wait[:4]), max(wait), _log(link.server_slowdown),
            _log(link.age_s[0]), _log(max(link.age_s)), len(now.sample_mbps), now.unanswered_s,
            math.log1p(now.unanswered_bytes / 1e3), now.timeouts, link.wait_s, now.slack_s,
            now.gap_s, now.waiting, sure[0], sure_8, _log(now.device_slowdown), now.soc,
            *self._promised, now.energy_price, self._objective.byte_price, now.server_usable,
            _log(now.mission_ratio),
        ]  # fmt: skip


class _Network:
    """The forecast for inputs as they are computed here, see `_Inputs`."""

    def __init__(self, weights: ForecastWeights, objective: Objective) -> None:
        w1, b1, w2, b2, w3, b3, w4, b4, w5, b5 = weights.forecast
        width, self._num_context = w2.shape[1], len(weights.context_mean)
        context = _Inputs(
            CONTEXT[: self._num_context], objective, weights.context_mean, weights.context_scale
        )
        order = [[column.name for column in PAYLOAD_COLUMNS].index(name) for name in _ROWS]
        rows = _Inputs(
            [PAYLOAD_COLUMNS[index] for index in order], objective,
            weights.payload_mean[order], weights.payload_scale[order],
        )  # fmt: skip
        of_rows, bias = rows.folded(w3[width:][order], b3)
        first, second = _affine(*context.folded(w1, b1)), _affine(w2, b2)
        self._of_context = first, second, _affine(w3[:width], bias)
        self._of_rows = np.pad(of_rows, ((0, 0), (0, 1)))
        self._deep = _affine(w4, b4).astype(np.float32)
        self._out = -np.append(w5[:, 0], b5)
        self._context_low, self._context_high = (
            np.append(context.low, 1),
            np.append(context.high, 1),
        )
        self._row_low, self._row_high = rows.low[:, None], rows.high[:, None]

    def chance(self, context: list[float], rows: Floats) -> Floats:
        """Chance of every payload to be on time, `(P,)`, from the context and `(F, P)` rows."""
        hidden = np.array([*context[: self._num_context], 1.0])
        np.maximum(hidden, self._context_low, out=hidden)
        np.minimum(hidden, self._context_high, out=hidden)
        np.maximum(rows, self._row_low, out=rows)
        np.minimum(rows, self._row_high, out=rows)
        first, second, third = self._of_context
        hidden = np.maximum(hidden.dot(first), _ZERO)
        hidden = np.maximum(hidden.dot(second), _ZERO)
        mixed = rows.T.dot(self._of_rows)
        mixed += hidden.dot(third)
        deep = np.maximum(mixed, _ZERO, out=mixed).astype(np.float32).dot(self._deep)
        less = np.maximum(deep, _ZERO32, out=deep).dot(self._out)
        return np.asarray(1.0 / (1.0 + np.exp(less - rows[0])))


class _Inputs:
    """Columns as they are computed here, in seconds and frames: their range, and their network."""

    def __init__(
        self,
        columns: Sequence[Column],
        objective: Objective,
        mean: NDArray[np.float32],
        scale: NDArray[np.float32],
    ) -> None:
        sizes = {"slo": objective.slo_s, "frame periods": 1 / objective.fps, "share of 16": WINDOW}
        unit = np.array([sizes.get(column.unit, 1.0) for column in columns])
        # The margin that `keep_back` has is not in a fallback's time.
        less = np.array([MARGIN_S * (column.name == "keep_back") for column in columns])
        self.low: Floats = np.array([column.low for column in columns]) * unit - less
        self.high: Floats = np.array([column.high for column in columns]) * unit - less
        self._factor: Floats = 1 / (unit * scale)
        self._shift: Floats = less * self._factor - mean / scale

    def folded(
        self, layer: NDArray[np.float32], bias: NDArray[np.float32]
    ) -> tuple[Floats, Floats]:
        """Layer and bias for these inputs instead of normalized ones."""
        return self._factor[:, None] * layer, bias + self._shift @ layer


def _affine(layer: NDArray[np.floating], bias: NDArray[np.floating]) -> Floats:
    """A layer whose last input is 1 and whose last output is, shape `(in + 1, out + 1)`."""
    matrix = np.zeros((layer.shape[0] + 1, layer.shape[1] + 1))
    matrix[:-1, :-1], matrix[-1, :-1], matrix[-1, -1] = layer, bias, 1.0
    return matrix


def _shares(count: int) -> Floats:
    """Weights of the readings in the three chances: all requests, the newest, the cautious ones."""
    weights, recent = np.zeros((3, _NEWEST + count + 2)), min(count, 4)
    weights[0, _NEWEST : _NEWEST + count] = 1 / max(count, 1)
    weights[1, _NEWEST : _NEWEST + recent] = 1 / max(recent, 1)
    weights[2, -2:] = 1 / 2
    return weights


def _readings(link: Link) -> list[list[float]]:
    rates, delays, newest_s = inverse(link.rate_mbps), link.delay_s, link.delay_s[0]
    second = link.rate_mbps[min(1, len(rates) - 1)]
    cautious = inverse([_CAUTION * link.rate_mbps[0], _CAUTION * second])
    return [
        [_mean(rates), 1 / _FASTEST_MBPS, *rates, *cautious],
        [_mean(delays), min(delays), *delays, newest_s, newest_s],
    ]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _spread(values: Sequence[float], mean: float) -> float:
    return math.sqrt(sum([(value - mean) ** 2 for value in values]) / len(values))


def _log(value: float) -> float:
    return math.log(max(value, 1e-3))


def _log_rate(rate_mbps: float) -> float:
    return math.log(rate_mbps if 0.01 <= rate_mbps <= 1e3 else min(max(rate_mbps, 0.01), 1e3))
