"""Is there anything to win by adapting, and why not, in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adaptive_split.agents.baselines import Oracle, Static
from adaptive_split.agents.compare import Comparison
from adaptive_split.agents.evaluate import steps_of
from adaptive_split.agents.intervals import Bootstrap, Estimate
from adaptive_split.agents.roster import BEST_STATIC, ORACLE_PICTURES, describe
from adaptive_split.agents.static_sweep import split_words
from adaptive_split.candidates import CandidateTable, Floats
from adaptive_split.planner import Moment
from adaptive_split.runtime.controller import Choice
from adaptive_split.runtime.simulated.simulator import Simulator

WORTH = 0.05
"""Least gain of the oracle, relative to the best fixed decision, that is worth adapting for."""
NAMES = {
    BEST_STATIC: "best static", "two-arm-hindsight": "two-arm rule", "planner": "planner",
    ORACLE_PICTURES: "oracle",
}  # fmt: skip
"""Who plays, and as what they are shown."""
MOSTLY = 0.9
"""Share of the frames from which one split point is called the best of nearly all."""
NEAR = 0.01
"""A decision this close to the best one, in expected utility, is called as good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Headroom:
    """What adapting could bring on some streams; relative numbers are shares of the best static."""

    place: str
    """A link family, or `all`."""
    utility: Mapping[str, Estimate]
    """By controller, as in `NAMES`."""
    gain: Mapping[str, Estimate]
    """Over the best static decision, on the same streams."""
    relative: Mapping[str, Estimate | None]
    """The same in shares of the best static's utility; `None` where that is not surely positive."""

    @property
    def pointless(self) -> bool:
        """Whether not even the oracle gains `WORTH`."""
        share = self.relative[ORACLE_PICTURES]
        if share is None:
            return self.gain[ORACLE_PICTURES].value <= 0
        return share.value < WORTH


@dataclass(frozen=True, slots=True, kw_only=True)
class Reasons:
    """What is best in a frame under the true link and server, over the oracle's frames."""

    shares: Mapping[int, float]
    """By split point: in which share of the frames the best decision has it, the largest first."""
    near_share: float
    """In which share the best fixed decision is within `NEAR` of the best one."""
    mean_loss: float
    """Expected utility per frame that it stays behind the best one."""


def headroom_of(comparison: Comparison) -> list[Headroom]:
    """Over all streams first, then by family; the comparison is of `NAMES`."""
    families = np.array([stream.family for stream in comparison.streams])
    files = np.array([stream.name for stream in comparison.streams])
    places = {"all": np.arange(len(families))}
    places |= {name: np.flatnonzero(families == name) for name in np.unique(families).tolist()}
    utility = {name: comparison.frames[name].utility.mean(1) for name in NAMES}
    found = []
    for place, members in places.items():
        bootstrap = Bootstrap(families[members].tolist(), files[members].tolist())
        floor = utility[BEST_STATIC][members]
        above = {name: values[members] - floor for name, values in utility.items()}
        found.append(
            Headroom(
                place=place,
                utility={name: bootstrap.estimate(floor + more) for name, more in above.items()},
                gain={name: bootstrap.estimate(more) for name, more in above.items()},
                relative={name: bootstrap.ratio(more, floor) for name, more in above.items()},
            )
        )
    return found


def reasons_of(
    comparison: Comparison, progress: Callable[[str, int, int], None] = lambda *_: None
) -> Reasons:
    """Play the oracle once more and look at what every frame's best decision is."""
    oracle, static = comparison.policies[ORACLE_PICTURES], comparison.policies[BEST_STATIC]
    assert isinstance(oracle, Oracle)
    assert isinstance(static, Static)
    watching = _WatchingOracle(oracle, static.candidate)
    simulator = Simulator(oracle.table, comparison.streams, probes=False)
    for _ in steps_of(watching, simulator, lambda *at: progress("asking why", *at)):
        pass
    split_point = oracle.table.grid.split_point[np.concatenate(watching.best)]
    behind = np.concatenate(watching.behind)
    splits, counts = np.unique(split_point, return_counts=True)
    order = np.argsort(-counts)
    return Reasons(
        shares={int(splits[at]): float(counts[at] / counts.sum()) for at in order},
        near_share=float((behind <= NEAR).mean()),
        mean_loss=float(behind.mean()),
    )


class _WatchingOracle(Oracle):
    """Keeps which candidate is best in every frame, and how far a fixed one is behind it."""

    def __init__(self, oracle: Oracle, fixed: int) -> None:
        super().__init__(oracle.table, oracle.prices, oracle.name)
        self._fixed = fixed
        self.best: list[NDArray[np.int64]] = []
        self.behind: list[Floats] = []

    def choose(self, moment: Moment) -> Choice:
        """Score all candidates with what will happen."""
        assert self._simulator is not None
        values = self._simulator.true_utility(moment, self.prices, self.table)
        chosen, active = np.asarray(values.argmax(1)), ~self._simulator.done
        self.best.append(chosen[active])
        self.behind.append((values.max(1) - values[:, self._fixed])[active])
        return chosen


def verdict(found: Sequence[Headroom], reasons: Reasons, comparison: Comparison) -> list[str]:
    """Say whether adapting is worth it, and why or why not."""
    whole, table = found[0], comparison.scenario.table("judge")
    lines = [_worth(whole)]
    lines += _because(whole, reasons, _fixed_words(comparison, table), table)
    others = [one.place for one in found[1:] if one.pointless != whole.pointless]
    if others:
        words = "not pointless" if whole.pointless else "pointless"
        lines.append(f"by itself, {' and '.join(others)} would be {words}")
    return lines


def _worth(whole: Headroom) -> str:
    share, gain = whole.relative[ORACLE_PICTURES], whole.gain[ORACLE_PICTURES].value
    if share is None:
        gained = f"the oracle gains {gain:.4f} over a best fixed decision that may bring nothing"
    else:
        gained = (
            f"the oracle gains {share.value:.1%} over the best fixed decision "
            f"({share.low:.1%} to {share.high:.1%})"
        )
    if whole.pointless:
        return f"adaptation is pointless here: {gained}, less than {WORTH:.0%}"
    return f"there is something to win: {gained}, {WORTH:.0%} or more"


def _because(whole: Headroom, reasons: Reasons, fixed: str, table: CandidateTable) -> list[str]:
    stages = table.grid.num_stages
    parts = [f"{split_words(split, stages)} {share:.0%}" for split, share in reasons.shares.items()]
    split, share = next(iter(reasons.shares.items()))
    near = (
        f"the best fixed decision ({fixed}) is best or within {NEAR:g} of it in "
        f"{reasons.near_share:.0%} of the frames, and {reasons.mean_loss:.4f} behind on average"
    )
    if share >= MOSTLY:
        lines = [f"{split_words(split, stages)} is best in {share:.0%} of the frames", near]
    else:
        lines = [near, f"best in a frame is {', '.join(parts)}"]
    return [f"because {lines[0]}" if whole.pointless else lines[0], lines[1]]


def _fixed_words(comparison: Comparison, table: CandidateTable) -> str:
    static = comparison.policies[BEST_STATIC]
    assert isinstance(static, Static)
    return describe(table.grid.candidates[static.candidate])
