"""Which Jetson this is, and which of its power rails add up to what it draws."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from adaptive_split.runtime.sensors.files import line_of

_MODELS = ("proc/device-tree/model", "sys/firmware/devicetree/base/model")
_RELEASE = "etc/nv_tegra_release"


@dataclass(frozen=True, slots=True)
class Total:
    """Rails whose powers add up to the whole."""

    rails: tuple[str, ...]
    with_carrier: bool = False
    """Whether the sum holds the carrier board, and so modem, camera and disk on it."""

    @property
    def covers(self) -> str:
        """What the sum holds, for a person."""
        return "module and carrier board" if self.with_carrier else "module without carrier board"


TOTALS = (
    # Thor's carrier measures its own input. The module's rails lie behind it.
    Total(("VIN",), with_carrier=True),
    Total(("POM_5V_IN",)),  # Nano, TX1
    Total(("VDD_IN",)),  # TX2, Xavier NX, Orin Nano, Orin NX
    Total(("5V_IN",)),  # Xavier NX of early releases
    # No AGX has a rail for the whole. VIN_SYS_5V0 is that of inputs and outputs, not the total, and
    # AGX Orin's VDDQ_VDD2_1V8AO is fed from it: adding that one would count it twice.
    Total(("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V")),  # AGX Xavier
    Total(("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")),  # AGX Orin
    Total(("VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0")),  # Thor on another carrier
)
"""The first whose rails are all there holds. The rails tell boards apart better than their names
do: carriers of other makers carry names of their own."""


def total_of(rails: Collection[str]) -> Total | None:
    """What these rails add up to; none where that is not known."""
    return next((total for total in TOTALS if set(total.rails) <= set(rails)), None)


def board_name(root: Path = Path("/")) -> str:
    """The board as its device tree names it; empty on a machine without one."""
    return next(filter(None, (line_of(root / file) for file in _MODELS)), "")


def linux_release(root: Path = Path("/")) -> str:
    """Release of Jetson Linux, as `R36.4.3`; empty on any other machine."""
    # As in "# R36 (release), REVISION: 4.3, GCID: ..."
    found = re.match(r"# (R\d+) .*?REVISION: ([\d.]+)", line_of(root / _RELEASE))
    return f"{found[1]}.{found[2]}" if found else ""
