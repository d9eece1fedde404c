"""Which power mode the machine runs in: Jetson's, else the processor's governor; never set here."""

from __future__ import annotations

import subprocess
from pathlib import Path

from adaptive_split.runtime.sensors.files import line_of

UNKNOWN = "unknown"
_NVPMODEL = "usr/sbin/nvpmodel"
_GOVERNOR = "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
_PATIENCE_S = 5.0


def power_mode(root: Path = Path("/")) -> str:
    """The mode as nvpmodel names it, `governor NAME` of the first core, or `unknown`."""
    return _nvpmodel(root / _NVPMODEL) or _governor(root / _GOVERNOR) or UNKNOWN


def _nvpmodel(program: Path) -> str:
    if not program.is_file():
        return ""
    try:
        told = subprocess.run(
            [program, "-q"], capture_output=True, text=True, timeout=_PATIENCE_S, check=True
        ).stdout
    except (OSError, ValueError, subprocess.SubprocessError):
        return ""
    names = [line.split(":", 1)[1].strip() for line in told.splitlines() if "Power Mode:" in line]
    return names[0] if names else ""


def _governor(file: Path) -> str:
    name = line_of(file)
    return f"governor {name}" if name else ""
