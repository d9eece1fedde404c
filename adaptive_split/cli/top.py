"""`adaptive-split top`: what a device and its server are doing, live."""

from __future__ import annotations

import argparse
import contextlib
from typing import TYPE_CHECKING

from adaptive_split.cli.common import METRICS_PORTS, Commands, add_command
from adaptive_split.errors import LinkError

if TYPE_CHECKING:
    from rich.console import Console

    from adaptive_split.clock import Clock
    from adaptive_split.runtime.telemetry.watched import Watched

REFRESH_S = 1.0


def add_parser(commands: Commands) -> None:
    """Add the command."""
    usual = [f"127.0.0.1:{port}" for port in METRICS_PORTS.values()]
    parser = add_command(
        commands, "top", "watch a device and a server: link, decisions, misses, battery",
        "Read the metrics of devices and servers that were started with --metrics-port and show "
        "the last ten seconds, until Ctrl-C. An endpoint that goes away is waited for.",
        f"adaptive-split top {' '.join(usual)}",
    )  # fmt: skip
    parser.add_argument(
        "addresses", nargs="*", metavar="HOST:PORT",
        help=f"metrics endpoints (default: those that answer of {' and '.join(usual)})",
    )  # fmt: skip
    parser.add_argument(
        "--once", action="store_true", help="print everything since their start once, and end"
    )
    parser.set_defaults(run=run, usual=usual)


def run(arguments: argparse.Namespace) -> int:
    """Show until interrupted, or once."""
    from rich.console import Console

    from adaptive_split.cli.top_view import view
    from adaptive_split.clock import MonotonicClock
    from adaptive_split.runtime.telemetry.watched import Watched

    clock = MonotonicClock()
    watched = [Watched(address, clock) for address in arguments.addresses or arguments.usual]
    for one in watched:
        one.look()
    if not arguments.addresses:
        watched = [one for one in watched if one.answers] or watched
    if not any(one.answers for one in watched):
        raise LinkError(watched[0].problem)
    console = Console()
    if arguments.once:
        console.print(*map(view, watched), sep="\n")
        return 0
    with contextlib.suppress(KeyboardInterrupt):
        _watch(console, watched, clock)
    return 0


def _watch(console: Console, watched: list[Watched], clock: Clock) -> None:
    """Refresh the screen once a second until interrupted."""
    from rich.console import Group
    from rich.live import Live

    from adaptive_split.cli.top_view import view

    with Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
        while True:
            began_s = clock.now_s()
            live.update(Group(*map(view, watched)), refresh=True)
            clock.sleep_until(began_s + REFRESH_S)
            for one in watched:
                one.look()
