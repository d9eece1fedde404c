"""Play controllers live on this machine: a real server, a real device, a link that plays traces.

The controllers take turns, block by block, over the same windows of the traces with the same
pictures, in an order that rotates. The same windows are then played in the simulator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adaptive_split.agents.frames import Frames, frames_of_reports
from adaptive_split.agents.live_windows import (
    TWINS,
    LiveConfig,
    Window,
    draw_windows,
    replace_samples,
    rows_of,
    simulate_windows,
)
from adaptive_split.agents.roster import SIMULATED_ONLY, file_name, make_policy
from adaptive_split.agents.summary import sum_up
from adaptive_split.clock import MonotonicClock
from adaptive_split.errors import ConfigError
from adaptive_split.measurement import FrameReport
from adaptive_split.runtime.controller import Policy
from adaptive_split.runtime.device import Device
from adaptive_split.runtime.emulation.link_process import LinkProcess
from adaptive_split.runtime.emulation.namespace_link import open_link
from adaptive_split.runtime.live import LiveBackend
from adaptive_split.runtime.live_controller import LiveController
from adaptive_split.runtime.picture_folder import PictureFolder, Scenes, read_folder
from adaptive_split.runtime.records import RecordWriter
from adaptive_split.runtime.sensors.battery import ModelledBattery
from adaptive_split.runtime.sensors.load import LoadSensor
from adaptive_split.runtime.serving.server_process import ServerProcess
from adaptive_split.runtime.session import Recorder, play_recorded
from adaptive_split.runtime.setup import Setup
from adaptive_split.runtime.simulated.streams import Stream
from adaptive_split.runtime.stages import StageRunner
from adaptive_split.runtime.transport import GrpcTransport
from adaptive_split.scenario import Scenario
from adaptive_split.trace import Trace

BATTERY_J = 72_000.0
"""Capacity of the modelled battery, 20 Wh: full at the start of every block."""
WARM_UP_FRAMES = 15
LOAD_S = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class LiveComparison:
    """What every controller did in every window, measured and simulated."""

    windows: tuple[Window, ...]
    frames: Mapping[str, Frames]
    """Measured; one row per window."""
    simulated: Mapping[str, Frames]
    """The same windows in the simulator, `TWINS` rows each."""
    config: LiveConfig
    other_load: float
    """Busy share of this machine before the first block."""


def load_of_others() -> float:
    """Share of this machine that other programs keep busy, over a second."""
    sensor, clock = LoadSensor(), MonotonicClock()
    clock.sleep_until(clock.now_s() + LOAD_S)
    return sensor.read().cpu


def compare_live(
    scenario: Scenario,
    traces: Sequence[Trace],
    policies: Mapping[str, Policy],
    pictures: Path,
    records: Path,
    config: LiveConfig,
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> LiveComparison:
    """Run every controller in every window, in real time.

    Args:
        scenario: Its device profile is played by slowing this machine down.
        traces: What the link plays.
        policies: By name; those that only a simulator can serve are left out: nobody knows a real
            future.
        pictures: A folder with pictures of the `judge` half.
        records: Existing folder; gets one `<controller>.jsonl` each.
        config: How long and how often.
        progress: Told how far it is, in frames.
    """
    chosen = {name: policy for name, policy in policies.items() if name not in SIMULATED_ONLY}
    if not chosen:
        raise ConfigError(
            "a live comparison must have a controller that can run live; got none other than "
            f"{', '.join(SIMULATED_ONLY)}"
        )
    judging = scenario.table("judge")
    folder = read_folder(pictures, scenario.bundle)
    rows = rows_of(folder, judging.outcomes, pictures)
    other_load = load_of_others()
    windows = draw_windows(scenario, traces, judging.outcomes, rows, config)
    stage = _Stage(scenario, folder, rows)
    writers = {name: RecordWriter(records / f"{file_name(name)}.jsonl") for name in chosen}
    runs: dict[str, list[list[FrameReport]]] = {name: [] for name in chosen}
    names, frames_each = list(chosen), len(windows[0].samples)
    total, done = len(windows) * len(names) * frames_each, 0
    with (
        ServerProcess(
            scenario.bundle.path, background=config.utilization, seed=config.seed
        ) as server,
        open_link(config.link, server.address) as link,
        StageRunner(scenario.bundle, parts=scenario.bundle.parts) as stages,
    ):
        progress("warming up", 0, total)
        short = replace_samples(windows[0], WARM_UP_FRAMES)
        stage.play(short, chosen[names[0]], link, stages, None)
        for index, window in enumerate(windows):
            for turn in range(len(names)):
                name = names[(index + turn) % len(names)]
                progress(f"window {index + 1} of {len(windows)}: {name}", done, total)
                runs[name].append(stage.play(window, chosen[name], link, stages, writers[name]))
                done += frames_each
        progress("live blocks", done, total)
    for writer in writers.values():
        writer.close()
    measured = {name: frames_of_reports(blocks) for name, blocks in runs.items()}
    return LiveComparison(
        windows, measured, simulate_windows(scenario, windows, chosen, config), config, other_load
    )


class _Stage:
    """What is the same for all blocks."""

    def __init__(self, scenario: Scenario, folder: PictureFolder, rows: Mapping[int, int]) -> None:
        self._scenario, self._folder, self._rows = scenario, folder, rows
        self._setup = Setup(
            bundle=scenario.bundle, device_profile=scenario.device,
            server_profile=scenario.server, objective=scenario.objective, radio=scenario.radio,
        )  # fmt: skip
        self._table = scenario.table("policy")
        self._stand_in = make_policy("distribution-planner", self._table, None)

    def play(
        self,
        window: Window,
        policy: Policy,
        link: LinkProcess,
        stages: StageRunner,
        writer: RecordWriter | None,
    ) -> list[FrameReport]:
        """Run one block on a device of its own."""

        def prepare(seed: int) -> Scenes:
            link.start(window.trace, window.offset_s)
            return Scenes(self._folder, self._rows, window.samples)

        controller = LiveController(self._table, policy, self._stand_in)
        recorder = None if writer is None else Recorder(writer, controller)
        with GrpcTransport(link.address, self._scenario.bundle, insecure=True) as transport:
            device = Device(
                self._setup, stages, transport, MonotonicClock(), ModelledBattery(BATTERY_J),
                slowdown=1.0, probes=policy.probes,
            )  # fmt: skip
            with LiveBackend(device, prepare, len(window.samples)) as backend:
                reports = list(play_recorded(backend, controller, recorder))
        if recorder is not None:
            recorder.close()
        # What is still on its way crosses at once, so that the next block starts on a free link.
        link.stop()
        return reports


def summarize_live(scenario: Scenario, live: LiveComparison) -> dict[str, Any]:
    """Sum a live comparison up: the keys of the simulated one, measured, and `simulated` beside.

    An interval says how much the windows differ; few windows make a rough one.
    """

    def streams(times: int) -> list[Stream]:
        nothing = np.zeros(1)
        return [
            Stream(f"{window.trace.name} at {window.offset_s:.0f} s", window.trace.family,
                   nothing, nothing, nothing, np.array(window.samples), window.trace.source)
            for window in live.windows
            for _ in range(times)
        ]  # fmt: skip

    def summed(frames: Mapping[str, Frames], times: int) -> dict[str, Any]:
        lanes = streams(times)
        probes = {name: np.zeros(len(lanes)) for name in frames}
        found = sum_up(frames, lanes, probes, [0] * len(lanes))
        for numbers in found["controllers"].values():
            del numbers["probe_bytes"]
        return found

    return {
        **summed(live.frames, 1),
        "simulated": summed(live.simulated, TWINS),
        "windows": [
            {
                "family": window.trace.family, "name": window.trace.name,
                "source": window.trace.source, "rtt_source": window.trace.rtt_source,
                "offset_s": round(window.offset_s, 1),
                "seconds": round(len(window.samples) / scenario.objective.fps, 1),
            }
            for window in live.windows
        ],
        "settings": asdict(live.config) | {
            "order": "controllers take turns, block by block, in an order that rotates",
            "device": f"this machine, slowed to: {scenario.device.machine}",
            "server": "this machine, in a process of its own",
            "battery_j": BATTERY_J,
            "other_load": round(live.other_load, 3),
        },
    }  # fmt: skip
