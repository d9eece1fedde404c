"""Whatever was measured, a decision is a valid one, and what cannot be is left out."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptive_split.measurement import LinkSample
from adaptive_split.planner import BacklogPrices
from adaptive_split.runtime.backend import Situation
from adaptive_split.runtime.controller import (
    DistributionPlanner,
    ForecastController,
    Planner,
    PlannerSettings,
)
from adaptive_split.runtime.live_controller import LiveController
from adaptive_split.runtime.price_loop import PriceLoop
from adaptive_split.runtime.soundness import Checker
from tests import support

TABLE = support.table()
anything = st.floats() | st.sampled_from([0.0, -1.0, 1e-300, 1e300, math.nan, math.inf])
samples = st.builds(LinkSample, anything, anything, anything, anything, anything)
situations = st.builds(
    Situation,
    now_s=st.just(10.0),
    arrival_s=st.just(9.98),
    frame_index=st.just(200),
    uplink_free_s=anything,
    oldest_unanswered_s=st.none() | st.floats(0.0, 10.0),
    oldest_unanswered_bytes=st.integers(0, 10**9),
    samples=st.lists(samples, max_size=16).map(tuple),
    timeouts=st.integers(0, 16),
    recent_confidences=st.lists(anything, max_size=8).map(tuple),
    device_slowdown=anything,
    soc=st.none() | anything,
    server_usable=st.booleans(),
    waiting=st.integers(0, 3),
)
SOUND = Situation(
    now_s=10.0, arrival_s=9.98, frame_index=200, uplink_free_s=9.0, oldest_unanswered_s=None,
    oldest_unanswered_bytes=0, samples=(LinkSample(9.5, 5.0, 0.03, 0.0, 1.0),), timeouts=0,
    recent_confidences=(0.5,), device_slowdown=1.1, soc=0.7, server_usable=True,
)  # fmt: skip


def policies():
    return [
        Planner(TABLE, PlannerSettings()),
        DistributionPlanner(TABLE, PlannerSettings()),
        ForecastController(TABLE, support.weights(seed=1), BacklogPrices()),
    ]


@pytest.mark.parametrize("policy", policies(), ids=lambda policy: policy.name)
@settings(max_examples=40)
@given(situation=situations)
def test_every_policy_decides_on_anything_that_was_measured(policy, situation):
    controller = LiveController(TABLE, policy, price_loop=PriceLoop(60.0, 0.05))

    decision = controller.decide(situation)

    assert decision in TABLE.grid.candidates
    assert situation.server_usable or decision.bits == 0
    assert all(math.isfinite(value) for value in controller.observation(situation))


def test_a_sound_situation_is_left_alone():
    assert Checker().check(SOUND) is SOUND


def test_what_cannot_be_is_left_out_and_told_once(caplog):
    checker, bad = Checker(), LinkSample(9.6, math.nan, 0.03, 0.0, 1.0)
    wrong = [
        support.replace(SOUND, samples=(*SOUND.samples, bad), soc=math.nan),
        support.replace(SOUND, device_slowdown=-3.0, recent_confidences=(0.5, 4.0)),
    ]

    found = [checker.check(situation) for situation in wrong]

    assert found[0] == support.replace(SOUND, soc=None)
    assert found[1] == support.replace(SOUND, device_slowdown=1.0)
    assert caplog.text.count("measurements must be possible") == 1
    assert "soc" in caplog.text
    assert "device_slowdown" not in caplog.text
