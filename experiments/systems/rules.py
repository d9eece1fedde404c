"""What the experiments on published rules share: everybody on the same streams of our scenarios."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import adaptive_split
from adaptive_split.agents.compare import CompareConfig, compare
from adaptive_split.agents.evaluate import play
from adaptive_split.agents.frames import Frames, frames_of
from adaptive_split.agents.intervals import Bootstrap, Estimate
from adaptive_split.agents.roster import BEST_STATIC, LEARNED
from adaptive_split.candidates import CandidateTable, Floats
from adaptive_split.cli.tables import table
from adaptive_split.runtime.controller import Policy
from adaptive_split.runtime.controller_bundle import ControllerBundle
from adaptive_split.runtime.simulated.streams import PERIOD_S, Stream
from adaptive_split.scenario import load_scenario
from adaptive_split.trace import Trace

CONTROLLERS = Path(adaptive_split.__file__).parent / "data" / "controllers"
SCENARIOS = {
    "A": "nano-30fps", "B": "pi-230ms-10fps-100ms", "C": "pi-260ms-30fps-200ms",
    "D": "nano-light-30fps-100ms", "F": "default", "I": "nano-light-10fps-100ms",
}  # fmt: skip
"""By their letter in `experiments/README.md`."""
DEVICE_ONLY, SERVER_ONLY = "local", "jpeg"
REFERENCES = (DEVICE_ONLY, SERVER_ONLY, BEST_STATIC, LEARNED)
MEASURES = ("utility", "correct", "on_time", "energy_j", "tail_s")


@dataclass(frozen=True, slots=True, eq=False)
class Played:
    """What everybody did in one scenario."""

    bootstrap: Bootstrap
    means: Mapping[str, Mapping[str, Floats]]
    """By controller and measure, per captured frame: the mean of every stream, shape `(B,)`."""
    rate_mbps: Floats
    """Of the uplink when a frame was captured, shape `(B, F)`."""
    correct: Mapping[str, Floats]
    """By controller: 1 for a right answer on time, shape `(B, F)`."""

    def mean(self, name: str, measure: str) -> float:
        """Of one controller, link families weighing the same."""
        return float(self.bootstrap.weights @ self.means[name][measure])

    def apart(self, ours: str, theirs: str, measure: str) -> Estimate:
        """How far one controller is ahead of another on the same streams."""
        return self.bootstrap.estimate(self.means[ours][measure] - self.means[theirs][measure])


def play_scenarios(
    names: Sequence[str], traces: Sequence[Trace], per_family: int
) -> Iterator[tuple[str, Played]]:
    """Play controllers in every scenario, with the knobs and the policy that ship with it.

    Args:
        names: Controllers.
        traces: None that anything was tuned or trained on.
        per_family: Streams of each link family.

    Yields:
        Letter of the scenario, and what was played.
    """
    for letter, name in SCENARIOS.items():
        config = CompareConfig(names=tuple(names), num_seeds=1, per_family=per_family)
        learned = ControllerBundle.load(CONTROLLERS / name)
        played = compare(load_scenario(name), traces, config, learned)
        families = [stream.family for stream in played.streams]
        bootstrap = Bootstrap(families, [stream.name for stream in played.streams])
        means = {name: stream_means(frames) for name, frames in played.frames.items()}
        fps = played.scenario.objective.fps
        correct = {name: frames.correct.astype(float) for name, frames in played.frames.items()}
        yield letter, Played(bootstrap, means, rates_of(played.streams, fps), correct)


def told(traces: Sequence[Trace]) -> str:
    """How many traces were played, and where they come from."""
    recorded = sum(trace.source == "recorded" for trace in traces)
    return f"{len(traces)} test traces, {recorded} recorded, {len(traces) - recorded} synthetic"


def stream_means(frames: Frames) -> dict[str, Floats]:
    """Mean of every measure over the captured frames of each stream."""
    columns = {name: getattr(frames, name) for name in MEASURES[:-1]}
    columns["tail_s"] = frames.parts_s["tail_s"]
    return {name: values.astype(float).mean(1) for name, values in columns.items()}


def rates_of(streams: Sequence[Stream], fps: float) -> Floats:
    """Rate of the uplink in Mbit/s when every frame was captured, shape `(B, F)`."""
    slots = (np.arange(streams[0].num_frames) / fps / PERIOD_S + 1e-6).astype(int)
    return np.stack([stream.uplink_mbps[slots] for stream in streams])


def rate_bins(
    rate_mbps: Floats, low: float, high: float, num_bins: int
) -> tuple[Floats, list[NDArray[np.bool_]]]:
    """Middles in Mbit/s of bins that are equally wide on a logarithmic scale, and who is inside."""
    edges = np.geomspace(low, high, num_bins + 1)
    inside = [(rate_mbps >= a) & (rate_mbps < b) for a, b in pairwise(edges)]
    return np.sqrt(edges[:-1] * edges[1:]), inside


def play_frames(policy: Policy, judging: CandidateTable, streams: Sequence[Stream]) -> Frames:
    """Every frame of one controller."""
    samples = [stream.samples for stream in streams]
    return frames_of(play(policy, judging, streams), judging, np.stack(samples))


def as_json(played: Mapping[str, Played], ours: str) -> dict[str, Any]:
    """Means of everybody, and utility of one controller minus each other, by scenario."""
    return {
        letter: {
            "scenario": SCENARIOS[letter],
            "streams": len(one.bootstrap.weights),
            "means": {
                name: {measure: round(one.mean(name, measure), 5) for measure in MEASURES}
                for name in one.means
            },
            "utility_apart": {
                name: one.apart(ours, name, "utility").to_json()
                for name in one.means
                if name != ours
            },
        }
        for letter, one in played.items()
    }


def print_utilities(played: Mapping[str, Played], ours: str) -> None:
    """Print utility, on-time accuracy and what one controller is ahead by, scenario by scenario."""
    head = ["scenario, controller", "utility", "right %", "on time %", "J", "server ms",
            f"{ours} minus it"]  # fmt: skip
    rows = [head]
    for letter, one in played.items():
        for name in one.means:
            apart = one.apart(ours, name, "utility")
            cells = [one.mean(name, measure) for measure in MEASURES]
            rows.append([
                f"{letter} {name}", f"{cells[0]:.4f}", f"{100 * cells[1]:.1f}",
                f"{100 * cells[2]:.1f}", f"{cells[3]:.3f}", f"{1e3 * cells[4]:.2f}",
                "" if name == ours else f"{apart.value:+.4f} [{apart.low:+.4f}, {apart.high:+.4f}]",
            ])  # fmt: skip
    print(table(rows))


def tally(played: Mapping[str, Played], ours: str, theirs: str) -> str:
    """In how many scenarios one controller is surely ahead of and behind another, in words."""
    apart = [one.apart(ours, theirs, "utility") for one in played.values()]
    ahead = sum(one.low > 0 for one in apart)
    behind = sum(one.high < 0 for one in apart)
    mean = sum(one.value for one in apart) / len(apart)
    return f"{mean:+.3f} (ahead in {ahead}, behind in {behind} of {len(apart)})"
