"""Does the price loop make a charge last, and what does that cost? `python experiments/battery.py`.

A mission is one long stream with a battery between what the most frugal price needs and what price
0 takes. A controller plays each mission at a grid of fixed prices without a battery; what any
charge would have cut off follows from those runs, so one run serves every charge. "Hindsight" is
the best constant price of each mission: of the grid, and of a search for the price that spends just
all. A mission scores its on-time accuracy per captured frame, 0 once the battery is empty.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adaptive_split.agents.baselines import Oracle
from adaptive_split.agents.intervals import Bootstrap, Estimate
from adaptive_split.agents.roster import make_policy
from adaptive_split.candidates import CandidateTable, Floats
from adaptive_split.cli.common import load_traces, say, shipped_controller
from adaptive_split.cli.tables import table
from adaptive_split.planner import BacklogPrices
from adaptive_split.runtime.controller import Policy
from adaptive_split.runtime.controller_bundle import ControllerBundle
from adaptive_split.runtime.price_loop import MAX_PRICE, PriceLoop
from adaptive_split.runtime.simulated.simulator import Simulator
from adaptive_split.runtime.simulated.streams import Stream, StreamSource
from adaptive_split.scenario import load_scenario

USUAL_PRICE = 0.05
"""That of the shipped scenarios."""
PRICES = (0.0, USUAL_PRICE, 0.5, 1.0, 2.0, MAX_PRICE)
IDLE_W = 0.1
POSITIONS = (0.25, 0.5, 0.75)
"""Of a charge between the frugal need and the greedy one; missions take turns."""
REFINEMENTS = 2
ALLOWED = 0.02
"""Of the charge left over, or of the mission cut off."""


Pricing = Callable[[Floats, Floats], Floats]
"""Energy used and time since the start to the price of a joule, each `(L,)`."""

Scores = tuple[Floats, Floats, Floats]
"""On-time accuracy, share of the charge left, and share of the mission cut off, each `(L,)`."""


@dataclass(frozen=True, slots=True, eq=False)
class Log:
    """What L lanes did, step by step, as if no battery were ever empty; shapes `(steps, L)`."""

    start_s: Floats
    used_j: Floats
    """At the start of the step, the idle power included; a last row tells the end."""
    correct: Floats
    mission_s: float
    num_frames: int

    def score(self, capacity_j: Floats) -> Scores:
        """Say what a battery of so much would have brought."""
        alive = self.used_j[:-1] < capacity_j
        utility = (self.correct * alive).sum(0) / self.num_frames
        end_s = np.where(alive.all(0), self.mission_s, _first(self.start_s, ~alive))
        left = np.maximum(1 - self.used_j[-1] / capacity_j, 0.0) * alive.all(0)
        return utility, left, 1 - end_s / self.mission_s

    def split(self, count: int) -> list[Log]:
        """Cut the lanes into groups of the same size."""
        columns = (self.start_s, self.used_j, self.correct)
        groups = zip(*(np.split(column, count, 1) for column in columns), strict=True)
        return [
            Log(start_s, used_j, correct, self.mission_s, self.num_frames)
            for start_s, used_j, correct in groups
        ]

    @property
    def need_j(self) -> Floats:
        """What the whole mission takes, shape `(L,)`."""
        return np.asarray(self.used_j[-1])


def _first(values: Floats, mask: NDArray[np.bool_]) -> Floats:
    """Values where a mask is true for the first time, along the first axis."""
    return np.asarray(np.take_along_axis(values, mask.argmax(0)[None], 0)[0])


def play(
    policy: Policy, judging: CandidateTable, missions: Sequence[Stream], price_of: Pricing
) -> Log:
    """Play missions at what a joule costs from moment to moment."""
    simulator = Simulator(judging, missions, probes=policy.probes)
    if isinstance(policy, Oracle):
        policy.bind(simulator)
    taken_j, columns = np.zeros(simulator.lanes), []
    while not simulator.done.all():
        start_s = simulator.start_s.copy()
        # A lane that is done has nothing to lose.
        used_j = np.where(simulator.done, 0.0, taken_j + IDLE_W * start_s)
        simulator.energy_price = price_of(used_j, start_s)
        step = simulator.step(policy.choose(simulator.moment()))
        columns.append((start_s, used_j, step.correct & step.active))
        taken_j = taken_j + np.where(step.active, step.energy_j, 0.0)
    start_s, used_j, correct = (np.array(column) for column in zip(*columns, strict=True))
    mission_s = simulator.num_frames / judging.objective.fps
    used_j = np.vstack([used_j, taken_j + IDLE_W * mission_s])
    return Log(start_s, used_j, correct.astype(float), mission_s, simulator.num_frames)


def fixed(price: Floats) -> Pricing:
    """The same price all the time, `(L,)`."""
    return lambda used_j, now_s: price


def looped(loop: PriceLoop, capacity_j: Floats) -> Pricing:
    """The price that the loop sets, for batteries that are full at the start."""
    loop.begin(np.ones(len(capacity_j)), np.zeros(len(capacity_j)))
    return lambda used_j, now_s: loop.price(np.maximum(1 - used_j / capacity_j, 0.0), now_s)


class Contest:
    """One controller on all missions: fixed prices, hindsight, loop."""

    def __init__(self, policy: Policy, judging: CandidateTable, missions: Sequence[Stream]) -> None:
        self.policy, self.judging, self.missions = policy, judging, missions
        say(f"{policy.name}: playing {len(missions)} missions at {len(PRICES)} fixed prices")
        prices = np.repeat(PRICES, len(missions))
        together = play(policy, judging, [*missions] * len(PRICES), fixed(prices))
        self.fixed = together.split(len(PRICES))
        greedy_j, frugal_j = self.fixed[0].need_j, self.fixed[-1].need_j
        position = np.resize(POSITIONS, len(missions))
        self.capacity_j = frugal_j + position * (greedy_j - frugal_j)
        self.empty_at = 1 - self.fixed[0].score(self.capacity_j)[2]

    def _play(self, price_of: Pricing) -> Log:
        say(f"{self.policy.name}: playing {len(self.missions)} missions")
        return play(self.policy, self.judging, self.missions, price_of)

    def loop(self) -> Scores:
        """Score of the price loop."""
        loop = PriceLoop(self.fixed[0].mission_s, self.judging.objective.energy_price)
        return self._play(looped(loop, self.capacity_j)).score(self.capacity_j)

    def hindsight(self) -> Scores:
        """Score of the best constant price of each mission."""
        search = Search(self.capacity_j, self.fixed[0], self.fixed[-1])
        for same, log in zip(PRICES, self.fixed, strict=True):
            search.note(np.full(len(self.missions), same), log)
        for _ in range(REFINEMENTS):
            price = search.guess()
            search.note(price, self._play(fixed(price)))
        return search.best


class Search:
    """For each mission, the best constant price so far and a bracket of the one that spends all."""

    def __init__(self, capacity_j: Floats, greedy: Log, frugal: Log) -> None:
        self.capacity_j = capacity_j
        self.best = greedy.score(capacity_j)
        self.low = np.full(len(capacity_j), PRICES[0])
        self.high = np.full(len(capacity_j), PRICES[-1])
        self.low_j, self.high_j = greedy.need_j, frugal.need_j

    def guess(self) -> Floats:
        """Price between the brackets: the need is about linear in `log(price + 0.1)`."""
        span_j = np.maximum(self.low_j - self.high_j, 1e-9)
        share = np.clip((self.low_j - self.capacity_j) / span_j, 0.1, 0.9)
        log_price = (1 - share) * np.log(self.low + 0.1) + share * np.log(self.high + 0.1)
        return np.asarray(np.exp(log_price) - 0.1)

    def note(self, price: Floats, log: Log) -> None:
        """Take in what a price per mission brought."""
        scores = log.score(self.capacity_j)
        better = scores[0] > self.best[0]
        utility, left, cut = (
            np.where(better, new, old) for new, old in zip(scores, self.best, strict=True)
        )
        self.best = utility, left, cut
        lasts = log.need_j <= self.capacity_j
        above, below = lasts & (price < self.high), ~lasts & (price > self.low)
        self.high = np.where(above, price, self.high)
        self.high_j = np.where(above, log.need_j, self.high_j)
        self.low = np.where(below, price, self.low)
        self.low_j = np.where(below, log.need_j, self.low_j)


def summarize(contest: Contest, oracle: Contest | None, bootstrap: Bootstrap) -> list[list[str]]:
    """Rows of one controller; utility is lost relative to its own hindsight, then the oracle's."""
    name, best = contest.policy.name, contest.hindsight()
    scores = {
        price: log.score(contest.capacity_j)
        for price, log in zip(PRICES, contest.fixed, strict=True)
    }
    favourite = max(PRICES, key=lambda price: float(bootstrap.weights @ scores[price][0]))
    entries = {
        "price loop": contest.loop(),
        f"fixed {USUAL_PRICE:g} (as shipped)": scores[USUAL_PRICE],
        f"fixed {favourite:g} (best in hindsight)": scores[favourite],
        "hindsight price per mission": best,
    }
    reference = best[0]
    if oracle is not None:
        # The oracle on this controller's charges: the best price of the grid for each mission.
        reference = np.max([log.score(contest.capacity_j)[0] for log in oracle.fixed], 0)
    return [
        [
            f"{name}, {label}", _words(bootstrap.estimate(scored[0])),
            _loss(bootstrap, scored[0], best[0]), _loss(bootstrap, scored[0], reference),
            *_charge(*scored[1:]),
        ]
        for label, scored in entries.items()
    ]  # fmt: skip


def _charge(left: Floats, cut: Floats) -> list[str]:
    """What became of the charges, in percent: of the capacity, of the missions, of their time."""
    within = (left <= ALLOWED) & (cut <= ALLOWED)
    return [
        f"{100 * left.mean():.1f} ({100 * left.max():.1f})",
        f"{100 * (cut > 0).mean():.0f}",
        f"{100 * cut.mean():.1f} ({100 * cut.max():.1f})",
        f"{100 * within.mean():.0f}",
    ]


def _words(estimate: Estimate) -> str:
    return f"{estimate.value:.4f} ({estimate.low:.4f} - {estimate.high:.4f})"


def _loss(bootstrap: Bootstrap, utility: Floats, reference: Floats) -> str:
    """Share of the reference's utility that is lost, in percent, with its interval."""
    ratio = bootstrap.ratio(reference - utility, reference)
    assert ratio is not None
    return f"{100 * ratio.value:.2f} ({100 * ratio.low:.2f} - {100 * ratio.high:.2f})"


HEAD = [
    "controller, price", "utility (95 %)", "lost to hindsight %", "lost to oracle %",
    "left % (max)", "died %", "cut off % (max)", "within 2 %",
]  # fmt: skip


def main() -> None:
    """Play the missions of one scenario and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenario", default="default")
    parser.add_argument("--traces", type=Path, nargs="+", metavar="DIR", help="default: recorded")
    parser.add_argument("--minutes", type=float, default=20.0, help="of a mission; default: 20")
    parser.add_argument("--missions", type=int, default=10, help="per link family; default: 10")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    scenario = load_scenario(arguments.scenario)
    num_frames = round(arguments.minutes * 60 * scenario.objective.fps)
    scenario = replace(scenario, camera=replace(scenario.camera, frames_per_stream=num_frames))
    traces, sentence = load_traces(arguments.traces, "test")
    say(sentence)
    judging, deciding = scenario.table("judge"), scenario.table("policy")
    source = StreamSource(scenario, judging.outcomes, traces)
    missions = source.draw_evenly(arguments.missions, arguments.seed)
    bootstrap = Bootstrap([one.family for one in missions], [one.name for one in missions])
    learned = make_policy("sac", deciding, ControllerBundle.load(shipped_controller(scenario)))
    oracle = Contest(Oracle(deciding, BacklogPrices()), judging, missions)
    sac = Contest(learned, judging, missions)
    rows = summarize(sac, oracle, bootstrap) + summarize(oracle, None, bootstrap)
    print(f"{scenario.name}: {len(missions)} missions of {arguments.minutes:g} minutes")
    for contest in (sac, oracle):
        low, middle, high = np.percentile(100 * contest.empty_at, (0, 50, 100))
        print(
            f"at price 0 {contest.policy.name} is out of charge after {low:.0f} - {high:.0f} % "
            f"(median {middle:.0f} %) of a mission"
        )
    print(table([HEAD, *rows]))


if __name__ == "__main__":
    main()
