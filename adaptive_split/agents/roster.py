"""Controllers by the names that users give them."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from adaptive_split.agents.baselines import Static
from adaptive_split.agents.rivals import RIVALS, Rival, make_rival
from adaptive_split.candidates import CandidateTable
from adaptive_split.decision import NEVER, Decision
from adaptive_split.errors import ConfigError
from adaptive_split.runtime.controller import Policy
from adaptive_split.runtime.controller_bundle import ControllerBundle

LEARNED, BEST_STATIC, ORACLE = "sac", "best-static", "oracle"
ORACLE_PICTURES = "oracle-pictures"
_HINDSIGHT = "-hindsight"
ORACLES = (ORACLE, ORACLE_PICTURES)
HINDSIGHT = (BEST_STATIC, *ORACLES, *(name + _HINDSIGHT for name in RIVALS))
"""Picked on the very streams that are compared."""

FROM_STATICS = (BEST_STATIC, *(name + _HINDSIGHT for name in ("two-arm", "best-pair", "busy-skip")))
"""Those of them that the best static decisions are searched for first."""

SIMULATED_ONLY = (*ORACLES, "mulinucb", "mulinucb" + _HINDSIGHT)
"""Need a future or a feedback that a live run does not give."""

DEFAULT_NAMES = (
    LEARNED, "planner", "distribution-planner", "two-window-planner", "two-arm",
    "two-arm" + _HINDSIGHT, BEST_STATIC, *ORACLES,
)  # fmt: skip
NAMES = tuple(dict.fromkeys((*DEFAULT_NAMES, *RIVALS, "local", "jpeg", *HINDSIGHT)))

_ABOUT = {
    LEARNED: "the learned policy of the controller bundle",
    BEST_STATIC: "the fixed decision that is best on the judged streams",
    ORACLE: "knows the link and the server to come; expects of the pictures what every "
    "controller expects",
    ORACLE_PICTURES: "the oracle that also knows how accurate every exit and payload is on the "
    "judged pictures",
    "local": "the whole network on the device, no early exit",
    "jpeg": "the finest picture to the server",
}


def check_names(names: list[str]) -> list[str]:
    """Refuse unknown and repeated names.

    Raises:
        ConfigError: If a name is neither known nor of the form `static:K:T:B`.
    """
    for name in names:
        if name not in NAMES and not name.startswith("static:"):
            raise ConfigError(_unknown(name))
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"controllers must be named once each; got {names!r}")
    return names


def _unknown(name: str) -> str:
    """Name the controllers, and the one that was probably meant."""
    near = get_close_matches(name, NAMES, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"a controller must be one of {', '.join(NAMES)} or static:K:T:B; got {name!r}{hint}"


def about(name: str) -> str:
    """What a controller is, in a person's words."""
    if rival := hindsight_rival(name):
        return f"{rival.name} with the knobs that are best on the judged streams"
    if name in RIVALS:
        return RIVALS[name].about
    return _ABOUT.get(name, "one decision for every frame")


def make_policy(
    name: str,
    table: CandidateTable,
    learned: ControllerBundle | None,
    found: Mapping[str, Any] | None = None,
) -> Policy:
    """Build a controller that needs no hindsight.

    Args:
        name: `sac`, one of `RIVALS`, `local` (the whole network on the device), `jpeg` (the finest
            picture to the server) or `static:K:T:B` (split point, exit threshold, bits).
        table: What it decides with; must be of the `policy` half of the pictures.
        learned: The controller bundle: the `sac` controller and the rivals' knobs; those that
            have defaults take them without one.
        found: Knobs of rivals that the controller bundle has none for.

    Raises:
        ConfigError: If the name is unknown, `sac` has no controller bundle, or a rival without
            defaults has no knobs.
    """
    if name == LEARNED:
        if learned is None:
            raise ConfigError(
                "sac must have a controller bundle; got none; make one with 'adaptive-split train'"
            )
        return learned.controller(table)
    if name in RIVALS:
        tuned = {} if learned is None else learned.tuned
        return make_rival(name, table, {**(found or {}), **tuned})
    if name in HINDSIGHT:
        raise ConfigError(f"{name} is picked in hindsight: only 'adaptive-split compare' has it")
    return Static(static_candidate(name, table), name)


def hindsight_rival(name: str) -> Rival | None:
    """The rival whose knobs a name asks to pick in hindsight; none for other names."""
    return RIVALS.get(name.removesuffix(_HINDSIGHT)) if name.endswith(_HINDSIGHT) else None


def static_candidate(name: str, table: CandidateTable) -> int:
    """Index of the candidate that `local`, `jpeg` or `static:K:T:B` names."""
    grid = table.grid
    if name == "local":
        return grid.index(Decision(grid.num_stages, max(grid.thresholds), 0))
    if name == "jpeg":
        return grid.index(Decision(0, NEVER, max(grid.bits)))
    kind, *parts = name.split(":")
    if kind != "static":
        raise ConfigError(_unknown(name))
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
