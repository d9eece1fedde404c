"""Names of certificates that a server lets in, read again when their file changes."""

from __future__ import annotations

import logging
from pathlib import Path

from adaptive_split.errors import ConfigError
from adaptive_split.runtime.credentials import Stamp, file_stamp

_log = logging.getLogger(__name__)


class AllowList:
    """Names compared exactly, letter by letter; without names and file, all the CA signed.

    With a file, one name per line, `#` begins a comment. It is looked at for every request, so a
    name taken off it is refused at once, on open connections too. An empty file lets nobody in; one
    that has gone or cannot be read changes nothing.
    """

    def __init__(self, names: frozenset[str], file: Path | None = None) -> None:
        """Read the file.

        Raises:
            ConfigError: If it cannot be read.
        """
        self._names, self._file = names, file
        self._stamp: Stamp = ()
        self._listed: frozenset[str] = frozenset()
        if file is not None:
            self._stamp = file_stamp(file)
            self._listed = _read(file)

    def admits(self, names: frozenset[str]) -> bool:
        """Whether one of a certificate's names is on the list."""
        if self._file is None and not self._names:
            return True
        if self._file is not None:
            self._follow(self._file)
        return not names.isdisjoint(self._names | self._listed)

    def _follow(self, file: Path) -> None:
        stamp = file_stamp(file)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._listed = _read(file)
        except ConfigError as error:
            _log.error("keeping the allow-list of before: %s", error)
        else:
            _log.info("read the allow-list %s again: %d names", file, len(self._listed))


def _read(file: Path) -> frozenset[str]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"an allow-list must be a readable text file; got {error}") from error
    return frozenset(filter(None, (line.partition("#")[0].strip() for line in lines)))
