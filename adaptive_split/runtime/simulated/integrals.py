"""Rates of many lanes over time, integrated: how much until when, and when so much."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from adaptive_split.candidates import Floats


class Integrals:
    """Integrals of step functions, one per lane, all on one grid."""

    def __init__(self, rate: Floats, period_s: float) -> None:
        """Take what a unit of time brings in every slot of `period_s`, shape `(L, T)`, from 0."""
        self._rate, self._period_s, self._slots = rate, period_s, rate.shape[1]
        zeros = np.zeros((len(rate), 1))
        steps = np.concatenate([zeros, np.cumsum(rate * period_s, 1)], 1)
        # One search over all lanes: lane i's sums are shifted above lane i - 1's.
        self._shift = np.concatenate([[0.0], np.cumsum(steps[:, -1] + 1.0)[:-1]])
        self._shifted = (steps + self._shift[:, None]).ravel()
        self._total, self._cumulative = steps[:, -1], steps.ravel()

    def until(self, lane: NDArray[np.int64], moment_s: Floats) -> Floats:
        """The sum from the start to a moment."""
        slot = np.clip((moment_s / self._period_s).astype(int), 0, self._slots - 1)
        inside = np.minimum(moment_s - slot * self._period_s, self._period_s)
        at = lane * self._slots + slot
        return np.asarray(self._cumulative.take(at + lane) + self._rate.ravel().take(at) * inside)

    def reached(self, lane: NDArray[np.int64], begin_s: Floats, amount: Floats) -> Floats:
        """When `amount` has come since `begin_s`; `inf` past the end."""
        target = self.until(lane, begin_s) + amount
        beyond = target >= self._total.take(lane)
        position = np.searchsorted(self._shifted, target + self._shift.take(lane), side="left")
        first = lane * self._slots
        slot = np.clip(position - first - lane - 1, 0, self._slots - 1)
        rest = target - self._cumulative.take(first + lane + slot)
        rate = self._rate.ravel().take(first + slot)
        done = slot * self._period_s + rest / np.maximum(rate, 1e-9)
        return np.where(beyond, np.inf, np.maximum(done, begin_s))


def played(values: Floats, lane: NDArray[np.int64], moment_s: Floats, period_s: float) -> Floats:
    """What a lane's row, `(L, T)`, holds at a moment; its ends last for ever."""
    slots = values.shape[1]
    slot = np.clip(np.minimum(moment_s / period_s, slots).astype(int), 0, slots - 1)
    return np.asarray(values.ravel().take(lane * slots + slot))
