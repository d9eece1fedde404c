"""`adaptive-split train --from-logs`: go on training a controller with what it has recorded."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from adaptive_split.cli.common import Bars, refuse_beside, say
from adaptive_split.errors import ConfigError

if TYPE_CHECKING:
    from adaptive_split.agents.from_logs import Learned
    from adaptive_split.agents.intervals import Estimate


def add_from_logs(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to `train`."""
    group = parser.add_argument_group(
        "learning in situ",
        "Continue a controller with the frames that it, or another learned one, has recorded in "
        "live runs of the scenario. It is written only if its validation utility does not fall, "
        "nor its estimate on the last third of the records by more than may be luck (half of its "
        "interval, at most 0.002).",
    )
    group.add_argument(
        "--from-logs", type=Path, nargs="+", metavar="RECORDS",
        help="record files of 'run', the oldest first; may end in .gz",
    )  # fmt: skip
    group.add_argument(
        "--controller-bundle", type=Path, metavar="DIR", help="the controller to continue"
    )


def train_from_logs(arguments: argparse.Namespace) -> int:
    """Train on records, print what the gate found, export if it lets the controller pass."""
    _check(arguments)
    from adaptive_split.runtime.controller_bundle import ControllerBundle
    from adaptive_split.scenario import load_scenario
    from adaptive_split.trace_sets import default_traces

    scenario = load_scenario(arguments.scenarios[0])
    bundle = ControllerBundle.load(arguments.controller_bundle)
    from adaptive_split.agents.continued import ContinuedConfig
    from adaptive_split.agents.from_logs import check_controller, learn_from_logs
    from adaptive_split.agents.log_frames import read_logs
    from adaptive_split.agents.train import TrainConfig
    from adaptive_split.runtime.simulated.streams import StreamSource

    check_controller(bundle, scenario)
    table = scenario.table("policy")
    log = read_logs(arguments.from_logs, table)
    learning, sentence = default_traces("train", arguments.data)
    say(sentence)
    checking, sentence = default_traces("validation", arguments.data)
    say(sentence)
    streams = StreamSource(scenario, table.outcomes, checking).draw_evenly(
        TrainConfig().validation_per_family, seed=1
    )
    frames = {} if arguments.frames is None else {"num_frames": arguments.frames}
    config = ContinuedConfig(seed=arguments.seed, **frames)
    with Bars("frame") as bars:
        learned = learn_from_logs(
            bundle, scenario, log, learning, streams, config,
            lambda done, total: bars("training", done, total),
        )  # fmt: skip
    print(found(learned))
    _ship(learned, arguments.out)
    return 0


def _ship(learned: Learned, out: Path) -> None:
    """Write the controller if the gate lets it pass."""
    if not learned.verdict.passes:
        raise ConfigError(
            f"{'; '.join(learned.verdict.reasons)}; nothing was written, keep the old controller"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    learned.bundle.save(out)
    print(f"controller: {out}")


def _check(arguments: argparse.Namespace) -> None:
    """Refuse arguments that do not go together."""
    if not (arguments.from_logs and arguments.controller_bundle):
        raise ConfigError("--from-logs and --controller-bundle must be given together; got one")
    if len(arguments.scenarios) > 1:
        raise ConfigError(f"--from-logs must come with one scenario; got {arguments.scenarios}")
    if arguments.force_export:
        raise ConfigError("--force-export must not come with --from-logs: its gate is not forced")
    refuse_beside("--from-logs", {
        "--seeds": arguments.seeds != 1, "--simulators": arguments.simulators != 1,
        "--slo-factors": arguments.slo_factors != [1.0], "--networks": arguments.networks,
        "--ray": arguments.ray, "--config": arguments.config,
        "--resume": arguments.resume, "--tensorboard": arguments.tensorboard,
    })  # fmt: skip


def found(learned: Learned) -> str:
    """Old and new controller, and the verdict, as a table."""
    from adaptive_split.cli.tables import table

    def with_interval(one: Estimate) -> str:
        return f"{one.value:.4f} [{one.low:.4f}, {one.high:.4f}]"

    verdict = learned.verdict
    judged, gain = verdict.judged, verdict.judged.gain
    before, after = verdict.old_validation, verdict.new_validation
    rows = [
        ["utility", "old", "new", "new - old"],
        ["validation, simulated", f"{before:.4f}", f"{after:.4f}", f"{after - before:+.4f}"],
        ["held-out records, estimated", with_interval(judged.old), with_interval(judged.new),
         f"{gain.value:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]"],
    ]  # fmt: skip
    return (
        f"{table(rows)}\n"
        f"trained on {learned.num_learnt} recorded frames, judged on {learned.num_held_out}, of "
        f"which {100 * judged.agreement:.0f} % are decided alike\n"
        f"verdict: {'passes' if verdict.passes else 'refused'}"
    )
