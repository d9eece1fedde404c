"""`adaptive-split top`: what a device and its server are doing, live."""

from __future__ import annotations

import argparse
import contextlib
from collections import deque
from typing import TYPE_CHECKING

from adaptive_split.cli.common import METRICS_PORTS, Commands, add_command
from adaptive_split.errors import LinkError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from adaptive_split.runtime.telemetry.scrape import Scrape

REFRESH_S = 1.0
WINDOW = 11
"""Readings kept: rates and quantiles are those of the last ten seconds."""


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

    watched = [Watched(address) for address in arguments.addresses or arguments.usual]
    for one in watched:
        one.look()
    if not arguments.addresses:
        watched = [one for one in watched if one.answers] or watched
    if not any(one.answers for one in watched):
        raise LinkError(watched[0].problem)
    console = Console()
    if arguments.once:
        console.print(*[one.view() for one in watched], sep="\n")
        return 0
    with contextlib.suppress(KeyboardInterrupt):
        _watch(console, watched)
    return 0


class Watched:
    """One endpoint: its last readings, and what is wrong with it."""

    def __init__(self, address: str) -> None:
        self.address, self.problem = address, ""
        self._history: deque[Scrape] = deque(maxlen=WINDOW)

    @property
    def answers(self) -> bool:
        """Whether it answered the last time."""
        return not self.problem

    def look(self) -> None:
        """Read it once more."""
        from adaptive_split.runtime.telemetry.scrape import scrape

        try:
            found = scrape(self.address)
        except LinkError as error:
            self.problem = str(error)
            return
        if self._history and not found.continues(self._history[-1]):
            self._history.clear()
        self.problem = ""
        self._history.append(found)

    def view(self) -> RenderableType:
        """What to show: the last seconds, or since its start where it was read once only."""
        from adaptive_split.cli.top_view import lost, panel
        from adaptive_split.runtime.telemetry.scrape import Change

        if not self._history:
            return lost(self.address, self.problem)
        newest, oldest = self._history[-1], self._history[0]
        change = Change(newest) if oldest is newest else Change(newest, oldest)
        return panel(self.address, change, since_start=oldest is newest, gone=not self.answers)


def _watch(console: Console, watched: list[Watched]) -> None:
    """Refresh the screen once a second until interrupted."""
    from rich.console import Group
    from rich.live import Live

    from adaptive_split.clock import MonotonicClock

    clock = MonotonicClock()
    with Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
        while True:
            began_s = clock.now_s()
            live.update(Group(*[one.view() for one in watched]), refresh=True)
            clock.sleep_until(began_s + REFRESH_S)
            for one in watched:
                one.look()
