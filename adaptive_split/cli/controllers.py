"""How commands name controllers, list them in a help, and find knobs that a bundle lacks."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from adaptive_split.cli.common import Bars, say

if TYPE_CHECKING:
    from adaptive_split.runtime.controller_bundle import ControllerBundle
    from adaptive_split.scenario import Scenario
    from adaptive_split.trace import Trace

ALL = "all"
LISTED = "{controllers}"
"""Stands in a help's text for the list of controllers."""
STREAMS_PER_FAMILY = 4


class ListsControllers(argparse.RawDescriptionHelpFormatter):
    """Puts every controller's name and description where the text says `LISTED`.

    Only then are they imported, so that other commands start as fast as before.
    """

    def add_text(self, text: str | None) -> None:
        """Add a paragraph of the help."""
        if text is not None and LISTED in text:
            text = text.replace(LISTED, listing())
        super().add_text(text)


def listing() -> str:
    """Every controller: name, a star on those compared by default, what it does."""
    from adaptive_split.agents.roster import DEFAULT_NAMES, NAMES, about, hindsight_rival

    rows = [
        (f"{name}{' *' * (name in DEFAULT_NAMES)}", about(name))
        for name in NAMES
        if name in DEFAULT_NAMES or not hindsight_rival(name)
    ]
    rows.append(("static:K:T:B", "split point K, exit threshold T, B bits for every frame"))
    rows.append(("NAME-hindsight", "a rule or planner with the knobs that are best on the judged "
                 "streams"))  # fmt: skip
    indent = " " * (4 + max(len(name) for name, _ in rows))
    return "\n".join(
        textwrap.fill(words, 98, initial_indent=f"  {name}".ljust(len(indent)),
                      subsequent_indent=indent)
        for name, words in rows
    )  # fmt: skip


def names_of(text: str | None) -> tuple[str, ...]:
    """The controllers that an argument names; those compared by default where there is none."""
    from adaptive_split.agents.roster import DEFAULT_NAMES, NAMES

    if text is None:
        return DEFAULT_NAMES
    return NAMES if text == ALL else tuple(name.strip() for name in text.split(","))


def find_knobs(
    names: Sequence[str],
    scenario: Scenario,
    learned: ControllerBundle | None,
    training: Callable[[], tuple[list[Trace], str]],
) -> dict[str, dict[str, Any]]:
    """Search the knobs that a controller bundle lacks on training traces; say so in a line.

    Args:
        names: Controllers; those that need no knobs are passed over.
        scenario: What is decided and promised.
        learned: The controller bundle, if there is one.
        training: Gives the traces, and a sentence that says which they are.

    Returns:
        Knobs by rival. What is trained, not searched, cannot be found here.
    """
    from dataclasses import asdict

    from adaptive_split.agents.compare import pick_in_hindsight
    from adaptive_split.agents.rivals import RIVALS, lacks_knobs
    from adaptive_split.runtime.simulated.streams import StreamSource

    tuned: Mapping[str, Any] = {} if learned is None else learned.tuned
    lacking = [
        name
        for name in names
        if name in RIVALS and name != "learned-transfer-planner" and lacks_knobs(name, tuned)
    ]
    if not lacking:
        return {}
    traces, sentence = training()
    say(f"no knobs for {', '.join(lacking)} in the controller bundle: searching them. {sentence}")
    table = scenario.table("policy")
    streams = StreamSource(scenario, table.outcomes, traces).draw_evenly(STREAMS_PER_FAMILY, seed=0)
    with Bars() as bars:
        picked: Mapping[str, Any] = pick_in_hindsight(
            [f"{name}-hindsight" for name in lacking], table, streams, bars
        )
    return {name: asdict(picked[f"{name}-hindsight"].knobs) for name in lacking}


def shipped_training() -> tuple[list[Trace], str]:
    """The training traces of the package, for `find_knobs`."""
    from adaptive_split.trace_sets import shipped

    return shipped("train"), "Using the shipped training traces."
