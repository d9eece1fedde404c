"""How hot this machine is."""

from __future__ import annotations

import re
from pathlib import Path

from adaptive_split.runtime.sensors.files import line_of
from adaptive_split.runtime.sensors.reading import Reading, measured, unavailable

_ZONES = "sys/class/thermal/thermal_zone*"
_HOTTEST_C = 150.0
_FALSE_ZONES = ("pmic",)
"""A Jetson's PMIC tells 100 degrees, or 50, whatever its temperature is."""


def temperatures(root: Path = Path("/")) -> dict[str, Reading]:
    """Every thermal zone that answers, by name, in degrees Celsius.

    A block that is switched off answers with an error, and is left out.
    """
    found: dict[str, Reading] = {}
    for zone in sorted(root.glob(_ZONES)):
        name, told = line_of(zone / "type"), line_of(zone / "temp")
        if not re.fullmatch(r"-?\d+", told):
            continue
        celsius = int(told) / 1000
        false = any(word in name.lower() for word in _FALSE_ZONES)
        if not false and -_HOTTEST_C < celsius < _HOTTEST_C:
            found[name] = measured(celsius, "C", f"thermal zone {name}")
    return found


def hottest(root: Path = Path("/")) -> Reading:
    """The hottest zone."""
    zones = temperatures(root).values()
    if not zones:
        return unavailable("C", "no thermal zone answers")
    return max(zones, key=lambda zone: zone.value or 0.0)
