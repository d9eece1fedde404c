"""Power rails of a Jetson, read from the files of its INA3221 and INA238 monitors.

Two kernel interfaces, as documented in Linux' `hwmon/ina3221.rst` and `hwmon/ina238.rst` and for
JetPack 4 in NVIDIA's own driver: an `iio:device` names rails in `rail_name_N` and tells milliwatts
in `in_powerN_input`; a `hwmon` names them in `inN_label` and tells millivolts and milliamperes, and
an INA238 microwatts in `power1_input`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from adaptive_split.runtime.sensors.boards import total_of
from adaptive_split.runtime.sensors.files import line_of

_FOLDERS = (
    "sys/bus/i2c/drivers/ina*/*/iio:device*",
    "sys/bus/i2c/drivers/ina*/*/hwmon/hwmon*",
    "sys/bus/iio/devices/iio:device*",
    "sys/class/hwmon/hwmon*",
)
"""The same monitor shows up in several of them."""
_CHIPS = ("ina3221", "ina3221x", "ina238")
_NO_RAIL = ("NC", "sum of shunt voltages")
"""Labels of a channel that is not connected, and of the INA3221's seventh, which is a sum."""
_MOST_W = 1000.0


@dataclass(frozen=True, slots=True)
class Rail:
    """One supply line; a line at rest may read a little below 0."""

    name: str
    read_w: Callable[[], float]
    """Its power now.

    Raises:
        OSError: If the monitor cannot be read.
    """


class RailPower:
    """What the whole board draws, by the rails that add up to it."""

    def __init__(self, rails: Mapping[str, Rail]) -> None:
        """Take rails of a known board.

        Raises:
            ValueError: If nobody knows what they add up to.
        """
        total = total_of(rails)
        if total is None:
            raise ValueError(f"rails must be those of a known board; got {', '.join(rails)}")
        self.source = f"{' + '.join(total.rails)} ({total.covers})"
        self.with_carrier = total.with_carrier
        self._rails = [rails[name] for name in total.rails]

    def power_w(self) -> float:
        """Power now.

        Raises:
            OSError: If a monitor cannot be read or tells what cannot be.
        """
        try:
            power_w = sum(rail.read_w() for rail in self._rails)
        except ValueError as error:
            raise OSError(f"a power monitor must tell a number; got {error}") from error
        if not (math.isfinite(power_w) and abs(power_w) < _MOST_W):
            raise OSError(f"power must be below {_MOST_W} W; got {power_w!r}")
        return power_w


def find_rails(root: Path = Path("/")) -> dict[str, Rail]:
    """Every power rail of this machine, by name; none where it has no monitor."""
    found: dict[str, Rail] = {}
    seen: set[Path] = set()
    for pattern in _FOLDERS:
        for folder in sorted(root.glob(pattern)):
            real = folder.resolve()
            if real not in seen:
                seen.add(real)
                found.update((rail.name, rail) for rail in _rails_in(real))
    return found


def _rails_in(folder: Path) -> Iterator[Rail]:
    """The rails of one monitor, of whatever interface."""
    for label in sorted(folder.glob("rail_name_*")):
        index = label.name.removeprefix("rail_name_")
        yield from _rail(label, _scaled(folder / f"in_power{index}_input", 1e-3))
    if line_of(folder / "name") not in _CHIPS:
        return
    microwatts = folder / "power1_input"
    if microwatts.exists():
        # The driver gives no name unless the device tree does; on Thor there is one, at the input.
        name = line_of(folder / "in1_label") or line_of(folder / "label") or "VIN"
        yield Rail(name, _scaled(microwatts, 1e-6))
        return
    for label in sorted(folder.glob("in*_label")):
        index = label.name.removeprefix("in").removesuffix("_label")
        volts = _scaled(folder / f"in{index}_input", 1e-3)
        amperes = _scaled(folder / f"curr{index}_input", 1e-3)
        yield from _rail(label, _product(volts, amperes))


def _rail(label: Path, read_w: Callable[[], float]) -> Iterator[Rail]:
    name = line_of(label)
    if name and name not in _NO_RAIL:
        yield Rail(name, read_w)


def _product(one: Callable[[], float], other: Callable[[], float]) -> Callable[[], float]:
    return lambda: one() * other()


def _scaled(file: Path, factor: float) -> Callable[[], float]:
    return lambda: factor * int(file.read_text(encoding="utf-8"))
