"""Every split point, and a controller that adapts, on links that never change: the papers' figure.

Each link of the sweep has one rate and one round trip, so what is left to adapt to is the pictures
and the server's load; the simulator plays every fixed decision there. Of each split point the exit
threshold and the width are shown that bring the most over all links; beside them, the best of all
fixed decisions on every single link, which only hindsight knows.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptive_split.agents.baselines import Static
from adaptive_split.agents.cluster import Count
from adaptive_split.agents.evaluate import play
from adaptive_split.agents.frames import frames_of
from adaptive_split.agents.hindsight import StaticLanes, static_by_stream
from adaptive_split.agents.roster import DEFAULT_NAMES, HINDSIGHT, LEARNED, describe
from adaptive_split.candidates import CandidateTable, Floats
from adaptive_split.runtime.controller import Policy
from adaptive_split.runtime.simulated.streams import (
    PERIOD_S,
    WAIT_PERIOD_S,
    Stream,
    scene_sequence,
)
from adaptive_split.scenario import Scenario
from adaptive_split.server_load import server_wait

RATES_MBPS = tuple(np.geomspace(0.25, 100.0, 14).round(3).tolist())
"""Of the constant links, evenly apart on a logarithmic scale."""
DRAWS = 3
"""Draws of pictures and server load on every link."""
MOST_FRAMES = 300
"""Of a stream; every link shows the pictures of all draws."""
SEARCH_FRAMES = 80
SEARCH_EVERY = 3
"""Of the links, every third is searched for decisions worth playing, with shorter streams."""
PER_LINK, PER_SPLIT = 3, 2
"""The best of them for a link, and of a split point over all, are played in full."""
LEVEL = 0.005
"""Differences in utility below this are called none."""


def static_sweep(
    scenario: Scenario,
    policies: Mapping[str, Policy],
    rtt_s: float,
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> dict[str, Any]:
    """Play every split point and one adaptive controller on constant links.

    Args:
        scenario: What is decided and promised.
        policies: Of the comparison; `sac` is drawn, else the first that adapts.
        rtt_s: Round trip of all links.
        progress: Told how far it is.

    Returns:
        `rates_mbps`, `rtt_s`, `curves` (by split point: `words`, `utility`, `latency_s`,
        `energy_j`, `accuracy`, a value for every rate), `best_fixed` (`split_point` and `utility`
        of the best decision at every rate), `adaptive` (like a curve, with its `name`; or `None`),
        `words` (where a fixed decision is ahead of it).
    """
    table = scenario.table("judge")
    grid, count = table.grid, partial(progress, "sweeping constant links")
    chosen = _worth_playing(scenario, table, rtt_s, count)
    num_frames = min(scenario.camera.frames_per_stream, MOST_FRAMES)
    streams = _streams(scenario, table, rtt_s, RATES_MBPS, num_frames)
    lanes = [stream for _ in chosen for stream in streams]
    columns = _columns(StaticLanes(np.repeat(chosen, len(streams))), table, lanes)
    fixed = {name: values.reshape(len(chosen), -1) for name, values in columns.items()}
    winners = fixed["utility"].argmax(0)
    curves = {}
    for split in range(grid.num_stages + 1):
        members = np.flatnonzero(grid.split_point[chosen] == split)
        best = members[fixed["utility"][members].mean(1).argmax()]
        words = describe(grid.candidates[chosen[best]])
        curves[split] = {"words": words} | {
            name: values[best].tolist() for name, values in fixed.items()
        }
    best_fixed = {
        "split_point": grid.split_point[chosen[winners]].tolist(),
        "utility": fixed["utility"].max(0).tolist(),
    }
    name = _adaptive(policies)
    adaptive = None
    if name is not None:
        columns = _columns(copy.deepcopy(policies[name]), table, streams)
        adaptive = {"name": name, **{key: values.tolist() for key, values in columns.items()}}
    return {
        "rates_mbps": list(RATES_MBPS), "rtt_s": round(rtt_s, 4), "draws": DRAWS,
        "frames": streams[0].num_frames, "num_stages": grid.num_stages,
        "curves": {str(split): curve for split, curve in curves.items()},
        "best_fixed": best_fixed, "adaptive": adaptive,
        "words": (
            [] if adaptive is None
            else where_fixed_wins(best_fixed, adaptive, grid.num_stages)
        ),
    }  # fmt: skip


def where_fixed_wins(
    best_fixed: Mapping[str, Sequence[float]], adaptive: Mapping[str, Any], num_stages: int
) -> list[str]:
    """Say on which links a fixed decision is ahead of the adaptive controller, and how far."""
    ahead = np.array(best_fixed["utility"]) - np.array(adaptive["utility"])
    name, splits = adaptive["name"], [int(split) for split in best_fixed["split_point"]]
    lines, runs = [], groupby(range(len(ahead)), lambda at: (splits[at], ahead[at] > LEVEL))
    for (split, wins), run in runs:
        links = list(run)
        if wins:
            lines.append(
                f"{_link(links[0], links[-1])}: {split_words(split, num_stages)} is ahead of "
                f"{name} by up to {ahead[links].max():.4f}"
            )
    won, lost = int((ahead < -LEVEL).sum()), int((ahead > LEVEL).sum())
    lines.append(
        f"of {len(ahead)} links {name} is ahead of the best fixed decision on {won}, level within "
        f"{LEVEL:g} on {len(ahead) - won - lost} and behind on {lost}"
    )
    return lines


def split_words(split_point: int, num_stages: int) -> str:
    """A split point in a person's words."""
    return {0: "sending the picture", num_stages: "staying local"}.get(
        split_point, f"split {split_point}"
    )


def _link(first: int, last: int) -> str:
    low, high = RATES_MBPS[first], RATES_MBPS[last]
    return f"at {low:.3g} Mbit/s" if first == last else f"from {low:.3g} to {high:.3g} Mbit/s"


def _adaptive(policies: Mapping[str, Policy]) -> str | None:
    """The controller to draw: the learned one, else the first that is neither fixed nor knowing."""
    fair = [
        name
        for name, policy in policies.items()
        if name not in HINDSIGHT and not isinstance(policy, Static)
    ]
    ranked = [name for name in (LEARNED, *DEFAULT_NAMES) if name in fair]
    return next(iter([*ranked, *fair]), None)


def _worth_playing(
    scenario: Scenario, table: CandidateTable, rtt_s: float, count: Count
) -> NDArray[np.int64]:
    """Indices of the fixed decisions that are good somewhere, found on short streams."""
    rates = RATES_MBPS[::SEARCH_EVERY]
    num_frames = min(scenario.camera.frames_per_stream, SEARCH_FRAMES)
    streams = _streams(scenario, table, rtt_s, rates, num_frames)
    values = static_by_stream(table, streams, np.arange(len(table.grid)), count)
    by_rate = values.reshape(len(values), len(rates), DRAWS).mean(-1)
    chosen = set(np.argsort(-by_rate, axis=0)[:PER_LINK].ravel().tolist())
    ranked = np.argsort(-by_rate.mean(1))
    for split in range(table.grid.num_stages + 1):
        chosen |= set(ranked[table.grid.split_point[ranked] == split][:PER_SPLIT].tolist())
    return np.array(sorted(chosen))


def _streams(
    scenario: Scenario,
    table: CandidateTable,
    rtt_s: float,
    rates_mbps: Sequence[float],
    num_frames: int,
) -> list[Stream]:
    """`DRAWS` streams of every constant link; all links see the same pictures and loads."""
    camera, load = scenario.camera, scenario.load
    duration_s = num_frames / scenario.objective.fps + 2.0
    slots = int(np.ceil(duration_s / PERIOD_S))
    drawn = []
    for draw in range(DRAWS):
        generator = np.random.default_rng(draw)
        utilization = load.utilizations[draw % len(load.utilizations)]
        wait = server_wait(draw, duration_s, utilization, load.speedup, WAIT_PERIOD_S)
        shown = scene_sequence(table.outcomes, num_frames, camera.scene_correlation, generator)
        drawn.append((wait, shown))
    return [
        Stream(f"{rate:g} Mbit/s", "constant", np.full(slots, rate), np.full(slots, rtt_s), wait,
               shown, "synthetic")
        for rate in rates_mbps
        for wait, shown in drawn
    ]  # fmt: skip


def _columns(policy: Policy, table: CandidateTable, streams: Sequence[Stream]) -> dict[str, Floats]:
    """What a controller brings on every link, the mean over its draws."""
    samples = np.stack([stream.samples for stream in streams])
    frames = frames_of(play(policy, table, streams), table, samples)
    answered = np.isfinite(frames.latency_s).sum(1)
    columns = {
        "utility": frames.utility.mean(1),
        "latency_s": np.nan_to_num(frames.latency_s).sum(1) / np.maximum(answered, 1),
        "energy_j": frames.energy_j.mean(1), "accuracy": frames.correct.mean(1),
    }  # fmt: skip
    return {name: values.reshape(-1, DRAWS).mean(1).round(5) for name, values in columns.items()}
