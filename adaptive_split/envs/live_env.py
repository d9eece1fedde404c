"""How the environment is made on real machines: a device, a server, a link that plays traces."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from adaptive_split.clock import MonotonicClock
from adaptive_split.decision import Decision
from adaptive_split.envs.split_env import SplitEnv, find_traces
from adaptive_split.errors import ConfigError
from adaptive_split.measurement import FrameReport
from adaptive_split.outcomes import Outcomes
from adaptive_split.planner import BacklogPrices
from adaptive_split.runtime.backend import Backend, Situation
from adaptive_split.runtime.device import Device
from adaptive_split.runtime.emulation.link_process import LinkProcess
from adaptive_split.runtime.emulation.namespace_link import open_link
from adaptive_split.runtime.live import LiveBackend
from adaptive_split.runtime.picture_folder import PictureFolder, Scenes, read_folder
from adaptive_split.runtime.sensors.battery import ModelledBattery
from adaptive_split.runtime.serving.server_process import ServerProcess
from adaptive_split.runtime.setup import Setup
from adaptive_split.runtime.simulated.streams import PERIOD_S, Stream, StreamSource
from adaptive_split.runtime.stages import StageRunner
from adaptive_split.runtime.transport import GrpcTransport
from adaptive_split.scenario import Scenario, load_scenario
from adaptive_split.trace import Trace

SHIPPED_PICTURES = Path(__file__).parents[1] / "data" / "pictures"
BATTERY_J = 72_000.0
"""Capacity of the modelled battery, 20 Wh; full when the environment is made."""


class OwningBackend:
    """A backend that is closed together with everything it runs on."""

    def __init__(self, backend: Backend, resources: ExitStack) -> None:
        self._backend, self._resources = backend, resources

    def reset(self, seed: int) -> Situation:
        """Start a run; see `Backend.reset`."""
        return self._backend.reset(seed)

    def step(self, decision: Decision) -> tuple[Situation, list[FrameReport], bool]:
        """Start the current frame; see `Backend.step`."""
        return self._backend.step(decision)

    def close(self) -> None:
        """Close the backend, then what it ran on."""
        self._resources.close()


def make_live_env(
    scenario: str | Scenario = "default",
    traces: str | Path | Sequence[Trace] | None = None,
    *,
    subset: str = "judge",
    split: str = "train",
    pictures: str | Path | None = None,
    server: str | None = None,
    link: str = "proxy",
    utilization: float = 0.0,
    slowdown: float = 1.0,
    probes: bool = True,
    prices: BacklogPrices | None = None,
) -> SplitEnv:
    """Make `adaptive_split/Live-v0`: this machine as the device, in real time.

    Time goes on between the steps: an agent that thinks for long costs answers. The seed fixes
    window, pictures and so the frames; what the machines do with them is measured.

    Args:
        scenario: A scenario, the name of a shipped one, or a path to a `scenario.toml`.
        traces: A folder of traces, or traces, for the emulated link; by default those of
            `trace_sets.default_traces`.
        subset: Which half of the pictures: `policy` or `judge`.
        split: Which default traces: `train`, `validation` or `test`.
        pictures: A folder with pictures of that half; by default `pictures` in the bundle's folder,
            else those that ship with the package.
        server: `host:port` of an edge server that is reached over the real network, without TLS and
            without an emulated link; by default one is started, behind a link that plays traces.
        link: What that link is made of: `proxy` or, as root, `namespaces`.
        utilization: Share of the started server that other users' recorded requests take.
        slowdown: No part takes less than this multiple of its profiled time; 0 on the device that
            was profiled.
        probes: Whether an idle link is measured.
        prices: Backlog prices in the planner's formula.
    """
    played = load_scenario(scenario) if isinstance(scenario, str) else scenario
    bundle, table = played.bundle, played.table(subset)
    beside = bundle.path / "pictures"
    where = Path(pictures or (beside if beside.is_dir() else SHIPPED_PICTURES))
    folder = read_folder(where, bundle)
    rows = find_rows(folder, table.outcomes, where)
    shown = table.outcomes.select(sorted(rows))
    at_hand = np.array(sorted(rows))
    source = StreamSource(played, shown, find_traces(traces, split))
    setup = Setup.of(played)
    with ExitStack() as stack:
        played_link: LinkProcess | None = None
        if server is None:
            process = ServerProcess(bundle.path, background=utilization)
            address = stack.enter_context(process).address
            played_link = stack.enter_context(open_link(link, address))
        stages = stack.enter_context(StageRunner(bundle, parts=bundle.parts))
        target = played_link.address if played_link else str(server)
        transport = GrpcTransport(target, bundle, insecure=True)
        device = Device(
            setup, stages, stack.enter_context(transport), MonotonicClock(),
            ModelledBattery(BATTERY_J), slowdown=slowdown, probes=probes,
        )  # fmt: skip

        def prepare(seed: int) -> Scenes:
            stream = source.draw(np.random.default_rng(seed))
            if played_link is not None:
                played_link.stop()  # what the last run left on the way crosses at once
                played_link.start(trace_of(stream))
            return Scenes(folder, rows, at_hand[stream.samples].tolist())

        backend = LiveBackend(device, prepare, source.num_frames)
        stack.enter_context(backend)
        owning = OwningBackend(backend, stack.pop_all())
    return SplitEnv(owning, table, attribution="settled", prices=prices)


def find_rows(folder: PictureFolder, outcomes: Outcomes, path: Path) -> dict[int, int]:
    """Position in the folder of every row of the outcomes whose picture it holds."""
    position = {file: index for index, file in enumerate(folder.files)}
    rows = {row: position[file] for row, file in enumerate(outcomes.files) if file in position}
    if not rows:
        raise ConfigError(
            f"live pictures must be some of those measured as outcomes; got none in {path}; name "
            "their folder with pictures=..."
        )
    return rows


def trace_of(stream: Stream) -> Trace:
    """Lay the link of a stream out as a trace."""
    time_s = np.arange(len(stream.uplink_mbps), dtype=np.float64) * float(PERIOD_S)
    return Trace(
        stream.name, stream.family, time_s, stream.uplink_mbps, stream.rtt_s, stream.source
    )
