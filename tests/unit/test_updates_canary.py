"""Two controllers on one device: who decides which frame, and how the two compare."""

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from adaptive_split.errors import ConfigError
from adaptive_split.objective import Objective
from adaptive_split.runtime.live_controller import LiveController
from adaptive_split.runtime.updates.arm_metrics import ArmMetrics
from adaptive_split.runtime.updates.canary import CANARY, CURRENT, Comparison, Deciders, Draw
from tests import support
from tests.releases import dropped, report
from tests.unit.test_live_controller import situation

DRAW = Draw(share=0.3, block_frames=30, washout_frames=3)
TABLE = support.table()


class Always:
    """Chooses one candidate."""

    probes = False

    def __init__(self, index):
        self.name, self._index = f"always {index}", index

    def choose(self, moment):
        """Choose it."""
        return np.full(len(moment.slack_s), self._index)


def always(index):
    return LiveController(TABLE, Always(index))


def frame(index):
    return support.replace(situation(), frame_index=index)


def decided(deciders, frames):
    """The candidates of some frames."""
    return [TABLE.grid.index(deciders.decide(frame(index))) for index in frames]


def test_a_share_of_the_blocks_is_the_canarys_and_blocks_stay_whole():
    arms = [DRAW.arm(index) for index in range(60_000)]
    blocks = [arms[first : first + 30] for first in range(0, 60_000, 30)]

    assert all(len(set(block)) == 1 for block in blocks)
    assert np.mean([block[0] == CANARY for block in blocks]) == pytest.approx(0.3, abs=0.03)


def test_the_same_seed_draws_the_same_frames_and_another_seed_others():
    def drawn(seed):
        return [Draw(0.5, 30, 3, seed).arm(index) for index in range(0, 3000, 30)]

    assert drawn(1) == drawn(1) != drawn(2)


def test_the_first_frames_of_a_block_are_nobodys():
    assert [index for index in range(60) if not DRAW.counts(index)] == [0, 1, 2, 30, 31, 32]


def test_a_block_is_long_beside_what_is_in_flight():
    draw = Draw.of(Objective(slo_s=0.5, fps=30.0), 0.2)

    assert (draw.washout_frames, draw.block_frames) == (16, 64)


@pytest.mark.parametrize("share", [0.0, 1.0, -1, float("nan")])
def test_a_share_that_leaves_one_side_nothing_is_refused(share):
    with pytest.raises(ConfigError, match=r"share must lie in \(0, 1\)"):
        Draw(share, 30, 3)


def test_each_side_decides_its_own_frames():
    deciders = Deciders(always(1), always(2), DRAW)

    choices = decided(deciders, range(300))

    assert choices == [2 if DRAW.arm(index) == CANARY else 1 for index in range(300)]
    assert [deciders.arm(index) for index in range(300)] == [DRAW.arm(i) for i in range(300)]


def test_one_controller_alone_bears_no_arm():
    deciders = Deciders(always(1), None, DRAW)

    assert decided(deciders, range(40)) == [1] * 40
    assert deciders.arm(5) == ""


def test_a_switch_holds_from_the_next_frame_on_and_frames_keep_their_arm():
    deciders = Deciders(always(1), None, DRAW)
    decided(deciders, range(100))
    deciders.switch(always(1), always(2))
    decided(deciders, range(100, 400))
    deciders.switch(always(2), None)

    assert decided(deciders, range(400, 500)) == [2] * 100
    arms = [deciders.arm(index) for index in range(500)]
    assert arms == [""] * 100 + [DRAW.arm(index) for index in range(100, 400)] + [""] * 100


def test_the_recorded_observation_is_that_of_who_decided():
    dear = always(2)
    dear.prices = support.replace(dear.prices, device=0.9)
    deciders = Deciders(always(1), dear, DRAW)
    canary = next(index for index in range(300) if DRAW.arm(index) == CANARY)
    seen = support.replace(frame(canary), waiting=3)

    assert deciders.observation(seen) == dear.observation(seen)
    assert deciders.observation(seen) != always(1).observation(seen)


def compared(worse_by, blocks=40):
    """Frames of both sides, the canary's of less utility, with noise."""
    comparison, generator = Comparison(DRAW), np.random.default_rng(0)
    for index in range(30 * blocks):
        arm = DRAW.arm(index)
        utility = generator.normal(0.8 - worse_by * (arm == CANARY), 0.1)
        comparison.add(report(index, arm=arm, utility=utility))
    return comparison


def test_the_difference_of_both_sides_comes_with_an_interval():
    found = compared(0.05).difference("utility")

    assert found.low < -0.05 < found.high < 0


def test_means_are_over_the_frames_that_count():
    comparison = compared(0.0, blocks=10)
    sides = [comparison.means(arm) for arm in (CURRENT, CANARY)]

    assert sum(one["frames"] for one in sides) == 270
    assert sum(one["blocks"] for one in sides) == 10
    assert sides[0]["p95_latency_s"] == pytest.approx(0.06)
    assert sides[0]["on_time"] == 1


def test_a_side_without_frames_has_no_means():
    assert Comparison(DRAW).means(CANARY) is None
    assert Comparison(DRAW).difference("utility") is None


def test_prometheus_tells_the_sides_apart_by_a_label_of_two_values():
    registry = CollectorRegistry()
    deciders = Deciders(always(1), always(2), DRAW)
    metrics = ArmMetrics(registry, deciders.arm)
    decided(deciders, range(300))
    own = [index for index in range(300) if DRAW.arm(index) == CANARY]

    for index in range(300):
        metrics.count(dropped(index) if index == own[0] else report(index, reason="late"))

    def value(name, **labels):
        return registry.get_sample_value(f"adaptive_split_arm_{name}", labels)

    assert value("frames_total", arm=CANARY, outcome="on_time") == len(own) - 1
    assert value("frames_total", arm=CANARY, outcome="dropped") == 1
    assert value("fallbacks_total", arm=CANARY) == len(own) - 1
    assert value("utility_count", arm=CURRENT) == 300 - len(own)
    arms = {sample.labels["arm"] for one in registry.collect() for sample in one.samples}
    assert arms == {CURRENT, CANARY}
