"""Controllers picked in hindsight, on the very streams they are judged on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from adaptive_split.agents.baselines import Oracle, Static
from adaptive_split.agents.cluster import Count, quiet
from adaptive_split.agents.evaluate import lane_utility, mean_utility
from adaptive_split.agents.rivals import Ground, Rival
from adaptive_split.agents.trial import FINALISTS, MOST_LANES, Venue, search
from adaptive_split.candidates import CandidateTable, Floats
from adaptive_split.planner import BacklogPrices
from adaptive_split.runtime.controller import Choice, Policy
from adaptive_split.runtime.simulated.streams import Stream

ORACLE_PRICES = tuple(
    BacklogPrices(device=device, uplink=uplink, occupied=occupied)
    for device in (0.1, 0.3)
    for uplink, occupied in ((0.0, 0.02), (0.05, 0.0), (0.1, 0.0), (0.3, 0.0))
)


class StaticLanes:
    """A fixed decision per lane."""

    name = "static"
    probes = False

    def __init__(self, candidates: Choice) -> None:
        self._candidates = candidates

    def choose(self, moment: object) -> Choice:
        """Take every lane's own."""
        return self._candidates


def best_static(venue: Venue, progress: Count = quiet) -> tuple[Static, Floats]:
    """Search the decision that is best for every frame of these streams.

    Returns:
        The controller, and the mean utility of every candidate on each of a few streams, `(N, S)`.
    """
    everyone = np.arange(len(venue.playing.grid))
    values = static_by_stream(venue.playing, venue.few().streams, everyone, progress)
    finalists = np.argsort(-values.mean(1), kind="stable")[:FINALISTS]
    results = static_values(venue.playing, venue.streams, finalists, progress)
    return Static(int(finalists[results.argmax()]), "best-static"), values


def best_oracle(
    venue: Venue, progress: Count = quiet, *, name: str = "oracle", knows_pictures: bool = False
) -> Oracle:
    """Search the backlog prices of the oracle.

    Args:
        venue: Where it plays.
        progress: Told how far it is.
        name: Its name.
        knows_pictures: Whether it also knows the accuracies of the judged pictures, which no
            controller can: they follow from their labels.
    """
    few, values = venue.few(), []
    table = venue.playing if knows_pictures else venue.deciding
    for index, prices in enumerate(ORACLE_PRICES):
        values.append(mean_utility(Oracle(table, prices), few.playing, few.streams))
        progress(index + 1, len(ORACLE_PRICES))
    return Oracle(table, ORACLE_PRICES[int(np.argmax(values))], name)


def best_rival(
    rival: Rival,
    venue: Venue,
    static_utility: Callable[[], Floats],
    tuned: Mapping[str, Any],
    progress: Count = quiet,
) -> Policy:
    """Search a rival's knobs on these streams; what is trained comes from the training traces.

    The knobs picked on the training traces take part, so hindsight never costs anything.
    """
    network = tuned.get("learned-transfer-planner", {}).get("network")
    ground = Ground(venue.deciding, static_utility, network)
    kept = [rival.knobs(**tuned[rival.name])] if rival.name in tuned else []
    knobs, _ = search(rival, rival.settings(ground), venue, progress, kept=kept)
    return rival.build(venue.deciding, knobs)


def static_values(
    table: CandidateTable, streams: Sequence[Stream], chosen: Choice, progress: Count = quiet
) -> Floats:
    """Mean utility of each of `chosen` candidates over the streams, shape of `chosen`."""
    return np.asarray(static_by_stream(table, streams, chosen, progress).mean(1))


def static_by_stream(
    table: CandidateTable, streams: Sequence[Stream], chosen: Choice, progress: Count = quiet
) -> Floats:
    """Mean utility of each of `chosen` candidates on each stream, `(len(chosen), S)`."""
    size = max(MOST_LANES // len(streams), 1)
    batches = np.array_split(chosen, -(-len(chosen) // size))
    values = []
    for index, batch in enumerate(batches):

        def count(done: int, total: int, index: int = index) -> None:
            progress(index * total + done, len(batches) * total)

        lanes = [stream for _ in batch for stream in streams]
        policy = StaticLanes(np.repeat(batch, len(streams)))
        found = lane_utility(policy, table, lanes, count)
        values.append(found.reshape(len(batch), len(streams)))
    return np.concatenate(values)
