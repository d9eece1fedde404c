"""`adaptive-split train`: a controller for a scenario, from traces."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptive_split.cli.common import Bars, Commands, add_command, say
from adaptive_split.errors import ConfigError

if TYPE_CHECKING:
    from adaptive_split.agents.train import TrainConfig, Trained
    from adaptive_split.scenario import Scenario
    from adaptive_split.trace import Trace


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands, "train", "train a controller on traces and export it",
        "Tune the planners and train the forecast on the training traces, keep the checkpoint "
        "that is best on the validation traces, and write it as a controller bundle. A controller "
        "that loses to the two-window or the distribution planner there is not written.",
        "adaptive-split train default --out runs/controller --seed 0",
    )  # fmt: skip
    parser.add_argument("scenario", help="a shipped scenario, as 'default', or a scenario.toml")
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument("--frames", type=int, metavar="N", help="to learn from")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument(
        "--data", type=Path, metavar="DIR",
        help="recordings with index_traces.csv; default: ../shared/data if it is there, else the "
        "package's traces",
    )  # fmt: skip
    parser.add_argument("--force-export", action="store_true", help="write a losing one as well")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Train, print the validation curve, export."""
    if arguments.out.exists():
        raise ConfigError(f"--out must not exist yet; got {arguments.out}")
    if arguments.frames is not None and arguments.frames < 1:
        raise ConfigError(f"--frames must be at least 1; got {arguments.frames}")
    from adaptive_split.scenario import load_scenario
    from adaptive_split.trace_sets import default_traces

    scenario = load_scenario(arguments.scenario)
    learning, sentence = default_traces("train", arguments.data)
    say(sentence)
    checking, sentence = default_traces("validation", arguments.data)
    say(sentence)
    from adaptive_split.agents.train import TrainConfig, train

    frames = {} if arguments.frames is None else {"num_frames": arguments.frames}
    config = TrainConfig(seed=arguments.seed, **frames)
    with Bars("frame") as bars:
        trained = train(
            scenario, learning, checking, config, bars.note,
            lambda done, total: bars("training", min(done, total), total),
        )  # fmt: skip
    print(results(trained))
    if not trained.wins and not arguments.force_export:
        raise ConfigError(
            "the controller must beat the two-window and the distribution planner on validation; "
            "it does not; train longer, or say --force-export"
        )
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    export(scenario, trained, config, learning, checking, arguments.out)
    print(f"controller: {arguments.out}")
    return 0


def results(trained: Trained) -> str:
    """The validation curve and what it is compared with, as tables."""
    from adaptive_split.cli.tables import table

    best = max(value for _, value in trained.curve)
    curve = [["frames", "validation utility", ""]]
    curve += [[str(n), f"{v:.4f}", "best" if v == best else ""] for n, v in trained.curve]
    ranked = sorted(trained.validation.items(), key=lambda item: -item[1])
    scores = [["controller", "validation utility"], *([n, f"{v:.4f}"] for n, v in ranked)]
    return f"{table(curve)}\n\n{table(scores)}\ntook {trained.seconds:.0f} s"


def export(
    scenario: Scenario,
    trained: Trained,
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

    ControllerBundle(
        weights=trained.weights,
        prices=trained.prices,
        guard_candidate=trained.tuned.static,
        guard_margin=trained.guard_margin,
        model_hash=scenario.bundle.hash,
        grid=scenario.grid,
        tuned=trained.tuned.describe(),
        provenance={
            "scenario": scenario.name,
            "objective": asdict(scenario.objective),
            "config": asdict(config),
            "train_traces": listed(learning),
            "validation_traces": listed(checking),
            "validation_utility": trained.validation,
            "validation_curve": [list(point) for point in trained.curve],
            "seconds": round(trained.seconds, 1),
            "versions": {
                "adaptive_split": adaptive_split.__version__, "numpy": numpy.__version__,
                "python": platform.python_version(),
                "stable_baselines3": stable_baselines3.__version__, "torch": torch.__version__,
            },
        },
    ).save(out)  # fmt: skip
