"""What a live run tells the simulator that profiles and traces do not; a small checked file."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from adaptive_split.errors import BundleError, ConfigError

VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Overheads:
    """Time that is spent between the parts of a frame, in seconds."""

    start_s: float = 0.0
    """From when a frame could start until its first part runs: waking up, and the decision."""
    message_s: float = 0.0
    """Of a request's round trip beyond the link's: packing, sockets, threads."""
    queue_s: float = 0.0
    """At the server before and between the stages, though nobody else is served."""

    def __post_init__(self) -> None:
        """Refuse what would let a frame end before its parts do."""
        for item in fields(self):
            value = getattr(self, item.name)
            if not 0 <= value < math.inf:
                raise ConfigError(f"an overhead {item.name} must be 0 s or more; got {value!r}")


NO_OVERHEADS = Overheads()


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """Constants of a device, a transport and a server, fitted on a live run."""

    bundle_hash: str
    fitted_on: str
    """The run, in a person's words."""
    device_slowdown: float = 1.0
    """Factor on the device profile's times."""
    server_slowdown: float = 1.0
    """Factor on the server profile's times."""
    overheads: Overheads = NO_OVERHEADS
    others_start_s: float | None = None
    """The server goes by slack: other users' work is as if it had to begin within this time of its
    arrival. None: first in, first out."""

    def __post_init__(self) -> None:
        """Refuse factors and times that cannot be."""
        for name in ("device_slowdown", "server_slowdown"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(
                    f"a calibration's {name} must be positive; got {getattr(self, name)!r}"
                )
        if self.others_start_s is not None and not 0 <= self.others_start_s < math.inf:
            raise ConfigError(
                f"a calibration's others_start_s must be 0 s or more; got {self.others_start_s!r}"
            )

    def save(self, path: Path) -> None:
        """Write a file that must not exist yet."""
        values = asdict(self)
        text = json.dumps({"version": VERSION, "sha256": _sha256(values), **values}, indent=2)
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(text + "\n")
        except FileExistsError:
            raise ConfigError(
                f"a calibration must be a new file; got {path}; name another or remove it"
            ) from None
        except OSError as error:
            raise ConfigError(f"a calibration must be writable; got {path}: {error}") from error

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Read what `save` wrote.

        Raises:
            BundleError: If the file is missing, damaged or of an unknown version.
        """
        try:
            values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            version, checksum = values.pop("version"), values.pop("sha256")
            if version != VERSION:
                raise BundleError(f"{path} must be of version {VERSION}; got {version!r}")
            if checksum != _sha256(values):
                raise BundleError(f"{path} must be as it was written; its checksum differs")
            return cls(**{**values, "overheads": Overheads(**values["overheads"])})
        except FileNotFoundError:
            raise BundleError(
                f"a calibration must exist; got no file {path}; make it with "
                "'adaptive-split calibrate'"
            ) from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, BundleError | ConfigError):
                raise
            raise BundleError(f"a calibration must be readable; got {path}: {error!r}") from error


def _sha256(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
