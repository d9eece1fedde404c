"""`adaptive-split dash`: a page on what a device is doing, for a browser."""

from __future__ import annotations

import argparse
from pathlib import Path

from adaptive_split.cli.common import METRICS_PORTS, Commands, add_command
from adaptive_split.cli.logs import add_logging
from adaptive_split.cli.service import Service

PORT = 9466
REFRESH_S = 1.0


def add_parser(commands: Commands) -> None:
    """Add the command."""
    device = f"127.0.0.1:{METRICS_PORTS['device']}"
    parser = add_command(
        commands, "dash", "a read-only web page on a device",
        "Read the metrics of a device (and a server) that was started with --metrics-port once a "
        "second, and serve one page that draws them, until SIGTERM or Ctrl-C. The first line of "
        "standard output is the page's address. There is no password: beyond this machine it is "
        "best reached through 'ssh -L'. A device that is silent is waited for.",
        f"adaptive-split dash --server 127.0.0.1:{METRICS_PORTS['server']} --records run.jsonl",
    )  # fmt: skip
    parser.add_argument(
        "--device", default=device, metavar="HOST:PORT",
        help="metrics of the device (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--server", metavar="HOST:PORT", help="metrics of its server, to be shown")
    parser.add_argument(
        "--records", type=Path, metavar="FILE",
        help="frame records, of which the last are shown; of a folder, the newest *.jsonl",
    )  # fmt: skip
    parser.add_argument("--bundle", help="names the answers: a shipped bundle or its directory")
    parser.add_argument(
        "--port", type=int, default=PORT, help="of the page; 0 = a free one (default: %(default)s)"
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="interface that listens (default: %(default)s)"
    )
    add_logging(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve until told to stop."""
    from adaptive_split.bundle import ModelBundle, bundle_path
    from adaptive_split.clock import MonotonicClock
    from adaptive_split.runtime.telemetry.dash_feed import Feed
    from adaptive_split.runtime.telemetry.dash_page import DashPage
    from adaptive_split.runtime.telemetry.dash_records import LastFrames

    classes = ModelBundle.load(bundle_path(arguments.bundle)).classes if arguments.bundle else ()
    frames = LastFrames(arguments.records, classes) if arguments.records else None
    clock = MonotonicClock()
    feed = Feed(arguments.device, clock, server=arguments.server, frames=frames)
    with (
        DashPage(feed.text, host=arguments.host, port=arguments.port) as page,
        Service(clock) as service,
    ):
        print(f"http://{page.address}/", flush=True)
        service.ready()
        while not service.told_to_stop:
            began_s = clock.now_s()
            feed.look()
            service.alive()
            clock.sleep_until(began_s + REFRESH_S)
    return 0
