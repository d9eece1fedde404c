"""How full the battery is: as the system says, or as counted from a model's joules."""

from __future__ import annotations

import logging
import math
import threading
from typing import Protocol

import psutil

from adaptive_split.clock import Clock, MonotonicClock
from adaptive_split.errors import ConfigError

_log = logging.getLogger(__name__)


class Battery(Protocol):
    """A state of charge, or the honest answer that nobody knows it."""

    def soc(self) -> float | None:
        """State of charge in [0, 1]; `None` when unknown."""
        ...

    def drain(self, energy_j: float) -> None:
        """Note energy that the device drew."""
        ...


class SystemBattery:
    """The battery that the operating system reports; a Jetson's barrel jack has none.

    One that vanishes is unknown from then on, which is logged once, and known when it is back.
    """

    def __init__(self) -> None:
        self._seen = self._told = False

    def soc(self) -> float | None:
        """State of charge in [0, 1]; `None` without a battery."""
        # psutil leaves the function out where the platform cannot tell.
        read = getattr(psutil, "sensors_battery", None)
        try:
            found = read() if read else None
        except (OSError, ValueError, ArithmeticError, psutil.Error) as error:
            _log.debug("battery: %s", error)  # its files go one after the other
            found = None
        charge = math.nan if found is None else found.percent / 100
        known = math.isfinite(charge)
        if self._seen and not known and not self._told:
            _log.warning("the battery must tell its charge; got nothing from now on")
            self._told = True
        self._seen = self._seen or known
        return min(max(charge, 0.0), 1.0) if known else None

    def drain(self, energy_j: float) -> None:
        """Leave the count to the system."""


class ModelledBattery:
    """Counts joules down from a capacity; safe to use from several threads.

    Beside what is drained it gives a power that a resting device takes, `idle_w`, from now on.
    """

    def __init__(
        self,
        capacity_j: float,
        soc: float = 1.0,
        *,
        idle_w: float = 0.0,
        clock: Clock | None = None,
    ) -> None:
        if not capacity_j > 0:
            raise ConfigError(f"capacity_j must be positive, in joules; got {capacity_j!r}")
        if not 0 <= soc <= 1:
            raise ConfigError(f"soc must lie in [0, 1]; got {soc!r}")
        self._capacity_j, self._left_j = capacity_j, capacity_j * soc
        self._idle_w, self._clock = idle_w, clock or MonotonicClock()
        self._began_s = self._clock.now_s()
        self._lock = threading.Lock()

    def soc(self) -> float | None:
        """State of charge in [0, 1]."""
        idle_j = self._idle_w * (self._clock.now_s() - self._began_s)
        return max(self._left_j - idle_j, 0.0) / self._capacity_j

    def drain(self, energy_j: float) -> None:
        """Take energy out."""
        with self._lock:
            self._left_j -= energy_j
