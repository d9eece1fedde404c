"""Calibration: the temperature that makes confidence honest is found again."""

import numpy as np
import pytest

from adaptive_split.models.calibration import calibration_error, fit_temperature, probability_error


def honest(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from their softmax."""
    generator = np.random.default_rng(0)
    logits = generator.normal(scale=2, size=(count, 5))
    noise = generator.gumbel(size=logits.shape)
    return logits, (logits + noise).argmax(1)


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_what_made_logits_too_large(factor):
    logits, labels = honest(5000)

    assert fit_temperature(logits * factor, labels) == pytest.approx(factor, rel=0.05)


def test_overconfident_logits_have_a_larger_calibration_error():
    logits, labels = honest(5000)

    assert calibration_error(logits, labels) < 0.03
    assert calibration_error(logits * 3, labels) > 0.1


def test_the_error_of_answers_is_that_of_their_logits():
    logits, labels = honest(500)
    shares = np.exp(logits - logits.max(1, keepdims=True))
    top = (shares / shares.sum(1, keepdims=True)).max(1)

    error = probability_error(top, logits.argmax(1) == labels)

    assert error == pytest.approx(calibration_error(logits, labels))


def test_a_certain_exit_that_is_always_wrong_errs_by_one():
    assert probability_error(np.ones(4), np.zeros(4, bool)) == pytest.approx(1)
    assert probability_error(np.ones(4), np.ones(4, bool)) == pytest.approx(0)
