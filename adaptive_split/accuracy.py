"""How often the answers to each payload will be right on other pictures than those counted.

A few hundred pictures tell an accuracy to about two points, and whoever picks the best of twenty
such shares picks luck. Two things are known besides: how sure the answers were, and that payloads
of one network differ little.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MOST_BINS = 20
LEAST_PER_BIN = 50
"""Answers that a bin must hold for its share of right ones to mean something."""


def expected_right(
    confidence: Floats, right: NDArray[np.bool_], picture: NDArray[np.int64] | None = None
) -> Floats:
    """Chance that each answer is right, such that means over pictures hold for other pictures.

    What a confidence is worth is counted over all payloads together, in bins of equally many
    answers (histogram calibration, Zadrozny and Elkan, ICML 2001). What a payload's own record says
    beyond that counts by `variance of payloads / (variance of payloads + its own sampling
    variance)` (empirical Bayes, after Efron and Morris, JASA 70, 1975); the sampling variance is
    that of differences on the same pictures, all views of a picture being one draw.

    Args:
        confidence: Of every answer, shape `(M, P)`.
        right: Whether it was right, shape `(M, P)`.
        picture: Which picture each row is a view of, shape `(M,)`, from 0 on; none = each its own.

    Returns:
        Shape `(M, P)`; means over pictures are chances, a single one may lie just outside [0, 1].
    """
    if not confidence.size:
        return np.zeros(confidence.shape)
    worth = _worth(confidence, right)
    beyond = right - worth
    own = beyond.mean(0)
    apart = beyond - beyond.mean(1, keepdims=True)
    noise = sampling_variance(apart, np.arange(len(apart)) if picture is None else picture)
    spread = max(own.var() - noise.mean(), 0.0)
    trusted = np.divide(spread, spread + noise, out=np.zeros_like(own), where=spread + noise > 0)
    return np.asarray(worth + trusted * own)


def sampling_variance(values: Floats, cluster: NDArray[np.int64]) -> Floats:
    """Variance of the mean over rows that were drawn in clusters, `(M, P)` to `(P,)`."""
    sums = np.zeros((cluster.max() + 1, values.shape[1]))
    np.add.at(sums, cluster, values - values.mean(0))
    return np.asarray(np.square(sums).sum(0) / len(values) ** 2)


def _worth(confidence: Floats, right: NDArray[np.bool_]) -> Floats:
    """Share of right answers among those about as sure, shape `(M, P)`."""
    found = np.empty(confidence.size)
    count = min(max(confidence.size // LEAST_PER_BIN, 1), MOST_BINS)
    for alike in np.array_split(np.argsort(confidence, axis=None, kind="stable"), count):
        found[alike] = right.ravel()[alike].mean()
    return found.reshape(confidence.shape)
