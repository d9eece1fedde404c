"""Load of a shared edge server: a recorded arrival process replayed into a FIFO queue.

The arrivals are those of two production inference services (Azure, 2023, CC BY 4.0; see
`data/server/NOTICE`); the tokens that each request generated stand for its work.
"""

from __future__ import annotations

import csv
import functools
import gzip
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adaptive_split.errors import ConfigError

SERVICES = ("conv", "code")
"""Recorded services: `conv` is steady, `code` bursty."""

_FOLDER = Path(__file__).parent / "data" / "server"
_CLIP_PERCENTILE = 95


@functools.cache
def _recorded(service: str) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Times in seconds and work of mean 1 of the recorded requests, and the record's length."""
    if service not in SERVICES:
        raise ConfigError(f"service must be one of {SERVICES}; got {service!r}")
    path = _FOLDER / f"azure_llm2023_{service}.csv.gz"
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))[1:]
    time_s, tokens = np.array(rows, np.float64).T
    work = np.minimum(tokens, np.percentile(tokens, _CLIP_PERCENTILE))
    # The gap between the last request and the first of the next round is a mean gap.
    length_s = float(time_s[-1] * len(time_s) / (len(time_s) - 1))
    return time_s, work / work.mean(), length_s


def arrivals(
    seed: int,
    duration_s: float,
    utilization: float,
    speedup: float = 8.0,
    service: str = "conv",
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Requests of other users, from a random moment of the record on, repeated cyclically.

    Args:
        seed: Picks the moment; equal seeds give equal arrivals.
        duration_s: How long, in seconds.
        utilization: Mean share of the server's time they take over the whole record, in [0, 1); a
            window of it may take more or less.
        speedup: By how much time is compressed; more = more and shorter requests.
        service: One of `SERVICES`.

    Returns:
        `(time_s, work_s)`: ascending times in `[0, duration_s)`, and the server seconds of each.

    Raises:
        ConfigError: If an argument is out of range.
    """
    if not 0 <= utilization < 1:
        raise ConfigError(f"utilization must be a share in [0, 1); got {utilization!r}")
    for name, value in (("duration_s", duration_s), ("speedup", speedup)):
        if not (math.isfinite(value) and value > 0):
            raise ConfigError(f"{name} must be positive; got {value!r}")
    recorded_s, work, length_s = _recorded(service)
    offset_s = float(np.random.default_rng(seed).uniform(0, length_s))
    rounds = math.ceil(duration_s * speedup / length_s) + 1
    time_s = (recorded_s + length_s * np.arange(rounds)[:, None]).ravel() - offset_s
    keep = (time_s >= 0) & (time_s < duration_s * speedup)
    work_s = np.tile(work, rounds) * utilization * length_s / len(work) / speedup
    return time_s[keep] / speedup, work_s[keep]


def server_wait(
    seed: int,
    duration_s: float,
    utilization: float,
    speedup: float = 8.0,
    period_s: float = 0.01,
    service: str = "conv",
) -> NDArray[np.float64]:
    """How long a request would wait before a FIFO server fed by `arrivals` begins it.

    The virtual waiting time, that is the unfinished work: it jumps by the work of every arrival and
    falls by one second each second. The server starts empty.

    Args:
        seed: As for `arrivals`.
        duration_s: As for `arrivals`.
        utilization: As for `arrivals`.
        speedup: As for `arrivals`.
        period_s: Period of the grid, in seconds.
        service: As for `arrivals`.

    Returns:
        Seconds at `0, period_s, 2 * period_s, ...` before `duration_s`, shape `(T,)`; an arrival at
        a moment of the grid is counted.
    """
    if not 0 < period_s <= duration_s:
        raise ConfigError(f"period_s must be in (0, {duration_s!r}] s; got {period_s!r}")
    time_s, work_s = arrivals(seed, duration_s, utilization, speedup, service)
    grid_s = np.arange(math.ceil(duration_s / period_s - 1e-9)) * period_s
    # Lindley's recursion in closed form: after arrival n the server is free at
    # max over m <= n of (time of m + work of m..n).
    total_s = np.cumsum(work_s)
    free_s = total_s + np.maximum.accumulate(time_s - (total_s - work_s))
    last = np.searchsorted(time_s, grid_s, side="right") - 1
    if len(time_s) == 0:
        return np.zeros(len(grid_s))
    return np.where(last >= 0, np.maximum(free_s[np.maximum(last, 0)] - grid_s, 0.0), 0.0)
