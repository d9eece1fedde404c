"""The model-based part of deciding: what every candidate is predicted to bring.

Written once and used by the simulator, the environments and the deployed controller. All
functions are batched over lanes L; a live device is a batch of one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adaptive_split.decision import NEVER, DecisionGrid
from adaptive_split.errors import ConfigError
from adaptive_split.objective import Objective
from adaptive_split.outcomes import Outcomes
from adaptive_split.profile import Profile

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Radio:
    """What sending costs: `watts` while a payload is on the uplink, plus energy per bit."""

    watts: float = 1.3
    joules_per_mbit: float = 0.0767
    overhead_bytes: int = 320
    """Bytes of one request and its framing beyond the payload, as measured on the wire."""
    source: str = "LTE: SIGCOMM21-5G regression .0767 J/Mbit; 1.288 W base, Huang MobiSys'12"

    def __post_init__(self) -> None:
        """Refuse negative costs."""
        for name in ("watts", "joules_per_mbit", "overhead_bytes"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"radio {name} must be 0 or more; got {getattr(self, name)!r}")


MARGIN_S = 0.002
"""Kept back before every deadline for the jitter of timers and threads."""


class CandidateTable:
    """Everything about the N candidates and P payloads that does not change from frame to frame.

    Times come from the profiles; probabilities are shares of the samples of the outcomes (so
    utilities are expectations over pictures).

    Attributes:
        head_s: Device time until exit j has answered, index 0..S (0 at index 0), shape `(S+1,)`.
        ready_s: Device time until a payload is ready to send, shape `(P,)`.
        tail_s: Server time of a payload, shape `(P,)`.
        fallback_s: Device time that a payload's fallback still needs, shape `(P,)`.
        keep_back_s: Time before the deadline at which a device as profiled gives up, `(P,)`.
        mean_bytes: Bytes on the wire of a payload, overhead included, shape `(P,)`.
        exit_share, exit_right: Probability that candidate c is answered at exit j on the device,
            and rightly so, shape `(N, S)`.
        send_share: Probability that a candidate sends, shape `(N,)`.
        server_right, fallback_right: Probability that it sends and the server, or the fallback,
            is right, shape `(N,)`.
        stop_right: Probability that no exit up to d has answered and exit d is right, should the
            device have to stop there, shape `(N, S+1)`.
    """

    def __init__(
        self,
        grid: DecisionGrid,
        device: Profile,
        server: Profile,
        outcomes: Outcomes,
        objective: Objective,
        radio: Radio,
    ) -> None:
        if outcomes.payloads != grid.payloads:
            raise ConfigError(
                f"outcomes must hold the grid's payloads {grid.payloads}; got {outcomes.payloads}; "
                "measure them again with this grid"
            )
        if not grid.num_stages == device.num_stages == server.num_stages == outcomes.num_stages:
            raise ConfigError(
                "grid, profiles and outcomes must have the same number of stages; got "
                f"{grid.num_stages}, {device.num_stages}, {server.num_stages}, "
                f"{outcomes.num_stages}"
            )
        self.grid, self.objective, self.radio = grid, objective, radio
        self.device, self.server, self.outcomes = device, server, outcomes
        stages = np.add(device.stage_s, device.exit_s)
        self.head_s: Floats = np.concatenate([[0.0], np.cumsum(stages)])
        splits = np.array([split for split, _ in grid.payloads])
        self.payload_split = splits
        encoder_s: Floats = np.array(device.encoder_s, np.float64)
        self.ready_s: Floats = self.head_s[splits] + encoder_s[splits]
        self.tail_s: Floats = np.array([server.tail_s(int(split)) for split in splits])
        self.fallback_s: Floats = np.where(splits == 0, self.head_s[1], 0.0)
        self.keep_back_s: Floats = self.fallback_s + MARGIN_S
        sizes = outcomes.payload_bytes.astype(np.float64)
        self.wire_bytes: Floats = sizes + radio.overhead_bytes
        self.mean_bytes: Floats = np.asarray(self.wire_bytes.mean(0))
        self._count_outcomes(outcomes)
        ready = np.where(grid.local, 0.0, self.ready_s[grid.payload_index])
        self.busy_s: Floats = self.exit_share @ self.head_s[1:] + self.send_share * ready

    def _count_outcomes(self, outcomes: Outcomes) -> None:
        grid = self.grid
        num_stages, count = grid.num_stages, len(grid)
        right, answered = outcomes.exit_right, outcomes.server_right
        self.exit_share: Floats = np.zeros((count, num_stages))
        self.exit_right: Floats = np.zeros((count, num_stages))
        self.send_share: Floats = np.zeros(count)
        self.server_right: Floats = np.zeros(count)
        self.fallback_right: Floats = np.zeros(count)
        self.stop_right: Floats = np.zeros((count, num_stages + 1))
        for index, chosen in enumerate(grid.candidates):
            exit_index = first_exit(
                outcomes.exit_confidence, chosen.split_point, chosen.exit_threshold
            )
            for stage in range(1, num_stages + 1):
                here = exit_index == stage
                self.exit_share[index, stage - 1] = here.mean()
                self.exit_right[index, stage - 1] = (here & right[:, stage - 1]).mean()
                going = (exit_index == 0) | (exit_index > stage)
                self.stop_right[index, stage] = (going & right[:, stage - 1]).mean()
            payload = grid.payload_index[index]
            if payload >= 0:
                sent = exit_index == 0
                self.send_share[index] = sent.mean()
                self.server_right[index] = (sent & answered[:, payload]).mean()
                deepest = max(chosen.split_point, 1) - 1
                self.fallback_right[index] = (sent & right[:, deepest]).mean()


def first_exit(
    confidence: NDArray[np.floating],
    split_point: NDArray[np.int64] | int,
    threshold: NDArray[np.float64] | float,
) -> NDArray[np.int64]:
    """Find the exit (1..S) at which the device answers; 0 where it sends.

    Args:
        confidence: Confidence at every exit, shape `(M, S)`.
        split_point: Last stage run on the device, shape `(M,)` or one for all.
        threshold: Exit threshold, shape `(M,)` or one for all; `NEVER` disables the exits.
    """
    num_stages = confidence.shape[1]
    split = np.broadcast_to(np.asarray(split_point), len(confidence))[:, None]
    limit = np.broadcast_to(np.asarray(threshold), len(confidence))[:, None]
    stage = np.arange(1, num_stages + 1)[None, :]
    sure = (confidence >= limit) & (limit < NEVER) & (stage <= split)
    sure[:, -1] |= split[:, 0] == num_stages
    return np.where(sure.any(1), sure.argmax(1) + 1, 0)


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
    late: float = 0.0
    """Utility lost by a payload whose answer is late: it kept the uplink busy for nothing."""


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
    base -= (sending + prices.late).take(payload, 1) * sent
    gain += (late - early + prices.late).take(payload, 1) * sent
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
    charged *= (moment.energy_price * table.radio.watts)[:, None, None]
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
