"""What a comparison has done so far, on disk: an interrupted one goes on where it stopped.

Everything lies in one folder beside the one to be made, which takes its name when all is done. A
file appears there when it is whole, so a kill at any moment costs at most what was being computed.
"""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TextIO
from zipfile import BadZipFile

import numpy as np

from adaptive_split.agents.frames import Frames
from adaptive_split.agents.roster import file_name
from adaptive_split.candidates import Floats
from adaptive_split.errors import ConfigError

SUFFIX = ".unfinished"
ABOUT, PICKED, KNOBS, LOCK = "about.json", "picked.json", "knobs.json", "lock"
PARTIAL = "partial-"
_PART = "parts_s."


class Unfinished:
    """The state of a comparison.

    Attributes:
        folder: Becomes the comparison's folder; results may be written into it.
        resumed: Whether an earlier call of the same comparison left something.
    """

    def __init__(self, out: Path, about: Mapping[str, Any], command: str) -> None:
        """Take up what the same comparison left, or begin.

        Args:
            out: The folder that the comparison is to make; must not exist.
            about: Plain values that tell the comparison from others, by name.
            command: The call, for the message to who calls with other arguments.

        Raises:
            ConfigError: If `out` exists or cannot be made, or another comparison is unfinished.
        """
        self.out, self.folder = out, out.with_name(out.name + SUFFIX)
        if out.exists():
            raise ConfigError(f"--out must not exist yet; got {out}; name another or remove it")
        self.resumed = (self._state / ABOUT).exists()
        if self.resumed:
            self._check(json.loads(json.dumps(about)))
        self._lock = self._take_lock()
        if not self.resumed:
            self._write(ABOUT, {"about": about, "command": command})

    def __enter__(self) -> Unfinished:
        """Return the state itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let another process go on."""
        self.close()

    def close(self) -> None:
        """Let another process go on; what was kept stays."""
        self._lock.close()

    @property
    def _state(self) -> Path:
        return self.folder / "state"

    def _take_lock(self) -> TextIO:
        """Make the folder this process's own."""
        try:
            self._state.mkdir(parents=True, exist_ok=True)
            lock = (self._state / LOCK).open("a", encoding="utf-8")
        except OSError as error:
            raise ConfigError(
                f"--out must be a folder that can be made; got {self.out}: {error}"
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise ConfigError(
                f"{self.folder} must belong to one process; another is at it"
            ) from None
        return lock

    def _check(self, wanted: Mapping[str, Any]) -> None:
        begun = json.loads((self._state / ABOUT).read_text(encoding="utf-8"))
        found = begun["about"]
        names = [name for name in {**found, **wanted} if found.get(name) != wanted.get(name)]
        if names:
            differ = "; ".join(f"{name} {wanted.get(name)!r}, begun with {found.get(name)!r}"
                               for name in names)  # fmt: skip
            raise ConfigError(
                f"{self.folder} must be gone on with by what began it; got {differ}; "
                f"repeat '{begun['command']}', name another --out or remove it"
            )

    def picked(self) -> dict[str, Any]:
        """What was picked in hindsight so far: knobs as plain values by controller."""
        return dict(self._read(PICKED) or {})

    def keep_picked(self, picked: Mapping[str, Any]) -> None:
        """Keep all that is picked so far."""
        self._write(PICKED, picked)

    def knobs(self) -> dict[str, Any] | None:
        """Knobs that were searched for want of any; none if that is not done."""
        found = self._read(KNOBS)
        return None if found is None else dict(found)

    def keep_knobs(self, knobs: Mapping[str, Any]) -> None:
        """Keep them."""
        self._write(KNOBS, knobs)

    def cell(self, name: str, seed: int) -> tuple[Frames, Floats] | None:
        """Frames and probe bytes of a controller on the streams of a seed, if they were played."""
        try:
            with (
                self._cell_path(name, seed).open("rb") as file,
                np.load(file, allow_pickle=False) as arrays,
            ):
                return _unpack(dict(arrays))
        except (OSError, BadZipFile, KeyError, ValueError):
            return None

    def keep_cell(self, name: str, seed: int, frames: Frames, probe_bytes: Floats) -> None:
        """Keep what a controller did on the streams of a seed."""
        path = self._cell_path(name, seed)
        partial = path.with_name(PARTIAL + path.name)
        np.savez(partial, probe_bytes=probe_bytes, **_pack(frames))
        partial.replace(path)

    def finish(self) -> None:
        """Forget the state and give the folder its name."""
        shutil.rmtree(self._state)
        self.close()
        self.folder.rename(self.out)

    def _cell_path(self, name: str, seed: int) -> Path:
        return self._state / f"{file_name(name)}-{seed}.npz"

    def _read(self, name: str) -> Any:
        try:
            return json.loads((self._state / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def _write(self, name: str, values: Mapping[str, Any]) -> None:
        partial = self._state / (PARTIAL + name)
        text = json.dumps(values, indent=1, default=lambda number: number.item())
        partial.write_text(text + "\n", encoding="utf-8")
        partial.replace(self._state / name)


def _pack(frames: Frames) -> dict[str, Any]:
    """Frames as arrays by name."""
    arrays = {field.name: getattr(frames, field.name) for field in fields(Frames)}
    parts = arrays.pop("parts_s")
    return arrays | {_PART + name: values for name, values in parts.items()}


def _unpack(arrays: dict[str, Any]) -> tuple[Frames, Floats]:
    """The inverse of `_pack`, with the probe bytes."""
    probe_bytes = arrays.pop("probe_bytes")
    names = [name for name in arrays if name.startswith(_PART)]
    parts = {name.removeprefix(_PART): arrays.pop(name) for name in names}
    provenance = str(arrays.pop("energy_provenance"))
    return Frames(**arrays, parts_s=parts, energy_provenance=provenance), probe_bytes
