"""`adaptive-split serve`: the edge server."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from adaptive_split.cli.common import (
    Commands,
    add_command,
    add_metrics,
    add_tls,
    metrics_endpoint,
    tls_files,
)
from adaptive_split.cli.logs import add_logging
from adaptive_split.errors import ConfigError

if TYPE_CHECKING:
    from adaptive_split.bundle import ModelBundle
    from adaptive_split.cluster.replica import ReplicaConfig
    from adaptive_split.runtime.serving.guard import Limits
    from adaptive_split.runtime.serving.tails import Tails

QUEUE_OF_ONE = 64
"""Requests that may wait where tails are computed."""


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands, "serve", "serve the tails of a model bundle to devices",
        "Listen for devices until SIGTERM or Ctrl-C, then drain. The first line of standard "
        "output is the address, HOST:PORT; with --metrics-port the second is that of the metrics.",
        "adaptive-split serve --bundle garments --port 50051 --insecure",
    )  # fmt: skip
    parser.add_argument("--bundle", required=True, help="a shipped bundle or its directory")
    parser.add_argument("--host", default="127.0.0.1", help="default: %(default)s")
    parser.add_argument("--port", type=int, default=0, help="0 = one that is free (default)")
    add_tls(parser, "devices'")
    add_allowed(parser)
    add_limits(parser)
    parser.add_argument(
        "--threads", type=int, default=1, metavar="N",
        help="of one inference; with --ray also the CPUs that a replica reserves (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--background", type=float, default=0.0, metavar="SHARE",
        help="play other users' recorded requests that take this share of the server",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of the background load")
    add_ray(parser)
    add_metrics(parser, "server")
    add_logging(parser)
    parser.set_defaults(run=run)


def add_allowed(parser: argparse.ArgumentParser) -> None:
    """Add whom to let in."""
    parser.add_argument(
        "--allow", action="append", default=[], metavar="NAME",
        help="let in only certificates of this name (URI, DNS name or common name), letter by "
        "letter; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--allow-file", type=Path, metavar="FILE",
        help="more such names, one per line; followed while serving",
    )  # fmt: skip


def add_limits(parser: argparse.ArgumentParser) -> None:
    """Add what one device may ask."""
    group = parser.add_argument_group(
        "limits", "of every device, which is a certificate's name or, in plain text, a connection"
    )
    group.add_argument(
        "--device-requests", type=float, default=120.0, metavar="N",
        help="messages per second; 0 = no limit (default: 120, four cameras of 30 fps)",
    )  # fmt: skip
    group.add_argument(
        "--device-mbps", type=float, default=200.0, metavar="N",
        help="10^6 bit/s of messages; 0 = no limit (default: 200)",
    )  # fmt: skip
    group.add_argument(
        "--device-open", type=int, default=16, metavar="N",
        help="requests without an answer yet; 0 = no limit (default: 16)",
    )  # fmt: skip


def add_ray(parser: argparse.ArgumentParser) -> None:
    """Add `--ray` and `--replicas`."""
    group = parser.add_argument_group(
        "Ray", "this process listens, checks and limits as ever; replicas compute the tails"
    )
    group.add_argument(
        "--ray", nargs="?", const="local", metavar="ADDRESS",
        help="compute in replicas on a Ray cluster at host:port, or in processes of this machine "
        "where no address is given",
    )  # fmt: skip
    group.add_argument(
        "--replicas", type=int, metavar="N", help="how many, with --ray (default: 1)"
    )


def limits_of(arguments: argparse.Namespace) -> Limits:
    """The limits that the arguments tell.

    Raises:
        ConfigError: If one is negative.
    """
    from adaptive_split.runtime.serving.guard import UNLIMITED, Limits

    if min(arguments.device_requests, arguments.device_mbps, arguments.device_open) < 0:
        raise ConfigError("--device-requests, --device-mbps and --device-open must be 0 or more")
    return Limits(
        requests_per_s=arguments.device_requests or UNLIMITED.requests_per_s,
        bytes_per_s=arguments.device_mbps * 1e6 / 8 or UNLIMITED.bytes_per_s,
        max_concurrent=arguments.device_open or UNLIMITED.max_concurrent,
    )


def replicas_of(arguments: argparse.Namespace) -> ReplicaConfig | None:
    """The replicas that `--ray` asks for, or nothing without it.

    Raises:
        ConfigError: If another option does not go with it.
    """
    if arguments.ray is None:
        if arguments.replicas is not None:
            raise ConfigError(f"--replicas must come with --ray; got {arguments.replicas} alone")
        return None
    from adaptive_split.cluster.replica import ReplicaConfig

    if arguments.background:
        raise ConfigError("--background must be of a server that computes; got --ray as well")
    num_replicas = 1 if arguments.replicas is None else arguments.replicas
    return ReplicaConfig(
        num_replicas=num_replicas, num_threads=arguments.threads, max_queue=QUEUE_OF_ONE
    )


def open_tails(
    stack: ExitStack, address: str, replicas: ReplicaConfig, bundle: ModelBundle
) -> Tails:
    """Start the replicas; the stack stops them, and the cluster if it is of this machine."""
    from adaptive_split.cluster.ray_tails import RayTails, open_cluster

    # Ray tells of lost workers on standard output, which is for addresses.
    stack.enter_context(redirect_stdout(sys.stderr))
    stack.enter_context(open_cluster(address, replicas))
    return stack.enter_context(RayTails(bundle, replicas))


def run(arguments: argparse.Namespace) -> int:
    """Serve until told to stop."""
    from adaptive_split.bundle import ModelBundle, bundle_path
    from adaptive_split.runtime.serving.server import EdgeServer, ServerConfig
    from adaptive_split.runtime.stages import StageRunner

    replicas, out = replicas_of(arguments), sys.stdout
    config = ServerConfig(
        host=arguments.host, port=arguments.port, insecure=arguments.insecure,
        tls=tls_files(arguments), allowed_names=frozenset(arguments.allow),
        allow_file=arguments.allow_file, limits=limits_of(arguments),
        max_queue=QUEUE_OF_ONE * (replicas.num_replicas if replicas else 1),
        background_utilization=arguments.background, seed=arguments.seed,
    )  # fmt: skip
    bundle = ModelBundle.load(bundle_path(arguments.bundle))
    with ExitStack() as stack:
        tails = open_tails(stack, arguments.ray, replicas, bundle) if replicas else None
        # A front door opens no graph.
        parts = () if tails else bundle.parts
        stages = stack.enter_context(
            StageRunner(bundle, num_threads=arguments.threads, parts=parts)
        )
        server = EdgeServer(bundle, stages, config, tails=tails)
        print(f"{arguments.host}:{server.port}", flush=True, file=out)
        endpoint = stack.enter_context(metrics_endpoint(arguments, server.metrics.registry))
        if endpoint:
            print(endpoint.address, flush=True, file=out)
        server.serve_until_signal()
    return 0
