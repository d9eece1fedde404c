"""The model-based part of deciding: what every candidate is predicted to bring.

Written once and used by the simulator, the environments and the deployed controller. All
functions are batched over lanes L; a live device is a batch of one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adaptive_split.candidates import MARGIN_S, CandidateTable, Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What a controller knows when a frame starts, for L lanes; times on the device's clock.

    Samples are the last 16 finished requests, newest first, `nan` where there are fewer.
    """

    slack_s: Floats
    """Deadline minus now, shape `(L,)`."""
    gap_s: Floats
    """Next capture minus now, shape `(L,)`."""
    waiting: Floats
    """Older frames still waiting for the device, shape `(L,)`."""
    sample_mbps: Floats
    """Shape `(L, 16)`."""
    sample_rtt_s: Floats
    sample_wait_s: Floats
    sample_slowdown: Floats
    sample_age_s: Floats
    uplink_busy_s: Floats
    """How long the uplink is believed to stay busy, from now, shape `(L,)`."""
    unanswered_s: Floats
    """Age of the oldest request without a reply; 0 when there is none, shape `(L,)`."""
    unanswered_bytes: Floats
    """Bytes sent up to and with that request that no reply has covered, shape `(L,)`."""
    timeouts: Floats
    """Replies later than their deadline among the last 16 requests, shape `(L,)`."""
    confidences: Floats
    """First-exit confidences of the last 8 frames that ran stage 1, newest first, `(L, 8)`."""
    device_slowdown: Floats
    soc: Floats
    """State of charge in [0, 1]; 1 where there is no battery."""
    mission_ratio: Floats
    """State of charge over the share of the mission's time that is left; 1 without a battery."""
    energy_price: Floats
    """Price of a joule in force, in 1/J, shape `(L,)`."""
    server_usable: NDArray[np.bool_]


DEFAULT_MBPS, DEFAULT_RTT_S = 5.0, 0.060
"""Assumed before the first request was answered."""


def link_pairs(moment: Moment, count: int = 16) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Recent (rate, delay) pairs, each lowered to what the oldest unanswered request allows.

    A request that is overdue proves that the link is slower than the samples say: its bytes
    over its age bound the rate from above.

    Returns:
        `(rate in Mbit/s, round trip + server wait in s, valid)`, each `(L, count)`, newest first;
        at least one pair is valid.
    """
    rate = moment.sample_mbps[:, :count]
    delay = (moment.sample_rtt_s + moment.sample_wait_s)[:, :count]
    valid = ~np.isnan(rate)
    none = ~valid.any(1)
    rate = np.where(valid, rate, DEFAULT_MBPS)
    delay = np.where(valid, delay, DEFAULT_RTT_S)
    if none.any():
        valid = valid.copy()
        valid[none, 0] = True
    bits = moment.unanswered_bytes[:, None] * 8e-6
    on_link = moment.unanswered_s[:, None] - delay
    bound = np.where(on_link > 0, bits / np.maximum(on_link, 1e-3), np.inf)
    pending = moment.unanswered_s[:, None] > 0
    return np.where(pending, np.minimum(rate, bound), rate), delay, valid


def uplink_wait_s(moment: Moment) -> Floats:
    """How long a new payload waits for the uplink, shape `(L,)`.

    An overdue request adds half its delay: outages last the longer the older they are.
    """
    newest = moment.sample_rtt_s[:, 0]
    expected = np.where(np.isnan(newest), DEFAULT_RTT_S, newest) + 0.05
    overdue = np.maximum(moment.unanswered_s - expected, 0.0)
    return np.maximum(moment.uplink_busy_s, 0.5 * overdue)


@dataclass(frozen=True, slots=True, eq=False)
class Readings:
    """What W readings of the link would mean for every payload of L lanes."""

    valid: NDArray[np.bool_]
    """Which readings count, shape `(L, W)`."""
    upload_s: Floats
    """Time on the uplink, shape `(L, W, P)`."""
    arrival_s: Floats
    """When the reply would come, from now, shape `(L, W, P)`."""
    in_time: NDArray[np.bool_]
    """Valid and before the give-up moment, shape `(L, W, P)`."""

    def share(self) -> Floats:
        """Share of the valid readings under which each payload is on time, `(L, P)`."""
        return np.asarray(self.num_in_time() / np.maximum(self.valid.sum(1), 1)[:, None])

    def num_in_time(self) -> NDArray[np.int32]:
        """Number of readings under which each payload is on time, `(L, P)`."""
        return np.asarray(np.add.reduce(self.in_time, 1, dtype=np.int32))


def read_link(
    table: CandidateTable,
    moment: Moment,
    rate_mbps: Floats,
    delay_s: Floats,
    valid: NDArray[np.bool_] | None = None,
) -> Readings:
    """Predict uploads and replies under readings of the link.

    Args:
        table: Times and bytes of the payloads.
        moment: The state of the lanes.
        rate_mbps: Shape `(L, W)`.
        delay_s: Round trip plus server wait, shape `(L, W)`.
        valid: Which readings count, shape `(L, W)`; all by default.
    """
    # Sums over the readings are several times as fast where these lie outermost in memory.
    rate, delay = (np.ascontiguousarray(row.T)[:, :, None] for row in (rate_mbps, delay_s))
    counts = np.ones(rate.shape[:2], bool) if valid is None else np.ascontiguousarray(valid.T)
    upload: Floats = 8e-6 / np.maximum(rate, 1e-3) * table.mean_bytes
    newest = moment.sample_slowdown[:, :1]
    server_slow = np.where(np.isnan(newest), 1.0, newest)
    fixed = send_begin_s(table, moment) + table.tail_s * server_slow
    arrival: Floats = fixed + delay
    arrival += upload
    in_time = arrival <= give_up_s(table, moment)
    in_time &= counts[:, :, None]
    return Readings(counts.T, upload.swapaxes(0, 1), arrival.swapaxes(0, 1), in_time.swapaxes(0, 1))


def send_begin_s(table: CandidateTable, moment: Moment) -> Floats:
    """When each payload would begin to cross the uplink, from now, shape `(L, P)`."""
    ready = table.ready_s * moment.device_slowdown[:, None]
    return np.maximum(ready, uplink_wait_s(moment)[:, None])


def give_up_s(table: CandidateTable, moment: Moment) -> Floats:
    """When the device gives up on each payload, from now, shape `(L, P)`."""
    fallback_s = table.fallback_s * moment.device_slowdown[:, None]
    return moment.slack_s[:, None] - MARGIN_S - fallback_s


@dataclass(frozen=True, slots=True, kw_only=True)
class BacklogPrices:
    """What a frame costs the frames after it."""

    device: float = 0.3
    """Utility lost per frame by which the device runs into the next frame."""
    uplink: float = 0.1
    """The same for the uplink."""
    occupied: float = 0.0
    """Utility lost per frame period that a payload takes on the uplink, overrun or not: on a slow
    link frame after frame queues behind it."""


def utility_terms(
    table: CandidateTable, moment: Moment, prices: BacklogPrices, readings: Readings
) -> tuple[Floats, Floats]:
    """Split every candidate's expected utility into `base + on_time * gain`.

    `base` is what remains when the server's answer is late: exits on the device, the fallback,
    energy, bytes and the backlog prices; `gain` is what an answer in time adds. Time on the uplink
    is priced at its mean over the readings under which the payload is late (base) or on time
    (gain).

    Args:
        table: The candidates.
        moment: The state of the lanes.
        prices: What running into the next frame costs.
        readings: What the link may do.

    Returns:
        `(base, gain)`, each `(L, N)`; `gain` is 0 for local candidates.
    """
    grid, objective, radio = table.grid, table.objective, table.radio
    slow, price = moment.device_slowdown[:, None], moment.energy_price[:, None]
    head = table.head_s[1:] * slow
    # The device stops at the deepest exit that it can reach before the deadline.
    fit = (head <= moment.slack_s[:, None] - MARGIN_S).sum(1)[:, None]
    stops = grid.split_point > fit
    sends = ~(grid.local | stops)
    base = (np.arange(1, grid.num_stages + 1) <= fit) @ table.exit_right.T
    base += sends * table.fallback_right
    if stops.any():
        base += stops * table.stop_right.T[fit[:, 0]]
    gain = sends * (table.server_right - table.fallback_right)

    redo_j = (table.device.compute_w * table.head_s[1]) * slow * (grid.split_point == 0)
    base -= price * ((table.device.compute_w * table.busy_s) * slow + redo_j)
    base -= (prices.device * objective.fps) * overrun_s(table, moment)
    gain += price * redo_j
    late, early = _uplink_costs(table, moment, prices, readings)
    bits_j = radio.joules_per_mbit * table.mean_bytes * 8e-6
    sending = price * bits_j + objective.byte_price * table.mean_bytes * 1e-6 + late
    payload, sent = np.maximum(grid.payload_index, 0), sends * table.send_share
    base -= sending.take(payload, 1) * sent
    gain += (late - early).take(payload, 1) * sent
    if not moment.server_usable.all():
        base[~(grid.local | moment.server_usable[:, None])] = -1e3
    return base, gain


def overrun_s(table: CandidateTable, moment: Moment) -> Floats:
    """Expected time by which each candidate keeps the device beyond the next capture, `(L, N)`."""
    slow, gap = moment.device_slowdown[:, None], np.maximum(moment.gap_s, 0.0)[:, None]
    longest = np.maximum(moment.slack_s[:, None] - MARGIN_S, 0.0)
    head = np.minimum(table.head_s[1:] * slow, longest)
    ready = np.minimum(table.ready_s * slow, longest)
    over_head, over_send = np.maximum(head - gap, 0.0), np.maximum(ready - gap, 0.0)
    payload = np.maximum(table.grid.payload_index, 0)
    sent = table.send_share * ~table.grid.local
    return np.asarray(over_head @ table.exit_share.T + over_send.take(payload, 1) * sent)


def _uplink_costs(
    table: CandidateTable, moment: Moment, prices: BacklogPrices, readings: Readings
) -> tuple[Floats, Floats]:
    """Price of the time on the uplink when a payload is late, and when it is on time, `(L, P)`."""
    objective = table.objective
    cost = _uplink_over_s(table, moment, readings)
    cost *= prices.uplink * objective.fps
    charged = np.minimum(readings.upload_s, objective.slo_s)
    charged *= (moment.energy_price * table.radio.watts + prices.occupied * objective.fps)[
        :, None, None
    ]
    cost += charged
    count, early_count = np.maximum(readings.valid.sum(1), 1)[:, None], readings.num_in_time()
    total = (cost * readings.valid[:, :, None]).sum(1)
    early = (cost * readings.in_time).sum(1)
    late_count, mean = count - early_count, total / count
    late = np.where(late_count > 0, (total - early) / np.maximum(late_count, 1), mean)
    early = np.where(early_count > 0, early / np.maximum(early_count, 1), mean)
    return np.maximum(late, early), early


def _uplink_over_s(table: CandidateTable, moment: Moment, readings: Readings) -> Floats:
    """Time by which each payload keeps the uplink beyond the next picture, `(L, W, P)`."""
    next_ready = np.maximum(moment.gap_s, 0.0) + table.ready_s[0] * moment.device_slowdown
    begin = send_begin_s(table, moment) - next_ready[:, None]
    over = np.maximum(readings.upload_s + begin[:, None, :], 0.0)
    return np.asarray(np.minimum(over, table.objective.slo_s, out=over))


def mean_uplink_over_s(table: CandidateTable, moment: Moment, readings: Readings) -> Floats:
    """Mean over the readings of how long each payload keeps the uplink too long, `(L, P)`."""
    over = _uplink_over_s(table, moment, readings) * readings.valid[:, :, None]
    return np.asarray(over.sum(1) / np.maximum(readings.valid.sum(1), 1)[:, None])


def combine(table: CandidateTable, base: Floats, gain: Floats, on_time: Floats) -> Floats:
    """Expected utility of every candidate from its payload's chance to be on time, `(L, N)`."""
    return base + gain * on_time.take(np.maximum(table.grid.payload_index, 0), 1)
