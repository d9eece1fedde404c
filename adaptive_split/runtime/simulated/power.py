"""What computing does to the devices of a simulator: an emptying battery, and heat."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from adaptive_split.candidates import Floats
from adaptive_split.runtime.simulated.step import copy_lanes
from adaptive_split.scenario import Battery, Thermal


class Charge:
    """The batteries of all lanes.

    Attributes:
        used_j: Energy that frames have taken, shape `(L,)`.
    """

    def __init__(self, spec: Battery, lanes: int, mission_s: float) -> None:
        self.spec, self.mission_s = spec, mission_s
        self.used_j = np.zeros(lanes)

    def copy_lanes(self, lanes: NDArray[np.int64], other: Charge) -> None:
        """Put some lanes into the state of another batch, which has as many lanes."""
        copy_lanes(self, other, lanes, ("used_j",))

    def soc(self, now_s: Floats) -> Floats:
        """State of charge at a moment, in [0, 1], shape `(L,)`."""
        used_j = self.used_j + self.spec.idle_w * now_s
        return np.maximum(self.spec.start_soc - used_j / self.spec.capacity_j, 0.0)

    def mission_ratio(self, now_s: Floats) -> Floats:
        """State of charge over the share of the stream's time that is left, shape `(L,)`."""
        return self.soc(now_s) / np.maximum(1 - now_s / self.mission_s, 1e-3)


class Heat:
    """The temperatures of all lanes: one thermal resistance and one capacity.

    Between two looks the power is taken as constant at its mean, so the temperature goes
    exponentially towards `ambient_c + resistance_c_per_w * power` (Newton's law of cooling). The
    device draws its computing power while it is busy, throttled or not, and none while it rests.

    Attributes:
        busy_s: Computing time since the last look, shape `(L,)`.
    """

    _STATE = ("busy_s", "_looked_s", "_temperature_c", "_throttles")

    def __init__(self, spec: Thermal, lanes: int, compute_w: float) -> None:
        self.spec, self.compute_w = spec, compute_w
        self.busy_s, self._looked_s = np.zeros((2, lanes))
        self._temperature_c = np.full(lanes, spec.ambient_c)
        self._throttles = np.zeros(lanes, bool)

    def copy_lanes(self, lanes: NDArray[np.int64], other: Heat) -> None:
        """Put some lanes into the state of another batch, which has as many lanes."""
        copy_lanes(self, other, lanes, self._STATE)

    def throttling(self, now_s: Floats) -> Floats:
        """Look at the temperature; the factor on the device's times from now on, `(L,)`."""
        spec, elapsed_s = self.spec, now_s - self._looked_s
        power_w = self.compute_w * self.busy_s / np.maximum(elapsed_s, 1e-9)
        settled_c = spec.ambient_c + spec.resistance_c_per_w * power_w
        kept = np.exp(-elapsed_s / spec.time_constant_s)
        self._temperature_c = settled_c + (self._temperature_c - settled_c) * kept
        hot = self._temperature_c > spec.throttle_at_c
        self._throttles = hot | (self._throttles & (self._temperature_c >= spec.resume_below_c))
        self._looked_s, self.busy_s = now_s.copy(), np.zeros(len(now_s))
        return np.where(self._throttles, spec.slowdown, 1.0)
