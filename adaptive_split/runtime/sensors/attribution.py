"""How much of a machine's energy each kind of work took: a regression over windows of seconds.

A meter on the supply sees a frame of some milliseconds as noise, and what rests draws beside it.
So energy is taken over windows, and `energy / duration = rest + sum(watts * busy / duration)` is
solved by least squares over them: one power for the machine at rest and one, above that, for every
kind of work. A power below 0 cannot be: its kind is left out and the others solved again, the
largest violation first (a greedy form of the active sets in C. L. Lawson and R. J. Hanson,
"Solving Least Squares Problems", 1974, chapter 23). Kinds that always come together, as when every
frame is decided alike, share what they draw in the solution of least norm: their sum holds, their
parts need not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adaptive_split.errors import ConfigError

Floats = NDArray[np.float64]

LEAST_WINDOW_S = 1.0


@dataclass(frozen=True, slots=True)
class EnergyWindow:
    """What a machine drew and did in one span of time."""

    duration_s: float
    energy_j: float
    busy_s: tuple[float, ...]
    """Time spent on every kind of work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerFit:
    """Powers that explain windows."""

    rest_w: float
    """Of the machine without any of that work."""
    watts: tuple[float, ...]
    """Of every kind of work, above rest."""
    residual_w: float
    """Root mean square, per degree of freedom, of what they do not explain."""
    work_w: float
    """Mean power above rest that they explain."""
    num_windows: int


def fit_power(windows: Sequence[EnergyWindow]) -> PowerFit:
    """Find the powers; at least one window should be at rest, or rest and steady work are one.

    Raises:
        ConfigError: If windows are too short or fewer than the powers.
    """
    kinds = len(windows[0].busy_s) if windows else 0
    if len(windows) < kinds + 2 or min(one.duration_s for one in windows) < LEAST_WINDOW_S:
        raise ConfigError(
            f"a fit must have at least {kinds + 2} windows of {LEAST_WINDOW_S} s; "
            f"got {len(windows)}"
        )
    duration_s = np.array([one.duration_s for one in windows])
    power_w = np.array([one.energy_j for one in windows]) / duration_s
    shares = np.array([one.busy_s for one in windows]).reshape(len(windows), kinds)
    design = np.column_stack([np.ones(len(windows)), shares / duration_s[:, None]])
    solution = _not_negative(design, power_w)
    error_w = power_w - design @ solution
    spare = max(len(windows) - np.count_nonzero(solution), 1)
    return PowerFit(
        rest_w=float(solution[0]),
        watts=tuple(map(float, solution[1:])),
        residual_w=float(np.sqrt(error_w @ error_w / spare)),
        work_w=float((design[:, 1:] @ solution[1:]).mean()),
        num_windows=len(windows),
    )


def _not_negative(design: Floats, target: Floats) -> Floats:
    """Least squares without the columns that would weigh less than 0; shapes `(W, K)`, `(W,)`."""
    kept = list(range(design.shape[1]))
    while kept:
        weights = np.linalg.lstsq(design[:, kept], target, rcond=None)[0]
        if weights.min() >= 0:
            break
        kept.pop(int(weights.argmin()))
    solution = np.zeros(design.shape[1])
    solution[kept] = weights if kept else 0.0
    return solution
