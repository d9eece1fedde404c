"""What a sensor says: a number with its unit, where it comes from, and how far to believe it."""

from __future__ import annotations

from dataclasses import dataclass

from adaptive_split.errors import ConfigError
from adaptive_split.profile import MEASURED, MODELLED, UNAVAILABLE


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One number of one sensor; `value` is `None` exactly where it is unavailable."""

    value: float | None
    unit: str
    """As `W`, `C` or `1` for a share in [0, 1]."""
    source: str
    """What was read; of an unavailable one, why there is nothing."""
    provenance: str
    """`measured`, `modelled` or `unavailable`."""

    def __post_init__(self) -> None:
        """Refuse a number from nowhere and a sensor without one."""
        if self.provenance not in (MEASURED, MODELLED, UNAVAILABLE):
            raise ConfigError(
                f"provenance must be measured, modelled or unavailable; got {self.provenance!r}"
            )
        if (self.value is None) != (self.provenance == UNAVAILABLE):
            raise ConfigError(
                f"a reading must have a value unless it is unavailable; got {self.value!r}, "
                f"{self.provenance}"
            )


def measured(value: float, unit: str, source: str) -> Reading:
    """A number that hardware told."""
    return Reading(value=value, unit=unit, source=source, provenance=MEASURED)


def unavailable(unit: str, why: str) -> Reading:
    """No number, and why."""
    return Reading(value=None, unit=unit, source=why, provenance=UNAVAILABLE)
