"""The planner's formulas for one lane: equal to `planner`, and several times as fast.

numpy takes a microsecond or two for every call, however small the arrays are; `observe` makes 300.
A device decides for one lane. Its values are floats here, and what is linear is multiplied out
beforehand into one matrix for every exit that may be the deepest in reach. `planner` and
`observation` define what is computed; tests hold this to the same values and choices.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, fields
from operator import add
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from adaptive_split.candidates import MARGIN_S, CandidateTable, Floats
from adaptive_split.planner import DEFAULT_MBPS, DEFAULT_RTT_S, BacklogPrices, Moment

SLOWEST_MBPS = 1e-3


def inverse(rates_mbps: Sequence[float]) -> list[float]:
    """Seconds that a megabit takes."""
    return [1 / max(rate, SLOWEST_MBPS) for rate in rates_mbps]


@dataclass(slots=True, kw_only=True, eq=False)
class Now:
    """A moment of one lane in Python's numbers; each field as in `planner.Moment`.

    Samples and confidences are lists, newest first, as long as there are any.
    """

    slack_s: float
    gap_s: float
    waiting: float
    sample_mbps: list[float]
    sample_rtt_s: list[float]
    sample_wait_s: list[float]
    sample_slowdown: list[float]
    sample_age_s: list[float]
    uplink_busy_s: float
    unanswered_s: float
    unanswered_bytes: float
    timeouts: float
    confidences: list[float]
    device_slowdown: float
    soc: float
    mission_ratio: float
    energy_price: float
    server_usable: bool

    @classmethod
    def of(cls, moment: Moment) -> Now:
        """Take the one lane of a moment."""
        rows = {name: getattr(moment, name)[0].tolist() for name in _FIELDS}
        for name in _WINDOWS:
            rows[name] = [value for value in rows[name] if not math.isnan(value)]
        return cls(**rows)

    def moment(self) -> Moment:
        """Lay it out as a batch of one."""
        rows: dict[str, Any] = {name: np.array([getattr(self, name)]) for name in _FIELDS}
        for name, length in _WINDOWS.items():
            window = getattr(self, name)
            rows[name] = np.array([[*window, *[math.nan] * (length - len(window))]])
        return Moment(**rows)


_FIELDS = tuple(field.name for field in fields(Now))
_WINDOWS = {name: 16 for name in _FIELDS if name.startswith("sample_")} | {"confidences": 8}
"""Fields that are lists, and their lengths in a batch."""


class Link:
    """The requests of one lane as the formulas take them; at least one, assumed if need be.

    Attributes:
        rate_mbps: Lowered to what the oldest unanswered request allows, as by `link_pairs`.
        delay_s: Round trips plus server waits.
        server_slowdown: Of the newest request.
        wait_s: How long a new payload waits for the uplink.
    """

    def __init__(self, now: Now) -> None:
        seen = bool(now.sample_mbps)
        self.rtt_s = now.sample_rtt_s if seen else [DEFAULT_RTT_S]
        self.server_wait_s = now.sample_wait_s if seen else [0.0]
        self.age_s = now.sample_age_s if seen else [10.0]
        self.server_slowdown = now.sample_slowdown[0] if seen else 1.0
        self.delay_s = [*map(add, self.rtt_s, self.server_wait_s)]
        self.rate_mbps = now.sample_mbps if seen else [DEFAULT_MBPS]
        if now.unanswered_s > 0:
            self._lower(now.unanswered_s, now.unanswered_bytes * 8e-6)
        overdue_s = now.unanswered_s - (self.rtt_s[0] + 0.05)
        self.wait_s = max(now.uplink_busy_s, 0.5 * overdue_s, 0.0)

    def _lower(self, unanswered_s: float, megabits: float) -> None:
        over = [unanswered_s - delay for delay in self.delay_s]
        self.rate_mbps = [
            min(rate, megabits / max(on_link, 1e-3)) if on_link > 0 else rate
            for rate, on_link in zip(self.rate_mbps, over, strict=True)
        ]


@dataclass(slots=True, eq=False)
class Look:
    """What readings of the link mean for every payload and candidate."""

    chances: Floats
    """Weighted shares of the readings under which each payload is on time, shape `(K, P)`."""
    slack_s: Floats
    """Give-up moment minus reply, shape `(W, P)`."""
    upload_s: Floats
    """Shape `(W, P)`."""
    times: Floats
    """From now, as `_times` lays them out."""
    uplink_over_s: Floats
    """Mean time on the uplink beyond the next picture, shape `(P,)`."""
    base: Floats
    """Shape `(N,)`; base and gain are those of `planner.utility_terms`."""
    gain: Floats


class OneLane:
    """The planner's formulas for a table and its prices."""

    def __init__(self, table: CandidateTable, prices: BacklogPrices) -> None:
        self.table, grid = table, table.grid
        fps, self.slo_s = table.objective.fps, table.objective.slo_s
        self.num_stages, self.num_payloads = grid.num_stages, len(grid.payloads)
        self.payload_of = np.maximum(grid.payload_index, 0)
        self._uplink_price, self._watts = prices.uplink * fps, table.radio.watts
        self._occupied_price = prices.occupied * fps
        self._picture_s = float(table.ready_s[0])
        bits, nothing = table.mean_bytes * 8e-6, np.zeros(self.num_payloads)
        self._crossing = np.array([[*bits, *bits], [*nothing, *(nothing + 1)]])
        self._times = _times(table)
        self._matrices = [
            _terms_matrix(table, prices, reached) for reached in range(self.num_stages + 1)
        ]

    def look(
        self,
        now: Now,
        link: Link,
        pairs: Sequence[Sequence[float]],
        first: int,
        count: int,
        shares: Floats,
    ) -> Look:
        """Compute what `planner.utility_terms` does.

        Args:
            now: The moment.
            link: Its requests.
            pairs: Inverse rates in s/Mbit, and delays in s, of W readings.
            first: The first reading that base and gain average over.
            count: How many they do.
            shares: Weights of the readings in every chance, shape `(K, W)`; the first chance is
                that average.
        """
        payloads, seen = self.num_payloads, slice(first, first + count)
        crossing = np.array(pairs).T.dot(self._crossing)
        upload, trip = crossing[:, :payloads], crossing[:, payloads:]
        times = self._times.dot((now.device_slowdown, link.server_slowdown, now.slack_s - MARGIN_S))
        until, room = times[: self.num_stages + payloads], times[-payloads:]
        begin = np.maximum(until[self.num_stages :], link.wait_s)
        slack = (room - begin) - trip
        in_time = slack >= 0
        chances = shares.dot(in_time)
        over = self._uplink_over_s(now, upload[seen], begin)
        weight = shares[0, seen]
        late, early = self._costs(now, upload[seen], over, in_time[seen], chances[0], weight)
        base, gain = self._terms(now, until, late, early)
        return Look(chances, slack, upload, times, weight.dot(over), base, gain)

    def _uplink_over_s(self, now: Now, upload: Floats, begin: Floats) -> Floats:
        """Time by which each payload keeps the uplink beyond the next picture, `(W, P)`."""
        next_ready_s = max(now.gap_s, 0.0) + self._picture_s * now.device_slowdown
        over = upload + (begin - next_ready_s)
        np.maximum(over, 0.0, out=over)
        return np.minimum(over, self.slo_s, out=over)

    def _terms(self, now: Now, until: Floats, late: Floats, early: Floats) -> tuple[Floats, Floats]:
        """Base and gain of every candidate, `(N,)`, from the times and costs of the payloads."""
        time_left_s = now.slack_s - MARGIN_S
        over = np.minimum(until, max(time_left_s, 0.0))
        over -= max(now.gap_s, 0.0)
        np.maximum(over, 0.0, out=over)
        reached = bisect_right(until[: self.num_stages].tolist(), time_left_s)
        prices = (now.energy_price * now.device_slowdown, now.energy_price, 1.0)
        terms = np.concatenate((over, late, early, prices)).dot(self._matrices[reached])
        base, gain = terms[: len(self.payload_of)], terms[len(self.payload_of) :]
        if not now.server_usable:
            base[~self.table.grid.local] = -1e3
        return base, gain

    def _costs(
        self,
        now: Now,
        upload: Floats,
        over: Floats,
        in_time: NDArray[np.bool_],
        chance: Floats,
        weight: Floats,
    ) -> tuple[Floats, Floats]:
        """Price of the time on the uplink when a payload is late, and when on time, `(P,)`."""
        cost = np.minimum(upload, self.slo_s)
        cost *= now.energy_price * self._watts + self._occupied_price
        cost += over * self._uplink_price
        mean = weight.dot(cost)
        early_part = weight.dot(cost * in_time)
        # A chance is 0, 1 or far from both: the floor only keeps what is not used finite.
        late = (mean - early_part) / np.maximum(1.0 - chance, 1e-4)
        early = early_part / np.maximum(chance, 1e-4)
        early += mean * (chance < 1e-4)
        return np.maximum(late, early), early

    def values(self, look: Look, chance: Floats) -> Floats:
        """Expected utility of every candidate from its payload's chance, `(N,)`."""
        return look.base + look.gain * chance.take(self.payload_of)


def _times(table: CandidateTable) -> Floats:
    """Matrix from (slowdown, server's slowdown, time left) to times from now.

    Rows: the device's until each exit has answered, and until each payload is ready; the server's
    tails; the fallbacks; what is left of the time for the trip without the wait for the uplink.
    """
    nothing = np.zeros_like(table.ready_s)
    busy = np.concatenate([table.head_s[1:], table.ready_s])
    blocks = (
        (busy, 0 * busy, 0 * busy),
        (nothing, table.tail_s, nothing),
        (table.fallback_s, nothing, nothing),
        (-table.fallback_s, -table.tail_s, nothing + 1),
    )
    return np.concatenate([np.stack(block, 1) for block in blocks])


def _terms_matrix(table: CandidateTable, prices: BacklogPrices, reached: int) -> Floats:
    """Matrix to `base` and `gain` side by side when the deepest exit in reach is `reached`.

    Rows: the device's times beyond the next capture (S + P); what a late payload costs on the
    uplink (P), and one on time (P); price of a joule times slowdown; price of a joule; 1.
    """
    grid, radio, objective = table.grid, table.radio, table.objective
    stops = grid.split_point > reached
    sends = ~(grid.local | stops)
    sent = np.eye(len(grid.payloads))[:, np.maximum(grid.payload_index, 0)] * ~grid.local
    share = sent * table.send_share
    in_reach = share * sends
    redo_j = table.device.compute_w * table.head_s[1] * (grid.split_point == 0)
    right = table.exit_right[:, :reached].sum(1) + stops * table.stop_right[:, reached]
    megabytes = in_reach.T @ table.mean_bytes * 1e-6
    busy = np.concatenate([table.exit_share.T, share]) * (prices.device * objective.fps)
    base: list[ArrayLike] = [
        -busy, -in_reach, 0 * in_reach, [-(table.device.compute_w * table.busy_s + redo_j)],
        [-radio.joules_per_mbit * 8 * megabytes],
        [right + sends * table.fallback_right - objective.byte_price * megabytes],
    ]  # fmt: skip
    gain: list[ArrayLike] = [
        0 * busy, in_reach, -in_reach, [redo_j], [0 * redo_j],
        [sends * (table.server_right - table.fallback_right)],
    ]  # fmt: skip
    return np.concatenate([np.vstack(base), np.vstack(gain)], 1)
