"""A comparison as plain numbers: what `summary.json` and the report are made of."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import adaptive_split
from adaptive_split.agents.columns import Drain, columns_of, gap_closed
from adaptive_split.agents.compare import Comparison
from adaptive_split.agents.frames import Frames
from adaptive_split.agents.identity import file_hash
from adaptive_split.agents.intervals import Bootstrap
from adaptive_split.agents.roster import LEARNED
from adaptive_split.candidates import Floats
from adaptive_split.runtime.controller_bundle import WEIGHTS
from adaptive_split.runtime.simulated.streams import Stream

VERSION = 2
INTERVAL = (
    "95 %, bootstrap stratified by family and clustered by trace file (by window in a family "
    "with one file); families weigh the same"
)


def summarize(comparison: Comparison, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Sum a simulated comparison up.

    Returns:
        `scenario`, `controllers` (see `columns.columns_of`; `gap_closed` is the share of the way
        from the best static decision to `oracle`), `paired_difference` (sac minus each rival),
        `families`, `traces`, `settings`, `provenance`.
    """
    streams, frames = comparison.streams, comparison.frames
    scenario, config = comparison.scenario, comparison.config
    return {
        "version": VERSION,
        "scenario": scenario.name,
        **sum_up(frames, streams, comparison.probe_bytes, comparison.seeds, Drain.of(scenario)),
        "traces": trace_list(comparison),
        "settings": {
            "seeds": config.num_seeds,
            "streams_per_family_and_seed": config.per_family,
            "frames_per_stream": streams[0].num_frames,
            "objective": asdict(scenario.objective),
            "picked_in_hindsight": dict(comparison.hindsight),
            "planner_knobs": _knobs(comparison),
            "device": scenario.device.machine,
            "server": scenario.server.machine,
            "energy_source": scenario.device.energy_source,
            "interval": INTERVAL,
            "latency": "over answered frames; a dropped frame has none and counts as missed",
            "battery": None if scenario.battery is None else asdict(scenario.battery),
            "switches": "share of the started frames whose split point differs from the one before",
        },
        "provenance": dict(provenance),
    }


def sum_up(
    frames: Mapping[str, Frames],
    streams: Sequence[Stream],
    probe_bytes: Mapping[str, Floats],
    seeds: Sequence[int],
    drain: Drain,
) -> dict[str, Any]:
    """Numbers of every controller, over all streams and by family."""
    families = np.array([stream.family for stream in streams])
    files = np.array([stream.name for stream in streams])
    utility = {name: one.utility.mean(1) for name, one in frames.items()}

    def part(members: list[int]) -> dict[str, Any]:
        bootstrap = Bootstrap(families[members].tolist(), files[members].tolist())
        inside = {name: values[members] for name, values in utility.items()}
        closed = gap_closed(inside, bootstrap)
        return {
            "controllers": {
                name: columns_of(frames[name], bootstrap, members, probe_bytes[name], drain)
                | {"gap_closed": closed[name]}
                for name in frames
            },
            "paired_difference": _differences(inside, bootstrap),
        }

    everything = part(list(range(len(streams))))
    weights = Bootstrap(families.tolist(), files.tolist(), rounds=1).weights
    for name, numbers in everything["controllers"].items():
        numbers["per_seed"] = _per_seed(utility[name], weights, seeds)
    return everything | {
        "families": {
            family: {
                "source": ", ".join(sorted({streams[index].source for index in members})),
                "files": len({files[index] for index in members}),
                "streams": len(members),
                **part(members),
            }
            for family in np.unique(families).tolist()
            for members in [np.flatnonzero(families == family).tolist()]
        }
    }


def _knobs(comparison: Comparison) -> str:
    """Where the rivals' knobs come from, in words."""
    words = "defaults" if comparison.used_defaults else "tuned on training traces"
    if comparison.searched:
        words += f"; {', '.join(comparison.searched)} tuned on training traces for this comparison"
    return words


def trace_list(comparison: Comparison) -> list[dict[str, Any]]:
    """Every trace file, where it comes from, and how many streams were cut from it."""
    drawn = [(stream.family, stream.name) for stream in comparison.streams]
    return [
        {
            "family": trace.family, "name": trace.name, "source": trace.source,
            "rtt_source": trace.rtt_source, "duration_s": round(trace.duration_s, 1),
            "streams": drawn.count((trace.family, trace.name)),
        }
        for trace in comparison.traces
    ]  # fmt: skip


def provenance_of(comparison: Comparison, controller: Path | None, command: str) -> dict[str, Any]:
    """What a reader needs to run it again."""
    return {
        "command": command,
        "versions": {
            "adaptive_split": adaptive_split.__version__, "numpy": np.__version__,
            "python": platform.python_version(), "platform": platform.platform(),
        },
        "seeds": list(range(comparison.config.num_seeds)),
        "bundle": comparison.scenario.bundle.name,
        "bundle_hash": comparison.scenario.bundle.hash,
        "controller_hash": None if controller is None else file_hash(controller / WEIGHTS),
    }  # fmt: skip


def _per_seed(utility: Floats, weights: Floats, seeds: Sequence[int]) -> list[float]:
    seed = np.array(seeds)
    means = []
    for one in sorted(set(seeds)):
        weight = weights * (seed == one)
        means.append(round(float(weight @ utility / weight.sum()), 6))
    return means


def _differences(utility: Mapping[str, Floats], bootstrap: Bootstrap) -> dict[str, Any]:
    """Sac minus every rival on the same streams."""
    if LEARNED not in utility:
        return {}
    ours = utility[LEARNED]
    return {
        name: bootstrap.estimate(ours - theirs).to_json()
        for name, theirs in utility.items()
        if name != LEARNED
    }
