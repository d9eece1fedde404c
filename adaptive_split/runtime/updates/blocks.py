"""Differences of means over frames that follow one another, with intervals.

Frames near one another are alike, so frames are not counted as independent: means over blocks of
them are (the method of batch means, e.g. A. M. Law, "Simulation Modeling and Analysis", 9.5.3).
Two sets of block means are compared as B. L. Welch does, "The generalization of 'Student's' problem
when several different population variances are involved", Biometrika 34 (1947), 28-35.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
FEWEST_BLOCKS = 4
"""Below that an interval says nothing."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference of two means, and an interval around it."""

    value: float
    low: float
    high: float


def block_means(values: Floats, size: int) -> Floats:
    """Means of whole blocks of `size` values in a row, unknown values (`nan`) left out."""
    blocks = values[: len(values) // size * size].reshape(-1, size)
    known = ~np.isnan(blocks)
    count = known.sum(1)
    return np.asarray(np.where(known, blocks, 0.0).sum(1)[count > 0] / count[count > 0])


def difference(after: Floats, before: Floats, level: float = 0.95) -> Difference | None:
    """The mean of one set of block means less that of another.

    Args:
        after: Block means, shape `(n,)`.
        before: Block means, shape `(m,)`.
        level: Share of such intervals that hold the true difference.

    Returns:
        None where one side has fewer than `FEWEST_BLOCKS`.
    """
    if min(len(after), len(before)) < FEWEST_BLOCKS:
        return None
    parts = [side.var(ddof=1) / len(side) for side in (after, before)]
    value, variance = float(after.mean() - before.mean()), float(sum(parts))
    if variance == 0:
        return Difference(value, value, value)
    # Welch's degrees of freedom, his equation (28) as Satterthwaite has it.
    below = sum(
        part**2 / (len(side) - 1) for part, side in zip(parts, (after, before), strict=True)
    )
    half = student(0.5 + level / 2, variance**2 / float(below)) * variance**0.5
    return Difference(value, value - half, value + half)


def student(share: float, degrees: float) -> float:
    """Quantile of Student's t: M. Abramowitz, I. Stegun, "Handbook", 26.7.5, within 2 % from 3 on.

    Args:
        share: In (0.5, 1).
        degrees: Degrees of freedom, 3 or more.
    """
    z = NormalDist().inv_cdf(share)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / degrees ** (power + 1) for power, term in enumerate(terms))
