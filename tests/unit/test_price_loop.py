"""The price of a joule that makes a charge last the mission."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptive_split.errors import ConfigError
from adaptive_split.runtime.price_loop import MAX_PRICE, RESERVE_SOC, PriceLoop

MISSION_S = 1200.0
FULL = np.ones(1)


def start(mission_s=MISSION_S, energy_price=0.05):
    loop = PriceLoop(mission_s, energy_price)
    loop.begin(FULL, np.zeros(1))
    return loop


def last(capacity_j, power_w, loop):
    """Spend a charge second by second at `power_w(price, moment)`; give charges and prices."""
    left_j, charges, prices = capacity_j, [], []
    for second in range(int(MISSION_S)):
        soc = np.array([left_j / capacity_j])
        prices.append(float(loop.price(soc, np.array([float(second)]))[0]))
        left_j = max(left_j - power_w(prices[-1], second), 0.0)
        charges.append(left_j / capacity_j)
    return charges, prices


def hungry(price, second):
    """A device that takes 2 W for nothing, 1 W at 0.4 per joule."""
    return 0.4 + 1.6 / (1 + price / 0.24)


@pytest.mark.parametrize("right_price", [0.02, 0.1, 0.4, 1.0])
def test_it_finds_the_price_at_which_the_charge_just_lasts(right_price):
    capacity_j = hungry(right_price, 0) * MISSION_S / (1 - RESERVE_SOC)

    charges, prices = last(capacity_j, hungry, start())

    assert 0 < charges[-1] < 0.02
    assert np.median(prices) == pytest.approx(right_price, rel=0.3)


def test_a_demand_that_swings_leaves_no_more_than_two_percent():
    charges, prices = last(
        1.0 * MISSION_S, lambda price, t: hungry(price, t) * (1 + 0.5 * np.sin(t / 40)), start()
    )

    assert 0 < charges[-1] < 0.02
    assert max(prices) < MAX_PRICE


def test_a_charge_known_in_whole_percents_lasts_as_well():
    loop, left_j, capacity_j = start(), MISSION_S, MISSION_S
    for second in range(int(MISSION_S)):
        soc = np.floor(np.array([100 * left_j / capacity_j])) / 100
        left_j -= hungry(float(loop.price(soc, np.array([float(second)]))[0]), second)

    assert 0 < left_j / capacity_j < 0.03


def test_more_than_can_be_spent_costs_nothing():
    _, prices = last(3.0 * MISSION_S, hungry, start())

    assert prices[-1] < 1e-6


@given(
    soc=st.floats(0, 1), now_s=st.floats(-100, 2 * MISSION_S), energy_price=st.floats(0, 5),
)  # fmt: skip
def test_a_price_is_never_negative_and_never_without_bounds(soc, now_s, energy_price):
    price = start(energy_price=energy_price).price(np.array([soc]), np.array([now_s]))

    assert price.shape == (1,)
    assert 0 <= price[0] <= MAX_PRICE


def test_the_even_pace_keeps_the_price_and_more_haste_raises_it():
    loop, halfway = start(), np.full(3, MISSION_S / 2)
    even = (1 + RESERVE_SOC) / 2

    price = loop.price(np.array([even, even - 0.01, even + 0.01]), halfway)

    assert price[0] == pytest.approx(0.05)
    assert price[2] < price[0] < price[1]


def test_the_same_lead_counts_more_near_the_end():
    loop, now_s = start(), np.array([0.2, 0.8]) * MISSION_S
    even = RESERVE_SOC + (1 - RESERVE_SOC) * loop.time_left(now_s)

    early, late = loop.price(even - 0.005, now_s)

    assert late > early > 0.05


def test_an_unknown_charge_has_the_price_of_the_objective():
    loop = PriceLoop(MISSION_S, 0.07)
    loop.begin(np.array([np.nan]), np.zeros(1))

    assert loop.price(np.array([np.nan]), np.zeros(1)) == pytest.approx(0.07)
    assert loop.price(np.array([0.4]), np.array([10.0])) == pytest.approx(0.07)


def test_a_charge_that_becomes_known_later_begins_there():
    loop, late = PriceLoop(MISSION_S, 0.07), np.array([MISSION_S / 2])
    loop.begin(np.array([np.nan]), np.zeros(1))

    loop.begin(np.array([0.6]), late)

    assert loop.price(np.array([0.6]), late) == pytest.approx(0.07)
    assert loop.price(np.array([0.55]), late) > 0.07


def test_a_charge_that_rises_makes_joules_cheaper():
    loop, now_s = start(), np.array([100.0])

    before, after = loop.price(np.array([0.8]), now_s), loop.price(np.array([0.9]), now_s)

    assert after < before


def test_a_clock_that_jumps_ahead_frees_what_is_left():
    loop, soc = start(), np.array([0.5])

    assert loop.price(soc, np.array([1000.0])) < loop.price(soc, np.array([610.0]))


@pytest.mark.parametrize("now_s", [MISSION_S, MISSION_S + 1, 10 * MISSION_S])
def test_after_the_mission_the_price_is_that_of_the_objective(now_s):
    assert start().price(np.array([0.3]), np.array([now_s])) == pytest.approx(0.05)


def test_an_empty_battery_has_the_highest_price():
    assert start().price(np.zeros(1), np.array([600.0])) == pytest.approx(MAX_PRICE)


def test_a_reset_forgets_the_start():
    loop, now_s = start(), np.array([300.0])
    loop.reset()

    loop.begin(np.array([0.3]), now_s)

    assert loop.price(np.array([0.3]), now_s) == pytest.approx(0.05)


@pytest.mark.parametrize("mission_s", [0.0, -1.0, float("nan")])
def test_a_mission_without_a_length_is_refused(mission_s):
    with pytest.raises(ConfigError, match="mission_s must be positive, in seconds; got"):
        PriceLoop(mission_s, 0.05)
