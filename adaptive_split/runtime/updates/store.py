"""The store: releases on a device, one of them current, one to go back to.

    DIR/releases/VERSION-HASH/   verified releases, never changed after they got there
    DIR/current, DIR/previous    links into it, switched by one rename each
    DIR/journal.jsonl            see `journal`: every change is there before it is done
    DIR/health/                  how frames fared under a release, see `health`
    DIR/incoming/                a copy that is being checked
    DIR/lock                     held by whoever uses the store; only a store has it

Every call first finishes or undoes what an earlier one left, so a device whose power went at any
moment runs the old release or the new one, whole. Releases of one store are of one kind. Signatures
are checked by the install; from then on a release must be whole, as who can write here needs none.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from adaptive_split.errors import BundleError, ConfigError
from adaptive_split.runtime.updates import durable, journal
from adaptive_split.runtime.updates.journal import Entry, Journal
from adaptive_split.runtime.updates.signature import (
    CONTROLLER,
    MODEL,
    PAIR,
    SIGNATURE,
    Statement,
    check,
    read_statement,
    verify,
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Release:
    """An installed release."""

    name: str
    path: Path
    kind: str

    @property
    def model(self) -> Path | None:
        """Folder of its model bundle, if it brings one."""
        return {MODEL: self.path, PAIR: self.path / MODEL}.get(self.kind)

    @property
    def controller(self) -> Path | None:
        """Folder of its controller bundle, if it brings one."""
        return {CONTROLLER: self.path, PAIR: self.path / CONTROLLER}.get(self.kind)


class Store:
    """Installs, accepts and rolls back releases; several processes may use one at a time."""

    def __init__(
        self,
        folder: Path,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
        reached: Callable[[str], None] = lambda step: None,
    ) -> None:
        """Open a store; its folder is made by the first install.

        Args:
            folder: Where it is.
            now: The wall clock that entries of the journal are stamped with.
            reached: Called after every step that a power cut could come after, with its name.
        """
        self.folder, self._reached = folder, reached
        self._journal = Journal(folder / "journal.jsonl", now)

    def standing(self) -> Entry | None:
        """The entry in force, none before the first install."""
        with self._repaired() as standing:
            return standing

    def entries(self) -> list[Entry]:
        """All entries of the journal, oldest first."""
        with self._repaired():
            return self._journal.entries()

    def pointed(self) -> str | None:
        """Name of the current release by its link alone: cheap, to be asked often."""
        try:
            return Path(os.readlink(self.folder / "current")).name
        except OSError:
            return None

    def release(self, name: str) -> Release:
        """Find an installed release and check that it is whole.

        Raises:
            BundleError: If it is missing or damaged.
        """
        path = self._path(name)
        return Release(name, path, check(path).kind)

    def health_file(self, name: str | None) -> Path:
        """Where it is kept how frames fared under a release, or without any."""
        return self.folder / "health" / f"{name or 'none'}.json"

    def install(
        self, bundle: Path, trusted: Mapping[str, Ed25519PublicKey], *, force: bool = False
    ) -> Entry:
        """Copy a signed bundle, verify the copy and make it current, on trial.

        Args:
            bundle: A folder that `signature.sign` signed.
            trusted: Public keys by their names.
            force: Take a version that is not above the current one's, or was rolled back.

        Raises:
            BundleError: If it is not as a trusted key signed it.
            ConfigError: If its version or kind does not follow the current release.
        """
        self._make()
        with self._repaired() as standing:
            signed = self._take_in(bundle, trusted, standing)
            self._check(signed, standing, force)
            self._note(_beside(standing, journal.VERIFIED, signed.name))
            self._place(signed.name)
            # While a release is on trial, the one before it stays the one to go back to.
            current = standing.current if standing else None
            on_trial = standing is not None and standing.state == journal.ON_TRIAL
            previous = standing.previous if standing and on_trial else current
            entry = Entry(
                state=journal.ON_TRIAL, release=signed.name, current=signed.name, previous=previous
            )
            self._settle(entry)
            self._prune(entry)
        return entry

    def accept(self, reason: str) -> Entry:
        """End the trial of the current release: it stays.

        Raises:
            ConfigError: If none is on trial.
        """
        with self._repaired() as standing:
            if standing is None or standing.state != journal.ON_TRIAL:
                raise ConfigError(f"a release must be on trial; got none in {self.folder}")
            entry = replace(standing, state=journal.ACCEPTED, deaths=0, reason=reason)
            self._settle(entry)
            self._prune(entry)
        return entry

    def roll_back(self, reason: str) -> Entry:
        """Go back to the previous release, or to none where there was none.

        Raises:
            ConfigError: If no release is current.
        """
        with self._repaired() as standing:
            if standing is None or standing.current is None:
                raise ConfigError(f"a release must be current; got none in {self.folder}")
            return self._back(standing, reason)

    def begin_run(self, most_deaths: int) -> Release | None:
        """Say which release to run; a trial that has died too often is over.

        A release that cannot be loaded is rolled back; so is one on trial after `most_deaths` runs
        that never came to `end_run`.

        Returns:
            The current release, whole, or none.
        """
        self._make()
        while True:
            with self._repaired() as standing:
                if standing is None or standing.current is None:
                    return None
                on_trial = standing.state == journal.ON_TRIAL
                if on_trial and standing.deaths >= most_deaths:
                    self._back(standing, f"the process died {standing.deaths} times on trial")
                    continue
                try:
                    release = self.release(standing.current)
                except BundleError as error:
                    self._back(standing, str(error))
                    continue
                if on_trial:
                    self._note(replace(standing, deaths=standing.deaths + 1, reason="run begins"))
                return release

    def end_run(self, name: str) -> None:
        """Say that a run of a release has ended as it should; its trial goes on with the next."""
        with self._repaired() as standing:
            if standing and standing.state == journal.ON_TRIAL and standing.current == name:
                left = max(standing.deaths - 1, 0)
                self._note(replace(standing, deaths=left, reason="run ended"))

    @property
    def _incoming(self) -> Path:
        return self.folder / "incoming"

    def _path(self, name: str) -> Path:
        return self.folder / "releases" / name

    @property
    def _lock(self) -> Path:
        return self.folder / "lock"

    def _make(self) -> None:
        """Make the folder, unless it is a store; one of other things would lose some of them."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if (names := os.listdir(self.folder)) and self._lock.name not in names:
                raise ConfigError(
                    f"a store must be a folder of its own; got {self.folder}, which holds "
                    f"{min(names)!r}; name a new or empty one"
                )
            self._lock.touch()
            (self.folder / "releases").mkdir(exist_ok=True)
            (self.folder / "health").mkdir(exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"a store must be a folder that can be written; got {self.folder}: {error}"
            ) from error

    @contextmanager
    def _repaired(self) -> Iterator[Entry | None]:
        """Hold the store alone, as its last entry says it should be; give that entry."""
        try:
            descriptor = os.open(self._lock, os.O_RDWR)
        except OSError as error:
            raise ConfigError(
                f"a store must be a folder that 'adaptive-split update install' made; got "
                f"{self.folder}: {error}"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            standing = journal.standing(self._journal.entries())
            shutil.rmtree(self._incoming, ignore_errors=True)
            if standing is not None:
                self._link(standing)
            yield standing
        except OSError as error:
            raise ConfigError(
                f"all of a store must be readable and writable; got {self.folder}: {error}"
            ) from error
        finally:
            shutil.rmtree(self._incoming, ignore_errors=True)
            os.close(descriptor)

    def _take_in(
        self, bundle: Path, trusted: Mapping[str, Ed25519PublicKey], standing: Entry | None
    ) -> Statement:
        """Copy what a bundle says it holds, then believe the copy only."""
        statement = read_statement(bundle)
        durable.copy_files(bundle, (*statement.files, SIGNATURE), self._incoming)
        self._reached("copied")
        self._note(_beside(standing, journal.STAGED, statement.name))
        return verify(self._incoming, trusted)

    def _check(self, statement: Statement, standing: Entry | None, force: bool) -> None:
        """Refuse what does not follow the current release."""
        if standing is not None and standing.current is not None:
            now = read_statement(self._path(standing.current))
            if statement.kind != now.kind:
                raise ConfigError(
                    f"releases of a store must be of one kind, {now.kind}; got {statement.kind}; "
                    "sign a pair to update both, or name another store"
                )
            if statement.name == standing.current:
                raise ConfigError(f"release {statement.name} is current already")
            if statement.version <= now.version and not force:
                raise ConfigError(
                    f"the version must be above {now.version}, the current one; got "
                    f"{statement.version}; sign a higher one, or say --force"
                )
        ends = [
            entry.state
            for entry in self._journal.entries()
            if entry.release == statement.name and entry.state in journal.STANDING
        ]
        if ends and ends[-1] == journal.ROLLED_BACK and not force:
            raise ConfigError(
                f"release {statement.name} must not have been rolled back here; it was; sign a "
                "better one, or say --force"
            )

    def _place(self, name: str) -> None:
        """Move the verified copy to the releases, in the place of a leftover of that name."""
        if self._path(name).exists():
            shutil.rmtree(self._path(name))
        self.health_file(name).unlink(missing_ok=True)
        durable.move(self._incoming, self._path(name))
        self._reached("placed")

    def _back(self, standing: Entry, reason: str) -> Entry:
        assert standing.current is not None
        entry = Entry(
            state=journal.ROLLED_BACK, release=standing.current, current=standing.previous,
            previous=None, reason=reason,
        )  # fmt: skip
        self._settle(entry)
        _log.warning(
            "rolled back release %s to %s: %s", entry.release, entry.current or "none", reason
        )
        return entry

    def _settle(self, entry: Entry) -> None:
        self._note(entry)
        self._link(entry)

    def _note(self, entry: Entry) -> None:
        self._journal.append(entry)
        self._reached(entry.state)

    def _link(self, entry: Entry) -> None:
        """Make both links as an entry says; does nothing where they are."""
        for name, target in (("previous", entry.previous), ("current", entry.current)):
            link = self.folder / name
            found = Path(os.readlink(link)).name if link.is_symlink() else None
            if found != target:
                durable.point(link, None if target is None else self._path(target))
                self._reached(name)

    def _prune(self, entry: Entry) -> None:
        """Remove releases that nothing points to, and what is known of their health."""
        kept = {entry.current, entry.previous}
        for path in (self.folder / "releases").iterdir():
            if path.name not in kept:
                shutil.rmtree(path)
        for file in (self.folder / "health").iterdir():
            if file.stem not in {name or "none" for name in kept}:
                file.unlink()
        self._reached("pruned")


def _beside(standing: Entry | None, state: str, name: str) -> Entry:
    """An entry about a release that is not current yet."""
    return Entry(
        state=state, release=name, current=standing.current if standing else None,
        previous=standing.previous if standing else None,
    )  # fmt: skip
