"""One run of the device: what it opens, the frames it answers, and what they cost."""

from __future__ import annotations

import argparse
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from adaptive_split.cli.common import Bars, metrics_endpoint, tls_files
from adaptive_split.cli.hardware import battery_of, chosen_provider, measured_energy, price_loop
from adaptive_split.cli.pictures import camera_summary, open_pictures
from adaptive_split.cli.policies import choose_policy, load_learned
from adaptive_split.cli.service import Service
from adaptive_split.cli.totals import Totals

if TYPE_CHECKING:
    from adaptive_split.cli.releases import Updates
    from adaptive_split.clock import Clock
    from adaptive_split.runtime.device import Device
    from adaptive_split.runtime.probes import ProbeBudget
    from adaptive_split.runtime.session import Recorder
    from adaptive_split.runtime.updates.canary import Deciders
    from adaptive_split.scenario import Scenario


class DeviceRun:
    """A device with its pictures, controller, counters and records; closes all that it opened."""

    def __init__(self, arguments: argparse.Namespace, updates: Updates, clock: Clock) -> None:
        """Open what the arguments name; the record file last, so that a refusal leaves none.

        Args:
            arguments: Of `run`.
            updates: Tells which release to run, and follows its frames.
            clock: Times the frames.

        Raises:
            AdaptiveSplitError: If something cannot be opened; nothing stays open then.
        """
        self._arguments, self._updates, self._clock = arguments, updates, clock
        self._totals = Totals()
        with ExitStack() as stack:
            scenario = scenario_of(arguments, updates.bundle(arguments.bundle))
            self._battery = stack.enter_context(closing(battery_of(scenario, arguments.battery)))
            self._controller = self._choose(scenario)
            self._count(scenario, stack)
            self._pictures = stack.enter_context(open_pictures(arguments, scenario.bundle))
            self._device = self._open_device(scenario, stack)
            self._metrics.watch(self._device, self._battery)
            self._recorder = open_recorder(arguments.records, self._controller, stack)
            self._stack = stack.pop_all()

    def __enter__(self) -> DeviceRun:
        """Return the run itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close everything; write the records that are left."""
        self._stack.close()

    @property
    def num_lost(self) -> int:
        """Frames without a record; all are counted once the run is closed."""
        return self._recorder.lost

    def play(self, service: Service) -> None:
        """Answer frame after frame, until the last one or until the service is told to stop."""
        from adaptive_split.runtime.live import LiveBackend
        from adaptive_split.runtime.session import play_recorded
        from adaptive_split.runtime.telemetry.device_metrics import TimedController

        device, pictures, decides = self._device, self._pictures, self._controller
        timed = TimedController(decides, self._clock, self._metrics.time_decision)
        hidden = self._arguments.log_format == "json" or pictures.endless
        with (
            Bars("frame", hidden=hidden) as bars,
            LiveBackend(device, lambda seed: pictures.source, pictures.num_frames) as backend,
        ):
            service.ready(device.finish)
            for report in play_recorded(backend, timed, self._recorder, arm_of=decides.arm):
                self._totals.add(report)
                self._updates.settled(report, device.sender.obstacle)
                bars("answering frames", self._totals.count, pictures.num_frames)
                service.alive()
                # The signal may have come while the device was still greeting its server.
                if pictures.ended or service.told_to_stop or self._updates.restart:
                    device.finish()

    def summary(self) -> str:
        """What the frames cost, for a person."""
        pictures = self._pictures
        lines = [self._totals.text(self._controller.name, labels_known=pictures.labels_known)]
        if pictures.camera:
            lines.append(camera_summary(pictures.camera))
        return "\n".join(filter(None, [*lines, self._updates.text()]))

    def _choose(self, scenario: Scenario) -> Deciders:
        """Who decides: the policy that is named, or that of the release."""
        from adaptive_split.runtime.controller import DistributionPlanner, PlannerSettings
        from adaptive_split.runtime.live_controller import LiveController

        table, named = scenario.table("policy"), self._arguments.controller
        stand_in = DistributionPlanner(table, PlannerSettings())
        loop = price_loop(self._arguments.mission_hours, scenario, self._battery)

        def make(folder: Path | None) -> LiveController:
            if folder is None:
                policy = choose_policy(named, scenario, table)
            else:
                policy = load_learned(folder, scenario).controller(table)
            return LiveController(table, policy, stand_in, loop)

        return self._updates.start(scenario.objective, make, self._clock)

    def _count(self, scenario: Scenario, stack: ExitStack) -> None:
        """Begin to count; serve what is counted, if asked to."""
        from adaptive_split.runtime.telemetry.device_metrics import DeviceMetrics
        from adaptive_split.runtime.telemetry.endpoint import new_registry

        name = self._controller.name
        registry = new_registry("device", bundle=scenario.bundle.name, controller=name)
        self._metrics = DeviceMetrics(registry, scenario.objective.slo_s)
        self._on_answer = self._updates.counting(registry, self._controller, self._metrics.count)
        stack.enter_context(metrics_endpoint(self._arguments, registry))

    def _open_device(self, scenario: Scenario, stack: ExitStack) -> Device:
        """The model, the link to the server and the meter, put together."""
        from adaptive_split.runtime.device import Device
        from adaptive_split.runtime.setup import Setup
        from adaptive_split.runtime.stages import StageRunner
        from adaptive_split.runtime.transport import GrpcTransport

        arguments, bundle, setup = self._arguments, scenario.bundle, Setup.of(scenario)
        tls, slowdown = tls_files(arguments), arguments.slowdown
        provider = chosen_provider(arguments.provider, bundle)
        stages = StageRunner(bundle, parts=bundle.parts, providers=(provider,))
        transport = GrpcTransport(arguments.server, bundle, tls=tls, insecure=tls is None)
        return Device(
            setup, stack.enter_context(stages), stack.enter_context(transport), self._clock,
            self._battery, slowdown=slowdown,
            probes=self._controller.probes and arguments.probe_bytes != 0,
            probe_budget=probe_budget(arguments.probe_bytes),
            energy=stack.enter_context(measured_energy(setup, slowdown)),
            on_answer=self._on_answer,
        )  # fmt: skip


def scenario_of(arguments: argparse.Namespace, bundle: str | None) -> Scenario:
    """The scenario that is named, at the frame rate that is given.

    Raises:
        ConfigError: If it cannot be, with this model bundle.
    """
    from adaptive_split.scenario import load_scenario

    scenario = load_scenario(arguments.scenario, bundle)
    if arguments.fps is None:
        return scenario
    return replace(scenario, objective=replace(scenario.objective, fps=arguments.fps))


def open_recorder(file: Path, controller: Deciders, stack: ExitStack) -> Recorder:
    """Begin a record file; the stack writes what is left and closes it."""
    from adaptive_split.runtime.records import RecordWriter
    from adaptive_split.runtime.session import Recorder

    writer = stack.enter_context(RecordWriter(file))
    return stack.enter_context(closing(Recorder(writer, controller)))


def probe_budget(most_bytes_per_s: int | None) -> ProbeBudget:
    """The default one, or one of so many bytes per second at most."""
    from adaptive_split.runtime.probes import ProbeBudget

    budget = ProbeBudget()
    if not most_bytes_per_s:
        return budget
    least = min(budget.least_bytes_per_s, most_bytes_per_s)
    return replace(budget, most_bytes_per_s=most_bytes_per_s, least_bytes_per_s=least)
