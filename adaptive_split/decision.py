"""What is decided for a frame, and the finite grid of valid decisions (the candidates)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from adaptive_split.errors import ConfigError

BITS = (1, 2, 4, 8)
"""Widths of the quantizer; at split point 0 the rungs of the image codec, coarse to fine."""

NEVER = 1.0
"""The exit threshold at which no exit answers."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What the controller chose for one frame."""

    split_point: int
    """0 = send the compressed picture, k = send the feature after stage k, S = stay local."""

    exit_threshold: float
    """Confidence in [0, 1] from which an exit on the device answers; 1 = none does."""

    bits: int
    """Width of one code sent, one of `BITS`; 0 when nothing can be sent."""


@dataclass(frozen=True)
class DecisionGrid:
    """The valid decisions of a model with `num_stages` stages.

    Candidates are ordered by split point, then bits, then threshold: the compressed picture
    first, local decisions last. A payload is a pair (split point, bits) that can be sent.
    """

    num_stages: int
    thresholds: tuple[float, ...] = (0.35, 0.5, 0.65, 0.8, NEVER)
    bits: tuple[int, ...] = BITS

    def __post_init__(self) -> None:
        """Refuse a grid that holds no valid or too many decisions."""
        if self.num_stages < 2:
            raise ConfigError(f"num_stages must be at least 2; got {self.num_stages!r}")
        if not self.thresholds or sorted(set(self.thresholds)) != list(self.thresholds):
            raise ConfigError(f"thresholds must rise strictly; got {self.thresholds!r}")
        if not all(0 < value <= NEVER for value in self.thresholds):
            raise ConfigError(f"each threshold must lie in (0, 1]; got {self.thresholds!r}")
        if not self.bits or any(value not in BITS for value in self.bits):
            raise ConfigError(f"bits must be chosen from {BITS}; got {self.bits!r}")
        if len(self) > 256:
            raise ConfigError(f"a grid must hold at most 256 candidates; got {len(self)}")

    @cached_property
    def candidates(self) -> tuple[Decision, ...]:
        """All valid decisions, in the order of their index."""
        pictures = [Decision(0, NEVER, bits) for bits in self.bits]
        inner = [
            Decision(split_point, threshold, bits)
            for split_point in range(1, self.num_stages)
            for bits in self.bits
            for threshold in self.thresholds
        ]
        local = [Decision(self.num_stages, threshold, 0) for threshold in self.thresholds]
        return (*pictures, *inner, *local)

    @cached_property
    def payloads(self) -> tuple[tuple[int, int], ...]:
        """The pairs `(split_point, bits)` that can be sent, in the order of their index."""
        return tuple((split, bits) for split in range(self.num_stages) for bits in self.bits)

    @cached_property
    def split_point(self) -> NDArray[np.int64]:
        """Split point of every candidate, shape `(N,)`."""
        return np.array([candidate.split_point for candidate in self.candidates])

    @cached_property
    def exit_threshold(self) -> NDArray[np.float64]:
        """Exit threshold of every candidate, shape `(N,)`."""
        return np.array([candidate.exit_threshold for candidate in self.candidates])

    @cached_property
    def payload_index(self) -> NDArray[np.int64]:
        """Index of the payload each candidate sends, shape `(N,)`; -1 where it stays local."""
        index = {payload: position for position, payload in enumerate(self.payloads)}
        return np.array([index.get((c.split_point, c.bits), -1) for c in self.candidates])

    @cached_property
    def local(self) -> NDArray[np.bool_]:
        """Mask of the candidates that never send, shape `(N,)`."""
        return self.payload_index < 0

    def __len__(self) -> int:
        """Count the candidates, N."""
        rungs, levels = len(self.bits), len(self.thresholds)
        return rungs + (self.num_stages - 1) * rungs * levels + levels

    def index(self, decision: Decision) -> int:
        """Find a decision's index; raise `ConfigError` when it is not on the grid."""
        try:
            return self.candidates.index(decision)
        except ValueError:
            raise ConfigError(f"a decision must lie on the grid; got {decision!r}") from None

    def from_action(self, action: NDArray[np.floating]) -> int:
        """Map an action in `[-1, 1]^3` (split point, threshold, bits) to the nearest candidate."""
        unit = (np.clip(np.asarray(action, float), -1, 1) + 1) / 2
        split_point = round(float(unit[0]) * self.num_stages)
        threshold = self.thresholds[round(float(unit[1]) * (len(self.thresholds) - 1))]
        bits = self.bits[round(float(unit[2]) * (len(self.bits) - 1))]
        if split_point == 0:
            threshold = NEVER
        if split_point == self.num_stages:
            bits = 0
        return self.index(Decision(split_point, threshold, bits))

    def to_action(self, index: int) -> NDArray[np.float32]:
        """Give the action in `[-1, 1]^3` that maps back to a candidate."""
        chosen = self.candidates[index]
        rung = self.bits.index(chosen.bits) if chosen.bits else 0
        threshold = chosen.exit_threshold
        level = self.thresholds.index(threshold) if threshold in self.thresholds else 0
        unit = (
            chosen.split_point / self.num_stages,
            level / max(len(self.thresholds) - 1, 1),
            rung / max(len(self.bits) - 1, 1),
        )
        return (2 * np.array(unit) - 1).astype(np.float32)
