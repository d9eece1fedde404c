"""95 % intervals of means over streams: a bootstrap stratified by family, clustered by trace file.

Windows of one recording are alike, so whole files are drawn again, not windows; families weigh the
same. Where a family has a single file its windows are drawn instead. All controllers share the
draws, so differences are paired.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from adaptive_split.candidates import Floats
from adaptive_split.errors import ConfigError

ROUNDS = 2000
MARKS = 1001
"""Quantiles that values are sorted into to find the percentiles of every round."""
PERCENTILES = (2.5, 97.5)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and its 95 % interval."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        """As plain numbers."""
        return {name: round(getattr(self, name), 6) for name in ("value", "low", "high")}


class Bootstrap:
    """Weights of B streams in the mean and in every round of drawing again."""

    def __init__(
        self,
        families: Sequence[str],
        files: Sequence[str],
        *,
        rounds: int = ROUNDS,
        seed: int = 0,
    ) -> None:
        """Take family and trace file of every stream.

        Raises:
            ConfigError: If there is no stream, or the lengths differ.
        """
        if not families or len(families) != len(files):
            raise ConfigError(
                f"every stream must have family and file; got {len(families)} and {len(files)}"
            )
        generator = np.random.default_rng(seed)
        family, file = np.array(families), np.array(files)
        names = np.unique(family)
        self.weights: Floats = np.zeros(len(family))
        """Of every stream in the mean, shape `(B,)`."""
        self.drawn: Floats = np.zeros((rounds, len(family)))
        """In every round, shape `(rounds, B)`."""
        for name in names:
            members = np.flatnonzero(family == name)
            clusters = [members[file[members] == one] for one in np.unique(file[members])]
            if len(clusters) == 1:
                clusters = [members[[index]] for index in range(len(members))]
            times = generator.multinomial(
                len(clusters), np.full(len(clusters), 1 / len(clusters)), rounds
            )
            for column, cluster in enumerate(clusters):
                self.drawn[:, cluster] = times[:, [column]]
            total = self.drawn[:, members].sum(1, keepdims=True)
            self.drawn[:, members] /= total * len(names)
            self.weights[members] = 1 / (len(members) * len(names))

    def estimate(self, values: Floats) -> Estimate:
        """Mean of a value per stream, shape `(B,)`, families weighing the same."""
        low, high = np.percentile(self.drawn @ values, PERCENTILES)
        return Estimate(float(self.weights @ values), float(low), float(high))

    def percentiles(self, values: Floats, wanted: Sequence[float]) -> list[Estimate | None]:
        """Percentiles of what all streams hold together; `None` where they hold nothing.

        The limits are exact to a thousandth of the values.

        Args:
            values: Shape `(B, F)`; `nan` where there is no value.
            wanted: In percent.
        """
        there = np.isfinite(values)
        everything = values[there]
        if not everything.size:
            return [None] * len(wanted)
        marks = np.unique(np.quantile(everything, np.linspace(0, 1, MARKS), method="higher"))
        counts = np.zeros((len(values), len(marks)))
        np.add.at(counts, (np.nonzero(there)[0], np.searchsorted(marks, everything)), 1)
        below = np.cumsum(self.drawn @ counts, axis=1)
        found: list[Estimate | None] = []
        for value, share in zip(np.percentile(everything, wanted), wanted, strict=True):
            # A round that draws only streams without a value says nothing.
            reached = below >= np.maximum(below[:, -1:], 1e-12) * share / 100 - 1e-12
            drawn = marks[reached.argmax(1)][reached.any(1)]
            low, high = np.percentile(drawn, PERCENTILES)
            found.append(Estimate(float(value), min(low, value), max(high, value)))
        return found

    def ratio(self, above: Floats, below: Floats) -> Estimate | None:
        """Ratio of two means; `None` unless the lower one is surely positive."""
        base = self.drawn @ below
        middle = float(self.weights @ below)
        if middle <= 0 or np.percentile(base, PERCENTILES[0]) <= 0:
            return None
        low, high = np.percentile((self.drawn @ above) / np.maximum(base, 1e-12), PERCENTILES)
        return Estimate(float(self.weights @ above) / middle, float(low), float(high))
