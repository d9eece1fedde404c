"""`adaptive-split train`: one policy for one or several scenarios, from traces."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptive_split.cli.common import (
    SHIPPED_CONTROLLERS,
    Bars,
    Commands,
    add_command,
    add_ray,
    open_cluster,
    refuse_beside,
    say,
)
from adaptive_split.cli.train_from_logs import add_from_logs, train_from_logs
from adaptive_split.errors import ConfigError

if TYPE_CHECKING:
    from adaptive_split.agents.task import Settled, Task
    from adaptive_split.agents.train import Learned, TrainConfig
    from adaptive_split.runtime.controller_bundle import ControllerBundle
    from adaptive_split.scenario import Scenario
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
    add_what_to_learn(parser)
    parser.add_argument(
        "--out", type=Path, required=True,
        help="folder to make: the controller bundle, or one below it for each of several scenarios "
        "and, above those, of several seeds",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="the first; default: 0")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="trainings (default: 1)")
    parser.add_argument(
        "--tensorboard", type=Path, metavar="DIR",
        help="folder for learning curves: tensorboard --logdir DIR",
    )  # fmt: skip
    parser.add_argument(
        "--resume", action="store_true",
        help="go on from what an interrupted training left in OUT.training; the end is the same",
    )  # fmt: skip
    parser.add_argument("--force-export", action="store_true", help="write a losing one as well")
    parser.add_argument(
        "--simulators", type=int, default=1, metavar="N",
        help="simulators of each scenario, which share its lanes; more than one are processes of "
        "their own with --ray (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--slo-factors", type=float, nargs="+", default=[1.0], metavar="FACTOR",
        help="learn with the latency promised times each of these, as 1 0.5, for scenarios that "
        "promise another (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--networks", type=Path, metavar="DIR",
        help="take the forecast of this controller, or of a shipped one, as 'default', as it is; "
        "tune, roll out and settle the rest: minutes, for a scenario near its own",
    )  # fmt: skip
    add_ray(parser, "scenarios, seeds and simulators")
    add_from_logs(parser)
    parser.set_defaults(run=run)


def add_what_to_learn(parser: argparse.ArgumentParser) -> None:
    """Add what `tune` asks for as well."""
    parser.add_argument(
        "scenarios", nargs="+", metavar="SCENARIO",
        help="a shipped scenario, as 'default', or a scenario.toml; several share one network",
    )  # fmt: skip
    parser.add_argument("--frames", type=int, metavar="N", help="to learn from, in all")
    parser.add_argument(
        "--config", type=Path, metavar="FILE",
        help="hyper-parameters in YAML as rl-baselines3-zoo has them, below the scenario's name "
        "(several: joined by +); 'adaptive-split tune' writes such a file",
    )  # fmt: skip
    parser.add_argument(
        "--data", type=Path, metavar="DIR",
        help="folder with traces of your own, or recordings with index_traces.csv; default: "
        "../shared/data if it is there, else the package's traces",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Train, print the validation curves, export."""
    state = check_arguments(arguments)
    if arguments.from_logs or arguments.controller_bundle:
        return train_from_logs(arguments)
    scenarios = load_scenarios(arguments)
    config = replace(
        read_config(arguments, scenarios),
        num_simulators=arguments.simulators, slo_factors=tuple(arguments.slo_factors),
    )  # fmt: skip
    check_slo(scenarios, config)
    origin = read_origin(arguments)
    learning, checking = load_splits(arguments.data)
    from adaptive_split.agents.cluster import InProcess
    from adaptive_split.agents.continued import networks_of
    from adaptive_split.agents.seeds import Training, learn_seeds, prepare_all

    networks = None if origin is None else networks_of(origin)
    with Bars("frame") as bars, open_cluster(arguments) as cluster:
        workers, tell = (InProcess(), bars.note) if cluster is None else (cluster, say)
        tasks = prepare_all(scenarios, learning, checking, config, workers, tell)
        training = Training(
            tasks=tasks, traces=learning, config=config, say=tell, checkpoints=state.resolve(),
            tensorboard=arguments.tensorboard and arguments.tensorboard.resolve(),
            networks=networks,
        )  # fmt: skip
        if cluster is None:
            training = replace(training, progress=partial(show, bars))
        elif config.num_simulators > 1:
            from adaptive_split.agents.shards import RayShards

            count = config.simulators_each * len(tasks)
            training = replace(training, spread=partial(RayShards, num_workers=count))
        found = learn_seeds(training, arguments.seeds, workers)
    if origin is None:
        shutil.rmtree(state)
    export_all(arguments, config, tasks, found, learning, checking, origin)
    return 0


def check_arguments(arguments: argparse.Namespace) -> Path:
    """Refuse what cannot be, and to overwrite; give the folder of the checkpoints."""
    out, state = arguments.out, arguments.out.with_name(arguments.out.name + ".training")
    if out.exists():
        raise ConfigError(f"--out must not exist yet; got {out}")
    if state.exists() and not arguments.resume and arguments.networks is None:
        raise ConfigError(
            f"{state} must not exist: a training was interrupted; say --resume, or remove it"
        )
    if arguments.seeds < 1:
        raise ConfigError(f"--seeds must be at least 1; got {arguments.seeds}")
    check_frames(arguments)
    return Path(state)


def check_frames(arguments: argparse.Namespace) -> None:
    """Refuse to learn from nothing."""
    if arguments.frames is not None and arguments.frames < 1:
        raise ConfigError(f"--frames must be at least 1; got {arguments.frames}")


def check_slo(scenarios: Sequence[Scenario], config: TrainConfig) -> None:
    """Refuse to promise what no scenario may, before anything is tuned."""
    from adaptive_split.agents.train import with_slo

    try:
        for scenario, factor in product(scenarios, config.slo_factors):
            with_slo(scenario, factor)
    except ConfigError as error:
        raise ConfigError(
            f"--slo-factors must suit every scenario; got {config.slo_factors}: {error}"
        ) from error


def read_origin(arguments: argparse.Namespace) -> ControllerBundle | None:
    """The controller whose networks are taken, if any; refuse what only a training could heed."""
    if arguments.networks is None:
        return None
    refuse_beside("--networks", {
        "--seeds": arguments.seeds != 1, "--simulators": arguments.simulators != 1,
        "--slo-factors": arguments.slo_factors != [1.0], "--frames": arguments.frames is not None,
        "--config": arguments.config, "--resume": arguments.resume,
        "--tensorboard": arguments.tensorboard,
    })  # fmt: skip
    from adaptive_split.runtime.controller_bundle import ControllerBundle

    shipped = SHIPPED_CONTROLLERS / arguments.networks
    named = not arguments.networks.exists() and shipped.is_dir()
    return ControllerBundle.load(shipped if named else arguments.networks)


def show(bars: Bars, done: int, total: int) -> None:
    """Show frames done; the last step of all lanes may pass the end."""
    bars("training", min(done, total), total)


def load_scenarios(arguments: argparse.Namespace) -> list[Scenario]:
    """The scenarios named."""
    from adaptive_split.scenario import load_scenario

    scenarios = [load_scenario(name) for name in arguments.scenarios]
    if len({scenario.name for scenario in scenarios}) < len(scenarios):
        raise ConfigError(f"scenarios must be named once each; got {arguments.scenarios}")
    return scenarios


def key_of(scenarios: Sequence[Scenario]) -> str:
    """What settings for these scenarios are filed under."""
    return "+".join(scenario.name for scenario in scenarios)


def read_config(arguments: argparse.Namespace, scenarios: Sequence[Scenario]) -> TrainConfig:
    """Put together what file and arguments say."""
    from adaptive_split.agents.hyperparameters import read_settings, with_settings
    from adaptive_split.agents.train import TrainConfig

    config = TrainConfig(seed=arguments.seed)
    if arguments.config is not None:
        config = with_settings(config, read_settings(arguments.config, key_of(scenarios)))
    return config if arguments.frames is None else replace(config, num_frames=arguments.frames)


def load_splits(data: Path | None) -> tuple[list[Trace], list[Trace]]:
    """The training and the validation traces; say which they are."""
    from adaptive_split.trace_sets import default_traces

    learning, sentence = default_traces("train", data)
    say(sentence)
    checking, sentence = default_traces("validation", data)
    say(sentence)
    return learning, checking


def export_all(
    arguments: argparse.Namespace,
    config: TrainConfig,
    tasks: Sequence[Task],
    found: Sequence[tuple[Learned, Sequence[Settled]]],
    learning: Sequence[Trace],
    checking: Sequence[Trace],
    origin: ControllerBundle | None = None,
) -> None:
    """Print what every seed reached; write a bundle per seed that wins, and scenario.

    With an `origin`, whose networks were taken, they tell where those come from.

    Raises:
        ConfigError: If no seed wins everywhere, and none is forced.
    """
    from adaptive_split.agents.seeds import seed_folder

    out, losers = arguments.out, []
    out.parent.mkdir(parents=True, exist_ok=True)
    for seed, (learned, settled) in enumerate(found, config.seed):
        if len(found) > 1:
            print(f"\nseed {seed}")
        print(results(learned, tasks, settled))
        pairs = list(zip(tasks, settled, strict=True))
        lost = [task.scenario.name for task, how in pairs if not how.wins]
        if lost and not arguments.force_export:
            losers += lost
            continue
        folder = seed_folder(out, seed) if len(found) > 1 else out
        for task, how in pairs:
            place = folder / task.scenario.name if len(tasks) > 1 else folder
            own = replace(config, seed=seed)
            export(task, learned, how, own, learning, checking, place, origin)
            print(f"controller: {place}")
    if not out.exists():
        raise ConfigError(
            "the controller must beat the two-window and the distribution planner on "
            f"validation; it does not in {losers[0]}; "
            f"{'train longer' if origin is None else 'train there'}, or say --force-export"
        )


def results(learned: Learned, tasks: Sequence[Task], settled: Sequence[Settled]) -> str:
    """The validation curve and what the policy is compared with, as tables."""
    from adaptive_split.cli.tables import table

    parts = []
    if learned.curve:
        best = max(gain for _, gain in learned.curve)
        curve = [["frames", "above the planner", ""]]
        curve += [[str(n), f"{v:+.4f}", "best" if v == best else ""] for n, v in learned.curve]
        parts.append(table(curve))
    for task, how in zip(tasks, settled, strict=True):
        ranked = sorted(how.validation.items(), key=lambda item: -item[1])
        scores = [[task.scenario.name, "validation utility"]]
        scores += [[name, f"{value:.4f}"] for name, value in ranked]
        parts.append(table(scores))
        if not how.adapts:
            parts.append("adapting is pointless here: the best fixed decision is kept, no probes")
    if learned.curve:
        parts[-1] += f"\ntook {learned.seconds:.0f} s"
    return "\n\n".join(parts)


def export(
    task: Task,
    learned: Learned,
    settled: Settled,
    config: TrainConfig,
    learning: Sequence[Trace],
    checking: Sequence[Trace],
    out: Path,
    origin: ControllerBundle | None = None,
) -> None:
    """Write the controller bundle with where it, and the networks it took, come from."""
    import platform
    from dataclasses import asdict

    import numpy
    import stable_baselines3
    import torch

    import adaptive_split
    from adaptive_split.runtime.controller_bundle import ControllerBundle

    def listed(traces: Sequence[Trace]) -> list[dict[str, Any]]:
        return [
            {"family": t.family, "name": t.name, "source": t.source, "rtt_source": t.rtt_source}
            for t in traces
        ]

    scenario = task.scenario
    told = ("scenario", "objective", "config", "from_logs", "train_traces", "versions")
    how: dict[str, Any] = {"config": asdict(config)}
    if origin is not None:  # what it was trained with is the origin's, or that one's origin's
        there = origin.provenance
        how = {"networks": there.get("networks") or {k: there[k] for k in told if k in there}}
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
            **how,
            "trust": settled.trust,
            "future": settled.future,
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
