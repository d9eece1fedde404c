"""Outcomes: confidence, what is right, and the file."""

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from adaptive_split.decision import NEVER
from adaptive_split.errors import BundleError, ConfigError
from adaptive_split.outcomes import Outcomes, confidence, useful_thresholds, view_name

PAYLOADS = ((0, 1), (0, 8), (1, 1), (1, 8))


@pytest.fixture
def outcomes():
    return Outcomes(
        bundle_hash="abc",
        subset="judge",
        files=("a.jpg", "b.jpg"),
        label=np.array([0, 2]),
        exit_answer=np.array([[0, 1], [1, 2]]),
        exit_confidence=np.array([[0.25, 0.5], [0.75, 1.0]]),
        payloads=PAYLOADS,
        server_answer=np.array([[0, 0, 1, 0], [2, 1, 2, 2]]),
        server_confidence=np.full((2, 4), 0.5),
        payload_bytes=np.array([[10, 20, 3, 8], [11, 21, 4, 9]]),
    )


@given(arrays(np.float32, (3, 5), elements=st.floats(-50, 50, width=32)))
def test_confidence_lies_between_no_idea_and_certain(logits):
    found = confidence(logits)

    assert found.shape == (3,)
    assert ((found >= 0) & (found <= 1)).all()


def test_confidence_is_one_minus_normalized_entropy():
    assert confidence(np.zeros(4)) == pytest.approx(0)
    assert confidence(np.array([1000.0, 0, 0, 0])) == pytest.approx(1)
    # two of four classes share everything: one bit of two
    assert confidence(np.array([1000.0, 1000.0, 0, 0])) == pytest.approx(0.5)


def test_an_answer_is_right_when_it_is_the_label(outcomes):
    assert outcomes.num_stages == 2
    assert outcomes.exit_right.tolist() == [[True, False], [False, True]]
    assert outcomes.server_right.tolist() == [[True, True, False, True], [True, False, True, True]]


def test_views_of_a_picture_are_told_by_their_names(outcomes):
    names = ("b.jpg", view_name("b.jpg", 1), "a#1.jpg", view_name("a#1.jpg", 12))
    seen = dataclasses.replace(outcomes.select([0, 1, 0, 1]), files=names)

    assert seen.picture.tolist() == [1, 1, 0, 0]
    assert seen.plain().files == ("b.jpg", "a#1.jpg")
    assert seen.plain().label.tolist() == [0, 0]


def test_outcomes_load_as_they_were_saved(outcomes, tmp_path):
    outcomes.save(tmp_path / "outcomes.npz")

    loaded = Outcomes.load(tmp_path / "outcomes.npz")

    for field in dataclasses.fields(Outcomes):
        np.testing.assert_array_equal(getattr(loaded, field.name), getattr(outcomes, field.name))
    assert loaded.payload_bytes.dtype == np.int64


def test_arrays_that_do_not_agree_are_refused(outcomes):
    with pytest.raises(ConfigError, match=r"payload_bytes must have shape \(2, 4\); got \(2, 3\)"):
        dataclasses.replace(outcomes, payload_bytes=np.zeros((2, 3), np.int64))


def test_no_pictures_are_refused(outcomes):
    with pytest.raises(ConfigError, match="at least one picture"):
        dataclasses.replace(outcomes, label=np.zeros(0, np.int64))


def with_confidence(outcomes, exit_confidence):
    """The same pictures many times, with other confidences `(M, S)`."""
    num_samples, num_stages = exit_confidence.shape
    grown = outcomes.select([0] * num_samples)
    answers = np.zeros((num_samples, num_stages), np.int64)
    return dataclasses.replace(grown, exit_answer=answers, exit_confidence=exit_confidence)


def leaves_at(confidence, threshold):
    """The exit at which each picture leaves, 0..S-1; the last one takes all that come to it."""
    sure = (confidence >= threshold) & (threshold < NEVER)
    sure[:, -1] = True
    return sure.argmax(1)


@given(
    confidence=array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=12).flatmap(
        lambda shape: arrays(np.float64, shape, elements=st.floats(0, 1))
    ),
    num_thresholds=st.integers(1, 8),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_useful_threshold_raised_to_the_next_moves_a_picture(
    outcomes, confidence, num_thresholds
):
    found = useful_thresholds(with_confidence(outcomes, confidence), num_thresholds)

    assert len(found) <= num_thresholds
    assert found[-1] == NEVER
    for lower, higher in pairwise(found):
        assert 0 < lower < higher
        assert (leaves_at(confidence, lower) != leaves_at(confidence, higher)).any()


def test_useful_thresholds_share_the_pictures_evenly(outcomes):
    confidence = np.random.default_rng(0).beta(8, 2, (4000, 2))

    found = useful_thresholds(with_confidence(outcomes, confidence))

    moved = [
        (leaves_at(confidence, lower) != leaves_at(confidence, higher)).mean()
        for lower, higher in pairwise(found)
    ]
    assert len(found) == 5
    assert moved == pytest.approx([0.2] * 4, abs=0.01)


def test_outcomes_that_are_being_written_are_not_there_yet(outcomes, tmp_path):
    (tmp_path / ".outcomes-unfinished.npz").write_bytes(b"what an interruption left")

    outcomes.save(tmp_path / "outcomes.npz")

    assert [path.name for path in tmp_path.iterdir()] == ["outcomes.npz"]


def test_missing_outcomes_say_how_to_make_them(tmp_path):
    with pytest.raises(BundleError, match="make it with 'adaptive-split measure'"):
        Outcomes.load(tmp_path / "outcomes.npz")


def test_damaged_outcomes_are_refused(outcomes, tmp_path):
    path = tmp_path / "outcomes.npz"
    path.write_bytes(b"no archive")

    with pytest.raises(BundleError, match="damaged"):
        Outcomes.load(path)
