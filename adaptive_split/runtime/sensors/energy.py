"""Joules that the machine has counted itself, where it has counters that we may read."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from adaptive_split.runtime.sensors.power import SampledMeter, find_power
from adaptive_split.runtime.sensors.zeus_meter import find_zeus

_ZONES = "sys/class/powercap"


class EnergyMeter(Protocol):
    """A counter of joules; only differences mean anything."""

    source: str
    """What is counted, for a person."""
    with_carrier: bool
    """Whether that holds the carrier board, and so a modem on it."""

    def energy_j(self) -> float:
        """Joules since the meter was made.

        Raises:
            OSError: If the counter cannot be read any more.
        """
        ...

    def close(self) -> None:
        """Count no more."""
        ...


class RaplMeter:
    """The processor packages of an x86 machine, as Linux' powercap counts them.

    The kernel's counters, in microjoules, start again at `max_energy_range_uj`, after about an
    hour at 60 W: read more often than that.
    """

    with_carrier = False

    def __init__(self, zones: tuple[Path, ...]) -> None:
        self.source = f"RAPL, {len(zones)} processor package(s) without memory and rails"
        self._zones = zones
        self._ranges = [_count(zone / "max_energy_range_uj") for zone in zones]
        self._before = [_count(zone / "energy_uj") for zone in zones]
        self._total_uj = 0

    def energy_j(self) -> float:
        """Joules since the meter was made."""
        now = [_count(zone / "energy_uj") for zone in self._zones]
        for before, after, size in zip(self._before, now, self._ranges, strict=True):
            self._total_uj += after - before + (size if after < before else 0)
        self._before = now
        return self._total_uj / 1e6

    def close(self) -> None:
        """Leave the kernel's counters running."""


def find_energy_meter(root: Path = Path("/")) -> EnergyMeter | None:
    """The meter of this machine: Jetson's rails, RAPL, or Zeus; none where none can be read.

    Whoever takes it closes it.
    """
    power = find_power(root)
    if power is not None:
        return SampledMeter(power)
    return _rapl(root) or (find_zeus() if root == Path("/") else None)


def _rapl(root: Path) -> RaplMeter | None:
    """The packages' counters, unless they are kept to the superuser."""
    zones = sorted((root / _ZONES).glob("intel-rapl:*"))
    packages = tuple(zone for zone in zones if zone.name.count(":") == 1)
    if not packages:
        return None
    try:
        return RaplMeter(packages)
    except (OSError, ValueError):
        return None


def _count(file: Path) -> int:
    return int(file.read_text(encoding="utf-8"))
