"""What this machine can measure of itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from adaptive_split.errors import ConfigError
from adaptive_split.runtime.doctor.finding import Finding, green, red, yellow
from adaptive_split.runtime.profiler import machine_name
from adaptive_split.runtime.sensors.batteries import open_battery
from adaptive_split.runtime.sensors.boards import board_name, linux_release
from adaptive_split.runtime.sensors.energy import find_energy_meter
from adaptive_split.runtime.sensors.gpu import gpu_load
from adaptive_split.runtime.sensors.power import find_power
from adaptive_split.runtime.sensors.power_mode import UNKNOWN, power_mode
from adaptive_split.runtime.sensors.rails import find_rails
from adaptive_split.runtime.sensors.thermal import hottest

WARM_C = 85.0
"""Jetsons begin to throttle between 90 and 99 degrees."""
_RAPL = "sys/class/powercap/intel-rapl:0/energy_uj"


def examine_senses(root: Path, battery: str) -> Iterator[Finding]:
    """Board, power, mode, heat, GPU and battery.

    Args:
        root: Where the file system begins.
        battery: Who tells the charge, as `run --battery` has it.
    """
    release = linux_release(root)
    name = board_name(root) or machine_name()
    yield green("board", f"{name}, Jetson Linux {release}" if release else name)
    yield _power(root)
    mode = power_mode(root)
    if mode == UNKNOWN:
        yield yellow(
            "power mode", mode, "nothing to do on a server; on a device keep its clock speed fixed "
            "while you profile it"
        )  # fmt: skip
    else:
        yield green("power mode", mode)
    yield _heat(root)
    load = gpu_load(root)
    if load.value is not None:
        yield green("GPU load", f"{load.value:.0%}, {load.source}")
    elif release:
        yield yellow("GPU load", load.source, "mount /sys into the container, read only")
    yield _battery(root, battery)


def _power(root: Path) -> Finding:
    power = find_power(root)
    if power is not None:
        return green("power", f"measured: {power.power_w():.2f} W, {power.source}")
    meter = find_energy_meter(root)
    if meter is not None:
        meter.close()
        return green("power", f"measured: {meter.source}")
    rails = find_rails(root)
    if rails:
        return yellow(
            "power", f"unavailable: nobody knows how {', '.join(rails)} add up",
            "report the board and these rails; until then energy is modelled",
        )  # fmt: skip
    if (root / _RAPL).exists():
        return yellow(
            "power", "unavailable: the processor counts joules for the superuser only",
            f"let a group read /{_RAPL}, or go on with modelled energy",
        )  # fmt: skip
    return yellow(
        "power", "unavailable: no power monitor in /sys",
        "energy is modelled: give 'profile' --watts and --watts-source; in a container mount /sys",
    )  # fmt: skip


def _heat(root: Path) -> Finding:
    heat = hottest(root)
    if heat.value is None:
        return yellow(
            "temperature", f"unavailable: {heat.source}",
            "throttling will show in stage times only; in a container mount /sys",
        )  # fmt: skip
    found = f"{heat.value:.1f} C, {heat.source}"
    if heat.value < WARM_C:
        return green("temperature", found)
    return yellow("temperature", found, "cool it or choose a lower power mode: it will throttle")


def _battery(root: Path, source: str) -> Finding:
    try:
        battery = open_battery(source, root)
    except ConfigError as error:
        return red("battery", str(error), "correct --battery")
    try:
        soc = battery.soc()
    except OSError as error:
        return red("battery", f"{battery.source}: {error}", "start the daemon that it asks")
    finally:
        battery.close()
    if soc is None:
        return yellow(
            "battery", f"unavailable: {battery.source} knows none",
            "nothing to do on mains; else name who knows with --battery, or model one in the "
            "scenario",
        )  # fmt: skip
    return green("battery", f"{soc:.0%}, {battery.source}")
