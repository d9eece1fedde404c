"""What the learned future is worth on backlog, heat and battery: `experiments/future_worth.py`.

The policy that `experiments/benchmark.py train` left in a seed's folder plays validation streams
without and with the future part of its values, learned by rollouts under the same strain. Backlog:
the scenario as it is. Heat: a device that throttles within a stream. Battery: a charge that the
distribution planner uses up before the end; an empty one answers no frame.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmark import SCENARIOS, task, traces

from adaptive_split.agents.evaluate import lane_utility, play
from adaptive_split.agents.future import learn_future
from adaptive_split.agents.rivals import make_rival
from adaptive_split.agents.task import DISTRIBUTION, Task, with_future
from adaptive_split.runtime.controller import ForecastController
from adaptive_split.runtime.controller_bundle import ControllerBundle
from adaptive_split.runtime.simulated.streams import StreamSource
from adaptive_split.scenario import Battery, Thermal

HOT = Thermal(
    ambient_c=25.0, resistance_c_per_w=15.0, time_constant_s=3.0, throttle_at_c=50.0,
    resume_below_c=45.0, slowdown=1.6,
)  # fmt: skip
"""Always busy, the Nano (2.6 W) would settle at 64 degrees and the Raspberry Pi (3.9 W) at 83."""
SHARE = 0.8
"""Of the energy that the planner takes, a battery holds this much."""


def backlog(one: Task) -> Task:
    """The scenario as it is."""
    return one


def heat(one: Task) -> Task:
    """Devices that throttle."""
    return _with(one, thermal=HOT)


def battery(one: Task) -> Task:
    """A charge that the planner uses up before the end."""
    rival = make_rival(DISTRIBUTION, one.table, one.tuned)
    used_j = float(play(rival, one.table, one.streams).per_stream("energy_j").mean())
    capacity_j = SHARE * used_j * one.streams[0].num_frames
    return _with(one, battery=Battery(capacity_j=capacity_j, idle_w=0.0))


def _with(one: Task, **parts: Any) -> Task:
    streams = tuple(replace(stream, **parts) for stream in one.streams)
    return replace(one, scenario=replace(one.scenario, **parts), streams=streams)


STRAINS: Mapping[str, Callable[[Task], Task]] = {
    "backlog": backlog, "heat": heat, "battery": battery,
}  # fmt: skip


def main() -> None:
    """Print one row per scenario and strain."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark"), help="of benchmark.py")
    parser.add_argument("--data", type=Path, help="recordings; default as for adaptive-split train")
    parser.add_argument("--only", nargs="+", choices=tuple(SCENARIOS), default=["F"])
    parser.add_argument("--strains", nargs="+", choices=tuple(STRAINS), default=list(STRAINS))
    parser.add_argument("--seed", type=int, default=0, help="of the trained policy")
    arguments = parser.parse_args()
    arguments.halves = "given"
    torch.set_num_threads(1)
    print(
        "| scenario | strain | distribution planner | sac, no future | future | future minus none |"
    )
    print("| --- |" + " --- |" * 5, flush=True)
    for letter in arguments.only:
        for strain in arguments.strains:
            print(f"| {letter} | {strain} | {row(letter, strain, arguments)} |", flush=True)


def row(letter: str, strain: str, arguments: argparse.Namespace) -> str:
    """Utilities on validation streams, and the paired difference with its standard error."""
    one = STRAINS[strain](task(letter, arguments))
    bundle = ControllerBundle.load(arguments.out / f"seed-{arguments.seed}" / letter)
    plain = ForecastController(one.table, with_future(bundle.weights, 0.0), bundle.prices)
    source = StreamSource(one.scenario, one.table.outcomes, traces("train", arguments))
    learned = learn_future(plain, source, arguments.seed)
    foreseeing = ForecastController(one.table, learned, bundle.prices)
    planner = make_rival(DISTRIBUTION, one.table, one.tuned)
    found = [lane_utility(p, one.table, one.streams) for p in (planner, plain, foreseeing)]
    gain = found[2] - found[1]
    cells = [f"{values.mean():.4f}" for values in found]
    error = gain.std() / np.sqrt(len(gain))
    return " | ".join([*cells, f"{gain.mean():+.4f} ({error:.4f})"])


if __name__ == "__main__":
    main()
