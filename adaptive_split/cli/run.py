"""`adaptive-split run`: the device runtime."""

from __future__ import annotations

import argparse
import logging
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from adaptive_split.cli.common import (
    Bars,
    Commands,
    add_command,
    add_metrics,
    add_tls,
    metrics_endpoint,
    shipped_controller,
    tls_files,
)
from adaptive_split.cli.controllers import find_knobs, shipped_training
from adaptive_split.cli.hardware import add_hardware, chosen_provider, measured_energy
from adaptive_split.cli.logs import add_logging
from adaptive_split.cli.pictures import add_pictures, camera_summary, open_pictures
from adaptive_split.cli.releases import RESTART, Updates, add_releases
from adaptive_split.cli.service import Service
from adaptive_split.cli.totals import Totals
from adaptive_split.errors import BundleError, ConfigError

if TYPE_CHECKING:
    from adaptive_split.candidates import CandidateTable
    from adaptive_split.runtime.controller import Policy
    from adaptive_split.runtime.controller_bundle import ControllerBundle
    from adaptive_split.runtime.price_loop import PriceLoop
    from adaptive_split.runtime.probes import ProbeBudget
    from adaptive_split.runtime.sensors.battery import Battery
    from adaptive_split.scenario import Scenario

_log = logging.getLogger(__name__)


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands, "run", "answer pictures as the device, with a server's help",
        "Answer a number of frames, one picture after the other in the order of their names, and "
        "write a record of each. The device is played as slow as the scenario's device profile "
        "says (a Jetson-Nano class in 'default'), so that time and modelled energy belong "
        "together; a machine that slow is not slowed further. Without a usable controller bundle "
        "the distribution planner decides, and a warning says so. A record that cannot be written "
        "stops no frame; the exit status is then 2.",
        "adaptive-split run --server 127.0.0.1:50051 --bundle garments --controller sac "
        "--pictures pictures --num-frames 300 --fps 30 --records run.jsonl --insecure",
    )  # fmt: skip
    parser.add_argument("--server", required=True, metavar="HOST:PORT", help="the edge server")
    parser.add_argument("--bundle", help="a shipped bundle or its directory (default: scenario's)")
    parser.add_argument(
        "--controller", default="sac", metavar="NAME",
        help="sac, a rule or planner that 'adaptive-split compare --help' lists, local, jpeg, "
        "static:K:T:B, or the directory of a controller bundle (default: sac)",
    )  # fmt: skip
    add_pictures(parser)
    parser.add_argument("--fps", type=float, metavar="F", help="default: the scenario's")
    parser.add_argument("--records", type=Path, required=True, metavar="FILE", help="a new file")
    parser.add_argument("--scenario", default="default", help="default: default")
    parser.add_argument(
        "--slowdown", type=float, default=1.0, metavar="X",
        help="play a device X times as slow as the profile; 0 = as fast as this machine, whose "
        "energy the profile's watts then do not describe (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--mission-hours", type=float, metavar="H",
        help="price energy so that the charge lasts that long: the scenario's [battery] if it has "
        "one, as modelled, else this machine's",
    )  # fmt: skip
    parser.add_argument(
        "--probe-bytes", type=int, metavar="N",
        help="most bytes per second for measuring a link whose rate nothing else tells; 0 = "
        "measure with frames only (default: 8000, and at most 1 %% of the rate)",
    )  # fmt: skip
    add_releases(parser)
    add_hardware(parser)
    add_tls(parser, "server's")
    add_metrics(parser, "device")
    add_logging(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Answer the frames; print what they cost."""
    with Updates(arguments) as updates:
        return play(arguments, updates)


def play(arguments: argparse.Namespace, updates: Updates) -> int:
    """Answer the frames with the releases that stand in a store, if there is one."""
    from adaptive_split.cli import FAILED
    from adaptive_split.clock import MonotonicClock
    from adaptive_split.runtime.controller import DistributionPlanner, PlannerSettings
    from adaptive_split.runtime.device import Device
    from adaptive_split.runtime.live import LiveBackend
    from adaptive_split.runtime.live_controller import LiveController
    from adaptive_split.runtime.records import RecordWriter
    from adaptive_split.runtime.session import Recorder, play_recorded
    from adaptive_split.runtime.setup import Setup
    from adaptive_split.runtime.stages import StageRunner
    from adaptive_split.runtime.telemetry.device_metrics import DeviceMetrics, TimedController
    from adaptive_split.runtime.telemetry.endpoint import new_registry
    from adaptive_split.runtime.transport import GrpcTransport
    from adaptive_split.scenario import load_scenario

    if (arguments.num_frames is not None and arguments.num_frames < 1) or arguments.slowdown < 0:
        raise ConfigError("--num-frames must be at least 1 and --slowdown 0 or more")
    budget = probe_budget(arguments.probe_bytes)
    tls = tls_files(arguments)
    scenario = load_scenario(arguments.scenario, updates.bundle(arguments.bundle))
    if arguments.fps is not None:
        scenario = replace(scenario, objective=replace(scenario.objective, fps=arguments.fps))
    table = scenario.table("policy")
    setup = Setup(
        bundle=scenario.bundle, device_profile=scenario.device, server_profile=scenario.server,
        objective=scenario.objective, radio=scenario.radio,
    )  # fmt: skip
    provider = chosen_provider(arguments.provider, scenario.bundle)
    battery = battery_of(scenario, arguments.battery)
    stand_in = DistributionPlanner(table, PlannerSettings())
    loop = price_loop(arguments.mission_hours, scenario, battery)
    clock, totals = MonotonicClock(), Totals()

    def make(folder: Path | None) -> LiveController:
        policy = (
            choose_policy(arguments.controller, scenario, table)
            if folder is None
            else load_learned(folder, scenario).controller(table)
        )
        return LiveController(table, policy, stand_in, loop)

    controller = updates.start(scenario.objective, make, clock)
    registry = new_registry("device", bundle=scenario.bundle.name, controller=controller.name)
    metrics = DeviceMetrics(registry, scenario.objective.slo_s)
    with (
        metrics_endpoint(arguments, registry),
        open_pictures(arguments, scenario.bundle) as pictures,
        RecordWriter(arguments.records) as writer,
        StageRunner(scenario.bundle, parts=scenario.bundle.parts, providers=(provider,)) as stages,
        GrpcTransport(
            arguments.server, scenario.bundle, tls=tls, insecure=tls is None
        ) as transport,
        Bars("frame", hidden=arguments.log_format == "json" or pictures.endless) as bars,
        closing(battery),
        measured_energy(setup, arguments.slowdown) as energy,
    ):
        recorder = Recorder(writer, controller)
        device = Device(
            setup, stages, transport, clock, battery,
            slowdown=arguments.slowdown, probes=controller.probes and arguments.probe_bytes != 0,
            probe_budget=budget, energy=energy,
            on_answer=updates.counting(registry, controller, metrics.count),
        )  # fmt: skip
        metrics.watch(device, battery)
        timed = TimedController(controller, clock, metrics.time_decision)
        with (
            LiveBackend(device, lambda seed: pictures.source, pictures.num_frames) as backend,
            Service(clock, device.finish) as service,
        ):
            for report in play_recorded(backend, timed, recorder, arm_of=controller.arm):
                totals.add(report)
                updates.settled(report, device.sender.obstacle)
                bars("answering frames", totals.count, pictures.num_frames)
                service.alive()
                # The signal may have come while the device was still greeting its server.
                if pictures.ended or service.told_to_stop or updates.restart:
                    device.finish()
        recorder.close()
    print(totals.text(controller.name, labels_known=pictures.labels_known))
    if pictures.camera:
        print(camera_summary(pictures.camera))
    if comparison := updates.text():
        print(comparison)
    if updates.restart:
        return RESTART
    return FAILED if recorder.lost else 0


def probe_budget(most_bytes_per_s: int | None) -> ProbeBudget:
    """The default one, or one of so many bytes per second at most."""
    from adaptive_split.runtime.probes import ProbeBudget

    budget = ProbeBudget()
    if not most_bytes_per_s:
        return budget
    least = min(budget.least_bytes_per_s, most_bytes_per_s)
    return replace(budget, most_bytes_per_s=most_bytes_per_s, least_bytes_per_s=least)


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
    from adaptive_split.errors import ConfigError
    from adaptive_split.runtime.price_loop import PriceLoop

    if mission_hours is None:
        return None
    if battery.soc() is None:
        raise ConfigError(
            "--mission-hours must have a battery whose charge is known; got none; give a scenario "
            "with a [battery] section"
        )
    return PriceLoop(3600 * mission_hours, scenario.objective.energy_price)


def choose_policy(name: str, scenario: Scenario, table: CandidateTable) -> Policy:
    """Find the controller; the distribution planner stands in for one that cannot be loaded.

    Raises:
        ConfigError: If it is unknown or cannot run on a device.
    """
    from adaptive_split.agents.roster import LEARNED, NAMES, SIMULATED_ONLY, make_policy

    if name in SIMULATED_ONLY:
        raise ConfigError(
            f"{name} must be simulated: it needs a future or a feedback that a device does not "
            "have; use 'adaptive-split compare'"
        )
    folder = Path(name)
    is_folder = name not in NAMES and (folder.exists() or "/" in name)
    learned, problem = load_if_sound(
        folder if is_folder else shipped_controller(scenario), scenario
    )
    wanted = LEARNED if is_folder else name
    if wanted == LEARNED and learned is None:
        _log.warning("%s; the distribution planner decides instead", problem)
        wanted = "distribution-planner"
    return make_policy(
        wanted, table, learned, find_knobs([wanted], scenario, learned, shipped_training)
    )


def load_if_sound(folder: Path, scenario: Scenario) -> tuple[ControllerBundle | None, str]:
    """Load a controller bundle; or say why it cannot be used here."""
    try:
        return load_learned(folder, scenario), ""
    except BundleError as error:
        return None, str(error)


def load_learned(folder: Path, scenario: Scenario) -> ControllerBundle:
    """Load a controller bundle for a scenario's model.

    Raises:
        BundleError: If it cannot be used.
    """
    from adaptive_split.runtime.controller_bundle import ControllerBundle

    learned = ControllerBundle.load(folder)
    learned.check_model(scenario.bundle)
    return learned
