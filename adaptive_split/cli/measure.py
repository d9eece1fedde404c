"""`adaptive-split measure`: what a bundle answers on labelled pictures."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from adaptive_split.cli.common import Bars, Commands, add_command, say
from adaptive_split.errors import ConfigError

if TYPE_CHECKING:
    from adaptive_split.bundle import ModelBundle
    from adaptive_split.runtime.measure import Measured
    from adaptive_split.runtime.views import LabelledPicture


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands, "measure", "run a bundle on labelled pictures and keep its answers",
        "Ask every exit and every payload about every picture and write outcomes.npz: what the "
        "simulator plays. Labels come from labels.csv (file,label) or from the folders' names. "
        "An interrupted measurement goes on where it stopped: its answers are in FILE.part.",
        "adaptive-split measure garments --data pictures --subset judge --out outcomes_judge.npz",
    )  # fmt: skip
    parser.add_argument("bundle", help="a shipped bundle or its directory")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="labelled pictures")
    parser.add_argument("--subset", choices=("policy", "judge"), required=True,
                        help="whether they train a policy or judge it")  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="a new .npz")
    add_views(parser)
    parser.set_defaults(run=run)


def add_views(parser: argparse.ArgumentParser) -> None:
    """Add `--views`."""
    parser.add_argument("--views", type=int, default=1, metavar="V",
                        help="ask about each picture also mirrored and cut in from its corners, V "
                        "views of 10 at most: a few hundred pictures tell accuracies better that "
                        "way; not where a mirrored picture is another class (default: 1, the "
                        "picture)")  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Measure and write."""
    from adaptive_split.bundle import ModelBundle, bundle_path
    from adaptive_split.decision import DecisionGrid
    from adaptive_split.runtime.answer_log import AnswerLog
    from adaptive_split.runtime.measure import identity, measure_exits
    from adaptive_split.runtime.picture_folder import read_folder
    from adaptive_split.runtime.views import in_views

    out: Path = arguments.out
    if out.exists() or out.suffix != ".npz":
        raise ConfigError(f"--out must be a new file that ends in .npz; got {out}")
    bundle = ModelBundle.load(bundle_path(arguments.bundle))
    folder = read_folder(arguments.data, bundle)
    labelled: list[LabelledPicture] = [
        (file, label, pixels)
        for file, label, pixels in zip(folder.files, folder.labels, folder.pixels, strict=True)
        if label is not None
    ]
    if not labelled:
        raise ConfigError(f"pictures must be labelled with {bundle.classes}; got none that is")
    asked = list(in_views(labelled, arguments.views))
    part = out.with_name(f"{out.name}.part")
    if part.exists():
        say(f"going on where {part} ends")
    grid = DecisionGrid(bundle.num_stages)
    with AnswerLog(part, identity(bundle, grid, asked)) as log, Bars("picture") as bars:
        measured = measure_exits(
            bundle, asked, grid, subset=arguments.subset, log=log,
            progress=lambda done: bars("measuring", done, len(asked)),
        )  # fmt: skip
    measured.outcomes.save(out)
    part.unlink()
    print(_summary(bundle, measured))
    seen = f" in {arguments.views} views" if arguments.views > 1 else ""
    unlabelled = len(folder.files) - len(labelled)
    print(f"{len(labelled)} pictures{seen}, {unlabelled} without a known label")
    return 0


def _summary(bundle: ModelBundle, measured: Measured) -> str:
    """Accuracy and honesty of every exit, accuracy and bytes of every payload, thresholds."""
    from adaptive_split.cli.tables import table
    from adaptive_split.models.calibration import exit_errors
    from adaptive_split.outcomes import useful_thresholds

    outcomes = measured.outcomes
    exits = [["exit", "top-1", "temperature", "calibration error without it", "with it"]]
    shares = outcomes.exit_right.mean(0)
    columns = (shares, bundle.temperatures, *exit_errors(measured))
    for index, (right, heat, before, after) in enumerate(zip(*columns, strict=True), start=1):
        exits.append([str(index), f"{right:.3f}", f"{heat:.2f}", f"{before:.3f}", f"{after:.3f}"])
    payloads = [["sent", "top-1", "bytes"]]
    sizes, served = outcomes.payload_bytes.mean(0), outcomes.server_right.mean(0)
    for (split, bits), right, size in zip(outcomes.payloads, served, sizes, strict=True):
        what = f"split {split}, {bits} bits"
        if split == 0:
            what = f"{bundle.picture_format}, quality {bundle.picture_qualities[bits]}"
        payloads.append([what, f"{right:.3f}", f"{size:.0f}"])
    thresholds = ", ".join(f"{value:g}" for value in useful_thresholds(outcomes))
    return (
        f"{table(exits)}\n\n{table(payloads)}\n\n"
        f"exit thresholds that share these pictures evenly: [{thresholds}]"
    )
