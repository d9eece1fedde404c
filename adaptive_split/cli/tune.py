"""`adaptive-split tune`: hyper-parameters for a scenario, by Ray Tune."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from adaptive_split.cli.common import Commands, add_command, add_ray, new_folder, open_cluster, say
from adaptive_split.cli.train import (
    add_what_to_learn,
    check_frames,
    key_of,
    load_scenarios,
    load_splits,
    read_config,
)
from adaptive_split.errors import ConfigError

if TYPE_CHECKING:
    from adaptive_split.agents.search import Trial


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands, "tune", "search hyper-parameters with Ray Tune",
        "Train with settings drawn at random and judge each on the validation traces. Writes "
        "best.yml for 'train --config', trials.json, and Ray Tune's own folder with a TensorBoard "
        "log of every trial. The same seed tries the same settings. Without --ray, too, Ray runs "
        "on this machine.",
        "adaptive-split tune default --trials 20 --frames 100000 --out runs/tune",
    )  # fmt: skip
    parser.add_argument("--trials", type=int, default=20, metavar="N", help="default: 20")
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument("--seed", type=int, default=0, help="of draws and trainings; default: 0")
    add_what_to_learn(parser)
    add_ray(parser, "trials")
    parser.set_defaults(run=run, ray="local")


def run(arguments: argparse.Namespace) -> int:
    """Search; print the trials."""
    if arguments.trials < 1:
        raise ConfigError(f"--trials must be at least 1; got {arguments.trials}")
    check_frames(arguments)
    from adaptive_split.agents.cluster import import_ray

    import_ray()
    scenarios = load_scenarios(arguments)
    config = read_config(arguments, scenarios)
    learning, checking = load_splits(arguments.data)
    from adaptive_split.agents.hyperparameters import write_settings
    from adaptive_split.agents.search import search
    from adaptive_split.agents.seeds import Training, prepare_all

    out = new_folder(arguments.out)
    with open_cluster(arguments) as cluster:
        assert cluster is not None
        tasks = prepare_all(scenarios, learning, checking, config, cluster, say)
        say(f"{arguments.trials} trials of {config.num_frames} frames")
        training = Training(tasks=tasks, traces=learning, config=config)
        trials = search(training, arguments.trials, out)
    best = {"n_timesteps": config.num_frames, **trials[0].settings}
    write_settings(out / "best.yml", key_of(scenarios), best)
    listed = [{"validation_gain": one.gain, **one.settings} for one in trials]
    (out / "trials.json").write_text(json.dumps(listed, indent=1) + "\n", encoding="utf-8")
    print(trial_table(trials))
    print(f"best settings: {out / 'best.yml'}")
    return 0


def trial_table(trials: Sequence[Trial]) -> str:
    """One row per trial, the best first."""
    from adaptive_split.cli.tables import table

    names = list(trials[0].settings)
    rows = [[f"{one.gain:+.4f}", *(f"{one.settings[name]:g}" for name in names)] for one in trials]
    return table([["above the planner", *names], *rows])
