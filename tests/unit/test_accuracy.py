"""What is expected of payloads on pictures that were not counted."""

import numpy as np
import pytest

from adaptive_split.accuracy import expected_right


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


def test_no_payloads_have_no_chances():
    assert expected_right(np.zeros((5, 0)), np.zeros((5, 0), bool)).shape == (5, 0)
