"""Temperatures that make the confidence of an exit honest, and how honest it is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from adaptive_split.runtime.measure import Measured


def fit_temperature(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    """Find the temperature in [0.2, 5] of least negative log-likelihood (arXiv 1706.04599).

    The loss is convex in 1 / temperature, so a ternary search finds its least value.

    Args:
        logits: Shape `(M, C)`.
        labels: Class indices, shape `(M,)`.
    """
    low, high = 0.2, 5.0
    for _ in range(60):
        left, right = low + (high - low) / 3, high - (high - low) / 3
        if _loss(logits * left, labels) < _loss(logits * right, labels):
            high = right
        else:
            low = left
    return 2 / (low + high)


def calibration_error(
    logits: NDArray[np.floating], labels: NDArray[np.int64], num_bins: int = 15
) -> float:
    """Expected calibration error: |accuracy - largest probability| over equal-width bins."""
    probability = np.exp(_log_softmax(logits))
    return probability_error(probability.max(1), probability.argmax(1) == labels, num_bins)


def probability_error(
    probability: NDArray[np.floating], right: NDArray[np.bool_], num_bins: int = 15
) -> float:
    """Expected calibration error from what the class answered was given, and whether it is right.

    Args:
        probability: Shape `(M,)`, in [0, 1].
        right: Shape `(M,)`.
        num_bins: How many bins of equal width.
    """
    bins = np.minimum((probability * num_bins).astype(int), num_bins - 1)
    gap = np.bincount(bins, probability, num_bins) - np.bincount(bins, right, num_bins)
    return float(np.abs(gap).sum() / len(right))


def exit_errors(measured: Measured) -> tuple[list[float], list[float]]:
    """Expected calibration error of every exit without its temperature, and with it."""
    right = measured.outcomes.exit_right
    before, after = (
        [probability_error(probability[:, k], right[:, k]) for k in range(right.shape[1])]
        for probability in (measured.plain_probability, measured.exit_probability)
    )
    return before, after


def _loss(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    return float(-_log_softmax(logits)[np.arange(len(labels)), labels].mean())


def _log_softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    shifted = np.asarray(logits, np.float64)
    shifted = shifted - shifted.max(1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)))
