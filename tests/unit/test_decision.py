"""The decision grid: what it holds, and its image in the cube."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive_split.decision import NEVER, Decision, DecisionGrid
from adaptive_split.errors import ConfigError

GRIDS = st.builds(
    DecisionGrid,
    st.integers(2, 6),
    st.sampled_from([(1.0,), (0.5,), (0.3, 0.6), (0.35, 0.5, 0.65, 0.8, 1.0)]),
    st.sampled_from([(8,), (1, 2), (1, 2, 4, 8)]),
)


@given(GRIDS)
def test_a_grid_holds_pictures_then_features_then_local_decisions(grid):
    splits = [candidate.split_point for candidate in grid.candidates]

    assert len(grid.candidates) == len(grid) == len(set(grid.candidates))
    assert splits == sorted(splits)
    assert splits.count(0) == len(grid.bits)
    assert splits.count(grid.num_stages) == len(grid.thresholds) == grid.local.sum()


@given(GRIDS)
def test_a_candidate_sends_its_payload_or_stays_local(grid):
    for candidate, payload in zip(grid.candidates, grid.payload_index, strict=True):
        if payload < 0:
            assert candidate.split_point == grid.num_stages
        else:
            assert grid.payloads[payload] == (candidate.split_point, candidate.bits)


@given(GRIDS)
def test_every_candidate_is_its_action_again(grid):
    for index in range(len(grid)):
        action = grid.to_action(index)

        assert (np.abs(action) <= 1).all()
        assert grid.from_action(action) == index == grid.index(grid.candidates[index])


@given(GRIDS, st.lists(st.floats(-3, 3), min_size=3, max_size=3))
def test_every_action_is_a_candidate(grid, action):
    assert 0 <= grid.from_action(np.array(action)) < len(grid)


def test_a_picture_has_no_exit_threshold_and_a_local_decision_no_bits():
    grid = DecisionGrid(2, (0.5, NEVER), (1, 8))

    assert grid.candidates[grid.from_action(np.array([-1, -1, 1]))] == Decision(0, NEVER, 8)
    assert grid.candidates[grid.from_action(np.array([1, -1, 1]))] == Decision(2, 0.5, 0)


def test_a_decision_off_the_grid_is_refused():
    with pytest.raises(ConfigError, match=r"must lie on the grid; got Decision\(split_point=9"):
        DecisionGrid(3).index(Decision(9, 0.5, 4))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_stages": 1}, "num_stages must be at least 2; got 1"),
        ({"num_stages": 3, "thresholds": ()}, r"thresholds must rise strictly; got \(\)"),
        ({"num_stages": 3, "thresholds": (0.5, 0.5)}, "thresholds must rise strictly"),
        ({"num_stages": 3, "thresholds": (0.0, 0.5)}, r"each threshold must lie in \(0, 1\]"),
        ({"num_stages": 3, "bits": (3,)}, r"bits must be chosen from .*; got \(3,\)"),
        ({"num_stages": 20}, "at most 256 candidates; got"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        DecisionGrid(**settings)
