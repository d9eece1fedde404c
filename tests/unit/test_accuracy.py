"""What is expected of payloads on pictures that were not counted."""

import numpy as np
import pytest

from adaptive_split.accuracy import expected_right
from adaptive_split.agents.baselines import Static
from adaptive_split.agents.evaluate import lane_utility, play
from adaptive_split.candidates import CandidateTable
from adaptive_split.decision import NEVER, Decision
from adaptive_split.objective import Objective
from tests import support


def answers(accuracies, num_pictures, seed, told=0.0):
    """Answers of payloads with these accuracies; pictures are hard for all payloads alike.

    `told` is how much of a payload's accuracy its confidence shows.
    """
    generator = np.random.default_rng(seed)
    ease = generator.normal(0, 0.3, (num_pictures, 1))
    own = generator.normal(0, 0.1, (num_pictures, len(accuracies)))
    chance = np.clip(np.asarray(accuracies) + ease + own, 0, 1)
    shown = np.mean(accuracies) + told * (np.asarray(accuracies) - np.mean(accuracies))
    confidence = np.clip(shown + ease + generator.normal(0, 0.1, chance.shape), 0, 1)
    return confidence, generator.random(chance.shape) < chance, chance


def error(estimate, chance):
    """Root mean square over payloads, of differences to the mean payload."""
    apart = estimate.mean(0) - estimate.mean() - chance.mean(0) + chance.mean()
    return float(np.sqrt((apart**2).mean()))


@pytest.mark.parametrize("told", [0.0, 1.0])
def test_it_is_nearer_to_the_truth_than_the_shares_of_a_few_hundred_pictures(told):
    levels = 0.75 + np.linspace(-0.02, 0.02, 20)
    counted, expected = [], []
    for seed in range(20):
        confidence, right, chance = answers(levels, 340, seed, told)
        counted.append(error(right, chance))
        expected.append(error(expected_right(confidence, right), chance))

    assert np.mean(expected) < 0.8 * np.mean(counted)


def test_what_is_counted_over_many_pictures_stands():
    confidence, right, _ = answers([0.3, 0.5, 0.7], 40_000, 0)

    found = expected_right(confidence, right).mean(0)

    np.testing.assert_allclose(found, right.mean(0), atol=0.005)


def test_payloads_that_differ_by_luck_alone_are_taken_to_be_alike():
    confidence = np.full((400, 8), 0.5)
    right = np.random.default_rng(3).random((400, 8)) < 0.6

    found = expected_right(confidence, right).mean(0)

    assert np.ptp(found) < 0.3 * np.ptp(right.mean(0))
    assert found.mean() == pytest.approx(right.mean())


def test_surer_answers_are_expected_to_be_right_more_often():
    generator = np.random.default_rng(0)
    confidence = generator.random((500, 4))
    right = generator.random((500, 4)) < confidence

    found = expected_right(confidence, right)

    assert found[confidence > 0.8].mean() > 0.8
    assert found[confidence < 0.2].mean() < 0.2


@pytest.mark.parametrize(
    ("right", "expected"),
    [([[True]], [[1.0]]), ([[True], [False]], [[0.5], [0.5]]), ([[True, True]], [[1.0, 1.0]])],
)
def test_a_picture_or_a_payload_alone_counts_as_it_is(right, expected):
    found = expected_right(np.full(np.shape(right), 0.5), np.array(right))

    assert found.tolist() == expected


def test_copies_of_a_picture_tell_no_more_than_the_picture():
    confidence, right, _ = answers(0.75 + np.linspace(-0.02, 0.02, 20), 340, 0)
    copied = [np.repeat(array, 4, 0) for array in (confidence, right)]

    found = expected_right(*copied, np.repeat(np.arange(340), 4))

    np.testing.assert_allclose(found.mean(0), expected_right(confidence, right).mean(0), atol=2e-3)
    assert np.ptp(expected_right(*copied).mean(0)) > 1.2 * np.ptp(found.mean(0))


def test_no_payloads_have_no_chances():
    assert expected_right(np.zeros((5, 0)), np.zeros((5, 0), bool)).shape == (5, 0)


@pytest.mark.parametrize("for_others", [False, True])
def test_policies_that_decide_about_other_pictures_are_scored_by_what_is_to_be_expected(for_others):
    given = support.table(Objective(slo_s=1.0, fps=5.0))
    table = CandidateTable(
        given.grid, given.device, given.server, given.outcomes, given.objective, given.radio,
        for_others=for_others,
    )  # fmt: skip
    sends = Static(given.grid.index(Decision(1, NEVER, 8)))
    streams = [support.stream(outages=False, fps=5.0, seed=seed) for seed in range(4)]
    steps = play(sends, table, streams).steps

    apart = sum(step.expected - step.utility for step in steps)
    luck = sum(
        step.by_server * step.on_time * (table.answer_right[step.sample_index, 3] - step.correct)
        for step in steps
    )  # fmt: skip
    total = sum(step.expected for step in steps) / streams[0].num_frames

    assert given.grid.payloads[3] == (1, 8)
    np.testing.assert_allclose(apart, luck, atol=1e-9)
    np.testing.assert_allclose(lane_utility(sends, table, streams), total)
    assert np.any(np.abs(luck) > 0.01) == for_others
