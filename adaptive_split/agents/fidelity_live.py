"""Record a live run that the simulator can play again."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from adaptive_split.agents.fidelity import Block, LiveRun, Script
from adaptive_split.agents.live_windows import LiveConfig, Window, draw_windows, rows_of
from adaptive_split.agents.roster import make_policy
from adaptive_split.clock import MonotonicClock
from adaptive_split.errors import ConfigError
from adaptive_split.runtime.backend import Controller
from adaptive_split.runtime.controller import Policy
from adaptive_split.runtime.device import Device
from adaptive_split.runtime.emulation.namespace_link import open_link
from adaptive_split.runtime.live import LiveBackend, play
from adaptive_split.runtime.live_controller import LiveController
from adaptive_split.runtime.picture_folder import Scenes, read_folder
from adaptive_split.runtime.sensors.battery import ModelledBattery
from adaptive_split.runtime.serving.server_process import ServerProcess
from adaptive_split.runtime.setup import Setup
from adaptive_split.runtime.stages import StageRunner
from adaptive_split.runtime.transport import GrpcTransport
from adaptive_split.scenario import Scenario
from adaptive_split.trace import Trace

BATTERY_J = 72_000.0
"""Capacity of the modelled battery, 20 Wh: full at the start of every block."""
BEYOND_S = 6.0
"""Kept of a link after its window: the greeting takes up to 3 s, late replies 2 s."""
WARM_UP_FRAMES = 15

Progress = Callable[[str, int, int], None]


class LiveStage:
    """A server process, a link and this machine as the device, for block after block."""

    def __init__(self, scenario: Scenario, pictures: Path, config: LiveConfig) -> None:
        """Start them.

        Args:
            scenario: Its device profile is played by slowing this machine down.
            pictures: A folder with pictures of the `judge` half.
            config: The kind of link and the server's other load.
        """
        self.scenario, self.config = scenario, config
        self.outcomes = scenario.table("judge").outcomes
        self._folder = read_folder(pictures, scenario.bundle)
        self.rows = rows_of(self._folder, self.outcomes, pictures)
        self._clock = MonotonicClock()
        self._setup = Setup.of(scenario)
        with ExitStack() as stack:
            server = stack.enter_context(
                ServerProcess(scenario.bundle.path, background=config.utilization, seed=config.seed)
            )
            self._served_s = self._clock.now_s()
            self._link = stack.enter_context(open_link(config.link, server.address))
            self._stages = stack.enter_context(
                StageRunner(scenario.bundle, parts=scenario.bundle.parts)
            )
            self._opened = stack.pop_all()

    def __enter__(self) -> LiveStage:
        """Return the stage itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Take everything down."""
        self._opened.close()

    def play(self, window: Window, controller: Controller, *, probes: bool) -> Block:
        """Run one block on a device of its own; window, controller and take are yet to be named."""
        began_s = 0.0

        def prepare(seed: int) -> Scenes:
            nonlocal began_s
            began_s = self._link.start(window.trace, window.offset_s)
            return Scenes(self._folder, self.rows, window.samples)

        with GrpcTransport(self._link.address, self.scenario.bundle, insecure=True) as transport:
            device = Device(
                self._setup, self._stages, transport, self._clock, ModelledBattery(BATTERY_J),
                slowdown=1.0, probes=probes,
            )  # fmt: skip
            with LiveBackend(device, prepare, len(window.samples)) as backend:
                reports = sorted(play(backend, controller), key=lambda one: one.frame_index)
            zero_s = self._clock.now_s() - device.clock.now_s()
        # What is still on its way crosses at once, so that the next block starts on a free link.
        self._link.stop()
        return Block(
            window=0, controller=controller.name, take=0, probes=probes,
            lag_s=zero_s - began_s + window.offset_s, load_s=zero_s - self._served_s,
            reports=tuple(reports),
        )  # fmt: skip


def cut_windows(
    scenario: Scenario, traces: Sequence[Trace], stage: LiveStage, config: LiveConfig
) -> tuple[Window, ...]:
    """Draw windows as a live comparison does, each with a link of its own that begins with it."""
    whole_s = config.block_s + BEYOND_S
    long_enough = [trace for trace in traces if trace.duration_s > whole_s]
    if not long_enough:
        raise ConfigError(
            f"a live window must be played by a trace of more than {whole_s:g} s; got "
            f"{len(traces)} shorter ones; name other traces or fewer seconds"
        )
    drawn = draw_windows(scenario, long_enough, stage.outcomes, stage.rows, config)
    windows = []
    for window in drawn:
        start_s = min(window.offset_s, window.trace.duration_s - whole_s)
        windows.append(Window(window.trace.slice(start_s, start_s + whole_s), 0.0, window.samples))
    return tuple(windows)


def record_run(
    scenario: Scenario,
    traces: Sequence[Trace],
    policies: Mapping[str, Policy],
    pictures: Path,
    config: LiveConfig,
    *,
    again: bool = False,
    progress: Progress = lambda *_: None,
) -> LiveRun:
    """Play every controller in every window, in real time, in turns that rotate.

    Args:
        scenario: What is decided and promised.
        traces: What the link plays.
        policies: By name.
        pictures: A folder with pictures of the `judge` half.
        config: How long and how often.
        again: Whether the decisions of every block are played once more, after all controllers
            have had their turn in its window: how far live runs differ from each other.
        progress: Told how far it is, in blocks.
    """
    table = scenario.table("policy")
    stand_in = make_policy("distribution-planner", table, None)
    controllers = {name: LiveController(table, one, stand_in) for name, one in policies.items()}
    blocks: list[Block] = []
    with LiveStage(scenario, pictures, config) as stage:
        windows = cut_windows(scenario, traces, stage, config)
        short = replace(windows[0], samples=windows[0].samples[:WARM_UP_FRAMES])
        stage.play(short, LiveController(table, stand_in, stand_in), probes=True)
        takes = [(take, name) for take in range(1 + again) for name in policies]
        for index, window in enumerate(windows):
            first: dict[str, Block] = {}
            for turn, (take, _) in enumerate(takes):
                name = takes[(index + turn) % len(policies)][1]
                progress(f"{window.trace.name}: {name}", len(blocks), len(windows) * len(takes))
                decider = Script(first[name].decisions) if take else controllers[name]
                block = stage.play(window, decider, probes=policies[name].probes)
                first.setdefault(name, block)
                blocks.append(replace(block, window=index, controller=name, take=take))
    return LiveRun(
        scenario=scenario.name, bundle_hash=scenario.bundle.hash, machine=platform.machine(),
        link=config.link, utilization=config.utilization, seed=config.seed,
        windows=tuple(window.trace for window in windows), blocks=tuple(blocks),
    )  # fmt: skip
