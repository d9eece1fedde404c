"""The experiment matrix: every controller on every seed's streams, one job per cell."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from adaptive_split.agents.cluster import Count, Workers, quiet
from adaptive_split.agents.evaluate import play
from adaptive_split.agents.frames import Frames, frames_of
from adaptive_split.agents.unfinished import Unfinished
from adaptive_split.candidates import CandidateTable, Floats
from adaptive_split.runtime.controller import Policy
from adaptive_split.runtime.simulated.streams import Stream


@dataclass(frozen=True, slots=True, eq=False)
class Arena:
    """What the cells share."""

    policies: Mapping[str, Policy]
    table: CandidateTable
    """Of the pictures that controllers are judged on."""
    streams: tuple[tuple[Stream, ...], ...]
    """By seed."""


def play_matrix(
    arena: Arena, workers: Workers, count: Count = quiet, kept: Unfinished | None = None
) -> tuple[dict[str, Frames], dict[str, Floats]]:
    """Play every controller on the streams of every seed.

    A cell starts with a fresh copy of its controller, so the order of cells changes nothing.

    Args:
        arena: What is played.
        workers: Where.
        count: Told of cells done.
        kept: Cells played before, and where those are kept that are played now.

    Returns:
        `(frames, probe_bytes)` by controller, all seeds' streams one seed after the other.
    """
    seeds = range(len(arena.streams))
    cells = [(name, seed) for name in arena.policies for seed in seeds]
    before = {} if kept is None else {cell: kept.cell(*cell) for cell in cells}
    played = {cell: found for cell, found in before.items() if found is not None}
    missing = [cell for cell in cells if cell not in played]

    def take(index: int, found: tuple[Frames, Floats]) -> None:
        played[missing[index]] = found
        if kept is not None:
            kept.keep_cell(*missing[index], *found)

    def count_all(done: int, _: int) -> None:
        count(len(cells) - len(missing) + done, len(cells))

    workers.map(_play_cell, arena, missing, count_all, take)
    frames, probes = {}, {}
    for name in arena.policies:
        parts = [played[name, seed] for seed in seeds]
        frames[name] = join_frames([part for part, _ in parts])
        probes[name] = np.concatenate([part for _, part in parts])
    return frames, probes


def _play_cell(arena: Arena, cell: tuple[str, int]) -> tuple[Frames, Floats]:
    name, seed = cell
    streams = arena.streams[seed]
    episodes = play(copy.deepcopy(arena.policies[name]), arena.table, streams)
    samples = np.stack([stream.samples for stream in streams])
    return frames_of(episodes, arena.table, samples), episodes.probe_bytes


def join_frames(parts: Sequence[Frames]) -> Frames:
    """Put the streams of several runs of one controller one after the other."""
    joined: dict[str, Any] = {}
    for field in fields(Frames):
        values = [getattr(part, field.name) for part in parts]
        if isinstance(values[0], np.ndarray):
            joined[field.name] = np.concatenate(values)
        elif isinstance(values[0], dict):
            joined[field.name] = {
                key: np.concatenate([value[key] for value in values]) for key in values[0]
            }
        else:
            joined[field.name] = values[0]
    return Frames(**joined)
