"""`adaptive-split serve`: the edge server."""

from __future__ import annotations

import argparse

from adaptive_split.cli.common import Commands, add_command, add_tls, tls_files


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands, "serve", "serve the tails of a model bundle to devices",
        "Listen for devices until SIGTERM or Ctrl-C, then drain. The first line of standard "
        "output is the address, HOST:PORT.",
        "adaptive-split serve --bundle garments --port 50051 --insecure",
    )  # fmt: skip
    parser.add_argument("--bundle", required=True, help="a shipped bundle or its directory")
    parser.add_argument("--host", default="127.0.0.1", help="default: %(default)s")
    parser.add_argument("--port", type=int, default=0, help="0 = one that is free (default)")
    add_tls(parser, "devices'")
    parser.add_argument(
        "--allow", action="append", default=[], metavar="NAME",
        help="let in only certificates of this name; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--threads", type=int, default=1, metavar="N", help="of one inference (default: 1)"
    )
    parser.add_argument(
        "--background", type=float, default=0.0, metavar="SHARE",
        help="play other users' recorded requests that take this share of the server",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of the background load")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve until told to stop."""
    from adaptive_split.bundle import ModelBundle, bundle_path
    from adaptive_split.runtime.server import EdgeServer, ServerConfig
    from adaptive_split.runtime.stages import StageRunner

    config = ServerConfig(
        host=arguments.host, port=arguments.port, insecure=arguments.insecure,
        tls=tls_files(arguments), allowed_names=frozenset(arguments.allow),
        background_utilization=arguments.background, seed=arguments.seed,
    )  # fmt: skip
    bundle = ModelBundle.load(bundle_path(arguments.bundle))
    with StageRunner(bundle, num_threads=arguments.threads, parts=bundle.parts) as stages:
        server = EdgeServer(bundle, stages, config)
        print(f"{arguments.host}:{server.port}", flush=True)
        server.serve_until_signal()
    return 0
