"""The slow outer loop: what a joule must cost for the charge to last the mission.

The price is the dual variable of "spend no more than the charge". Multiplicative dual ascent (as in
S. R. Balseiro, H. Lu, V. Mirrokni, "Dual Mirror Descent for Online Allocation Problems", ICML 2020,
with the entropy as mirror, except that the even pace is planned anew from what is left) raises the
logarithm of the price by `gain` per share of the charge that is spent beyond the even pace:

    d ln(price) = gain * (d(used) / charge - dt / time left)

With a constant gain this integrates to a power of the charge over the time left, so nothing but
the start has to be remembered: a charge that rises, a clock that jumps and a charge that is unknown
for a while need no care. The less is left, the more a joule too many moves the price.
"""

from __future__ import annotations

import numpy as np

from adaptive_split.candidates import Floats
from adaptive_split.errors import ConfigError

GAIN = 60.0
"""Rise of the logarithm of the price; picked on validation recordings among 3 to 160."""
RESERVE_SOC = 0.01
"""The loop aims at this state of charge at the end: half of the 2 % that may be missed."""
MAX_PRICE = 10.0
"""In 1/J. From about 8 on no controller seen spends less; far beyond, some spend more."""
LEAST_START = 0.05
"""Least price that a mission starts from, in 1/J: nothing can be multiplied up from 0."""


class PriceLoop:
    """Prices of any number of devices whose missions begin at 0 on their clocks.

    `price = start * (ratio at the start / ratio) ** GAIN`, at most `MAX_PRICE`, where `ratio` is
    the state of charge above the reserve over the share of the mission's time that is left, and
    `start` the objective's price. A ratio that stays what it was is the even pace.
    """

    def __init__(self, mission_s: float, energy_price: float) -> None:
        """Plan a mission.

        Args:
            mission_s: How long the charge must last.
            energy_price: The objective's, in 1/J: the price at the start, and also where the
                charge is unknown or the mission over.
        """
        if not mission_s > 0:
            raise ConfigError(f"mission_s must be positive, in seconds; got {mission_s!r}")
        self.mission_s, self.energy_price = mission_s, energy_price
        self.reset()

    def reset(self) -> None:
        """Forget the start of the mission."""
        self._first_ratio: Floats = np.full(1, np.nan)

    def begin(self, soc: Floats, now_s: Floats) -> None:
        """Take the charge and the time left as the start, of devices that have none yet.

        Args:
            soc: State of charge in [0, 1], `nan` where nobody knows it, shape `(L,)`.
            now_s: Time since the start of the mission, shape `(L,)`.
        """
        if np.isnan(self._first_ratio).any():
            ratio = self._ratio(soc, now_s)
            self._first_ratio = np.where(np.isnan(self._first_ratio), ratio, self._first_ratio)

    def price(self, soc: Floats, now_s: Floats) -> Floats:
        """Price of a joule, in 1/J, in `[0, MAX_PRICE]`; arguments as for `begin`, `(L,)`."""
        start = max(self.energy_price, LEAST_START)
        gap = np.log(self._first_ratio / self._ratio(soc, now_s))
        price = start * np.exp(np.minimum(GAIN * gap, 100.0))
        return np.where(np.isnan(price), self.energy_price, np.minimum(price, MAX_PRICE))

    def time_left(self, now_s: Floats) -> Floats:
        """Share of the mission's time that is left, 0 when it is over, shape `(L,)`."""
        return np.asarray(np.clip(1 - now_s / self.mission_s, 0.0, 1.0))

    def _ratio(self, soc: Floats, now_s: Floats) -> Floats:
        left = self.time_left(now_s)
        usable = np.maximum(soc - RESERVE_SOC, 1e-6)
        return np.asarray(np.where(left > 0, usable / np.maximum(left, 1e-6), np.nan))
