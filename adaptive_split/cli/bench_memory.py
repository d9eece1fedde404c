"""`adaptive-split bench memory`: what the device runtime and its controller hold resident here."""

from __future__ import annotations

from contextlib import closing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from adaptive_split.cli.common import Bars
from adaptive_split.errors import LinkError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from adaptive_split.runtime.device import Device
    from adaptive_split.runtime.live_controller import LiveController
    from adaptive_split.runtime.stages import StageRunner
    from adaptive_split.runtime.transport import GrpcTransport
    from adaptive_split.scenario import Scenario

PROMISED_BYTES = 120_000_000
"""Of runtime and controller, without the model's graphs."""


def bench_memory(scenario: Scenario, repeats: int, bars: Bars) -> dict[str, Any]:
    """Put a device together as `run` does, decide, then open the model and compute it once.

    The server is one that is not there, and no picture is in memory. Resident memory is what the
    kernel counts of this process, shared libraries included.
    """
    from adaptive_split.runtime.records import RecordWriter
    from adaptive_split.runtime.session import Recorder
    from adaptive_split.runtime.stages import StageRunner
    from adaptive_split.runtime.telemetry.endpoint import MetricsEndpoint, new_registry
    from adaptive_split.runtime.transport import GrpcTransport

    bars("loading", 0, 1)
    bundle, controller, registry = scenario.bundle, _controller(scenario), new_registry("device")
    with (
        TemporaryDirectory() as folder,
        MetricsEndpoint(registry, host="127.0.0.1", port=0),
        RecordWriter(Path(folder) / "records.jsonl") as writer,
        StageRunner(bundle) as stages,
        GrpcTransport("127.0.0.1:1", bundle, insecure=True) as transport,
        closing(Recorder(writer, controller)),
    ):
        device = _device(scenario, registry, stages, transport)
        for index in range(repeats):
            controller.decide(device.situation())
            bars("deciding", index + 1, repeats)
        controller.observation(device.situation())
        with suppress(LinkError):
            transport.peer_hash(timeout_s=1.0).result()
        alone = _resident()
        _compute(stages)
        with_model = _resident()
    return {
        "controller": controller.name, "resident_bytes": alone, "promised_bytes": PROMISED_BYTES,
        "promise_kept": alone < PROMISED_BYTES, "with_model_bytes": with_model,
    }  # fmt: skip


def _controller(scenario: Scenario) -> LiveController:
    from adaptive_split.cli.policies import choose_policy
    from adaptive_split.runtime.controller import DistributionPlanner, PlannerSettings
    from adaptive_split.runtime.live_controller import LiveController

    table = scenario.table("policy")
    fallback = DistributionPlanner(table, PlannerSettings())
    return LiveController(table, choose_policy("sac", scenario, table), fallback)


def _device(
    scenario: Scenario, registry: CollectorRegistry, stages: StageRunner, transport: GrpcTransport
) -> Device:
    from adaptive_split.clock import MonotonicClock
    from adaptive_split.runtime.device import Device
    from adaptive_split.runtime.sensors.battery import SystemBattery
    from adaptive_split.runtime.setup import Setup
    from adaptive_split.runtime.telemetry.device_metrics import DeviceMetrics

    battery = SystemBattery()
    device = Device(Setup.of(scenario), stages, transport, MonotonicClock(), battery)
    DeviceMetrics(registry, scenario.objective.slo_s).watch(device, battery)
    return device


def _resident() -> int:
    import psutil

    return int(psutil.Process().memory_info().rss)


def _compute(stages: StageRunner) -> None:
    """Every part once, as the first frames would."""
    import numpy as np

    bundle = stages.bundle
    tensor = stages.prepare(np.zeros((*bundle.input_shape[1:], 3), np.uint8))
    for index in range(1, bundle.num_stages + 1):
        tensor = stages.stage(index, tensor)
        stages.exit(index, tensor)
        if index < bundle.num_stages:
            stages.encode(index, tensor)
