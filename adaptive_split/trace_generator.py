"""Synthetic traces of the fitted link families, for where the recordings cannot be shipped."""

from __future__ import annotations

import math

import numpy as np

from adaptive_split.errors import ConfigError
from adaptive_split.link_model import (
    link_process,
    sample_rate_mbps,
    sample_rtt_s,
    trace_levels,
)
from adaptive_split.trace import Trace
from adaptive_split.trace_rtt import SYNTHETIC


def generate(
    family: str, seed: int, duration_s: float = 120.0, period_s: float | None = None
) -> Trace:
    """Draw a trace of a link family.

    Rates are drawn at the period of the recordings the family was fitted to (0.5 s, 0.1 s for
    `5g-2022`) and resampled to another one. Consecutive seeds spread evenly over good and bad
    places.

    Args:
        family: `maine-cellular`, `maine-starlink` or `5g-2022`.
        seed: At least 0; equal seeds give equal traces.
        duration_s: In seconds, at least two periods.
        period_s: Period of the rows in seconds; None = that of the recordings.

    Raises:
        ConfigError: If the family is unknown, or a number out of range.
    """
    process = link_process("rate", family)
    period_s = process.period_s if period_s is None else period_s
    if seed < 0:
        raise ConfigError(f"seed must be at least 0; got {seed!r}")
    if not (math.isfinite(duration_s) and 0 < 2 * period_s <= duration_s):
        raise ConfigError(
            "duration_s must be at least two periods and period_s positive, in seconds;"
            f" got {duration_s!r} and {period_s!r}"
        )
    num_rows = max(math.ceil(duration_s / process.period_s - 1e-9), 2)
    time_s = np.arange(num_rows, dtype=np.float64) * process.period_s
    rate = sample_rate_mbps(family, seed, num_rows)
    name = f"{family}-{seed:04d}"
    trace = Trace(name, family, time_s, rate, np.zeros(num_rows), SYNTHETIC, SYNTHETIC)
    if period_s != process.period_s:
        trace = trace.resample(period_s)
    keep = max(int(duration_s / period_s + 1e-9), 2)
    level, _ = trace_levels(seed)
    time_s = trace.time_s[:keep]
    rtt_s = sample_rtt_s(family, seed, time_s, rate_level=level)
    return Trace(name, family, time_s, trace.uplink_mbps[:keep], rtt_s, SYNTHETIC, SYNTHETIC)
