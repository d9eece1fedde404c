"""The planner's arithmetic against an obvious enumeration of every picture."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptive_split.candidates import MARGIN_S, CandidateTable, Radio
from adaptive_split.decision import NEVER, DecisionGrid
from adaptive_split.errors import ConfigError
from adaptive_split.planner import (
    BacklogPrices,
    combine,
    link_pairs,
    read_link,
    uplink_wait_s,
    utility_terms,
)
from tests import support

MOMENTS = st.fixed_dictionaries(
    {
        "slack_s": st.floats(0.03, 0.2),
        "gap_s": st.floats(-0.01, 0.05),
        "uplink_busy_s": st.sampled_from([0.0, 0.02, 0.3]),
        "device_slowdown": st.sampled_from([1.0, 1.3]),
    }
)


def first_exit(outcomes, sample, decision):
    """Exit (1..S) at which the device answers a picture; 0 where it sends."""
    for stage in range(1, decision.split_point + 1):
        sure = outcomes.exit_confidence[sample, stage - 1] >= decision.exit_threshold
        if (sure and decision.exit_threshold < NEVER) or stage == outcomes.num_stages:
            return stage
    return 0


def one_picture(table, moment, prices, sample, candidate, rate_mbps, on_time):
    """Utility and backlog price of one picture under one candidate, one lane, one rate."""
    decision, objective, outcomes = (
        table.grid.candidates[candidate],
        table.objective,
        table.outcomes,
    )
    slow, slack, gap = moment.device_slowdown[0], moment.slack_s[0], max(moment.gap_s[0], 0.0)
    head = table.head_s * slow
    fits = max((k for k in range(4) if k == 0 or head[k] <= slack - MARGIN_S), default=0)
    exit_index = first_exit(outcomes, sample, decision)
    stops = decision.split_point > fits
    sends = exit_index == 0 and not stops
    right = outcomes.exit_right[sample]
    if 0 < exit_index <= fits:
        correct = right[exit_index - 1]
    elif stops:
        correct = fits > 0 and right[fits - 1]
    else:
        payload = table.grid.payload_index[candidate]
        fallback = right[max(decision.split_point, 1) - 1]
        correct = outcomes.server_right[sample, payload] if on_time else fallback
    busy = (
        head[exit_index]
        if exit_index
        else table.ready_s[table.grid.payload_index[candidate]] * slow
    )
    over_device = max(min(busy, max(slack - MARGIN_S, 0.0)) - gap, 0.0)
    if decision.split_point == 0 and not on_time:
        busy += head[1]
    utility = correct - objective.energy_price * table.device.compute_w * busy
    utility -= prices.device * objective.fps * over_device
    if sends:
        size = table.mean_bytes[payload]
        upload = size * 8e-6 / rate_mbps
        joules = table.radio.joules_per_mbit * size * 8e-6
        joules += table.radio.watts * min(upload, objective.slo_s)
        begin = max(table.ready_s[payload] * slow, uplink_wait_s(moment)[0])
        over_link = begin + upload - gap - table.ready_s[0] * slow
        utility -= objective.energy_price * joules + objective.byte_price * size * 1e-6
        utility -= prices.uplink * objective.fps * min(max(over_link, 0.0), objective.slo_s)
        utility -= prices.occupied * objective.fps * min(upload, objective.slo_s)
    return utility


@settings(max_examples=15)
@given(MOMENTS, st.floats(0.05, 50), st.booleans())
def test_base_and_gain_are_means_over_all_pictures(values, rate_mbps, on_time):
    table, prices = support.table(), BacklogPrices(device=0.3, uplink=0.1, occupied=0.05)
    moment = support.moment(**values)
    readings = read_link(table, moment, np.array([[rate_mbps]]), np.array([[0.05]]))

    base, gain = utility_terms(table, moment, prices, readings)
    found = combine(table, base, gain, np.full((1, len(table.grid.payloads)), float(on_time)))

    samples = range(len(table.outcomes.label))
    for candidate in range(len(table.grid)):
        each = [
            one_picture(table, moment, prices, sample, candidate, rate_mbps, on_time)
            for sample in samples
        ]
        assert found[0, candidate] == pytest.approx(np.mean(each), abs=1e-9), candidate


@pytest.mark.parametrize("rate_mbps", [0.05, 20.0])
def test_the_time_that_a_payload_takes_on_the_uplink_has_a_price(rate_mbps):
    """One reading: the price per frame period, times at most the latency promised."""
    table, moment = support.table(), support.moment(slack_s=0.2)
    readings = read_link(table, moment, np.array([[rate_mbps]]), np.array([[0.05]]))
    free, priced = BacklogPrices(), BacklogPrices(occupied=0.4)

    base, gain = utility_terms(table, moment, free, readings)
    dear_base, dear_gain = utility_terms(table, moment, priced, readings)

    for index, payload in enumerate(table.grid.payload_index):
        upload_s = min(table.mean_bytes[payload] * 8e-6 / rate_mbps, 0.2)
        cost = 0.4 * 20.0 * upload_s * table.send_share[index] if payload >= 0 else 0.0
        assert base[0, index] - dear_base[0, index] == pytest.approx(cost)
    np.testing.assert_allclose(dear_gain, gain)


@given(MOMENTS, st.floats(0.05, 50), st.floats(0.005, 0.2))
def test_a_payload_is_on_time_when_its_times_fit_before_the_give_up_moment(values, rate, delay):
    table = support.table()
    moment = support.moment(**values)

    readings = read_link(table, moment, np.array([[rate]]), np.array([[delay]]))

    for payload in range(len(table.grid.payloads)):
        begin = max(table.ready_s[payload] * values["device_slowdown"], uplink_wait_s(moment)[0])
        arrival = begin + table.mean_bytes[payload] * 8e-6 / rate + table.tail_s[payload] + delay
        keep_back = MARGIN_S + table.fallback_s[payload] * values["device_slowdown"]
        assert readings.arrival_s[0, 0, payload] == pytest.approx(arrival)
        assert readings.share()[0, payload] == float(arrival <= values["slack_s"] - keep_back)


def test_the_share_on_time_counts_valid_readings_only():
    table, moment = support.table(), support.moment(slack_s=0.2)
    rate, delay = np.array([[1000.0, 0.001, 1000.0]]), np.full((1, 3), 0.01)

    share = read_link(table, moment, rate, delay, np.array([[True, True, False]])).share()

    np.testing.assert_allclose(share, 0.5)


def test_an_overdue_request_bounds_the_rate():
    moment = support.moment(
        sample_mbps=10.0, sample_rtt_s=0.05, sample_wait_s=0.0, unanswered_s=1.05,
        unanswered_bytes=12_500.0,
    )  # fmt: skip

    rate, delay, valid = link_pairs(moment)

    np.testing.assert_allclose(rate, 0.1)
    np.testing.assert_allclose(delay, 0.05)
    assert valid.all()


def test_without_any_sample_one_reading_is_assumed():
    rate, delay, valid = link_pairs(support.moment(samples=0))

    assert valid.sum() == 1
    assert (rate[valid] > 0).all()
    assert (delay[valid] > 0).all()


def test_no_candidate_that_sends_is_taken_while_the_server_is_out_of_reach():
    table, moment = support.table(), support.moment(server_usable=False)
    readings = read_link(table, moment, *link_pairs(moment))

    base, gain = utility_terms(table, moment, BacklogPrices(), readings)
    best = combine(table, base, gain, np.ones((1, len(table.grid.payloads)))).argmax(1)

    assert table.grid.local[best].all()


def test_outcomes_of_another_grid_are_refused():
    other = DecisionGrid(3, bits=(4,))

    with pytest.raises(ConfigError, match="measure them again with this grid"):
        CandidateTable(
            support.GRID, support.profile(), support.profile(), support.outcomes(grid=other),
            support.table().objective, Radio(),
        )  # fmt: skip


def test_a_negative_radio_cost_is_refused():
    with pytest.raises(ConfigError, match="radio watts must be 0 or more; got -1"):
        Radio(watts=-1)
