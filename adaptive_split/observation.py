"""What the policy sees: named columns of context, and a described row for every payload.

The observation is one flat vector `[context | P payload rows | N candidate rows]`. Payloads and
candidates are described instead of numbered, so the same networks serve other models, devices and
grids; expected utilities follow from chances by `base + gain * on_time`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adaptive_split.candidates import MARGIN_S, CandidateTable, Floats
from adaptive_split.planner import (
    BacklogPrices,
    Moment,
    Readings,
    give_up_s,
    link_pairs,
    mean_uplink_over_s,
    overrun_s,
    read_link,
    uplink_wait_s,
    utility_terms,
)

VERSION = 2
"""Raised with every change; columns of context may be appended, nothing else changes in place."""
WINDOW = 16


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the observation: name, unit and the range it is clipped to."""

    name: str
    unit: str
    low: float
    high: float


CONTEXT = (
    Column("rate_last", "ln Mbit/s", -5, 7),
    Column("rate_mean_2", "ln Mbit/s", -5, 7),
    Column("rate_mean_4", "ln Mbit/s", -5, 7),
    Column("rate_mean_16", "ln Mbit/s", -5, 7),
    Column("rate_spread_16", "ln ratio", 0, 4),
    Column("rate_low_16", "ln Mbit/s", -5, 7),
    Column("rate_trend", "ln ratio", -4, 4),
    Column("rtt_last", "slo", 0, 8),
    Column("rtt_mean_4", "slo", 0, 8),
    Column("rtt_mean_16", "slo", 0, 8),
    Column("rtt_spread_16", "slo", 0, 8),
    Column("rtt_low_16", "slo", 0, 8),
    Column("rtt_high_16", "slo", 0, 8),
    Column("rtt_trend", "slo", -8, 8),
    Column("server_wait_last", "slo", 0, 8),
    Column("server_wait_mean_4", "slo", 0, 8),
    Column("server_wait_high_16", "slo", 0, 8),
    Column("server_slowdown", "ln ratio", -3, 3),
    Column("sample_age", "ln s", -5, 4),
    Column("window_age", "ln s", -5, 6),
    Column("sample_count", "share of 16", 0, 1),
    Column("unanswered_age", "slo", 0, 8),
    Column("unanswered_bytes", "ln(1 + kB)", 0, 8),
    Column("timeouts", "share of 16", 0, 1),
    Column("uplink_busy", "slo", 0, 8),
    Column("slack", "slo", -1, 1),
    Column("gap", "frame periods", -1, 2),
    Column("waiting", "frames", 0, 16),
    Column("confidence_last", "1", 0, 1),
    Column("confidence_mean_8", "1", 0, 1),
    Column("device_slowdown", "ln ratio", -2, 3),
    Column("soc", "1", 0, 1),
    Column("slo", "ln s", -4, 2),
    Column("fps", "ln 1/s", -2, 6),
    Column("energy_price", "1/J", 0, 2),
    Column("byte_price", "1/MB", 0, 10),
    Column("server_usable", "1", 0, 1),
    Column("mission_ratio", "ln ratio", -3, 3),
)
"""New columns go to the end: a controller trained on fewer reads the first ones."""

PAYLOAD_COLUMNS = (
    Column("chance_16", "logit", -5, 5),
    Column("chance_4", "logit", -5, 5),
    Column("chance_cautious", "logit", -5, 5),
    Column("slack_last", "slo", -8, 2),
    Column("slack_mean", "slo", -8, 2),
    Column("slack_worst_4", "slo", -8, 2),
    Column("upload_last", "slo", 0, 8),
    Column("upload_mean", "slo", 0, 8),
    Column("bytes", "ln kB", -3, 8),
    Column("ready", "slo", 0, 8),
    Column("tail", "slo", 0, 8),
    Column("keep_back", "slo", 0, 2),
    Column("slack_floor", "slo", -8, 2),
    Column("uplink_over", "frame periods", 0, 32),
)
"""Slacks are the give-up moment minus the predicted reply, at several readings of the link."""

CANDIDATE_COLUMNS = (
    Column("base", "utility", -1e4, 10),
    Column("gain", "utility", -10, 10),
    Column("overrun", "frame periods", 0, 64),
    Column("busy", "slo", 0, 64),
    Column("send_share", "1", 0, 1),
)
"""Expected utility without and with an answer in time, and what it asks of the device."""

CHANCE_CLIP = 1 / (1 + np.exp(5.0))
"""The planner's chances are clipped to this and 1 minus this before their logit is taken."""


def flat_size(table: CandidateTable) -> int:
    """Length of the observation vector."""
    payloads = len(table.grid.payloads) * len(PAYLOAD_COLUMNS)
    return len(CONTEXT) + payloads + len(table.grid) * len(CANDIDATE_COLUMNS)


def bounds(table: CandidateTable) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Lowest and highest value of every column of the flat observation."""
    payloads, candidates = len(table.grid.payloads), len(table.grid)
    columns = [*CONTEXT, *PAYLOAD_COLUMNS * payloads, *CANDIDATE_COLUMNS * candidates]
    low = np.array([column.low for column in columns], np.float32)
    return low, np.array([column.high for column in columns], np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A moment with everything the controllers compute from it, for L lanes."""

    moment: Moment
    context: Floats
    """Shape `(L, len(CONTEXT))`, clipped."""
    payloads: Floats
    """Shape `(L, P, len(PAYLOAD_COLUMNS))`, clipped."""
    candidates: Floats
    """Shape `(L, N, len(CANDIDATE_COLUMNS))`."""

    @property
    def base(self) -> Floats:
        """Expected utility without an answer in time, shape `(L, N)`."""
        return self.candidates[:, :, 0]

    @property
    def gain(self) -> Floats:
        """What an answer in time adds, shape `(L, N)`."""
        return self.candidates[:, :, 1]

    def flat(self) -> NDArray[np.float32]:
        """Lay the view out as the observation vector, shape `(L, flat_size)`."""
        lanes = len(self.context)
        parts = (self.context, self.payloads.reshape(lanes, -1), self.candidates.reshape(lanes, -1))
        return np.concatenate(parts, axis=1, dtype=np.float32, casting="same_kind")


def observe(table: CandidateTable, moment: Moment, prices: BacklogPrices) -> View:
    """Compute context, payload and candidate rows of L lanes."""
    rate, delay, valid = link_pairs(moment, WINDOW)
    readings = read_link(table, moment, rate, delay, valid)
    context = _context(table, moment, rate, valid)
    payloads = _payload_rows(table, moment, rate, delay, readings)
    candidates = _candidate_rows(table, moment, prices, readings)
    return View(moment, context, payloads, candidates)


def logit(chance: Floats) -> Floats:
    """Log odds of a chance, clipped to +-5."""
    clipped = np.clip(chance, CHANCE_CLIP, 1 - CHANCE_CLIP)
    return np.asarray(np.log(clipped / (1 - clipped)))


def _mean_rate(rate: Floats, valid: NDArray[np.bool_], count: int) -> Floats:
    """Harmonic mean of the newest `count` rates, in Mbit/s."""
    use = valid[:, :count].astype(float)
    use[:, 0] = np.where(use.any(1), use[:, 0], 1.0)
    inverse = (use / np.maximum(rate[:, :count], 1e-3)).sum(1)
    return np.asarray(use.sum(1) / inverse)


def _context(
    table: CandidateTable, moment: Moment, rate: Floats, valid: NDArray[np.bool_]
) -> Floats:
    objective = table.objective
    slo, lanes = objective.slo_s, len(rate)
    known = ~np.isnan(moment.sample_mbps)
    log_rate = np.log(np.clip(rate, 0.01, 1000))
    first = valid.argmax(1)
    pick = np.arange(lanes)
    last = log_rate[pick, first]
    fill = np.where(valid, log_rate, last[:, None])
    rtt = _filled(moment.sample_rtt_s, known, 0.06) / slo
    wait = _filled(moment.sample_wait_s, known, 0.0) / slo
    age = _filled(moment.sample_age_s, known, 10.0)
    slow = _filled(moment.sample_slowdown, known, 1.0)
    seen = ~np.isnan(moment.confidences)
    sure = _filled(moment.confidences, seen, 0.5)
    ones = np.ones(lanes)
    mean_4 = fill[:, :4].mean(1)
    columns = [
        last, fill[:, :2].mean(1), mean_4, fill.mean(1), fill.std(1), fill.min(1), last - mean_4,
        rtt[:, 0], rtt[:, :4].mean(1), rtt.mean(1), rtt.std(1), rtt.min(1), rtt.max(1),
        rtt[:, 0] - rtt[:, :4].mean(1),
        wait[:, 0], wait[:, :4].mean(1), wait.max(1), np.log(np.maximum(slow[:, 0], 1e-3)),
        np.log(np.maximum(age[:, 0], 1e-3)), np.log(np.maximum(age.max(1), 1e-3)),
        known.mean(1), moment.unanswered_s / slo, np.log1p(moment.unanswered_bytes / 1e3),
        moment.timeouts / WINDOW, uplink_wait_s(moment) / slo,
        moment.slack_s / slo, moment.gap_s * objective.fps, moment.waiting,
        sure[:, 0], sure.mean(1), np.log(moment.device_slowdown), moment.soc,
        ones * np.log(slo), ones * np.log(objective.fps), moment.energy_price,
        ones * objective.byte_price, moment.server_usable,
        np.log(np.maximum(moment.mission_ratio, 1e-3)),
    ]  # fmt: skip
    low = np.array([[column.low] for column in CONTEXT])
    high = np.array([[column.high] for column in CONTEXT])
    return np.ascontiguousarray(np.clip(np.stack(columns), low, high).T)


def _clipped(rows: Sequence[Floats], columns: Sequence[Column], shape: tuple[int, ...]) -> Floats:
    """Put one array per column, broadcast to `shape`, behind each other on a new last axis."""
    out = np.empty((*shape, len(columns)))
    for index, (row, column) in enumerate(zip(rows, columns, strict=True)):
        np.clip(row, column.low, column.high, out=out[..., index])
    return out


def _filled(values: Floats, known: NDArray[np.bool_], default: float) -> Floats:
    """Replace missing entries by the newest known one of the lane, or the default."""
    newest = np.where(known.any(1), values[np.arange(len(values)), known.argmax(1)], default)
    return np.where(known, values, newest[:, None])


def _payload_rows(
    table: CandidateTable, moment: Moment, rate: Floats, delay: Floats, readings: Readings
) -> Floats:
    slo, valid = table.objective.slo_s, readings.valid
    give_up, arrivals = give_up_s(table, moment), readings.arrival_s
    lanes, newest = np.arange(len(rate)), valid.argmax(1)
    on_time = readings.share()
    recent = valid[:, :4]
    chance_4 = readings.in_time[:, :4].sum(1) / np.maximum(recent.sum(1), 1)[:, None]
    chance_4 = np.where(np.asarray(recent.any(1))[:, None], chance_4, on_time)
    last_delay = delay[lanes, newest][:, None]
    cautious = np.where(valid[:, :2], rate[:, :2], rate[lanes, newest][:, None]) * 0.6
    cautious_delay = np.repeat(last_delay, 2, 1)
    chance_low = read_link(table, moment, cautious, cautious_delay).share()
    mean_rate = _mean_rate(rate, valid, 16)
    mean_delay = (delay * valid).sum(1) / np.maximum(valid.sum(1), 1)
    low_delay = np.where(valid, delay, np.inf).min(1)
    summary = read_link(
        table, moment, np.stack([mean_rate, np.full(len(rate), 1e3)], 1),
        np.stack([mean_delay, low_delay], 1),
    )  # fmt: skip
    last_arrival = arrivals[lanes, newest]
    worst = np.where(recent[:, :, None], arrivals[:, :4], -np.inf).max(1)
    worst = np.where(np.isfinite(worst), worst, last_arrival)
    slow = moment.device_slowdown[:, None]
    server = np.where(np.isnan(moment.sample_slowdown[:, :1]), 1.0, moment.sample_slowdown[:, :1])
    rows = [
        logit(on_time), logit(chance_4), logit(chance_low),
        (give_up - last_arrival) / slo, (give_up - summary.arrival_s[:, 0]) / slo,
        (give_up - worst) / slo, readings.upload_s[lanes, newest] / slo,
        summary.upload_s[:, 0] / slo,
        np.log(table.mean_bytes / 1e3), table.ready_s * slow / slo, table.tail_s * server / slo,
        (table.fallback_s * slow + MARGIN_S) / slo,
        (give_up - summary.arrival_s[:, 1]) / slo,
        mean_uplink_over_s(table, moment, readings) * table.objective.fps,
    ]  # fmt: skip
    return _clipped(rows, PAYLOAD_COLUMNS, give_up.shape)


def _candidate_rows(
    table: CandidateTable, moment: Moment, prices: BacklogPrices, readings: Readings
) -> Floats:
    base, gain = utility_terms(table, moment, prices, readings)
    busy = table.busy_s * moment.device_slowdown[:, None] / table.objective.slo_s
    rows = [base, gain, overrun_s(table, moment) * table.objective.fps, busy, table.send_share]
    return _clipped(rows, CANDIDATE_COLUMNS, base.shape)
