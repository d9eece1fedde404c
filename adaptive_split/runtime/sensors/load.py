"""How busy this machine is."""

from __future__ import annotations

from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineLoad:
    """Shares in [0, 1]."""

    cpu: float
    """Busy share of all cores since the last reading."""
    memory: float
    """Share of the memory in use."""


class LoadSensor:
    """Reads processor and memory use; costs about 0.1 ms."""

    def __init__(self) -> None:
        psutil.cpu_percent(interval=None)

    def read(self) -> MachineLoad:
        """Read both; the first processor share counts from the sensor's construction."""
        return MachineLoad(
            cpu=psutil.cpu_percent(interval=None) / 100,
            memory=psutil.virtual_memory().percent / 100,
        )
