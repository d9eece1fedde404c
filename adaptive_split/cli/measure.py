"""`adaptive-split measure`: what a bundle answers on labelled pictures."""

from __future__ import annotations

import argparse
from pathlib import Path

from adaptive_split.cli.common import Bars, Commands, add_command
from adaptive_split.errors import ConfigError


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands, "measure", "run a bundle on labelled pictures and keep its answers",
        "Ask every exit and every payload about every picture and write outcomes.npz: what the "
        "simulator plays. Labels come from labels.csv (file,label) or from the folders' names.",
        "adaptive-split measure garments pictures --subset judge --out outcomes_judge.npz",
    )  # fmt: skip
    parser.add_argument("bundle", help="a shipped bundle or its directory")
    parser.add_argument("pictures", type=Path, help="a folder")
    parser.add_argument("--subset", choices=("policy", "judge"), required=True,
                        help="whether they train a policy or judge it")  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="a new .npz")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure and write."""
    from adaptive_split.bundle import ModelBundle, bundle_path
    from adaptive_split.cli.tables import table
    from adaptive_split.decision import DecisionGrid
    from adaptive_split.runtime.measure import measure
    from adaptive_split.runtime.picture_folder import read_folder

    if arguments.out.exists() or arguments.out.suffix != ".npz":
        raise ConfigError(f"--out must be a new file that ends in .npz; got {arguments.out}")
    bundle = ModelBundle.load(bundle_path(arguments.bundle))
    folder = read_folder(arguments.pictures, bundle)
    labelled = [
        (file, label, pixels)
        for file, label, pixels in zip(folder.files, folder.labels, folder.pixels, strict=True)
        if label is not None
    ]
    if not labelled:
        raise ConfigError(f"pictures must be labelled with {bundle.classes}; got none that is")
    grid = DecisionGrid(bundle.num_stages)
    with Bars("picture") as bars:
        outcomes = measure(
            bundle, labelled, grid, subset=arguments.subset,
            progress=lambda done: bars("measuring", done, len(labelled)),
        )  # fmt: skip
    outcomes.save(arguments.out)
    rows = [["what", "top-1", "bytes"]]
    for index, right in enumerate(outcomes.exit_right.mean(0), start=1):
        rows.append([f"exit {index}", f"{right:.3f}", "-"])
    sizes = outcomes.payload_bytes.mean(0)
    for (split, bits), right, size in zip(
        outcomes.payloads, outcomes.server_right.mean(0), sizes, strict=True
    ):
        rows.append([f"split {split}, {bits} bits", f"{right:.3f}", f"{size:.0f}"])
    print(table(rows))
    print(f"{len(labelled)} pictures, {len(folder.files) - len(labelled)} without a known label")
    return 0
