"""A scenario: bundle, profiles, outcomes and objective, read from one validated TOML file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from adaptive_split.bundle import ModelBundle, bundle_path
from adaptive_split.calibration import Calibration
from adaptive_split.candidates import CandidateTable, Radio
from adaptive_split.decision import BITS, DecisionGrid
from adaptive_split.errors import BundleError, ConfigError
from adaptive_split.objective import Objective
from adaptive_split.outcomes import Outcomes
from adaptive_split.profile import Profile

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_SHIPPED = Path(__file__).parent / "data" / "scenarios"
SUBSETS = ("policy", "judge")


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerLoad:
    """Load that other users put on the server, from recorded arrivals."""

    utilizations: tuple[float, ...] = (0.2, 0.5, 0.75)
    """Share of the server's time they take; one is drawn per stream."""
    speedup: float = 8.0
    """Time compression of the recorded arrivals."""

    def __post_init__(self) -> None:
        """Refuse loads that no queue survives."""
        if not self.utilizations or not all(0 <= value <= 0.95 for value in self.utilizations):
            raise ConfigError(
                f"server utilizations must lie in [0, 0.95]; got {self.utilizations!r}"
            )
        if not self.speedup > 0:
            raise ConfigError(f"server speedup must be positive; got {self.speedup!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Camera:
    """The sequence of pictures."""

    scene_correlation: float = 0.9
    frames_per_stream: int = 300

    def __post_init__(self) -> None:
        """Refuse sequences that cannot be drawn."""
        if not 0 <= self.scene_correlation < 1:
            raise ConfigError(
                f"camera scene_correlation must lie in [0, 1); got {self.scene_correlation!r}"
            )
        if not 10 <= self.frames_per_stream <= 100_000:
            raise ConfigError(
                f"camera frames_per_stream must lie in [10, 100000]; got {self.frames_per_stream!r}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class GridSettings:
    """Which thresholds and widths the decision grid holds."""

    thresholds: tuple[float, ...] = (0.35, 0.5, 0.65, 0.8, 1.0)
    bits: tuple[int, ...] = BITS


@dataclass(frozen=True, kw_only=True, slots=True)
class Battery:
    """The battery of a simulated device; when it is empty, the mission is over."""

    capacity_j: float
    idle_w: float
    """Power that it gives all the time, beside the energy of the frames."""
    start_soc: float = 1.0

    def __post_init__(self) -> None:
        """Refuse batteries that cannot be."""
        if not self.capacity_j > 0:
            raise ConfigError(f"battery capacity_j must be positive; got {self.capacity_j!r}")
        if not self.idle_w >= 0:
            raise ConfigError(f"battery idle_w must be 0 or more; got {self.idle_w!r}")
        if not 0 < self.start_soc <= 1:
            raise ConfigError(f"battery start_soc must lie in (0, 1]; got {self.start_soc!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Thermal:
    """How a simulated device heats up and throttles; a first-order model, its values a guess."""

    ambient_c: float
    """Temperature of the device while it rests, and at the start."""
    resistance_c_per_w: float
    """Rise of the settled temperature per watt of computing."""
    time_constant_s: float
    throttle_at_c: float
    """Above this the device slows down,"""
    resume_below_c: float
    """and below this it no longer does."""
    slowdown: float
    """Factor on the device's times while it throttles, 1 or more."""
    source: str = "assumed: not measured on a device"

    def __post_init__(self) -> None:
        """Refuse what cannot throttle or cannot resume."""
        for name in ("resistance_c_per_w", "time_constant_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"thermal {name} must be positive; got {getattr(self, name)!r}")
        if not self.slowdown >= 1:
            raise ConfigError(f"thermal slowdown must be 1 or more; got {self.slowdown!r}")
        if not self.ambient_c < self.resume_below_c <= self.throttle_at_c:
            raise ConfigError(
                "thermal temperatures must ascend: ambient_c, resume_below_c, throttle_at_c; got "
                f"{self.ambient_c!r}, {self.resume_below_c!r}, {self.throttle_at_c!r}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Scenario:
    """Everything an environment needs except the traces."""

    name: str
    bundle: ModelBundle
    grid: DecisionGrid
    device: Profile
    server: Profile
    objective: Objective = field(default_factory=Objective)
    radio: Radio = field(default_factory=Radio)
    load: ServerLoad = field(default_factory=ServerLoad)
    camera: Camera = field(default_factory=Camera)
    battery: Battery | None = None
    """None: the charge does not count."""
    thermal: Thermal | None = None
    """None: it never throttles."""
    calibration: Calibration | None = None
    """What a live run told of the simulated device, transport and server; None: no such run."""

    def outcomes(self, subset: str) -> Outcomes:
        """Load the measured answers of one half of the pictures.

        Args:
            subset: `policy` (to train on) or `judge` (to judge on).

        Raises:
            BundleError: If they were measured with another bundle.
        """
        if subset not in SUBSETS:
            raise ConfigError(f"subset must be one of {SUBSETS}; got {subset!r}")
        path = self.bundle.path / f"outcomes_{subset}.npz"
        outcomes = Outcomes.load(path)
        _same_bundle(path, outcomes.bundle_hash, self.bundle)
        return outcomes

    def table(self, subset: str) -> CandidateTable:
        """Tabulate the candidates on one half of the pictures.

        Whoever decides with `policy` decides about other pictures: see `expected_right`.
        """
        return CandidateTable(
            self.grid, self.device, self.server, self.outcomes(subset), self.objective, self.radio,
            for_others=subset == "policy",
        )  # fmt: skip


def load_scenario(name_or_path: str, bundle: str | None = None) -> Scenario:
    """Read a scenario that ships with the package, by name, or a TOML file.

    Args:
        name_or_path: The scenario.
        bundle: A shipped bundle or its directory, instead of the one the scenario names.

    Raises:
        ConfigError: If the file is missing, holds an unknown key or a value that cannot be; the
            message names file, key and what must hold.
        BundleError: If bundle, profiles and outcomes do not belong together.
    """
    path = scenario_path(name_or_path)
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"a scenario must be valid TOML; got {path}: {error}") from error
    sections: dict[str, type] = {
        "objective": Objective, "grid": GridSettings, "radio": Radio, "server": ServerLoad,
        "camera": Camera, "battery": Battery, "thermal": Thermal,
    }  # fmt: skip
    plain = ("bundle", "device_profile", "server_profile", "calibration")
    unknown = sorted(set(data) - set(sections) - set(plain))
    if unknown:
        raise ConfigError(
            f"{path}: unknown key {unknown[0]!r}; known are {', '.join((*plain, *sections))}"
        )
    values = {
        name: _section(path, name, kind, data)
        for name, kind in sections.items()
        if name in data or name not in ("battery", "thermal")
    }
    found = _bundle_of(path, data) if bundle is None else bundle_path(bundle)
    model = ModelBundle.load(found)
    knobs = values["grid"]
    profiles = {}
    for side in ("device", "server"):
        wanted = data.get(f"{side}_profile", side)
        file = model.path / f"profile_{wanted}.json"
        file = file if wanted in ("device", "server") else path.parent / str(wanted)
        profiles[side] = Profile.load(file)
        _same_bundle(file, profiles[side].bundle_hash, model)
    try:
        grid = DecisionGrid(model.num_stages, tuple(knobs.thresholds), tuple(knobs.bits))
    except ConfigError as error:
        raise ConfigError(f"{path}: [grid] {error}") from error
    return Scenario(
        name=path.stem, bundle=model, grid=grid, device=profiles["device"],
        server=profiles["server"], objective=values["objective"], radio=values["radio"],
        load=values["server"], camera=values["camera"], battery=values.get("battery"),
        thermal=values.get("thermal"), calibration=_calibration_of(path, data, model),
    )  # fmt: skip


def scenario_path(name_or_path: str) -> Path:
    """Find a scenario file by shipped name or path."""
    shipped = _SHIPPED / f"{name_or_path}.toml"
    if shipped.is_file():
        return shipped
    path = Path(name_or_path)
    if path.is_file():
        return path
    names = ", ".join(sorted(file.stem for file in _SHIPPED.glob("*.toml")))
    raise ConfigError(f"a scenario must be a file or one of {names}; got {name_or_path!r}")


def _bundle_of(path: Path, data: Mapping[str, Any]) -> Path:
    name = str(data.get("bundle", "garments"))
    beside = path.parent / name
    return beside if (beside / "manifest.json").is_file() else bundle_path(name)


def _calibration_of(path: Path, data: Mapping[str, Any], bundle: ModelBundle) -> Calibration | None:
    if "calibration" not in data:
        return None
    file = path.parent / str(data["calibration"])
    found = Calibration.load(file)
    if found.bundle_hash != bundle.hash:
        raise BundleError(
            f"{file} must have been fitted with bundle {bundle.hash[:12]}; got "
            f"{found.bundle_hash[:12]}; fit it again with 'adaptive-split calibrate'"
        )
    return found


def _section(path: Path, name: str, kind: type, data: Mapping[str, Any]) -> Any:
    given = data.get(name, {})
    if not isinstance(given, Mapping):
        raise ConfigError(f"{path}: [{name}] must be a table; got {given!r}")
    known = {item.name: item for item in fields(kind)}
    for key, value in given.items():
        if key not in known:
            raise ConfigError(
                f"{path}: [{name}] has an unknown key {key!r}; known are {', '.join(known)}"
            )
        wanted, fits = _KINDS[str(known[key].type)]
        if not fits(value):
            raise ConfigError(f"{path}: [{name}] {key} must be {wanted}; got {value!r}")
    cleaned = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    try:
        return kind(**cleaned)
    except (ConfigError, TypeError) as error:
        raise ConfigError(f"{path}: [{name}] {error}") from error


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, float) or _is_integer(value)


_KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "int": ("a whole number", _is_integer),
    "float": ("a number", _is_number),
    "str": ("text", lambda value: isinstance(value, str)),
    "tuple[int, ...]": (
        "a list of whole numbers",
        lambda value: isinstance(value, list) and all(map(_is_integer, value)),
    ),
    "tuple[float, ...]": (
        "a list of numbers",
        lambda value: isinstance(value, list) and all(map(_is_number, value)),
    ),
}
"""What a key of each annotated type must be in a TOML file, and the check."""


def _same_bundle(path: Path, found: str, bundle: ModelBundle) -> None:
    if found != bundle.hash:
        raise BundleError(
            f"{path} must have been measured with bundle {bundle.hash[:12]}; got {found[:12]}; "
            "measure it again with 'adaptive-split measure' and 'adaptive-split profile'"
        )
