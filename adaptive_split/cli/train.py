"""`adaptive-split train`: one policy for one or several scenarios, from traces."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptive_split.cli.common import Bars, Commands, add_command, say
from adaptive_split.cli.train_from_logs import add_from_logs, train_from_logs
from adaptive_split.errors import ConfigError

if TYPE_CHECKING:
    from adaptive_split.agents.task import Settled, Task
    from adaptive_split.agents.train import Learned, TrainConfig
    from adaptive_split.trace import Trace


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands, "train", "train a controller on traces and export it",
        "Tune the rivals and train one policy on the training traces, keep the checkpoint that is "
        "best on the validation traces, pick prices and guard for each scenario, and write a "
        "controller bundle for each. A controller that loses to the best static decision, the "
        "two-window or the distribution planner on validation is not written.",
        "adaptive-split train default nano-30fps --out runs/controllers --seed 0",
    )  # fmt: skip
    parser.add_argument(
        "scenarios", nargs="+", metavar="SCENARIO",
        help="a shipped scenario, as 'default', or a scenario.toml; several share one network",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, required=True,
        help="folder to make: the controller bundle, or one below it for each of several scenarios",
    )  # fmt: skip
    parser.add_argument("--frames", type=int, metavar="N", help="to learn from, in all")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument(
        "--data", type=Path, metavar="DIR",
        help="recordings with index_traces.csv; default: ../shared/data if it is there, else the "
        "package's traces",
    )  # fmt: skip
    parser.add_argument("--force-export", action="store_true", help="write a losing one as well")
    add_from_logs(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Train, print the validation curve, export."""
    if arguments.out.exists():
        raise ConfigError(f"--out must not exist yet; got {arguments.out}")
    if arguments.frames is not None and arguments.frames < 1:
        raise ConfigError(f"--frames must be at least 1; got {arguments.frames}")
    if arguments.from_logs or arguments.controller_bundle:
        return train_from_logs(arguments)
    from adaptive_split.scenario import load_scenario
    from adaptive_split.trace_sets import default_traces

    scenarios = [load_scenario(name) for name in arguments.scenarios]
    if len({scenario.name for scenario in scenarios}) < len(scenarios):
        raise ConfigError(f"scenarios must be named once each; got {arguments.scenarios}")
    learning, sentence = default_traces("train", arguments.data)
    say(sentence)
    checking, sentence = default_traces("validation", arguments.data)
    say(sentence)
    from adaptive_split.agents.task import prepare, settle
    from adaptive_split.agents.train import TrainConfig, learn

    frames = {} if arguments.frames is None else {"num_frames": arguments.frames}
    config = TrainConfig(seed=arguments.seed, **frames)
    with Bars("frame") as bars:
        tasks = [
            prepare(
                scenario, learning, checking, tuning_per_family=config.tuning_per_family,
                validation_per_family=config.validation_per_family, say=bars.note,
            )
            for scenario in scenarios
        ]  # fmt: skip
        learned = learn(
            tasks, learning, config, bars.note,
            lambda done, total: bars("training", min(done, total), total),
        )  # fmt: skip
        settled = [settle(task, learned.weights) for task in tasks]
    print(results(learned, tasks, settled))
    for task, how in zip(tasks, settled, strict=True):
        if not how.wins and not arguments.force_export:
            raise ConfigError(
                "the controller must beat the two-window and the distribution planner on "
                f"validation; it does not in {task.scenario.name}; train longer, or say "
                "--force-export"
            )
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    for task, how in zip(tasks, settled, strict=True):
        out = arguments.out / task.scenario.name if len(tasks) > 1 else arguments.out
        export(task, learned, how, config, learning, checking, out)
        print(f"controller: {out}")
    return 0


def results(learned: Learned, tasks: list[Task], settled: list[Settled]) -> str:
    """The validation curve and what the policy is compared with, as tables."""
    from adaptive_split.cli.tables import table

    best = max(gain for _, gain in learned.curve)
    curve = [["frames", "above the planner", ""]]
    curve += [[str(n), f"{v:+.4f}", "best" if v == best else ""] for n, v in learned.curve]
    parts = [table(curve)]
    for task, how in zip(tasks, settled, strict=True):
        ranked = sorted(how.validation.items(), key=lambda item: -item[1])
        scores = [[task.scenario.name, "validation utility"]]
        scores += [[name, f"{value:.4f}"] for name, value in ranked]
        parts.append(table(scores))
        if not how.adapts:
            parts.append("adapting is pointless here: the best fixed decision is kept, no probes")
    return "\n\n".join(parts) + f"\ntook {learned.seconds:.0f} s"


def export(
    task: Task,
    learned: Learned,
    settled: Settled,
    config: TrainConfig,
    learning: list[Trace],
    checking: list[Trace],
    out: Path,
) -> None:
    """Write the controller bundle with where it comes from."""
    import platform
    from dataclasses import asdict

    import numpy
    import stable_baselines3
    import torch

    import adaptive_split
    from adaptive_split.runtime.controller_bundle import ControllerBundle

    def listed(traces: list[Trace]) -> list[dict[str, Any]]:
        return [
            {"family": t.family, "name": t.name, "source": t.source, "rtt_source": t.rtt_source}
            for t in traces
        ]

    scenario = task.scenario
    ControllerBundle(
        weights=settled.weights,
        prices=settled.prices,
        guard_candidate=task.static,
        guard_margin=settled.guard_margin,
        adapts=settled.adapts,
        model_hash=scenario.bundle.hash,
        grid=scenario.grid,
        tuned=task.tuned,
        provenance={
            "scenario": scenario.name,
            "objective": asdict(scenario.objective),
            "config": asdict(config),
            "trust": settled.trust,
            "train_traces": listed(learning),
            "validation_traces": listed(checking),
            "validation_utility": dict(settled.validation),
            "validation_curve": [list(point) for point in learned.curve],
            "seconds": round(learned.seconds, 1),
            "versions": {
                "adaptive_split": adaptive_split.__version__, "numpy": numpy.__version__,
                "python": platform.python_version(),
                "stable_baselines3": stable_baselines3.__version__, "torch": torch.__version__,
            },
        },
    ).save(out)  # fmt: skip
