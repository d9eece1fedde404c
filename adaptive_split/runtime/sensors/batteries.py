"""Which battery a machine has, as a command line names it, read where it blocks no frame."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Protocol

from adaptive_split.clock import Clock
from adaptive_split.errors import ConfigError
from adaptive_split.runtime.sensors.background import Background
from adaptive_split.runtime.sensors.battery import Battery, SystemBattery
from adaptive_split.runtime.sensors.counted import CountedBattery
from adaptive_split.runtime.sensors.energy import find_energy_meter
from adaptive_split.runtime.sensors.nut import PORT, NutBattery

SYSTEM = "system"
FORMS = f"{SYSTEM}, nut:NAME[@HOST[:PORT]] or counted:WATTHOURS:FILE"
_NUT = re.compile(r"nut:([^@:]+)(?:@(\[[^\]]+\]|[^:]+)(?::(\d{1,5}))?)?")
_COUNTED = re.compile(r"counted:([0-9.]+)(?:Wh)?:(.+)")

POLL_S = 5.0
STALE_S = 60.0
"""A charge that nobody could read for so long is unknown."""
_FIRST_S = 3.0


class BatterySource(Battery, Protocol):
    """A battery that a device runs from."""

    source: str
    """Who tells the charge, for a person."""


class PolledBattery:
    """A battery whose sensor may be slow: it is read every few seconds, on a thread of its own."""

    def __init__(self, battery: BatterySource, *, clock: Clock | None = None) -> None:
        """Read it once, or begin to; then again and again."""
        self.source, self._battery = battery.source, battery
        self._reading = Background(battery.soc, POLL_S, clock=clock)
        self._reading.wait(_FIRST_S)

    def soc(self) -> float | None:
        """State of charge in [0, 1] as last read; `None` when unknown."""
        soc, age_s = self._reading.last()
        return soc if age_s < STALE_S else None

    def drain(self, energy_j: float) -> None:
        """Leave the count to who measures it."""
        self._battery.drain(energy_j)

    def close(self) -> None:
        """Read no more."""
        self._reading.close()
        self._battery.close()


def open_battery(spec: str, root: Path = Path("/")) -> BatterySource:
    """The battery that a command line names, not polled yet.

    Raises:
        ConfigError: If there is no such source, or no meter to count with.
    """
    if spec == SYSTEM:
        return SystemBattery(root)
    if found := _NUT.fullmatch(spec):
        name, host, port = found.groups()
        return NutBattery(name, (host or "localhost").strip("[]"), int(port or PORT))
    if found := _COUNTED.fullmatch(spec):
        return _counted(found[1], Path(found[2]), root)
    raise ConfigError(f"a battery must be {FORMS}; got {spec!r}")


def _counted(watt_hours: str, file: Path, root: Path) -> CountedBattery:
    try:
        capacity_j = 3600 * float(watt_hours)
    except ValueError as error:
        raise ConfigError(f"watt-hours must be a number; got {watt_hours!r}") from error
    meter = find_energy_meter(root)
    if meter is None:
        raise ConfigError(
            "a counted battery must have a power meter; got none on this machine; model one with a "
            "[battery] section in the scenario"
        )
    try:
        return CountedBattery(capacity_j, file, meter)
    except BaseException:
        meter.close()
        raise
