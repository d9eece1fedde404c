"""Does a policy hold where it was never trained? `python experiments/left_out.py B C`.

For every scenario L named, `experiments/benchmark.py train --only L --taught OTHERS --out LEFT/L`
(with the `tuned-*.json` of the benchmark copied there; once more with `--halves swapped`) has left
a policy that learned from the others alone. It is played on test streams, next to the one of the
benchmark that was trained in L as well.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmark import SCENARIOS, SWAPPED, Board, scenario_of, traces, words

from adaptive_split.agents.intervals import Bootstrap
from adaptive_split.agents.rivals import make_rival
from adaptive_split.agents.task import DISTRIBUTION
from adaptive_split.errors import ConfigError
from adaptive_split.runtime.controller_bundle import ControllerBundle
from adaptive_split.runtime.simulated.streams import StreamSource


def main() -> None:
    """Play what was left, print one row per scenario."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenarios", nargs="+", choices=tuple(SCENARIOS), metavar="L")
    parser.add_argument("--left", type=Path, default=Path("runs/left-out"))
    parser.add_argument("--benchmark", type=Path, default=Path("runs/benchmark"))
    parser.add_argument("--data", type=Path, help="recordings; default as for adaptive-split train")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--streams", type=int, default=60, help="per link family")
    parser.add_argument(
        "--pictures", choices=("judge", "policy"), default="judge",
        help="with policy, what those that the controllers decide with let expect",
    )  # fmt: skip
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row(letter, arguments) for letter in arguments.scenarios]
    print("| scenario | streams | trained there, minus planner | never there, minus planner "
          "| share of the gain | never there minus trained there |")  # fmt: skip
    print("| --- |" + " --- |" * 5)
    print("\n".join(rows))


def row(letter: str, arguments: argparse.Namespace) -> str:
    """What both gain on the distribution planner, over the directions that were trained."""
    boards = []
    for halves in ("given", SWAPPED):
        inside = Path(SWAPPED if halves == SWAPPED else "")
        if (arguments.left / letter / inside / f"seed-{arguments.seeds[0]}").exists():
            arguments.halves = halves
            boards.append(play_direction(letter, inside, arguments))
    if not boards:
        raise ConfigError(
            f"{arguments.left / letter} must hold a policy of seed {arguments.seeds[0]}; got none; "
            f"run benchmark.py train --only {letter} --taught OTHERS with that --out"
        )
    there, elsewhere, planner = (np.concatenate([one[i] for one in boards]) for i in range(3))
    family = [name for one in boards for name in one[3]]
    bootstrap = Bootstrap(family, [name for one in boards for name in one[4]])
    share = bootstrap.ratio(elsewhere - planner, there - planner)
    cells = [
        letter, str(len(family)), words(bootstrap.estimate(there - planner)),
        words(bootstrap.estimate(elsewhere - planner)),
        "no gain to speak of" if share is None else
        f"{100 * share.value:.0f} % [{100 * share.low:.0f}, {100 * share.high:.0f}]",
        words(bootstrap.estimate(elsewhere - there)),
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def play_direction(letter: str, inside: Path, arguments: argparse.Namespace) -> tuple[Any, ...]:
    """Utilities trained there, elsewhere and of the planner; families and files of the streams."""
    scenario = scenario_of(letter, arguments)
    deciding = scenario.table("policy")
    judging = scenario.table(arguments.pictures)
    source = StreamSource(scenario, judging.outcomes, traces("test", arguments))
    left, there = arguments.left / letter / inside, arguments.benchmark / inside
    compared = hashlib.sha256(str(there.resolve()).encode()).hexdigest()[:8]
    file = left / f"played-{letter}-{arguments.pictures}-{compared}.json"
    board = Board(file, judging, source.draw_evenly(arguments.streams, 0))
    tuned = json.loads((there / f"tuned-{letter}.json").read_text(encoding="utf-8"))
    board.play(DISTRIBUTION, partial(make_rival, DISTRIBUTION, deciding, tuned))
    for kind, folder in (("there", there), ("elsewhere", left)):
        for seed in arguments.seeds:
            bundle = ControllerBundle.load(folder / f"seed-{seed}" / letter)
            board.play(f"{kind}-{seed}", partial(bundle.controller, deciding))
    found = board.found["utility"]
    seeds = {
        kind: np.mean([found[f"{kind}-{seed}"] for seed in arguments.seeds], 0)
        for kind in ("there", "elsewhere")
    }
    planner = np.array(found[DISTRIBUTION])
    return seeds["there"], seeds["elsewhere"], planner, board.found["family"], board.found["file"]


if __name__ == "__main__":
    main()
