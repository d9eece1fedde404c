"""Pick the knobs of rivals, and the best static decision, by playing them on training traces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from adaptive_split.agents import hindsight
from adaptive_split.agents.link_training import train_transfer
from adaptive_split.agents.rivals import RIVALS, Ground
from adaptive_split.agents.roster import BEST_STATIC
from adaptive_split.agents.trial import Venue, search
from adaptive_split.candidates import CandidateTable
from adaptive_split.runtime.simulated.streams import Stream

SCORES = "scores"


def tune_rivals(
    table: CandidateTable, streams: Sequence[Stream], say: Callable[[str], None] = lambda _: None
) -> dict[str, dict[str, Any]]:
    """Pick every rival's knobs, and the best static decision, on training streams.

    Args:
        table: Of the `policy` half of the pictures; decides and is played.
        streams: Training streams; the learned transfer times are trained on them first.
        say: Called with a line for each rival.

    Returns:
        Plain values: the knobs by rival, `{"best-static": {"candidate": ...}}`, and under
        `"scores"` the mean utility of each on the streams. `make_rival` reads it.
    """
    venue = Venue(table, table, tuple(streams))
    static, values = hindsight.best_static(venue)
    best = float(hindsight.static_values(table, streams, np.array([static.candidate]))[0])
    say(f"{BEST_STATIC}: {best:.4f}, {table.grid.candidates[static.candidate]}")
    ground = Ground(table, lambda: values, train_transfer(table, streams).to_text())
    tuned: dict[str, dict[str, Any]] = {BEST_STATIC: {"candidate": static.candidate}}
    scores = {BEST_STATIC: best}
    for name, rival in RIVALS.items():
        knobs, scores[name] = search(rival, rival.settings(ground), venue)
        tuned[name] = {key: _plain(value) for key, value in asdict(knobs).items()}
        shown = {key: value for key, value in tuned[name].items() if key != "network"}
        say(f"{name}: {scores[name]:.4f}, {shown}")
    return tuned | {SCORES: scores}


def _plain(value: Any) -> Any:
    """A number of numpy's as Python's, which JSON takes."""
    return value.item() if isinstance(value, np.generic) else value
