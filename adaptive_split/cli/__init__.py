"""The command `adaptive-split`: one small file per subcommand."""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
from collections.abc import Sequence

import adaptive_split
from adaptive_split.errors import AdaptiveSplitError

COMMANDS = (
    "demo", "compare", "headroom", "train", "tune", "serve", "run", "bench", "traces", "profile",
    "measure",
)  # fmt: skip
"""Modules of this package with `add_parser` and `run`; each imports what it needs when it runs."""

FAILED, INTERRUPTED = 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status."""
    logging.basicConfig(format="adaptive-split: %(levelname)s: %(message)s", level=logging.WARNING)
    logging.addLevelName(logging.WARNING, "warning")
    logging.addLevelName(logging.ERROR, "error")
    parser = build_parser()
    arguments = parser.parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except AdaptiveSplitError as error:
        print(f"adaptive-split: error: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("adaptive-split: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone, as `head` does; Python would complain once more.
        sys.stdout = None
        return FAILED


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of all commands; imports no command's needs."""
    parser = argparse.ArgumentParser(
        prog="adaptive-split",
        description="Choose split point, exit threshold and compression bits of a neural network "
        "for every frame.",
        epilog="example: adaptive-split demo --out runs/demo",
    )
    parser.add_argument(
        "--version", action="version", version=f"adaptive-split {adaptive_split.__version__}"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    for name in COMMANDS:
        module = importlib.import_module(f"adaptive_split.cli.{name}")
        module.add_parser(commands)
    return parser
