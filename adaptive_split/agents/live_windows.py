"""What a live comparison plays: windows of traces with pictures, and the same in the simulator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from adaptive_split.agents.evaluate import play
from adaptive_split.agents.frames import Frames, frames_of
from adaptive_split.errors import ConfigError
from adaptive_split.outcomes import Outcomes
from adaptive_split.runtime.controller import Policy
from adaptive_split.runtime.picture_folder import PictureFolder
from adaptive_split.runtime.simulated.streams import (
    WAIT_PERIOD_S,
    Stream,
    cut_window,
    scene_sequence,
)
from adaptive_split.scenario import Scenario
from adaptive_split.server_load import server_wait
from adaptive_split.trace import Trace

TWINS = 8
"""Draws of the server's load under which a window is played in the simulator."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveConfig:
    """One live comparison."""

    windows_per_family: int = 1
    block_s: float = 10.0
    """Length of a block: one window under one controller."""
    utilization: float = 0.5
    """Share of the server that other users' recorded requests take."""
    link: str = "proxy"
    """How the link plays the traces; see `namespace_link.LINKS`."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what could not be run."""
        if self.windows_per_family < 1 or not 1 <= self.block_s <= 600:
            raise ConfigError(
                "a live comparison must have a window per family or more, of 1 to 600 s; got "
                f"{self.windows_per_family!r} of {self.block_s!r} s"
            )


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """A part of a trace, with the pictures shown during it."""

    trace: Trace
    offset_s: float
    samples: tuple[int, ...]
    """Row of the outcomes of every frame."""


def draw_windows(
    scenario: Scenario,
    traces: Sequence[Trace],
    outcomes: Outcomes,
    rows: Mapping[int, int],
    config: LiveConfig,
) -> tuple[Window, ...]:
    """Draw windows evenly over families, each with a scene of the pictures at hand."""
    generator = np.random.default_rng(config.seed)
    at_hand = np.array(sorted(rows))
    shown = replace(
        outcomes,
        files=tuple(outcomes.files[row] for row in at_hand),
        **{
            name: getattr(outcomes, name)[at_hand]
            for name in (
                "label", "exit_answer", "exit_confidence", "server_answer", "server_confidence",
                "payload_bytes",
            )
        },
    )  # fmt: skip
    families: dict[str, list[Trace]] = {}
    for trace in traces:
        families.setdefault(trace.family, []).append(trace)
    num_frames = round(config.block_s * scenario.objective.fps)
    windows = []
    for family in sorted(families):
        order = generator.permutation(len(families[family]))
        for index in range(config.windows_per_family):
            trace = families[family][order[index % len(order)]]
            room = max(trace.duration_s - config.block_s, 0.0)
            # Windows of one trace lie apart: each is drawn from a part of its own.
            part = (index + float(generator.uniform(0, 1))) / config.windows_per_family
            samples = scene_sequence(
                shown, num_frames, scenario.camera.scene_correlation, generator
            )
            window = Window(trace, part * room, tuple(at_hand[samples].tolist()))
            windows.append(window)
    return tuple(windows)


def rows_of(folder: PictureFolder, outcomes: Outcomes, path: Path) -> dict[int, int]:
    """Position in the folder of every row of the outcomes whose picture it holds."""
    position = {file: index for index, file in enumerate(folder.files)}
    rows = {row: position[file] for row, file in enumerate(outcomes.files) if file in position}
    if not rows:
        raise ConfigError(
            f"live pictures must be some of those measured as outcomes; got none in {path}"
        )
    return rows


def replace_samples(window: Window, num_frames: int) -> Window:
    """Shorten a window."""
    return Window(window.trace, window.offset_s, window.samples[:num_frames])


def simulate_windows(
    scenario: Scenario,
    windows: Sequence[Window],
    policies: Mapping[str, Policy],
    config: LiveConfig,
) -> dict[str, Frames]:
    """Play the same windows in the simulator, each under several draws of the server's load."""
    table, load = scenario.table("judge"), scenario.load
    streams = []
    for index, window in enumerate(windows):
        duration_s = len(window.samples) / scenario.objective.fps + 2.0
        rate, rtt = cut_window(window.trace, window.offset_s, duration_s)
        for twin in range(TWINS):
            seed = config.seed + index * TWINS + twin
            wait = server_wait(seed, duration_s, config.utilization, load.speedup, WAIT_PERIOD_S)
            streams.append(
                Stream(window.trace.name, window.trace.family, rate, rtt, wait,
                       np.array(window.samples), window.trace.source)
                .calibrated(scenario.calibration)
            )  # fmt: skip
    samples = np.stack([stream.samples for stream in streams])
    return {
        name: frames_of(play(policy, table, streams), table, samples)
        for name, policy in policies.items()
    }
