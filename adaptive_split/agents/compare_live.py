"""Play controllers live on this machine: a real server, a real device, a link that plays traces.

The controllers take turns, block by block, over the same windows of the traces with the same
pictures, in an order that rotates. The same windows are then played in the simulator. The records
of a window are what is kept of it: called again with them, it is not played again.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adaptive_split.agents.columns import Drain
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
from adaptive_split.agents.record_tables import ENDING, Origin, write_records
from adaptive_split.agents.roster import SIMULATED_ONLY, file_name, make_policy
from adaptive_split.agents.summary import sum_up
from adaptive_split.agents.unfinished import PARTIAL
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
from adaptive_split.runtime.records import RecordWriter, read_records
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


def check_live(scenario: Scenario, names: Iterable[str], pictures: Path) -> None:
    """Refuse what could not be run live, before the simulated part is played.

    Raises:
        ConfigError: If no controller can run live, or no picture was measured.
    """
    live_names(names)
    rows_of(read_folder(pictures, scenario.bundle), scenario.outcomes("judge"), pictures)


def live_names(names: Iterable[str]) -> list[str]:
    """Those of the named controllers that can run live.

    Raises:
        ConfigError: If there is none.
    """
    found = [name for name in names if name not in SIMULATED_ONLY]
    if not found:
        raise ConfigError(
            "a live comparison must have a controller that can run live; got none other than "
            f"{', '.join(SIMULATED_ONLY)}"
        )
    return found


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
        records: Existing folder; gets `<controller>.jsonl`, as the device wrote it, and the same
            as Parquet, and until then a folder for every window that is done. Windows found there
            are not played again.
        config: How long and how often.
        progress: Told how far it is, in frames.
    """
    chosen = {name: policies[name] for name in live_names(policies)}
    judging = scenario.table("judge")
    folder = read_folder(pictures, scenario.bundle)
    rows = rows_of(folder, judging.outcomes, pictures)
    other_load = load_of_others()
    windows = draw_windows(scenario, traces, judging.outcomes, rows, config)
    stage = _Stage(scenario, folder, rows)
    missing = [index for index in range(len(windows)) if not window_folder(records, index).is_dir()]
    if missing:
        _play_windows(stage, windows, missing, chosen, records, config, progress)
    measured = {name: _measured(records, name, windows) for name in chosen}
    simulated = simulate_windows(scenario, windows, chosen, config)
    for index in range(len(windows)):
        shutil.rmtree(window_folder(records, index))
    return LiveComparison(windows, measured, simulated, config, other_load)


def window_folder(records: Path, index: int) -> Path:
    """Where the records of a window lie until all windows are done."""
    return records / f"window-{index}"


def _play_windows(
    stage: _Stage,
    windows: Sequence[Window],
    missing: Sequence[int],
    policies: Mapping[str, Policy],
    records: Path,
    config: LiveConfig,
    progress: Callable[[str, int, int], None],
) -> None:
    """Play the missing windows, all controllers in turn; a window's folder appears when it is done.

    One that was interrupted is played anew, so that its blocks are close in time.
    """
    names, frames_each = list(policies), len(windows[0].samples)
    total, done = len(missing) * len(names) * frames_each, 0
    with (
        ServerProcess(stage.bundle.path, background=config.utilization, seed=config.seed) as server,
        open_link(config.link, server.address) as link,
        StageRunner(stage.bundle, parts=stage.bundle.parts) as stages,
    ):
        progress("warming up", 0, total)
        short = replace_samples(windows[0], WARM_UP_FRAMES)
        stage.play(short, policies[names[0]], link, stages, None)
        for index in missing:
            place = window_folder(records, index)
            partial = place.with_name(PARTIAL + place.name)
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            for turn in range(len(names)):
                name = names[(index + turn) % len(names)]
                progress("playing live windows", done, total)
                with RecordWriter(partial / f"{file_name(name)}.jsonl") as writer:
                    stage.play(windows[index], policies[name], link, stages, writer)
                done += frames_each
            partial.rename(place)
        progress("playing live windows", done, total)


def _measured(records: Path, name: str, windows: Sequence[Window]) -> Frames:
    """What a controller did in every window; its records are joined in one file of each kind."""
    path = records / f"{file_name(name)}.jsonl"
    parts = [window_folder(records, index) / path.name for index in range(len(windows))]
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    origins = [Origin(one.trace.family, one.trace.name, one.trace.source) for one in windows]
    write_records(parts, origins, path.with_suffix(ENDING))
    return frames_of_reports([[one.report for one in read_records(part)] for part in parts])


class _Stage:
    """What is the same for all blocks."""

    def __init__(self, scenario: Scenario, folder: PictureFolder, rows: Mapping[int, int]) -> None:
        self._folder, self._rows = folder, rows
        self.bundle = scenario.bundle
        self._setup = Setup.of(scenario)
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
        with GrpcTransport(link.address, self.bundle, insecure=True) as transport:
            device = Device(
                self._setup, stages, transport, MonotonicClock(), ModelledBattery(BATTERY_J),
                slowdown=1.0, probes=policy.probes,
            )  # fmt: skip
            with LiveBackend(device, prepare, len(window.samples)) as backend:
                reports = list(play_recorded(backend, controller, recorder))
        if recorder is not None:
            recorder.close()
            if recorder.lost:
                raise ConfigError(
                    f"live records must be written in full; got none for {recorder.lost} frames; "
                    "make room on the disk and call again"
                )
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
        found = sum_up(frames, lanes, probes, [0] * len(lanes), Drain.of(scenario))
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
