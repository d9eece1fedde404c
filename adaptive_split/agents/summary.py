"""A comparison as plain numbers: what `summary.json` and the report are made of."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import adaptive_split
from adaptive_split.agents.compare import Comparison
from adaptive_split.agents.frames import CAUSES, Frames
from adaptive_split.agents.intervals import Bootstrap
from adaptive_split.agents.roster import BEST_STATIC, LEARNED, ORACLE
from adaptive_split.candidates import Floats
from adaptive_split.runtime.controller_bundle import WEIGHTS
from adaptive_split.runtime.simulated.streams import Stream

VERSION = 1
INTERVAL = (
    "95 %, bootstrap stratified by family and clustered by trace file (by window in a family "
    "with one file); families weigh the same"
)


def summarize(comparison: Comparison, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Sum a simulated comparison up.

    Returns:
        `scenario`, `controllers`, `paired_difference` (sac minus each rival), `oracle_gap_closed`
        (share of the way from the best static decision to `oracle`), `families`, `traces`,
        `settings`, `provenance`.
    """
    streams, frames = comparison.streams, comparison.frames
    scenario, config = comparison.scenario, comparison.config
    return {
        "version": VERSION,
        "scenario": scenario.name,
        **sum_up(frames, streams, comparison.probe_bytes, comparison.seeds),
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
        },
        "provenance": dict(provenance),
    }


def sum_up(
    frames: Mapping[str, Frames],
    streams: Sequence[Stream],
    probe_bytes: Mapping[str, Floats],
    seeds: Sequence[int],
) -> dict[str, Any]:
    """Numbers of every controller, over all streams and by family."""
    families = [stream.family for stream in streams]
    files = [stream.name for stream in streams]
    everywhere = Bootstrap(families, files)
    utility = {name: one.utility.mean(1) for name, one in frames.items()}
    result: dict[str, Any] = {
        "controllers": {
            name: _numbers(frames[name], everywhere, np.arange(len(streams)), probe_bytes[name])
            | {"per_seed": _per_seed(utility[name], everywhere, seeds)}
            for name in frames
        },
        "paired_difference": _differences(utility, everywhere),
        "oracle_gap_closed": _gap_closed(utility, everywhere),
        "families": {},
    }
    for family in sorted(set(families)):
        members = np.array([index for index, name in enumerate(families) if name == family])
        bootstrap = Bootstrap([family] * len(members), [files[index] for index in members])
        inside = {name: values[members] for name, values in utility.items()}
        result["families"][family] = {
            "source": ", ".join(sorted({streams[index].source for index in members})),
            "files": len({files[index] for index in members}),
            "streams": len(members),
            "controllers": {
                name: _numbers(frames[name], bootstrap, members, probe_bytes[name])
                for name in frames
            },
            "paired_difference": _differences(inside, bootstrap),
        }
    return result


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


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _numbers(
    frames: Frames, bootstrap: Bootstrap, members: Any, probe_bytes: Floats
) -> dict[str, Any]:
    """What one controller brought on some streams."""

    def estimate(values: Any) -> dict[str, float]:
        return bootstrap.estimate(values[members].astype(float).mean(1)).to_json()

    def mean(values: Any) -> float:
        return round(float(bootstrap.weights @ values[members].astype(float).mean(1)), 6)

    latency = frames.latency_s[members]
    answered = latency[np.isfinite(latency)]
    p50, p95, p99 = _percentiles(answered, (50, 95, 99))
    accuracy, missed = estimate(frames.correct), estimate(~frames.on_time)
    losses = frames.losses
    return {
        "utility": estimate(frames.utility),
        "on_time_accuracy": accuracy["value"],
        "on_time_accuracy_interval": [accuracy["low"], accuracy["high"]],
        "latency_s": {"p50": p50, "p95": p95, "p99": p99},
        "latency_percentiles_s": _percentiles(answered, tuple(range(101))),
        "miss_rate": missed["value"],
        "miss_rate_interval": [missed["low"], missed["high"]],
        "energy_j": mean(frames.energy_j),
        "energy_provenance": frames.energy_provenance,
        "payload_bytes": round(mean(frames.payload_bytes), 1),
        "probe_bytes": round(
            float(bootstrap.weights @ probe_bytes[members]) / frames.utility.shape[1], 1
        ),
        "dropped_rate": mean(~frames.started),
        "server_share": mean(frames.by_server),
        "fallback_share": mean(frames.fell_back),
        "loss": {
            cause: round(float(bootstrap.weights @ losses[cause][members]), 6) for cause in CAUSES
        },
        "frames": int(frames.utility[members].size),
    }


def _percentiles(values: Floats, wanted: Sequence[int]) -> list[float]:
    if not values.size:
        return [float("nan")] * len(wanted)
    return [round(float(value), 6) for value in np.percentile(values, wanted)]


def _per_seed(utility: Floats, bootstrap: Bootstrap, seeds: Sequence[int]) -> list[float]:
    seed = np.array(seeds)
    means = []
    for one in sorted(set(seeds)):
        weight = bootstrap.weights * (seed == one)
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


def _gap_closed(utility: Mapping[str, Floats], bootstrap: Bootstrap) -> dict[str, float | None]:
    """Share of the way from the best static decision to `oracle`; `None` without a way."""
    if BEST_STATIC not in utility or ORACLE not in utility:
        return {}
    floor, gap = utility[BEST_STATIC], utility[ORACLE] - utility[BEST_STATIC]
    closed: dict[str, float | None] = {}
    for name, values in utility.items():
        found = bootstrap.ratio(values - floor, gap)
        closed[name] = None if found is None else round(found.value, 4)
    return closed
