"""Single numbers for the link, as rivals read them from the last finished requests."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from adaptive_split.candidates import Floats
from adaptive_split.planner import Moment, link_pairs

EWMA_WEIGHT = 0.3
"""Weight of the newest sample that the planner and the threshold rules use."""
SLOWEST_MBPS = 1e-3


def mean_link(moment: Moment, newest_weight: float | Floats) -> tuple[Floats, Floats]:
    """Exponentially weighted means of rate and delay.

    Args:
        moment: The state of L lanes.
        newest_weight: Weight of the newest sample, in (0, 1); or a column `(L, 1)`.

    Returns:
        `(rate in Mbit/s, round trip + server wait in s)`, each `(L, 1)`.
    """
    rate, delay, valid = link_pairs(moment)
    weight = newest_weight * (1 - np.asarray(newest_weight)) ** np.arange(rate.shape[1]) * valid
    weight = weight / weight.sum(1, keepdims=True)
    return (rate * weight).sum(1, keepdims=True), (delay * weight).sum(1, keepdims=True)


def harmonic_link(moment: Moment, rate_window: int, rtt_window: int) -> tuple[Floats, Floats]:
    """Harmonic mean of recent rates, which rare fast samples do not lift, and mean delay.

    Returns:
        `(rate in Mbit/s, round trip + server wait in s)`, each `(L, 1)`.
    """
    rate, delay, valid = link_pairs(moment)
    near = valid[:, :rtt_window]
    count = np.maximum(near.sum(1, keepdims=True), 1)
    mean_delay = (delay[:, :rtt_window] * near).sum(1, keepdims=True) / count
    return harmonic_mean(rate[:, :rate_window], valid[:, :rate_window]), mean_delay


def pessimistic_rate(moment: Moment, rate_window: int, error_window: int) -> Floats:
    """Harmonic mean rate over 1 + the largest relative error of its recent forecasts, `(L, 1)`.

    RobustMPC's lower bound, `C / (1 + max error)` (Yin et al., SIGCOMM 2015, section 5): the
    forecast of each of the newest `error_window` samples is the harmonic mean of the
    `rate_window` samples before it.
    """
    rate, _, valid = link_pairs(moment)
    worst = np.zeros((len(rate), 1))
    for position in range(error_window):
        older = slice(position + 1, position + 1 + rate_window)
        forecast = harmonic_mean(rate[:, older], valid[:, older])
        seen = np.maximum(rate[:, position : position + 1], SLOWEST_MBPS)
        known = valid[:, position : position + 1] & valid[:, older].any(1, keepdims=True)
        worst = np.maximum(worst, np.where(known, np.abs(forecast - seen) / seen, 0.0))
    return harmonic_mean(rate[:, :rate_window], valid[:, :rate_window]) / (1 + worst)


def harmonic_mean(rate_mbps: Floats, valid: NDArray[np.bool_]) -> Floats:
    """Harmonic mean of the valid entries of every row, `(L, 1)`; of all where none is valid."""
    counts = valid | ~valid.any(1, keepdims=True)
    inverse = counts / np.maximum(rate_mbps, SLOWEST_MBPS)
    return np.asarray(counts.sum(1, keepdims=True) / inverse.sum(1, keepdims=True))
