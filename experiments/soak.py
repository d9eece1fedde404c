"""Does anything grow or get lost? A server process and a device on a link that changes, for long.

`python experiments/soak.py --minutes 30` prints what both processes held in the second and in the
last third of the run, and whether frames, records and telemetry agree.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from adaptive_split.cli.common import SHIPPED_PICTURES, Bars
from adaptive_split.cli.policies import choose_policy
from adaptive_split.cli.tables import table
from adaptive_split.clock import MonotonicClock
from adaptive_split.measurement import FrameReport
from adaptive_split.runtime.controller import DistributionPlanner, PlannerSettings
from adaptive_split.runtime.device import Device
from adaptive_split.runtime.emulation.emulated_link import EmulatedLink
from adaptive_split.runtime.live import LiveBackend
from adaptive_split.runtime.live_controller import LiveController
from adaptive_split.runtime.picture_folder import read_folder
from adaptive_split.runtime.records import RecordWriter, read_records
from adaptive_split.runtime.sensors.battery import ModelledBattery
from adaptive_split.runtime.serving.server_process import ServerProcess
from adaptive_split.runtime.session import Recorder, play_recorded
from adaptive_split.runtime.setup import Setup
from adaptive_split.runtime.stages import StageRunner
from adaptive_split.runtime.telemetry.device_metrics import DeviceMetrics, TimedController
from adaptive_split.runtime.telemetry.endpoint import MetricsEndpoint, new_registry
from adaptive_split.runtime.telemetry.scrape import Scrape, scrape
from adaptive_split.runtime.transport import GrpcTransport
from adaptive_split.scenario import Scenario, load_scenario
from adaptive_split.trace import SYNTHETIC, Trace

CHANGES = Trace(
    "changes", "soak",
    time_s=np.array([0.0, 5.0, 10.0, 12.0, 17.0, 22.0, 29.0]),
    uplink_mbps=np.array([20.0, 2.0, 0.0, 50.0, 0.5, 8.0, 8.0]),
    rtt_s=np.array([0.02, 0.06, 0.06, 0.005, 0.1, 0.04, 0.04]),
    source=SYNTHETIC, rtt_source=SYNTHETIC,
)  # fmt: skip
"""Fast, slow, an outage, faster, slower; over and over."""
BATTERY_J = 1e6
HELD = {
    "memory, MiB": ("process_resident_memory_bytes", 2.0**-20),
    "threads": ("process_threads", 1.0),
    "open files": ("process_open_files", 1.0),
}
"""What must not grow: metric and unit."""
Counts = Mapping[str, float]


@dataclass(frozen=True)
class Soak:
    """What a run left behind."""

    num_frames: int
    """Captured."""
    indices: Sequence[int]
    """Of the frames recorded."""
    unanswered: int
    """Frames that started and got no answer."""
    recorded: Counts
    """What the telemetry should have counted, by the records."""
    counted: Counts
    """What it counted."""
    held: Mapping[str, Sequence[float]]
    """By side and name (see `HELD`), one reading per second."""
    left_behind: Counts
    """Threads and files of the device's process after it closed, less those before it opened."""

    def thirds(self, name: str) -> tuple[float, float]:
        """Median of what was held in the second and in the last third."""
        readings = self.held[name]
        third = len(readings) // 3
        return median(readings[third : 2 * third]), median(readings[-third:])


class Sampler:
    """Reads endpoints once a second on a thread of its own, as Prometheus would."""

    def __init__(self, addresses: Mapping[str, str]) -> None:
        self._addresses = addresses
        self.held: dict[str, list[float]] = {f"{s}, {n}": [] for s in addresses for n in HELD}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="sampler", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop."""
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(1.0):
            for side, address in self._addresses.items():
                told = scrape(address)
                for name, (metric, unit) in HELD.items():
                    self.held[f"{side}, {name}"].append(told.total(metric) * unit)


def soak(
    scenario: Scenario,
    num_frames: int,
    records: Path,
    on_frame: Callable[[int], None] = lambda count: None,
) -> Soak:
    """Play frames on the changing link and sum up what is left.

    Args:
        scenario: Bundle, device and controller.
        num_frames: Frames to capture, at the scenario's rate.
        records: A new file.
        on_frame: Told how many frames have settled.
    """
    registry = new_registry("device", bundle=scenario.bundle.name)
    metrics = DeviceMetrics(registry, scenario.objective.slo_s)
    with (
        ServerProcess(scenario.bundle.path) as server,
        EmulatedLink(server.address) as link,
        MetricsEndpoint(registry, host="127.0.0.1", port=0) as endpoint,
        StageRunner(scenario.bundle, parts=scenario.bundle.parts) as stages,
    ):
        link.start(CHANGES)
        before = scrape(endpoint.address)
        sampler = Sampler({"device": endpoint.address, "server": server.metrics_address})
        for count in _play(scenario, link.address, stages, metrics, records, num_frames):
            on_frame(count)
        sampler.close()
        after = scrape(endpoint.address)
    return _sum_up(num_frames, records, before, after, sampler.held)


def _play(
    scenario: Scenario,
    address: str,
    stages: StageRunner,
    metrics: DeviceMetrics,
    records: Path,
    num_frames: int,
) -> Iterator[int]:
    """Run a device from its first frame to its last; yield how many have settled."""
    folder, candidates = read_folder(SHIPPED_PICTURES, scenario.bundle), scenario.table("policy")
    policy = choose_policy("sac", scenario, candidates)
    controller = LiveController(
        candidates, policy, DistributionPlanner(candidates, PlannerSettings())
    )
    setup = Setup(
        bundle=scenario.bundle, device_profile=scenario.device, server_profile=scenario.server,
        objective=scenario.objective, radio=scenario.radio,
    )  # fmt: skip
    battery, clock = ModelledBattery(BATTERY_J), MonotonicClock()
    with (
        RecordWriter(records) as writer,
        GrpcTransport(address, scenario.bundle, insecure=True) as transport,
    ):
        device = Device(
            setup, stages, transport, clock, battery, probes=policy.probes, on_answer=metrics.count
        )
        metrics.watch(device, battery)
        recorder = Recorder(writer, controller)
        timed = TimedController(controller, clock, metrics.time_decision)
        with LiveBackend(device, lambda seed: folder, num_frames) as backend:
            for count, _ in enumerate(play_recorded(backend, timed, recorder), start=1):
                yield count
        recorder.close()


def _sum_up(
    num_frames: int,
    records: Path,
    before: Scrape,
    after: Scrape,
    held: Mapping[str, Sequence[float]],
) -> Soak:
    indices, unanswered, recorded = [], 0, Counter[str]()
    for record in read_records(records):
        report = record.report
        indices.append(report.frame_index)
        unanswered += report.decision is not None and report.answer is None
        recorded.update(_counts_of(report))
    counted = {name: _counted(after, name) for name in recorded}
    metrics = [metric for name, (metric, _) in HELD.items() if name != "memory, MiB"]
    left_behind = {metric: after.total(metric) - before.total(metric) for metric in metrics}
    return Soak(
        num_frames=num_frames, indices=indices, unanswered=unanswered, recorded=dict(recorded),
        counted=counted, held=held, left_behind=left_behind,
    )  # fmt: skip


def _counts_of(report: FrameReport) -> Counts:
    """What one frame adds to the counters, by metric and label values."""
    if report.decision is None:
        return {"frames_total": 1, "frames_total/outcome=dropped": 1}
    outcome = "on_time" if report.on_time else "missed"
    decision, reason = report.decision, report.fallback_reason
    counts = {
        "frames_total": 1,
        "decisions_total": 1,
        f"frames_total/answered_by={report.answered_by}/outcome={outcome}": 1,
        f"decisions_total/split_point={decision.split_point}/bits={decision.bits}": 1,
        "frame_latency_seconds_count": 1,
        "payload_bytes_total": report.payload_bytes,
        f"energy_joules_total/provenance={report.energy_provenance}": report.energy_j,
    }
    if reason:
        counts[f"fallbacks_total/reason={reason}"] = 1
    return counts


def _counted(told: Scrape, name: str) -> float:
    metric, *labels = name.split("/")
    return told.total(metric, **dict(label.split("=", 1) for label in labels))


def main() -> None:
    """Soak for some minutes; print what was held, and what does not agree."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="default: 30")
    parser.add_argument("--scenario", default="default", help="default: default")
    arguments = parser.parse_args()
    scenario = load_scenario(arguments.scenario)
    num_frames = round(60 * arguments.minutes * scenario.objective.fps)
    with tempfile.TemporaryDirectory() as folder, Bars("frame") as bars:
        found = soak(
            scenario, num_frames, Path(folder) / "frames.jsonl",
            lambda count: bars("answering frames", count, num_frames),
        )  # fmt: skip
    rows = [["held (medians)", "second third", "last third", "change"]]
    for name in found.held:
        middle, last = found.thirds(name)
        rows.append([name, f"{middle:.1f}", f"{last:.1f}", f"{last - middle:+.1f}"])
    print(table(rows), end="\n\n")
    rows = [["counted", "records", "telemetry"]]
    for name in sorted(found.recorded):
        rows.append([name, f"{found.recorded[name]:.10g}", f"{found.counted[name]:.10g}"])
    print(table(rows), end="\n\n")
    print(
        f"frames captured {found.num_frames}, recorded {len(found.indices)}, "
        f"each once: {sorted(found.indices) == list(range(found.num_frames))}; "
        f"started and not answered {found.unanswered}; left behind {dict(found.left_behind)}"
    )


if __name__ == "__main__":
    main()
