"""The bandit learns from what it is told, lane by lane."""

from dataclasses import fields

import numpy as np
import pytest

from adaptive_split.agents.bandit import BanditKnobs, MuLinUcb
from adaptive_split.agents.evaluate import Learner, lane_utility
from adaptive_split.decision import NEVER
from adaptive_split.errors import ConfigError
from adaptive_split.runtime.simulated.step import Step
from tests import support

KNOBS = BanditKnobs(exit_threshold=NEVER, bits=8, alpha=0.1)


@pytest.fixture(scope="module")
def table():
    return support.table()


def step(table, split_point, delay_s, lanes=1, active=True):
    """A frame that was sent at a split point and answered by the server after a delay."""
    bits = 8 if split_point < 3 else 0
    found = [
        index
        for index, one in enumerate(table.grid.candidates)
        if (one.split_point, one.bits, one.exit_threshold) == (split_point, bits, NEVER)
    ]
    values = {one.name: np.zeros(lanes) for one in fields(Step)}
    values |= {
        "active": np.full(lanes, active), "candidate": np.full(lanes, found[0]),
        "by_server": np.full(lanes, bits > 0), "payload_bytes": np.full(lanes, 1000.0 * (bits > 0)),
        "uplink_s": np.full(lanes, delay_s),
    }  # fmt: skip
    return Step(**values)


def test_it_keeps_to_its_exit_threshold_and_bits(table):
    bandit = MuLinUcb(table, KNOBS)

    allowed = [table.grid.candidates[index] for index in np.flatnonzero(bandit.allowed)]

    assert [one.split_point for one in allowed] == [0, 1, 2, 3]
    assert {one.exit_threshold for one in allowed} == {NEVER}
    assert {one.bits for one in allowed} == {8, 0}


def test_at_first_it_believes_that_the_network_takes_no_time(table):
    choice = MuLinUcb(table, KNOBS).choose(support.moment())

    assert table.grid.split_point[choice[0]] == 0


def test_it_turns_local_when_every_split_point_is_slow(table):
    bandit = MuLinUcb(table, KNOBS)
    bandit.start(1)

    for _ in range(20):
        for split_point in range(3):
            bandit.learn(step(table, split_point, 0.15))

    assert table.grid.local[bandit.choose(support.moment())[0]]


def test_it_finds_the_delay_that_is_linear_in_its_context(table):
    bandit = MuLinUcb(table, BanditKnobs(exit_threshold=NEVER, bits=8, alpha=0.0))
    bandit.start(1)
    weights = np.array([0.01, 0.05, 0.02])

    for _ in range(400):
        for split_point in range(3):
            payload = table.grid.payloads.index((split_point, 8))
            bandit.learn(step(table, split_point, bandit.context[payload] @ weights))

    learned = bandit._network_s(support.moment())[0]
    of_eight_bits = [table.grid.payloads.index((split_point, 8)) for split_point in range(3)]
    expected = bandit.context @ weights
    np.testing.assert_allclose(learned[of_eight_bits], expected[of_eight_bits], atol=3e-3)


def test_every_fourth_frame_is_sent_even_where_local_is_best(table):
    bandit = MuLinUcb(table, KNOBS)
    bandit.start(1)
    for _ in range(20):
        for split_point in range(3):
            bandit.learn(step(table, split_point, 0.15))
    bandit.played[:] = 0

    stays = []
    for _ in range(8):
        stays.append(bool(table.grid.local[bandit.choose(support.moment())[0]]))
        bandit.learn(step(table, 3, 0.0))

    # ceil(200 ** 0.25) = 4.
    assert stays == [True, True, True, False] * 2


def test_frames_that_sent_nothing_or_never_started_teach_nothing(table):
    bandit = MuLinUcb(table, KNOBS)
    bandit.start(1)

    bandit.learn(step(table, 3, 0.0))
    bandit.learn(step(table, 0, 0.1, active=False))

    assert bandit.played[0] == 1
    np.testing.assert_array_equal(bandit.inverse[0], np.eye(3))


def test_a_late_reply_counts_as_one_promised_latency(table):
    late = step(table, 0, 0.0)
    late.by_server[:] = False
    bandit = MuLinUcb(table, KNOBS)
    bandit.start(1)

    bandit.learn(late)

    context = bandit.context[table.grid.payloads.index((0, 8))]
    np.testing.assert_allclose(bandit.delay_sum[0], context)


def test_a_new_scene_is_explored_less(table):
    calm = support.moment(confidences=0.5)
    jumped = support.moment(confidences=np.where(np.arange(8) == 0, 0.9, 0.5))
    bandit = MuLinUcb(table, KNOBS)
    bandit.start(1)
    for _ in range(3):
        bandit.learn(step(table, 0, 0.1))

    assert (bandit._network_s(jumped) >= bandit._network_s(calm)).all()
    assert (bandit._network_s(jumped) > bandit._network_s(calm)).any()


def test_playing_again_starts_from_nothing(table):
    bandit, streams = MuLinUcb(table, KNOBS), [support.stream(seed=seed) for seed in range(3)]

    first = lane_utility(bandit, table, streams)

    assert isinstance(bandit, Learner)
    np.testing.assert_array_equal(lane_utility(bandit, table, streams), first)
    alone = [lane_utility(bandit, table, [stream])[0] for stream in streams]
    np.testing.assert_allclose(alone, first)


@pytest.mark.parametrize("changes", [{"bits": 4}, {"exit_threshold": 0.123}])
def test_knobs_off_the_grid_are_refused(table, changes):
    values = {"exit_threshold": NEVER, "bits": 8, "alpha": 0.1} | changes

    with pytest.raises(ConfigError, match="bandit must be on the grid"):
        MuLinUcb(table, BanditKnobs(**values))
