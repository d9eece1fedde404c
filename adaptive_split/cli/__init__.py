"""The command `adaptive-split`: one small file per subcommand."""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
from collections.abc import Sequence

import adaptive_split
from adaptive_split.cli.logs import on_standard_error
from adaptive_split.errors import AdaptiveSplitError

_log = logging.getLogger(__name__)

COMMANDS = (
    "demo", "compare", "headroom", "train", "tune", "serve", "run", "bench", "traces", "profile",
    "measure", "build", "calibrate", "record", "top", "dash", "certs", "doctor",
    "sign", "verify", "update",
)  # fmt: skip
"""Modules of this package with `add_parser` and `run`; each imports what it needs when it runs."""

PROGRAM = "adaptive-split"
EXTRAS = {
    "gymnasium": "train", "stable_baselines3": "train", "yaml": "train", "torch": "train,build",
    "onnx": "build", "onnxscript": "build",
}  # fmt: skip
"""What brings the modules that a device does not have."""
CRASHED, FAILED, INTERRUPTED = 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status."""
    arguments = build_parser().parse_args(argv)
    log_format = getattr(arguments, "log_format", "text")
    with on_standard_error(log_format, getattr(arguments, "log_level", "warning")):
        try:
            return _run(arguments)
        except Exception:
            if log_format == "text":
                raise
            # A traceback of many lines would be lost on whoever reads an object per line.
            _log.critical("ended by an error that nobody expected", exc_info=True)
            return CRASHED


def _run(arguments: argparse.Namespace) -> int:
    try:
        return int(arguments.run(arguments))
    except AdaptiveSplitError as error:
        _log.error("%s", error)
        return FAILED
    except ModuleNotFoundError as error:
        missing = str(error.name).partition(".")[0]
        if missing not in EXTRAS:
            raise
        _log.error(
            "%s must be installed for this command; it is not; install it with: "
            "pip install '%s[%s]'", missing, PROGRAM, EXTRAS[missing],
        )  # fmt: skip
        return FAILED
    except KeyboardInterrupt:
        _log.warning("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone, as `head` does; Python would complain once more.
        sys.stdout = None
        return FAILED


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of all commands; imports no command's needs."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        usage=f"{PROGRAM} [-h] [--version] COMMAND ...",
        description="Choose split point, exit threshold and compression bits of a neural network "
        "for every frame.",
        epilog="example: adaptive-split demo --out runs/demo",
    )
    parser.add_argument(
        "--version", action="version", version=f"{PROGRAM} {adaptive_split.__version__}"
    )
    # argparse breaks the line of the longest name unless the metavar is longer.
    commands = parser.add_subparsers(
        prog=PROGRAM, required=True, metavar="COMMAND ...", title="commands"
    )
    for name in COMMANDS:
        module = importlib.import_module(f"adaptive_split.cli.{name}")
        module.add_parser(commands)
    return parser
