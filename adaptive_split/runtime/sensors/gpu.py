"""How busy a Jetson's GPU is; its NVML does not tell."""

from __future__ import annotations

from pathlib import Path

from adaptive_split.runtime.sensors.files import line_of
from adaptive_split.runtime.sensors.reading import Reading, measured, unavailable

_LOADS = (
    "sys/class/devfreq/*.gpu/device/load",
    "sys/class/devfreq/*.g*b/device/load",  # gp10b, gv11b, ga10b, gb10b by their chips' names
    "sys/devices/gpu.0/load",
    "sys/devices/platform/*.gpu/load",
    "sys/devices/platform/*/*.gpu/load",
)
"""In tenths of a percent, over about the last 20 ms."""


def gpu_load(root: Path = Path("/")) -> Reading:
    """Busy share of the GPU, in [0, 1]."""
    for pattern in _LOADS:
        for file in sorted(root.glob(pattern)):
            told = line_of(file)
            if told.isdecimal() and int(told) <= 1000:
                return measured(int(told) / 1000, "1", f"/{file.relative_to(root)}")
    return unavailable("1", "no GPU tells its load in sysfs")
