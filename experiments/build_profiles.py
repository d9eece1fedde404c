"""Write the device profiles that lie beside scenarios: `python experiments/build_profiles.py`."""

from __future__ import annotations

from pathlib import Path

from adaptive_split.bundle import bundle_path
from adaptive_split.profile import Profile
from adaptive_split.runtime.profiler import pi_class

SCENARIOS = Path("adaptive_split/data/scenarios")
PI_FULL_S = {"pi-230ms.json": 0.230, "pi-260ms.json": 0.260}
"""Time of all stages and exits of `garments`, by file: scenarios B and C of the design."""


def main() -> None:
    """Scale this repository's measured times of `garments` to each device."""
    measured = Profile.load(bundle_path("garments") / "profile_server.json")
    for name, full_s in PI_FULL_S.items():
        pi_class(measured, full_s).save(SCENARIOS / name)


if __name__ == "__main__":
    main()
