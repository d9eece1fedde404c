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


class CandidateTable:
    """Everything about the N candidates and P payloads that does not change from frame to frame.

    Times come from the profiles; probabilities are shares of the samples of the outcomes (so
    utilities are expectations over pictures).

    Attributes:
        head_s: Device time until exit j has answered, index 0..S (0 at index 0), shape `(S+1,)`.
        ready_s: Device time until a payload is ready to send, shape `(P,)`.
        tail_s: Server time of a payload, shape `(P,)`.
        keep_back_s: Time before the deadline at which the device gives up on a payload: what the
            fallback still needs, shape `(P,)`.
        mean_bytes: Bytes on the wire of a payload, overhead included, shape `(P,)`.
        exit_share, exit_right: Probability that candidate c is answered at exit j on the device,
            and rightly so, shape `(N, S)`.
        send_share: Probability that a candidate sends, shape `(N,)`.
        server_right, fallback_right: Probability that it sends and the server, or the fallback,
            is right, shape `(N,)`.
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
        self.payload_bits = np.array([bits for _, bits in grid.payloads])
        self.ready_s: Floats = self.head_s[splits] + np.array(device.encoder_s)[splits]
        self.tail_s: Floats = np.array([server.tail_s(int(split)) for split in splits])
        self.keep_back_s: Floats = np.where(splits == 0, self.head_s[1], 0.0)
        self.wire_bytes: Floats = outcomes.payload_bytes + float(radio.overhead_bytes)
        self.mean_bytes: Floats = self.wire_bytes.mean(0)
        self._count_outcomes(outcomes)
        self.busy_s: Floats = self._busy_s()

    def _count_outcomes(self, outcomes: Outcomes) -> None:
        grid = self.grid
        num_stages, count = grid.num_stages, len(grid)
        right, answered = outcomes.exit_right, outcomes.server_right
        self.exit_share: Floats = np.zeros((count, num_stages))
        self.exit_right: Floats = np.zeros((count, num_stages))
        self.send_share: Floats = np.zeros(count)
        self.server_right: Floats = np.zeros(count)
        self.fallback_right: Floats = np.zeros(count)
        for index, chosen in enumerate(grid.candidates):
            exit_index = first_exit(
                outcomes.exit_confidence, chosen.split_point, chosen.exit_threshold
            )
            for stage in range(1, num_stages + 1):
                here = exit_index == stage
                self.exit_share[index, stage - 1] = here.mean()
                self.exit_right[index, stage - 1] = (here & right[:, stage - 1]).mean()
            payload = grid.payload_index[index]
            if payload >= 0:
                sent = exit_index == 0
                self.send_share[index] = sent.mean()
                self.server_right[index] = (sent & answered[:, payload]).mean()
                deepest = max(chosen.split_point, 1) - 1
                self.fallback_right[index] = (sent & right[:, deepest]).mean()

    def _busy_s(self) -> Floats:
        ready = np.where(self.grid.local, 0.0, self.ready_s[self.grid.payload_index])
        return np.asarray(self.exit_share @ self.head_s[1:] + self.send_share * ready)


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
    """How long a new payload waits for the uplink, shape `(L,)`; an overdue request adds half
    its delay, since outages last the longer the older they are."""
    expected = np.nan_to_num(moment.sample_rtt_s[:, 0], nan=DEFAULT_RTT_S) + 0.05
    overdue = np.maximum(moment.unanswered_s - expected, 0.0)
    return np.maximum(moment.uplink_busy_s, 0.5 * overdue)


def arrival_s(
    table: CandidateTable, moment: Moment, rate_mbps: Floats, delay_s: Floats
) -> Floats:
    """Predict when replies would come, from now, for pairs of rate and delay.

    Args:
        table: Times and bytes of the payloads.
        moment: The state of the lanes.
        rate_mbps: Shape `(L, W)`.
        delay_s: Round trip plus server wait, shape `(L, W)`.

    Returns:
        Shape `(L, W, P)`, in s.
    """
    slow = moment.device_slowdown[:, None]
    start = np.maximum(table.ready_s * slow, uplink_wait_s(moment)[:, None])
    seconds_per_byte = 8e-6 / np.maximum(rate_mbps, 1e-3)
    server_slow = np.nan_to_num(moment.sample_slowdown[:, :1], nan=1.0)
    fixed = start + table.tail_s * server_slow
    send = seconds_per_byte[:, :, None] * table.mean_bytes
    return np.asarray(fixed[:, None, :] + send + delay_s[:, :, None])


def give_up_s(table: CandidateTable, moment: Moment) -> Floats:
    """When the device gives up on each payload, from now, shape `(L, P)`."""
    return moment.slack_s[:, None] - table.keep_back_s * moment.device_slowdown[:, None]


def on_time_share(
    table: CandidateTable, moment: Moment, rate: Floats, delay: Floats, valid: NDArray[np.bool_]
) -> Floats:
    """Share of the valid (rate, delay) pairs under which each payload is on time, `(L, P)`."""
    arrivals = arrival_s(table, moment, rate, delay)
    hits = (arrivals <= give_up_s(table, moment)[:, None, :]) & valid[:, :, None]
    return np.asarray(hits.sum(1) / np.maximum(valid.sum(1), 1)[:, None])


def utility_terms(
    table: CandidateTable,
    moment: Moment,
    backlog_price: float,
    rate_mbps: Floats | None = None,
) -> tuple[Floats, Floats]:
    """Split every candidate's expected utility into `base + on_time * gain`.

    `base` holds what does not depend on the server: exits on the device, the fallback, energy,
    bytes and the backlog price; `gain` what an answer in time adds. The backlog price charges the
    time by which device and uplink run into the next frame, in frames.

    Args:
        table: The candidates.
        moment: The state of the lanes.
        backlog_price: Utility per frame of backlog.
        rate_mbps: Link rate used for the time on the uplink, `(L,)`; the newest sample by default.

    Returns:
        `(base, gain)`, each `(L, N)`; `gain` is 0 for local candidates.
    """
    grid, objective, radio = table.grid, table.objective, table.radio
    slow = moment.device_slowdown[:, None]
    slack, gap = moment.slack_s[:, None], np.maximum(moment.gap_s[:, None], 0.0)
    if rate_mbps is None:
        rate, _, _ = link_pairs(moment, 1)
        rate_mbps = rate[:, 0]
    head = table.head_s[1:] * slow
    in_time = (head <= slack).astype(float)
    base = in_time @ table.exit_right.T
    payload = np.maximum(grid.payload_index, 0)
    ready = table.ready_s * slow
    answerable = np.where(
        table.payload_split == 0,
        table.head_s[1] * slow <= slack,
        table.head_s[np.maximum(table.payload_split, 1)] * slow <= slack,
    )
    fallback = table.fallback_right * answerable[:, payload]
    sends = ~grid.local
    base += np.where(sends, fallback, 0.0)
    gain = np.where(sends, table.server_right - fallback, 0.0)

    upload = table.mean_bytes * 8e-6 / np.maximum(rate_mbps, 1e-3)[:, None]
    charged = np.minimum(upload, objective.slo_s)
    joules = table.device.compute_w * table.busy_s * slow
    bits_j = radio.joules_per_mbit * table.mean_bytes * 8e-6
    sent_j = radio.watts * charged + bits_j
    joules = joules + table.send_share * sent_j[:, payload] * sends
    redo_j = table.device.compute_w * table.head_s[1] * slow * (grid.split_point == 0)
    base -= objective.energy_price * (joules + redo_j)
    gain += objective.energy_price * redo_j
    base -= objective.byte_price * table.send_share * table.mean_bytes[payload] * 1e-6 * sends

    over_head = np.minimum(np.maximum(head - gap, 0.0), objective.slo_s)
    over_send = np.minimum(np.maximum(ready - gap, 0.0), objective.slo_s)
    begin = np.maximum(ready, uplink_wait_s(moment)[:, None])
    next_ready = gap + table.ready_s[0] * slow
    over_link = np.minimum(np.maximum(begin + upload - next_ready, 0.0), objective.slo_s)
    backlog = over_head @ table.exit_share.T
    backlog = backlog + (over_send + over_link)[:, payload] * table.send_share * sends
    base -= backlog_price * objective.fps * backlog
    base = np.where(sends[None, :] & ~moment.server_usable[:, None], -1e3, base)
    return base, gain


def combine(
    table: CandidateTable, base: Floats, gain: Floats, on_time: Floats
) -> Floats:
    """Expected utility of every candidate from its payload's chance to be on time, `(L, N)`."""
    return base + gain * on_time[:, np.maximum(table.grid.payload_index, 0)]
