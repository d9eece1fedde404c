"""`adaptive-split update`: releases on a device."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from adaptive_split.cli.common import Commands, add_command
from adaptive_split.cli.verify import add_trusted

if TYPE_CHECKING:
    from adaptive_split.runtime.updates.store import Store

NEWEST = 12
"""Lines of the journal that `status` shows."""


def add_parser(commands: Commands) -> None:
    """Add the command and what it can do."""
    parser = add_command(
        commands, "update", "install releases on a device, and take them back",
        "Keep releases in a folder of which 'run --store' runs the current one. A new one is on "
        "trial: 'run' compares its frames with those before it, then accepts it or goes back by "
        "itself. Whatever is interrupted, the next call finishes or undoes it.",
        "adaptive-split update install controller --store store --trusted trusted.txt",
    )  # fmt: skip
    actions = parser.add_subparsers(required=True, metavar="ACTION", title="actions")
    install = _add(actions, "install", "verify a copy of a signed bundle and put it on trial")
    install.add_argument("bundle", type=Path, metavar="BUNDLE", help="what 'sign' signed")
    add_trusted(install)
    install.add_argument(
        "--force", action="store_true",
        help="although its version is not above the current one's, or it was rolled back here",
    )  # fmt: skip
    for name, help_text in (
        ("status", "which release runs, and what was done so far"),
        ("accept", "end the trial: the release stays"),
        ("rollback", "go back to the release before, or to none"),
    ):
        _add(actions, name, help_text)


def run(arguments: argparse.Namespace) -> int:
    """Do it; say what holds then."""
    from adaptive_split.runtime.updates.keys import load_trusted
    from adaptive_split.runtime.updates.store import Store

    store = Store(arguments.store)
    if arguments.action == "install":
        store.install(arguments.bundle, load_trusted(arguments.trusted), force=arguments.force)
    elif arguments.action == "accept":
        store.accept("by hand")
    elif arguments.action == "rollback":
        store.roll_back("by hand")
    print(status(store, history=arguments.action == "status"))
    return 0


def status(store: Store, *, history: bool) -> str:
    """What holds, in a line; with the last lines of the journal if asked."""
    standing = store.standing()
    if standing is None:
        return "nothing was installed yet"
    line = f"current {standing.current or 'none'}, previous {standing.previous or 'none'}: "
    line += f"{standing.release} {standing.state}"
    if standing.deaths:
        line += f", {standing.deaths} runs not ended properly or under way"
    if not history:
        return line
    lines = [
        f"{entry.time}  {entry.release}  {entry.state:<11}  {entry.reason}".rstrip()
        for entry in store.entries()[-NEWEST:]
    ]
    return "\n".join([line, *lines])


def _add(actions: Commands, name: str, help_text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(
        name, help=help_text, description=f"{help_text[0].upper()}{help_text[1:]}."
    )
    parser.add_argument("--store", type=Path, required=True, metavar="DIR", help="the releases")
    parser.set_defaults(run=run, action=name)
    return parser
