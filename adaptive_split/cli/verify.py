"""`adaptive-split verify`: whether a release is as a trusted key signed it."""

from __future__ import annotations

import argparse
from pathlib import Path

from adaptive_split.cli.common import Commands, add_command


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands, "verify", "check a signed bundle",
        "Check that a trusted key signed a bundle, that every file is as it was signed, that there "
        "is no other, and that it loads. 'update install' does the same with its own copy.",
        "adaptive-split verify runs/controllers/default --trusted trusted.txt",
    )  # fmt: skip
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="what 'sign' signed")
    add_trusted(parser)
    parser.set_defaults(run=run)


def add_trusted(parser: argparse.ArgumentParser) -> None:
    """Add `--trusted`."""
    parser.add_argument(
        "--trusted", type=Path, required=True, metavar="FILE",
        help="public keys to trust, a line each, as 'sign --new-key' prints them",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Verify; say what it is."""
    from adaptive_split.runtime.updates.keys import load_trusted
    from adaptive_split.runtime.updates.signature import verify

    statement = verify(arguments.bundle, load_trusted(arguments.trusted))
    print(
        f"{arguments.bundle} is release {statement.name}, {statement.kind}, signed by "
        f"{statement.key_id}; all {len(statement.files)} files are as signed"
    )
    return 0
