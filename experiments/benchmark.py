"""The benchmark set, trained and judged: `python experiments/benchmark.py STEP`.

`tune` picks the rivals' knobs on the training traces, `train` one policy for the trained scenarios
per seed, `transfer --only D I` settles it in the others, `play` plays everybody on the test traces,
`table` prints what came out. Each step writes below OUT and goes on where it was interrupted.
Scenarios that no policy was trained for show how it transfers. With `--halves swapped` every step
does the same below OUT/swapped, the two halves of the pictures in each other's role; `cross` then
prints the tables over both directions: each picture is judged, and never by a controller that
decided with it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adaptive_split.agents.compare import pick_in_hindsight
from adaptive_split.agents.continued import networks_of
from adaptive_split.agents.evaluate import lane_utility
from adaptive_split.agents.intervals import Bootstrap, Estimate
from adaptive_split.agents.rivals import RIVALS, make_rival
from adaptive_split.agents.roster import make_policy
from adaptive_split.agents.task import Task, settle
from adaptive_split.agents.train import Learned, TrainConfig, learn
from adaptive_split.agents.tune import tune_rivals
from adaptive_split.candidates import CandidateTable
from adaptive_split.cli.train import export
from adaptive_split.errors import ConfigError
from adaptive_split.outcomes import Outcomes
from adaptive_split.runtime.controller import Policy
from adaptive_split.runtime.controller_bundle import ControllerBundle
from adaptive_split.runtime.simulated.streams import Stream, StreamSource
from adaptive_split.scenario import Scenario, load_scenario
from adaptive_split.trace import Trace
from adaptive_split.trace_sets import default_traces

TRAINED = {
    "A": "nano-30fps", "B": "pi-230ms-10fps-100ms", "C": "pi-260ms-30fps-200ms", "F": "default",
}  # fmt: skip
UNSEEN = {"D": "nano-light-30fps-100ms", "I": "nano-light-10fps-100ms"}
SCENARIOS = TRAINED | UNSEEN
IN_HINDSIGHT = (
    "best-static", "two-arm-hindsight", "best-pair-hindsight", "busy-skip-hindsight",
    "two-window-planner-hindsight", "harmonic-planner-hindsight", "planner-hindsight",
    "distribution-planner-hindsight", "learned-transfer-planner-hindsight", "oracle",
    "oracle-pictures",
)  # fmt: skip
SIMPLE = ("two-arm", "best-pair", "busy-skip", "neurosurgeon", "dynamic-split", "spinn", "dyno")
"""Rules without an estimate of what may happen; the best one must not win in any link family."""
SAC, ORACLE = "sac", "oracle"
SWAPPED = "swapped"
Values = np.ndarray[Any, Any]
OTHER_HALF = {"policy": "judge", "judge": "policy"}


def main() -> None:
    """Run one step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=tuple(STEPS))
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark"))
    parser.add_argument("--data", type=Path, help="recordings; default as for adaptive-split train")
    parser.add_argument("--only", nargs="+", choices=tuple(SCENARIOS), default=list(SCENARIOS))
    parser.add_argument(
        "--taught", nargs="+", choices=tuple(SCENARIOS), default=list(TRAINED),
        help="scenarios that `train` learns from; it settles what it learned in those of --only",
    )  # fmt: skip
    parser.add_argument(
        "--networks", type=Path, help="an OUT whose policies `transfer` settles; default OUT"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--frames", type=int, default=TrainConfig().num_frames)
    parser.add_argument(
        "--slo-factors", type=float, nargs="+", default=[1.0], help="as of adaptive-split train"
    )
    parser.add_argument("--streams", type=int, default=50, help="per link family, to judge on")
    parser.add_argument(
        "--hindsight", action=argparse.BooleanOptionalAction, default=True,
        help="whether `play` picks rivals, besides the oracle, on the judged streams too: slow",
    )  # fmt: skip
    parser.add_argument(
        "--halves", choices=("given", SWAPPED), default="given", help="roles of the pictures"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.networks = arguments.networks or arguments.out
    if arguments.halves == SWAPPED:  # networks that learned with the other half would have peeked
        arguments.out, arguments.networks = (
            folder / SWAPPED for folder in (arguments.out, arguments.networks)
        )
    arguments.out.mkdir(parents=True, exist_ok=True)
    STEPS[arguments.step](arguments)


@dataclass(frozen=True, kw_only=True, slots=True)
class SwappedScenario(Scenario):
    """A scenario whose halves of the pictures have changed roles."""

    def outcomes(self, subset: str) -> Outcomes:
        """Load the other half than the one asked for."""
        return Scenario.outcomes(self, OTHER_HALF[subset])


def scenario_of(letter: str, arguments: argparse.Namespace) -> Scenario:
    """A scenario of the benchmark, with the halves of the pictures as asked for."""
    given = load_scenario(SCENARIOS[letter])
    if arguments.halves != SWAPPED:
        return given
    return SwappedScenario(**{field.name: getattr(given, field.name) for field in fields(given)})


def tune(arguments: argparse.Namespace) -> None:
    """Pick every rival's knobs on the training traces."""
    for letter in arguments.only:
        file = arguments.out / f"tuned-{letter}.json"
        if file.exists():
            continue
        scenario = scenario_of(letter, arguments)
        table = scenario.table("policy")
        source = StreamSource(scenario, table.outcomes, traces("train", arguments))
        found = tune_rivals(table, source.draw_evenly(24, 0), _say)
        file.write_text(json.dumps(found), encoding="utf-8")


def task(letter: str, arguments: argparse.Namespace) -> Task:
    """The scenario with the knobs that `tune` found and its validation streams."""
    scenario = scenario_of(letter, arguments)
    table = scenario.table("policy")
    tuned = json.loads((arguments.out / f"tuned-{letter}.json").read_text(encoding="utf-8"))
    source = StreamSource(scenario, table.outcomes, traces("validation", arguments))
    streams = tuple(source.draw_evenly(TrainConfig().validation_per_family, 1))
    return Task(scenario=scenario, table=table, tuned=tuned, streams=streams)


def train(arguments: argparse.Namespace) -> None:
    """Train one policy per seed; settle it in every scenario asked for, also where not taught."""
    learning, checking = traces("train", arguments), traces("validation", arguments)
    letters = dict.fromkeys([*arguments.taught, *arguments.only])
    tasks = {letter: task(letter, arguments) for letter in letters}
    taught = [tasks[letter] for letter in arguments.taught]
    for seed in arguments.seeds:
        config = TrainConfig(
            seed=seed, num_frames=arguments.frames, slo_factors=tuple(arguments.slo_factors)
        )
        missing = [x for x in arguments.only if not (arguments.out / f"seed-{seed}" / x).exists()]
        if missing:
            learned = learn(taught, learning, config, _say)
            for letter in missing:
                rolled_out = learning if letter in arguments.taught else None
                settled = settle(tasks[letter], learned.weights, rolled_out, seed)
                _say(
                    f"{letter}: {settled.validation}, {settled.prices}, trust {settled.trust}, "
                    f"future {settled.future}, guard {settled.guard_margin}, "
                    f"adapts {settled.adapts}"
                )
                place = arguments.out / f"seed-{seed}" / letter
                export(tasks[letter], learned, settled, config, learning, checking, place)


def transfer(arguments: argparse.Namespace) -> None:
    """Settle trained policies, their networks as they are.

    Where they were not trained, or where they were, with other knobs than then.

    Raises:
        ConfigError: If there are no networks of any seed.
    """
    origins = {seed: _any_of(arguments.networks, seed) for seed in arguments.seeds}
    if not any(origins.values()):
        raise ConfigError(
            f"{arguments.networks} must hold what `train` left of one of the seeds "
            f"{arguments.seeds}; got none; name the OUT above 'swapped' as --networks"
        )
    learning, checking = traces("train", arguments), traces("validation", arguments)
    for letter in arguments.only:
        there = task(letter, arguments)
        rolled_out = learning if letter in arguments.taught else None
        for seed, origin in origins.items():
            place = arguments.out / f"seed-{seed}" / letter
            if place.exists() or origin is None:
                continue
            learned = Learned(networks_of(origin), (), 0.0)
            settled = settle(there, learned.weights, rolled_out, seed)
            _say(f"{letter}, seed {seed}: {dict(settled.validation)}, {settled.prices}, "
                 f"future {settled.future}, adapts {settled.adapts}")  # fmt: skip
            config = TrainConfig(seed=seed)
            export(there, learned, settled, config, learning, checking, place, origin)


def _any_of(folder: Path, seed: int) -> ControllerBundle | None:
    """What a seed left in one of its scenarios: the networks are the same in all of them."""
    places = (folder / f"seed-{seed}" / letter for letter in SCENARIOS)
    return next((ControllerBundle.load(place) for place in places if place.exists()), None)


def play(arguments: argparse.Namespace) -> None:
    """Play everybody on the test traces."""
    play_everybody(traces("test", arguments), arguments, arguments.out)


def play_everybody(links: Sequence[Trace], arguments: argparse.Namespace, folder: Path) -> None:
    """Play everybody on the same streams; utilities per stream.

    Args:
        links: Where the streams are cut from, evenly over their families.
        arguments: As for `play`.
        folder: Gets the utilities.

    Raises:
        ConfigError: If a scenario has no controller of any seed.
    """
    for letter in arguments.only:
        scenario = scenario_of(letter, arguments)
        deciding, judging = scenario.table("policy"), scenario.table("judge")
        source = StreamSource(scenario, judging.outcomes, links)
        streams = source.draw_evenly(arguments.streams, 0)
        board = Board(folder / f"played-{letter}.json", judging, streams)
        tuned = json.loads((arguments.out / f"tuned-{letter}.json").read_text(encoding="utf-8"))
        places = [arguments.out / f"seed-{seed}" / letter for seed in arguments.seeds]
        bundles = {place: ControllerBundle.load(place) for place in places if place.exists()}
        for place, bundle in bundles.items():
            board.play(f"sac-{place.parent.name[5:]}", partial(bundle.controller, deciding))
        if not bundles:
            raise ConfigError(
                f"{arguments.out} must hold what `train` or `transfer` left of {letter} for one of "
                f"the seeds {arguments.seeds}; got none; name those that are there with --only"
            )
        any_bundle = next(iter(bundles.values()))
        for name in RIVALS:
            board.play(name, partial(make_rival, name, deciding, tuned))
        for name in ("local", "jpeg"):
            board.play(name, partial(make_policy, name, deciding, any_bundle))
        trained = f"static:{_static(tuned, scenario)}"
        board.play("trained-static", partial(make_policy, trained, deciding, any_bundle))
        pick = partial(pick_in_hindsight, table=judging, streams=streams, deciding=deciding,
                       tuned=tuned)  # fmt: skip
        for name in IN_HINDSIGHT if arguments.hindsight else (ORACLE,):
            board.play(name, partial(_picked, pick, name))


def _picked(pick: Callable[[list[str]], Mapping[str, Policy]], name: str) -> Policy:
    return pick([name])[name]


class Board:
    """Mean utility of every controller on every stream, kept in a file."""

    def __init__(self, file: Path, table: CandidateTable, streams: Sequence[Stream]) -> None:
        self.file, self.table, self.streams = file, table, streams
        where = {
            "family": [stream.family for stream in streams],
            "file": [stream.name for stream in streams],
        }
        self.found: dict[str, Any] = {"utility": {}, **where}
        if file.exists():
            self.found = json.loads(file.read_text(encoding="utf-8"))
            if any(self.found[key] != value for key, value in where.items()):
                raise ConfigError(
                    f"{file} must hold what was played on these {len(streams)} streams; got "
                    f"{len(self.found['file'])} others; ask for those or move the file away"
                )

    def play(self, name: str, make: Callable[[], Policy]) -> None:
        """Play a controller unless it was played before."""
        values = self.found["utility"]
        if name in values:
            return
        values[name] = lane_utility(make(), self.table, self.streams).tolist()
        _say(f"{self.file.stem} {name}: {np.mean(values[name]):.4f}")
        self.file.write_text(json.dumps(self.found), encoding="utf-8")


def _static(tuned: Mapping[str, Any], scenario: Any) -> str:
    decision = scenario.grid.candidates[int(tuned["best-static"]["candidate"])]
    return f"{decision.split_point}:{decision.exit_threshold}:{decision.bits}"


def table(arguments: argparse.Namespace) -> None:
    """Print the tables as Markdown."""
    _tables(arguments, [arguments.out], arguments.out / "summary.json")


def cross(arguments: argparse.Namespace) -> None:
    """Print the tables over both directions: the halves as given, and swapped."""
    folders = [arguments.out, arguments.out / SWAPPED]
    _tables(arguments, folders, arguments.out / "summary-crossed.json")


def _tables(arguments: argparse.Namespace, folders: Sequence[Path], out: Path) -> None:
    summaries = {}
    for letter in arguments.only:
        files = [folder / f"played-{letter}.json" for folder in folders]
        if all(file.exists() for file in files):
            boards = [json.loads(file.read_text(encoding="utf-8")) for file in files]
            summaries[letter] = summarize(boards)
    for letter, one in summaries.items():
        print(f"\n## {letter}: `{SCENARIOS[letter]}`")
        print("\n| controller | utility | sac minus it | " + " | ".join(one["families"]) + " |")
        print("| --- | --- | --- |" + " --- |" * len(one["families"]))
        for name, row in one["rows"].items():
            cells = " | ".join(f"{value:.4f}" for value in row["families"])
            print(f"| {name} | {row['utility']:.4f} | {row['difference']} | {cells} |")
        for line in one["lines"]:
            print(f"\n{line}")
    out.write_text(json.dumps(summaries, indent=1) + "\n", encoding="utf-8")


def summarize(boards: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Utility and paired difference of everybody, and the shares of the room.

    Args:
        boards: What was played, in one direction or in both; streams of a trace file are one
            cluster in all of them.
    """
    everybody = [_seeds_as_one(board) for board in boards]
    common = [name for name in everybody[0] if all(name in one for one in everybody)]
    utility = {name: np.concatenate([one[name] for one in everybody]) for name in common}
    families = [name for board in boards for name in board["family"]]
    bootstrap = Bootstrap(families, [name for board in boards for name in board["file"]])
    family, names = np.array(families), sorted(set(families))
    rows = {}
    for name in sorted(utility, key=lambda name: -bootstrap.weights @ utility[name]):
        apart = bootstrap.estimate(utility[SAC] - utility[name])
        rows[_label(name, boards)] = {
            "utility": float(bootstrap.weights @ utility[name]),
            "difference": "" if name == SAC else words(apart),
            "families": [float(utility[name][family == one].mean()) for one in names],
        }  # fmt: skip
    lines = _room(utility, bootstrap) + _rules(utility, family)
    return {"families": names, "rows": rows, "lines": lines}


def words(apart: Estimate) -> str:
    """A difference and its interval."""
    return f"{apart.value:+.4f} [{apart.low:+.4f}, {apart.high:+.4f}]"


def _room(utility: Mapping[str, Values], bootstrap: Bootstrap) -> list[str]:
    planner, lines = utility["distribution-planner"], []
    for oracle in [name for name in ("oracle", "oracle-pictures") if name in utility]:
        room = bootstrap.ratio(utility[SAC] - planner, utility[oracle] - planner)
        if room is not None:
            lines.append(
                f"share of the room from the distribution planner to the {oracle}: "
                f"{100 * room.value:.0f} % [{100 * room.low:.0f}, {100 * room.high:.0f}]"
            )
    return lines


def _rules(utility: Mapping[str, Values], family: Values) -> list[str]:
    lines = []
    for tuning, rules in (
        ("tuned on training traces", SIMPLE),
        ("picked in hindsight", [name for name in IN_HINDSIGHT[:4] if name in utility]),
    ):
        if not rules:
            continue
        told = ", ".join(
            f"{one} {max(utility[rule][here].mean() for rule in rules) - sac:+.4f}"
            for one in np.unique(family)
            for here in [family == one]
            for sac in [utility[SAC][here].mean()]
        )
        lines.append(f"best simple rule {tuning} minus sac: {told}")
    return lines


def _seeds_as_one(board: Mapping[str, Any]) -> dict[str, Values]:
    """Utilities by controller, the interquartile mean of the seeds first."""
    utility = {name: np.array(values) for name, values in board["utility"].items()}
    seeds = [utility.pop(name) for name in _seeds_of(board)]
    return {SAC: interquartile_mean(np.stack(seeds)), **utility}


def _seeds_of(board: Mapping[str, Any]) -> list[str]:
    return sorted(name for name in board["utility"] if name.startswith("sac-"))


def _label(name: str, boards: Sequence[Mapping[str, Any]]) -> str:
    counts = " + ".join(str(len(_seeds_of(board))) for board in boards)
    return f"{SAC} ({counts} seeds)" if name == SAC else name


def interquartile_mean(values: Values) -> Values:
    """Mean over the seeds between the quartiles of mean utility; `(R, B)` to `(B,)`."""
    order = np.argsort(values.mean(1))
    cut = len(values) // 4
    return np.asarray(values[order[cut : len(values) - cut]].mean(0))


def traces(split: str, arguments: argparse.Namespace) -> list[Trace]:
    """The traces of a split."""
    found, sentence = default_traces(split, arguments.data)
    _say(sentence)
    return found


def _say(line: str) -> None:
    print(line, flush=True)


STEPS: Mapping[str, Callable[[argparse.Namespace], None]] = {
    "tune": tune, "train": train, "transfer": transfer, "play": play, "table": table,
    "cross": cross,
}  # fmt: skip

if __name__ == "__main__":
    main()
