"""Controllers by the names that users give them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adaptive_split.agents.baselines import Static
from adaptive_split.decision import NEVER, Decision
from adaptive_split.errors import ConfigError
from adaptive_split.planner import CandidateTable
from adaptive_split.runtime.controller import (
    DistributionPlanner,
    Planner,
    PlannerSettings,
    Policy,
    TwoWindowPlanner,
)
from adaptive_split.runtime.controller_bundle import ControllerBundle

LEARNED, BEST_STATIC, TWO_ARM, ORACLE = "sac", "best-static", "two-arm", "oracle"
HINDSIGHT = (TWO_ARM, BEST_STATIC, ORACLE)
"""Picked on the very streams that are compared."""

_PLANNERS: Mapping[str, type[Planner | DistributionPlanner | TwoWindowPlanner]] = {
    "planner": Planner,
    "distribution-planner": DistributionPlanner,
    "two-window-planner": TwoWindowPlanner,
}
_KNOBS = {
    "planner": "planner", "distribution-planner": "distribution",
    "two-window-planner": "two_window",
}  # fmt: skip
DEFAULT_NAMES = (LEARNED, *_PLANNERS, *HINDSIGHT)
NAMES = (*DEFAULT_NAMES, "local", "jpeg")


def check_names(names: list[str]) -> list[str]:
    """Refuse unknown and repeated names.

    Raises:
        ConfigError: If a name is neither known nor of the form `static:K:T:B`.
    """
    for name in names:
        if name not in NAMES and not name.startswith("static:"):
            raise ConfigError(
                f"a controller must be one of {', '.join(NAMES)} or static:K:T:B; got {name!r}"
            )
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"controllers must be named once each; got {names!r}")
    return names


def make_policy(name: str, table: CandidateTable, learned: ControllerBundle | None) -> Policy:
    """Build a controller that needs no hindsight.

    Args:
        name: `sac`, a planner, `local` (the whole network on the device), `jpeg` (the finest
            picture to the server) or `static:K:T:B` (split point, exit threshold, bits).
        table: What it decides with; must be of the `policy` half of the pictures.
        learned: The controller bundle: the `sac` controller and the planners' knobs; planners
            take their defaults without one.

    Raises:
        ConfigError: If the name is unknown, or `sac` has no controller bundle.
    """
    if name == LEARNED:
        if learned is None:
            raise ConfigError(
                "sac must have a controller bundle; got none; make one with 'adaptive-split train'"
            )
        return learned.controller(table)
    if name in _PLANNERS:
        return _PLANNERS[name](table, planner_settings(name, learned))
    if name in HINDSIGHT:
        raise ConfigError(f"{name} is picked in hindsight: only 'adaptive-split compare' has it")
    return Static(static_candidate(name, table), name)


def planner_settings(name: str, learned: ControllerBundle | None) -> PlannerSettings:
    """Knobs of a planner: those picked on the controller's training traces, else the defaults."""
    if learned is None:
        return PlannerSettings()
    knobs: Any = learned.tuned.get(_KNOBS[name], {})
    try:
        return PlannerSettings(**knobs)
    except TypeError as error:
        raise ConfigError(f"knobs of the {name} must be planner settings; got {knobs!r}") from error


def static_candidate(name: str, table: CandidateTable) -> int:
    """Index of the candidate that `local`, `jpeg` or `static:K:T:B` names."""
    grid = table.grid
    if name == "local":
        return grid.index(Decision(grid.num_stages, max(grid.thresholds), 0))
    if name == "jpeg":
        return grid.index(Decision(0, NEVER, max(grid.bits)))
    kind, *parts = name.split(":")
    if kind != "static":
        raise ConfigError(
            f"a controller must be one of {', '.join(NAMES)} or static:K:T:B; got {name!r}"
        )
    try:
        split_point, threshold, bits = int(parts[0]), float(parts[1]), int(parts[2])
    except (ValueError, IndexError):
        raise ConfigError(
            "static:K:T:B must name split point, exit threshold and bits, as static:2:0.65:4; "
            f"got {name!r}"
        ) from None
    return grid.index(Decision(split_point, threshold, bits))


def describe(decision: Decision) -> str:
    """A decision in a person's words."""
    if decision.split_point == 0:
        return f"send the picture, rung {decision.bits}"
    sure = decision.exit_threshold
    exits = "no early exit" if sure >= NEVER else f"exit from confidence {sure:g}"
    if not decision.bits:
        return f"stay local, {exits}"
    return f"split {decision.split_point}, {decision.bits} bits, {exits}"


def file_name(controller: str) -> str:
    """A controller's name as a file's: colons are not for every system."""
    return controller.replace(":", "_")
