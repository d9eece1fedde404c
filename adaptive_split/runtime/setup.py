"""What a device knows before a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from adaptive_split.bundle import ModelBundle
from adaptive_split.candidates import Radio
from adaptive_split.errors import ConfigError
from adaptive_split.objective import Objective
from adaptive_split.profile import Profile

if TYPE_CHECKING:
    from adaptive_split.scenario import Scenario


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """The bundle, what its parts cost on both sides, the promise and the prices."""

    bundle: ModelBundle
    device_profile: Profile
    server_profile: Profile
    objective: Objective
    radio: Radio

    def __post_init__(self) -> None:
        """Refuse profiles of another bundle."""
        for profile in (self.device_profile, self.server_profile):
            if profile.bundle_hash != self.bundle.hash:
                raise ConfigError(
                    f"both profiles must be of bundle {self.bundle.hash}; "
                    f"got {profile.bundle_hash!r}; make them with 'adaptive-split profile'"
                )

    @classmethod
    def of(cls, scenario: Scenario) -> Setup:
        """What a scenario says of its device."""
        return cls(
            bundle=scenario.bundle, device_profile=scenario.device, server_profile=scenario.server,
            objective=scenario.objective, radio=scenario.radio,
        )  # fmt: skip
