"""Joules that the machine has counted itself, where it has counters that we may read."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

_ZONES = "sys/class/powercap"


class EnergyMeter(Protocol):
    """A counter of joules; only differences mean anything."""

    source: str
    """What is counted, for a person."""

    def energy_j(self) -> float:
        """Joules since the meter was made.

        Raises:
            OSError: If the counter cannot be read any more.
        """
        ...


class RaplMeter:
    """The processor packages of an x86 machine, as Linux' powercap counts them.

    The kernel's counters, in microjoules, start again at `max_energy_range_uj`, after about an
    hour at 60 W: read more often than that.
    """

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


def find_energy_meter(root: Path = Path("/")) -> EnergyMeter | None:
    """The meter of this machine; none where it has none or keeps it to the superuser."""
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
