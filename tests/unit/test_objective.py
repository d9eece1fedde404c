"""The objective: utility of a frame, and what cannot be promised."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive_split.errors import ConfigError
from adaptive_split.objective import Objective

AMOUNTS = st.floats(0, 10)


@given(AMOUNTS, AMOUNTS, st.floats(0, 1e7), st.floats(0, 1))
def test_utility_is_right_answers_minus_joules_and_megabytes(price, energy, size, right):
    objective = Objective(energy_price=price, byte_price=0.3)

    utility = objective.utility(correct_on_time=right, energy_j=energy, payload_bytes=size)

    assert utility == pytest.approx(right - price * energy - 0.3 * size * 1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"slo_s": 200.0}, r"slo_s must lie in \[0.005, 10\] seconds; got 200.0"),
        ({"slo_s": float("nan")}, "slo_s must lie in"),
        ({"fps": 0.0}, r"fps must lie in \[0.1, 240\] frames per second; got 0.0"),
        ({"energy_price": -1.0}, "energy_price must be 0 or more, in 1/J; got -1.0"),
        ({"byte_price": float("nan")}, "byte_price must be 0 or more, in 1/MB; got nan"),
    ],
)
def test_what_cannot_be_promised_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        Objective(**settings)
