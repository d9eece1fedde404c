"""`adaptive-split run`: the device runtime."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from adaptive_split.cli.common import Commands, add_command, add_metrics, add_tls, tls_files
from adaptive_split.cli.device_run import DeviceRun
from adaptive_split.cli.hardware import add_hardware
from adaptive_split.cli.logs import add_logging
from adaptive_split.cli.pictures import add_pictures
from adaptive_split.cli.releases import RESTART, Updates, add_releases
from adaptive_split.cli.service import Service
from adaptive_split.errors import ConfigError


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands, "run", "answer pictures as the device, with a server's help",
        "Answer a number of frames, one picture after the other in the order of their names, and "
        "write a record of each. The device is played as slow as the scenario's device profile "
        "says (a Jetson-Nano class in 'default'), so that time and modelled energy belong "
        "together; a machine that slow is not slowed further. Without a usable controller bundle "
        "the distribution planner decides, and a warning says so. A record that cannot be written "
        "stops no frame; the exit status is then 2.",
        "adaptive-split run --server 127.0.0.1:50051 --bundle garments --controller sac "
        "--pictures pictures --num-frames 300 --fps 30 --records run.jsonl --insecure",
    )  # fmt: skip
    parser.add_argument("--server", required=True, metavar="HOST:PORT", help="the edge server")
    parser.add_argument("--bundle", help="a shipped bundle or its directory (default: scenario's)")
    parser.add_argument(
        "--controller", default="sac", metavar="NAME",
        help="sac, a rule or planner that 'adaptive-split compare --help' lists, local, jpeg, "
        "static:K:T:B, or the directory of a controller bundle (default: sac)",
    )  # fmt: skip
    add_pictures(parser)
    parser.add_argument("--fps", type=float, metavar="F", help="default: the scenario's")
    parser.add_argument("--records", type=Path, required=True, metavar="FILE", help="a new file")
    parser.add_argument("--scenario", default="default", help="default: default")
    parser.add_argument(
        "--slowdown", type=float, default=1.0, metavar="X",
        help="play a device X times as slow as the profile; 0 = as fast as this machine, whose "
        "energy the profile's watts then do not describe (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--mission-hours", type=float, metavar="H",
        help="price energy so that the charge lasts that long: the scenario's [battery] if it has "
        "one, as modelled, else this machine's",
    )  # fmt: skip
    parser.add_argument(
        "--probe-bytes", type=int, metavar="N",
        help="most bytes per second for measuring a link whose rate nothing else tells; 0 = "
        "measure with frames only (default: 8000, and at most 1 %% of the rate)",
    )  # fmt: skip
    add_releases(parser)
    add_hardware(parser)
    add_tls(parser, "server's")
    add_metrics(parser, "device")
    add_logging(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Answer the frames; print what they cost."""
    from adaptive_split.cli import FAILED
    from adaptive_split.clock import MonotonicClock

    check(arguments)
    clock = MonotonicClock()
    with Service(clock) as service:
        with Updates(arguments) as updates:
            # Not before the store has counted this run: one that is told to stop is no death.
            service.interruptible()
            with DeviceRun(arguments, updates, clock) as device_run:
                device_run.play(service)
        print(device_run.summary())
        if updates.restart:
            return RESTART
        return FAILED if device_run.num_lost else 0
    return 0


def check(arguments: argparse.Namespace) -> None:
    """Refuse what can be refused before anything is opened.

    Raises:
        ConfigError: If a number or the server's address cannot be, or neither TLS files nor
            `--insecure` were given.
    """
    from adaptive_split.runtime.addresses import host_and_port

    num_frames, slowdown = arguments.num_frames, arguments.slowdown
    if (num_frames is not None and num_frames < 1) or not 0 <= slowdown < math.inf:
        raise ConfigError(
            "--num-frames must be at least 1 and --slowdown 0 or more; "
            f"got {num_frames} and {slowdown:g}"
        )
    host_and_port(arguments.server, "--server")
    tls_files(arguments)
