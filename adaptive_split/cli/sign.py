"""`adaptive-split sign`: make a release out of a bundle."""

from __future__ import annotations

import argparse
from pathlib import Path

from adaptive_split.cli.common import Commands, add_command, say
from adaptive_split.errors import ConfigError


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands, "sign", "sign a bundle as a release that devices can install",
        "Write signature.json into a model bundle, a controller bundle, or a folder with one of "
        "each in 'model' and 'controller': the SHA-256 of every file, a version, and an ed25519 "
        "signature. With --new-key make the key first, not encrypted, readable by you alone; the "
        "line that is printed belongs into the file of trusted keys on the devices. Keep the key "
        "off devices and out of repositories.",
        "adaptive-split sign --new-key release.key > trusted.txt\n"
        "  adaptive-split sign runs/controllers/default --key release.key --release 7",
    )  # fmt: skip
    parser.add_argument("bundle", type=Path, nargs="?", metavar="BUNDLE", help="what to sign")
    parser.add_argument("--key", type=Path, metavar="FILE", help="private key to sign with")
    parser.add_argument(
        "--release", type=int, metavar="N", help="version; devices install higher ones only"
    )
    parser.add_argument("--new-key", type=Path, metavar="FILE", help="make a private key")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Make the key, or sign; print what a device needs to know."""
    from adaptive_split.runtime.updates import keys
    from adaptive_split.runtime.updates.signature import sign

    signing = (arguments.bundle, arguments.key, arguments.release)
    if arguments.new_key is not None:
        if any(one is not None for one in signing):
            raise ConfigError("--new-key must be given alone; sign in a second call")
        key = keys.new_key(arguments.new_key)
        say(f"made {arguments.new_key}; the line below is what devices trust")
        print(keys.trusted_line(key.public_key()))
        return 0
    if any(one is None for one in signing):
        raise ConfigError("BUNDLE, --key and --release must be given; or --new-key alone")
    statement = sign(arguments.bundle, keys.load_key(arguments.key), arguments.release)
    print(
        f"signed {arguments.bundle}: release {statement.name}, {statement.kind}, "
        f"{len(statement.files)} files, key {statement.key_id}"
    )
    return 0
