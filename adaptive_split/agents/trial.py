"""Plays many settings of a rival at once, on lanes side by side, and searches the best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptive_split.agents.cluster import Count, quiet
from adaptive_split.agents.evaluate import Learner, lane_utility
from adaptive_split.agents.rivals import Rival
from adaptive_split.candidates import CandidateTable, Floats
from adaptive_split.planner import Moment
from adaptive_split.runtime.controller import Choice, Policy
from adaptive_split.runtime.simulated.step import Step
from adaptive_split.runtime.simulated.streams import Stream

FEW_STREAMS = 16
FINALISTS = 5
MOST_LANES = 1024


@dataclass(frozen=True, slots=True, eq=False)
class Venue:
    """Where settings are tried."""

    deciding: CandidateTable
    """What a rival decides with."""
    playing: CandidateTable
    """What happens; the same grid, other pictures when the rival must not know them."""
    streams: tuple[Stream, ...]

    def few(self) -> Venue:
        """The same with a spread of the streams, at most `FEW_STREAMS`."""
        count = min(FEW_STREAMS, len(self.streams))
        chosen = [self.streams[index * len(self.streams) // count] for index in range(count)]
        return replace(self, streams=tuple(chosen))


class Team:
    """Policies side by side, each on lanes of its own."""

    name = "team"

    def __init__(self, members: Sequence[Policy], lanes: Sequence[int]) -> None:
        """Take the policies and how many lanes each has."""
        ends = np.cumsum(lanes).tolist()
        self.lanes = [slice(end - size, end) for end, size in zip(ends, lanes, strict=True)]
        self.members = list(members)
        self.probes = members[0].probes

    def start(self, lanes: int) -> None:
        """Start the members that learn."""
        for policy, part in zip(self.members, self.lanes, strict=True):
            if isinstance(policy, Learner):
                policy.start(part.stop - part.start)

    def choose(self, moment: Moment) -> Choice:
        """Ask every member for its lanes."""
        chosen = [
            policy.choose(_part(moment, lanes))
            for policy, lanes in zip(self.members, self.lanes, strict=True)
        ]
        return np.concatenate(chosen)

    def learn(self, step: Step) -> None:
        """Tell the members that learn."""
        for policy, lanes in zip(self.members, self.lanes, strict=True):
            if isinstance(policy, Learner):
                policy.learn(_part(step, lanes))


def _part(values: Any, lanes: slice) -> Any:
    """Some lanes of a dataclass of arrays."""
    return type(values)(**{one.name: getattr(values, one.name)[lanes] for one in fields(values)})


def utility_by_stream(
    rival: Rival, settings: Sequence[Any], venue: Venue, progress: Count = quiet
) -> Floats:
    """Mean utility of every setting on every stream, shape `(settings, streams)`.

    Settings that differ in `per_lane` knobs alone share one policy with a column for each.
    """
    groups: dict[tuple[Any, ...], list[int]] = {}
    for index, knobs in enumerate(settings):
        groups.setdefault(_shape_of(rival, knobs), []).append(index)
    order = [index for members in groups.values() for index in members]
    size = max(MOST_LANES // len(venue.streams), 1)
    batches = [order[at : at + size] for at in range(0, len(order), size)]
    values = np.zeros((len(settings), len(venue.streams)))
    for number, batch in enumerate(batches):

        def count(done: int, total: int, number: int = number) -> None:
            progress(number * total + done, len(batches) * total)

        team = _team(rival, [settings[index] for index in batch], venue)
        lanes = [stream for _ in batch for stream in venue.streams]
        found = lane_utility(team, venue.playing, lanes, count)
        values[batch] = found.reshape(len(batch), len(venue.streams))
    return values


def _shape_of(rival: Rival, knobs: Any) -> tuple[Any, ...]:
    """The knobs that all lanes of a policy share."""
    return tuple(
        getattr(knobs, one.name) for one in fields(knobs) if one.name not in rival.per_lane
    )


def _team(rival: Rival, settings: Sequence[Any], venue: Venue) -> Team:
    """Policies for neighboring settings; one for each run that shares what must be shared."""
    runs: list[list[Any]] = []
    for knobs in settings:
        if runs and _shape_of(rival, runs[-1][0]) == _shape_of(rival, knobs):
            runs[-1].append(knobs)
        else:
            runs.append([knobs])
    each = len(venue.streams)
    members = []
    for run in runs:
        columns: dict[str, NDArray[Any]] = {
            name: np.repeat([getattr(knobs, name) for knobs in run], each)[:, None]
            for name in rival.per_lane
        }
        members.append(rival.build(venue.deciding, replace(run[0], **columns)))
    return Team(members, [len(run) * each for run in runs])


def search(
    rival: Rival,
    settings: Sequence[Any],
    venue: Venue,
    progress: Count = quiet,
    *,
    kept: Sequence[Any] = (),
) -> tuple[Any, float]:
    """Play every setting on few streams, the best of them on all.

    Args:
        rival: What is tuned.
        settings: What is tried.
        venue: Where.
        progress: Told how far it is.
        kept: Further settings that are played on all streams in any case.

    Returns:
        `(the best knobs, its mean utility on all streams)`.
    """
    half = 1_000

    def first(done: int, total: int) -> None:
        progress(half * done // total, 2 * half)

    def second(done: int, total: int) -> None:
        progress(half + half * done // total, 2 * half)

    values = utility_by_stream(rival, settings, venue.few(), first).mean(1)
    finalists = [settings[index] for index in np.argsort(-values, kind="stable")[:FINALISTS]]
    finalists += kept
    results = utility_by_stream(rival, finalists, venue, second).mean(1)
    best = int(results.argmax())
    return finalists[best], float(results[best])
