"""Copies, moves and links that survive a power cut: on disk before the next step begins."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from adaptive_split.errors import ConfigError


def copy_files(source: Path, names: Sequence[str], target: Path) -> None:
    """Copy files into a new folder and wait until they are on disk; links are not followed.

    Raises:
        ConfigError: If one cannot be read or written.
    """
    target.mkdir()
    try:
        for name in names:
            (target / name).parent.mkdir(exist_ok=True)
            # Of a pipe nobody writes to, O_NONBLOCK finds nothing instead of waiting.
            descriptor = os.open(source / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with open(descriptor, "rb") as read, (target / name).open("xb") as written:
                shutil.copyfileobj(read, written)
                written.flush()
                os.fsync(written.fileno())
    except OSError as error:
        raise ConfigError(f"every file of a release must be copied; got {error}") from error
    for folder in {(target / name).parent for name in names} | {target}:
        sync_folder(folder)


def move(source: Path, target: Path) -> None:
    """Rename a folder within a file system; atomic."""
    source.rename(target)
    sync_folder(target.parent)


def point(link: Path, target: Path | None) -> None:
    """Make a link point to a folder, or remove it; whoever looks sees the old or the new one.

    `rename` replaces a link in one step (POSIX); making a link where one is cannot.
    """
    if target is None:
        link.unlink(missing_ok=True)
    else:
        new = link.with_name(f".{link.name}.new")
        new.unlink(missing_ok=True)
        new.symlink_to(os.path.relpath(target, link.parent))
        new.replace(link)
    sync_folder(link.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
