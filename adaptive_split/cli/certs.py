"""`adaptive-split certs`: a private certificate authority, for tests and small fleets."""

from __future__ import annotations

import argparse
from datetime import datetime, timezone
from pathlib import Path

from adaptive_split.cli.common import Commands, add_command, say
from adaptive_split.errors import ConfigError

LOCAL_NAMES = ("localhost", "127.0.0.1")
ALLOW_FILE = "allowed.txt"


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands, "certs", "make certificates for mutual TLS, for tests and small fleets",
        "Make a private certificate authority in DIR, unless one is there, and let it sign a "
        "certificate for a server and for each device. Names of devices are added to "
        f"DIR/{ALLOW_FILE}, the list of those that the server lets in. Keys are not encrypted and "
        "nothing renews itself: a large fleet needs a certificate service. Keep ca.key to "
        "yourself; a machine needs ca.pem and its own two files.",
        "adaptive-split certs certs --server-name edge.example --device cam-1 --device cam-2",
    )  # fmt: skip
    parser.add_argument("folder", type=Path, metavar="DIR", help="made if it does not exist")
    parser.add_argument(
        "--server-name", action="append", default=[], metavar="NAME",
        help="host name or address by which devices reach the server; may be repeated, the "
        "first names the files; localhost and 127.0.0.1 are always added",
    )  # fmt: skip
    parser.add_argument(
        "--device", action="append", default=[], metavar="NAME",
        help="a device; may be repeated, and later devices added to the same DIR",
    )  # fmt: skip
    parser.add_argument(
        "--days", type=int, default=365, metavar="N",
        help="how long the certificates are good (default: %(default)s)",
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Make the files; print the commands that use them."""
    from adaptive_split.runtime.certificates import CA_DAYS, Authority, check_free

    folder, servers, devices = arguments.folder, arguments.server_name, arguments.device
    if not servers and not devices:
        raise ConfigError("--server-name or --device must be given; got neither")
    if not 1 <= arguments.days <= CA_DAYS:
        raise ConfigError(f"--days must lie in 1..{CA_DAYS}; got {arguments.days}")
    for name in (made := servers[:1] + devices):
        check_free(folder, name)
    if len(set(made)) < len(made):
        raise ConfigError(f"names must differ; got {' '.join(made)}")
    now = datetime.now(timezone.utc)
    has_authority = (folder / "ca.pem").exists()
    authority = Authority.load(folder) if has_authority else Authority.create(folder, now)
    if servers:
        names = tuple(dict.fromkeys((*servers, *LOCAL_NAMES)))
        authority.issue("server", names, now, arguments.days)
    for name in devices:
        authority.issue("device", (name,), now, arguments.days)
    with (folder / ALLOW_FILE).open("a", encoding="utf-8") as file:
        file.writelines(f"{name}\n" for name in devices)
    say(f"made certificates in {folder}, good for {arguments.days} days; for small fleets only")
    for name in servers[:1]:
        print(serve_command(folder, name))
    for name in devices:
        print(run_command(folder, name, *servers[:1]))
    return 0


def serve_command(folder: Path, name: str) -> str:
    """How a server uses its files."""
    return (
        f"adaptive-split serve --bundle garments --host 0.0.0.0 --port 50051 {_files(folder, name)}"
        f" --allow-file {folder / ALLOW_FILE}"
    )


def run_command(folder: Path, name: str, server_name: str = "HOST") -> str:
    """How a device uses its files."""
    return (
        f"adaptive-split run --server {server_name}:50051 {_files(folder, name)}"
        " --pictures DIR --records FILE"
    )


def _files(folder: Path, name: str) -> str:
    return (
        f"--ca {folder / 'ca.pem'} --certificate {folder / f'{name}.pem'} "
        f"--key {folder / f'{name}.key'}"
    )
