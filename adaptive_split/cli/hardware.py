"""What `run` uses of the machine that it runs on: provider, battery and meter."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from adaptive_split.cli.profile import PROVIDERS
from adaptive_split.errors import ConfigError

if TYPE_CHECKING:
    from adaptive_split.bundle import ModelBundle
    from adaptive_split.runtime.ledger import FrameEnergy
    from adaptive_split.runtime.price_loop import PriceLoop
    from adaptive_split.runtime.sensors.battery import Battery
    from adaptive_split.runtime.setup import Setup
    from adaptive_split.scenario import Scenario

_log = logging.getLogger(__name__)


def add_hardware(parser: argparse.ArgumentParser) -> None:
    """Add `--provider` and `--battery`."""
    parser.add_argument("--provider", choices=PROVIDERS, default="cpu",
                        help="what ONNX Runtime computes with (default: cpu)")  # fmt: skip
    add_battery(parser)


def add_battery(parser: argparse.ArgumentParser) -> None:
    """Add `--battery`."""
    parser.add_argument(
        "--battery", metavar="SOURCE",
        help="who tells the charge: system, nut:NAME[@HOST[:PORT]], or counted:WATTHOURS:FILE, "
        "which counts what the machine's meter sees off a capacity and keeps the count in FILE",
    )  # fmt: skip


def chosen_provider(name: str, bundle: ModelBundle) -> str:
    """The full name of a provider that really starts here.

    Raises:
        ConfigError: If it does not; ONNX Runtime would go on with the CPU and only warn.
    """
    from adaptive_split.runtime import providers

    full_name = providers.PROVIDERS[name]
    if full_name != providers.CPU:
        providers.open_first_stage(full_name, bundle)
    return full_name


def battery_of(scenario: Scenario, source: str | None = None) -> Battery:
    """The one named, else the scenario's, modelled and emptying from now, else this machine's.

    Raises:
        ConfigError: If nobody knows the one that is named.
    """
    from adaptive_split.runtime.sensors.batteries import SYSTEM, PolledBattery, open_battery
    from adaptive_split.runtime.sensors.battery import ModelledBattery

    spec = scenario.battery
    if spec is None or source is not None:
        return PolledBattery(open_battery(source or SYSTEM))
    return ModelledBattery(spec.capacity_j, spec.start_soc, idle_w=spec.idle_w)


def price_loop(
    mission_hours: float | None, scenario: Scenario, battery: Battery
) -> PriceLoop | None:
    """What makes the charge last a mission; none without a mission.

    Raises:
        ConfigError: If the mission has no length, or nobody knows the battery's charge.
    """
    from adaptive_split.runtime.price_loop import PriceLoop

    if mission_hours is None:
        return None
    if battery.soc() is None:
        raise ConfigError(
            "--mission-hours must have a battery whose charge is known; got none; give a scenario "
            "with a [battery] section"
        )
    return PriceLoop(3600 * mission_hours, scenario.objective.energy_price)


@contextmanager
def measured_energy(setup: Setup, slowdown: float) -> Iterator[FrameEnergy | None]:
    """The joules of frames by this machine's meter, after a rest; none where that cannot be.

    A machine that plays another one, slower, has nothing to tell about it.
    """
    from adaptive_split.runtime.ledger import EnergyModel
    from adaptive_split.runtime.measured_energy import MeasuredEnergy
    from adaptive_split.runtime.profiler import machine_name
    from adaptive_split.runtime.sensors.energy import find_energy_meter

    profiled = setup.device_profile.machine
    played = slowdown > 0 and profiled != machine_name()
    meter = None if played else find_energy_meter()
    if meter is None:
        if not slowdown and profiled != machine_name():
            _log.warning("energy is modelled for %s, not for this machine", profiled)
        yield None
        return
    try:
        measured = MeasuredEnergy(meter, EnergyModel.of(setup))
    except OSError as error:
        meter.close()
        _log.warning("energy is modelled: %s", error)
        yield None
        return
    try:
        yield measured
    finally:
        measured.close()
