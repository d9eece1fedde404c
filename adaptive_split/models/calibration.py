"""Temperatures that make the confidence of an exit honest, and how honest it is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


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
    top, right = probability.max(1), probability.argmax(1) == labels
    bins = np.minimum((top * num_bins).astype(int), num_bins - 1)
    gap = np.bincount(bins, top, num_bins) - np.bincount(bins, right, num_bins)
    return float(np.abs(gap).sum() / len(labels))


def _loss(logits: NDArray[np.floating], labels: NDArray[np.int64]) -> float:
    return float(-_log_softmax(logits)[np.arange(len(labels)), labels].mean())


def _log_softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    shifted = np.asarray(logits, np.float64)
    shifted = shifted - shifted.max(1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)))
