"""The charge as Linux' power_supply class tells it; psutil knows some of its names only."""

from __future__ import annotations

from pathlib import Path

from adaptive_split.runtime.sensors.files import line_of

_SUPPLIES = "sys/class/power_supply/*"
_COUNTERS = (("energy_now", "energy_full"), ("charge_now", "charge_full"))


def supply_soc(root: Path = Path("/")) -> float | None:
    """Mean state of charge of the batteries that power this machine, in [0, 1]; `None` without.

    A mouse has a battery too, of scope `Device`; a USB-C port is a supply, and none.
    """
    shares = [_share(folder) for folder in sorted(root.glob(_SUPPLIES)) if _is_battery(folder)]
    known = [share for share in shares if share is not None]
    return sum(known) / len(known) if known else None


def _is_battery(folder: Path) -> bool:
    return line_of(folder / "type") == "Battery" and line_of(folder / "scope") != "Device"


def _share(folder: Path) -> float | None:
    """By `capacity`, in percent, else by what is left of what fits in."""
    try:
        return min(max(int(line_of(folder / "capacity")) / 100, 0.0), 1.0)
    except ValueError:
        pass
    for now, full in _COUNTERS:
        try:
            share = int(line_of(folder / now)) / int(line_of(folder / full))
        except (ValueError, ZeroDivisionError):
            continue
        return min(max(share, 0.0), 1.0)
    return None
