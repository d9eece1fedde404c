"""Controllers picked in hindsight: many settings are played at once, one lane each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from adaptive_split.agents.baselines import Oracle, Static, TwoArm
from adaptive_split.agents.evaluate import mean_utility
from adaptive_split.planner import BacklogPrices, CandidateTable, Floats
from adaptive_split.runtime.controller import Choice
from adaptive_split.runtime.simulator import Simulator
from adaptive_split.runtime.streams import Stream

ORACLE_PRICES = tuple(
    BacklogPrices(device=device, uplink=uplink)
    for device in (0.1, 0.3)
    for uplink in (0.05, 0.1, 0.3)
)
RULE_THRESHOLDS = (0.5, 1.0, 2.0, 4.0, 8.0, 12.0, 16.0, 24.0)
FEW_STREAMS = 16
FINALISTS = 5
MOST_LANES = 1024
Count = Callable[[int, int], None]
"""Called with steps done and steps in all."""


def quiet(done: int, total: int) -> None:
    """Report nothing."""


def best_static(
    table: CandidateTable, streams: Sequence[Stream], progress: Count = quiet
) -> tuple[Static, dict[int, float]]:
    """Search the decision that is best for every frame of these streams.

    Returns:
        The controller, and the mean utility of every candidate on a subset of the streams.
    """
    everyone = np.arange(len(table.grid))

    def value(chosen: Choice, where: Sequence[Stream], count: Count) -> Floats:
        return static_values(table, where, chosen, count)

    values, best = _search(everyone, streams, value, progress)
    return Static(best, "best-static"), dict(enumerate(values.tolist()))


def best_two_arm(
    table: CandidateTable,
    streams: Sequence[Stream],
    static_utility: dict[int, float],
    progress: Count = quiet,
) -> TwoArm:
    """Search local decision, picture rung and threshold of the two-arm rule."""
    grid = table.grid
    ranked = sorted(static_utility, key=lambda index: -static_utility[index])
    arms = [index for index in ranked if grid.local[index]][:2]
    pictures = np.flatnonzero(grid.split_point == 0).tolist()
    rules = np.array(list(product(arms, pictures, RULE_THRESHOLDS)))

    def value(chosen: Choice, where: Sequence[Stream], count: Count) -> Floats:
        return _rule_values(table, where, rules[chosen], count)

    _, best = _search(np.arange(len(rules)), streams, value, progress)
    local, picture, threshold_mbps = rules[best]
    return TwoArm(int(local), int(picture), float(threshold_mbps))


def best_oracle(
    table: CandidateTable, streams: Sequence[Stream], progress: Count = quiet
) -> Oracle:
    """Search the backlog prices of the oracle."""
    few = _few(streams)
    values = []
    for index, prices in enumerate(ORACLE_PRICES):
        values.append(mean_utility(Oracle(table, prices), table, few))
        progress(index + 1, len(ORACLE_PRICES))
    return Oracle(table, ORACLE_PRICES[int(np.argmax(values))])


def static_values(
    table: CandidateTable, streams: Sequence[Stream], chosen: Choice, progress: Count = quiet
) -> Floats:
    """Mean utility of each of `chosen` candidates over the streams, shape of `chosen`."""

    def play_all(lanes: Sequence[Stream], members: NDArray[np.int64], count: Count) -> Floats:
        simulator = Simulator(table, lanes, probes=False)
        candidates = chosen[members]
        return _total(simulator, lambda: candidates, count)

    return _by_lane(len(chosen), streams, play_all, progress)


def _rule_values(
    table: CandidateTable, streams: Sequence[Stream], rules: Floats, progress: Count
) -> Floats:
    """Mean utility of each rule, rows `(local, picture, threshold)`, over the streams."""

    def play_all(lanes: Sequence[Stream], members: NDArray[np.int64], count: Count) -> Floats:
        simulator = Simulator(table, lanes)
        local, picture, threshold_mbps = rules[members].T
        policy = TwoArm(local.astype(int), picture.astype(int), threshold_mbps)

        def choose() -> Choice:
            return policy.choose(simulator.moment())

        return _total(simulator, choose, count)

    return _by_lane(len(rules), streams, play_all, progress)


def _total(simulator: Simulator, choose: Callable[[], Choice], count: Count) -> Floats:
    """Mean utility per captured frame of every lane, played to the end."""
    total, steps = np.zeros(simulator.lanes), 0
    while not simulator.done.all():
        total += simulator.step(choose()).utility
        steps += 1
        if steps % 20 == 0:
            count(min(steps, simulator.num_frames), simulator.num_frames)
    return np.asarray(total / simulator.num_frames)


def _by_lane(
    num_settings: int,
    streams: Sequence[Stream],
    play_all: Callable[[Sequence[Stream], NDArray[np.int64], Count], Floats],
    progress: Count,
) -> Floats:
    """Play every setting on every stream, many at a time; mean utility per setting."""
    size = max(MOST_LANES // len(streams), 1)
    batches = np.array_split(np.arange(num_settings), -(-num_settings // size))
    values = np.zeros(num_settings)
    for index, batch in enumerate(batches):

        def count(done: int, total: int, index: int = index) -> None:
            progress(index * total + done, len(batches) * total)

        lanes = [stream for _ in batch for stream in streams]
        found = play_all(lanes, np.repeat(batch, len(streams)), count)
        values[batch] = found.reshape(len(batch), len(streams)).mean(1)
    return values


def _few(streams: Sequence[Stream]) -> list[Stream]:
    """A spread of the streams, at most `FEW_STREAMS`."""
    count = min(FEW_STREAMS, len(streams))
    return [streams[index * len(streams) // count] for index in range(count)]


def _search(
    settings: Choice,
    streams: Sequence[Stream],
    value: Callable[[Choice, Sequence[Stream], Count], Floats],
    progress: Count,
) -> tuple[Floats, int]:
    """Value every setting on few streams, the best of them on all.

    Returns:
        `(values on the few streams, the best setting on all)`.
    """
    few = _few(streams)
    half = 1_000

    def first(done: int, total: int) -> None:
        progress(half * done // total, 2 * half)

    def second(done: int, total: int) -> None:
        progress(half + half * done // total, 2 * half)

    values = value(settings, few, first)
    finalists = settings[np.argsort(values)[::-1][:FINALISTS]]
    results = value(finalists, streams, second)
    return values, int(finalists[results.argmax()])
