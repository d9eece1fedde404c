"""Measured time (and energy) of every stage, exit, encoder and decoder on one machine."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from adaptive_split.errors import BundleError, ConfigError

VERSION = 1
MEASURED, MODELLED, UNAVAILABLE = "measured", "modelled", "unavailable"
MEDIANS = ("stage_s", "exit_s", "encoder_s", "decoder_s")
P95S = ("stage_p95_s", "exit_p95_s", "encoder_p95_s", "decoder_p95_s")
SPREADS = ("stage_spread", "exit_spread", "encoder_spread", "decoder_spread")
"""Fields with an entry for each part, in the order of `bundle.PARTS`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """Median times of the parts of a bundle, in seconds at batch size 1.

    With S stages: `stage_s` and `exit_s` have S entries; `encoder_s` and `decoder_s` have S, for
    split points 0..S-1 (0 is the image codec: encode on the device, decode on the server).
    """

    bundle_hash: str
    machine: str
    provider: str
    power_mode: str
    num_threads: int
    scale: float
    """Factor by which the measured times were multiplied; 1 = as measured."""
    stage_s: tuple[float, ...]
    exit_s: tuple[float, ...]
    encoder_s: tuple[float, ...]
    decoder_s: tuple[float, ...]
    stage_p95_s: tuple[float, ...]
    spread: float
    """Median over the parts of interquartile range / median."""
    compute_w: float
    """Power while computing; energy of a part is this times its time."""
    energy_provenance: str
    energy_source: str
    """Where the watts come from."""
    exit_p95_s: tuple[float, ...] = ()
    """Empty, like what follows, in a profile that was written before these were kept."""
    encoder_p95_s: tuple[float, ...] = ()
    decoder_p95_s: tuple[float, ...] = ()
    stage_spread: tuple[float, ...] = ()
    """Interquartile range / median of every part."""
    exit_spread: tuple[float, ...] = ()
    encoder_spread: tuple[float, ...] = ()
    decoder_spread: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Refuse lengths that do not agree and times that cannot be."""
        for name in (*MEDIANS, *P95S, *SPREADS):
            optional = name in _LATER and not getattr(self, name)
            if not optional and len(getattr(self, name)) != self.num_stages:
                raise ConfigError(
                    f"profile {name} must have {self.num_stages} entries, one per stage; "
                    f"got {len(getattr(self, name))}"
                )
        for name in MEDIANS:
            if not all(0 <= value < 60 for value in getattr(self, name)):
                raise ConfigError(
                    f"profile {name} must lie in [0, 60) s; got {getattr(self, name)}"
                )
        if self.energy_provenance not in (MEASURED, MODELLED, UNAVAILABLE):
            raise ConfigError(
                f"energy_provenance must be measured, modelled or unavailable; "
                f"got {self.energy_provenance!r}"
            )

    @property
    def num_stages(self) -> int:
        """Number of stages, S."""
        return len(self.stage_s)

    @property
    def full_s(self) -> float:
        """Time of all stages and all exits: a frame that stays local to the end."""
        return sum(self.stage_s) + sum(self.exit_s)

    def tail_s(self, split_point: int) -> float:
        """Server time from a decoded payload to the last exit's answer."""
        rest = sum(self.stage_s[split_point:])
        return self.decoder_s[split_point] + rest + self.exit_s[-1]

    def scaled(self, factor: float, machine: str) -> Profile:
        """The profile of a machine `factor` times slower in everything, image codec included."""
        times: dict[str, Any] = {
            name: tuple(value * factor for value in getattr(self, name))
            for name in (*MEDIANS, *P95S)
        }
        return replace(self, machine=machine, scale=self.scale * factor, **times)

    def save(self, path: Path) -> None:
        """Write `profile.json`."""
        text = json.dumps({"version": VERSION, **asdict(self)}, indent=2)
        path.write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Profile:
        """Read `profile.json`.

        Raises:
            BundleError: If the file is missing, damaged or of an unknown version.
        """
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            version = data.pop("version")
            if version != VERSION:
                raise BundleError(
                    f"profile must be of version {VERSION}; got {version!r} in {path}"
                )
            values: dict[str, Any] = {
                key: tuple(value) if isinstance(value, list) else value
                for key, value in data.items()
            }
            return cls(**values)
        except FileNotFoundError:
            raise BundleError(
                f"profile must exist; got no file {path}; make it with 'adaptive-split profile'"
            ) from None
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise BundleError(f"profile must be readable; got a damaged {path}: {error}") from error


_LATER = (*P95S[1:], *SPREADS)
"""Fields that an older profile lacks."""
