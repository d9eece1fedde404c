"""Controllers picked in hindsight as plain values, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from adaptive_split.agents.baselines import Oracle, Static
from adaptive_split.agents.roster import ORACLE_PICTURES, hindsight_rival
from adaptive_split.candidates import CandidateTable
from adaptive_split.planner import BacklogPrices
from adaptive_split.runtime.controller import Policy


def knobs_of_policy(policy: Policy) -> dict[str, Any]:
    """What was picked: the candidate of a fixed decision, prices of an oracle, a rival's knobs."""
    if isinstance(policy, Static):
        return {"candidate": policy.candidate}
    if isinstance(policy, Oracle):
        return asdict(policy.prices)
    knobs: Any = getattr(policy, "settings", None) or getattr(policy, "knobs", None)
    return asdict(knobs)


def policy_of(
    name: str, knobs: Mapping[str, Any], playing: CandidateTable, deciding: CandidateTable
) -> Policy:
    """Build the controller that a comparison picked before it was interrupted.

    Args:
        name: One of `roster.HINDSIGHT`.
        knobs: From `knobs_of_policy`.
        playing: Of the judged pictures, which `oracle-pictures` knows.
        deciding: Of those that every other controller decides with.
    """
    if rival := hindsight_rival(name):
        return rival.build(deciding, rival.knobs(**knobs))
    if "candidate" in knobs:
        return Static(knobs["candidate"], name)
    table = playing if name == ORACLE_PICTURES else deciding
    return Oracle(table, BacklogPrices(**knobs), name)
