"""How full the battery is: as the system says, or as counted from a model's joules."""

from __future__ import annotations

import logging
import math
import threading
from pathlib import Path
from typing import Protocol

import psutil

from adaptive_split.clock import Clock, MonotonicClock
from adaptive_split.errors import ConfigError
from adaptive_split.runtime.sensors.power_supply import supply_soc

_log = logging.getLogger(__name__)


class Battery(Protocol):
    """A state of charge, or the honest answer that nobody knows it."""

    def soc(self) -> float | None:
        """State of charge in [0, 1]; `None` when unknown."""
        ...

    def drain(self, energy_j: float) -> None:
        """Note energy that the device drew."""
        ...

    def close(self) -> None:
        """Give up what it holds."""
        ...


class SystemBattery:
    """The battery that the operating system reports; a Jetson's barrel jack has none.

    psutil is asked first, then the files of `power_supply`. One that vanishes is unknown from then
    on, which is logged once, and known when it is back.
    """

    source = "the operating system"

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
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
        charge = supply_soc(self._root) if found is None else found.percent / 100
        known = charge is not None and math.isfinite(charge)
        if self._seen and not known and not self._told:
            _log.warning("the battery must tell its charge; got nothing from now on")
            self._told = True
        self._seen = self._seen or known
        return min(max(charge, 0.0), 1.0) if known and charge is not None else None

    def drain(self, energy_j: float) -> None:
        """Leave the count to the system."""

    def close(self) -> None:
        """Nothing stays open."""


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

    def close(self) -> None:
        """Nothing stays open."""
