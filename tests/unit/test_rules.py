"""The rules that others published, against hand-made cases."""

import numpy as np
import pytest

from adaptive_split.agents.baselines import BusyKnobs, BusySkip, PairKnobs, ThresholdPair
from adaptive_split.agents.link_readings import harmonic_mean, mean_link, pessimistic_rate
from adaptive_split.agents.rate_planners import HarmonicPlanner, PessimisticPlanner
from adaptive_split.agents.rules import (
    DeadlineKnobs,
    DynamicSplit,
    Dyno,
    LinkKnobs,
    Neurosurgeon,
    Spinn,
    accuracy,
    bottlenecks,
    expected_latency_s,
)
from adaptive_split.decision import NEVER, Decision
from adaptive_split.planner import read_link
from adaptive_split.runtime.controller import PlannerSettings
from tests import support

STAGES, EXITS, ENCODERS = (20.03, 30.11, 60.17), (2.19, 3.23, 4.29), (6.31, 3.37, 2.41)
DECODERS = (5, 4, 3)
"""The toy's device in milliseconds; its server takes a tenth."""


@pytest.fixture(scope="module")
def table():
    return support.table()


def steady(rate_mbps=5.0, rtt_s=0.02, wait_s=0.004, **changes):
    """A link that has been the same for sixteen requests."""
    values = {"slack_s": 0.2, "gap_s": 0.05} | changes
    return support.moment(sample_mbps=rate_mbps, sample_rtt_s=rtt_s, sample_wait_s=wait_s, **values)


def chosen(table, policy, moment):
    return table.grid.candidates[policy.choose(moment)[0]]


def latency_ms(table, split_point, rate_mbps, round_trip_ms):
    """Time of a whole frame by the profile's arithmetic, without exits, at eight bits."""
    head = sum(STAGES[:split_point]) + sum(EXITS[:split_point])
    if split_point == 3:
        return head
    payload = table.grid.payloads.index((split_point, 8))
    upload = table.outcomes.payload_bytes[:, payload].mean() + table.radio.overhead_bytes
    tail = 0.1 * (DECODERS[split_point] + sum(STAGES[split_point:]) + EXITS[-1])
    return head + ENCODERS[split_point] + upload * 8e-3 / rate_mbps + tail + round_trip_ms


@pytest.mark.parametrize(("rate", "split_point"), [(0.05, 3), (0.4, 1), (40.0, 0)])
def test_neurosurgeon_takes_the_split_point_of_least_latency(table, rate, split_point):
    times = [latency_ms(table, split, rate, round_trip_ms=24) for split in range(4)]

    decision = chosen(table, Neurosurgeon(table, LinkKnobs()), steady(rate))

    assert int(np.argmin(times)) == split_point
    assert decision == Decision(split_point, NEVER, 8 if split_point < 3 else 0)


def test_neurosurgeon_counts_the_round_trip_and_dynamic_split_does_not(table):
    far = steady(40.0, rtt_s=0.5)

    assert chosen(table, Neurosurgeon(table, LinkKnobs()), far).split_point == 3
    assert chosen(table, DynamicSplit(table, LinkKnobs()), far).split_point == 0


@pytest.mark.parametrize("rate", [0.05, 0.33, 0.5, 40.0])
def test_dynamic_split_takes_the_least_time_by_the_rate_alone(table, rate):
    times = [latency_ms(table, split, rate, round_trip_ms=0) for split in range(4)]

    decision = chosen(table, DynamicSplit(table, LinkKnobs()), steady(rate))

    assert decision.split_point == int(np.argmin(times))


def test_a_split_point_that_sends_more_than_an_earlier_one_is_no_bottleneck():
    table = support.table()
    sizes = {0: 4000.0, 1: 5000.0, 2: 1000.0}
    table.mean_bytes = np.array([sizes[split] for split, _ in table.grid.payloads])

    assert bottlenecks(table) == [0, 2]
    allowed = DynamicSplit(table, LinkKnobs()).allowed
    assert set(table.grid.split_point[allowed]) == {0, 2, 3}


def test_dyno_takes_the_most_accurate_combination_in_time_and_no_exits(table):
    right = np.where(table.grid.exit_threshold == NEVER, accuracy(table), 0)

    choice = Dyno(table, DeadlineKnobs()).choose(steady(40.0, slack_s=0.5))

    assert right[choice[0]] == right.max()


def test_spinn_takes_the_most_accurate_exit_threshold_at_full_precision(table):
    bits = np.array([candidate.bits for candidate in table.grid.candidates])
    right = np.where(np.isin(bits, (0, 8)), accuracy(table), 0)

    choice = Spinn(table, DeadlineKnobs()).choose(steady(40.0, slack_s=0.5))

    assert right[choice[0]] == right.max()


@pytest.mark.parametrize("kind", [Spinn, Dyno])
def test_the_fastest_is_taken_when_nothing_meets_the_deadline(table, kind):
    policy, moment = kind(table, DeadlineKnobs()), steady(40.0, slack_s=0.001)
    arrival = read_link(table, moment, *mean_link(moment, 0.3)).arrival_s[:, 0]
    latency = np.where(policy.allowed, expected_latency_s(table, moment, arrival), np.inf)

    assert policy.choose(moment)[0] == latency[0].argmin()


def test_the_expected_latency_weighs_every_exit_by_its_share(table):
    grid = table.grid
    candidate = grid.index(Decision(2, 0.7, 8))
    confidence = table.outcomes.exit_confidence
    first = confidence[:, 0] >= 0.7
    second = ~first & (confidence[:, 1] >= 0.7)
    parts = (first.mean(), second.mean(), (~first & ~second).mean())

    latency = expected_latency_s(table, steady(), np.full((1, len(grid.payloads)), 0.1))

    by_hand = parts[0] * 22.22e-3 + parts[1] * 55.56e-3 + parts[2] * 0.1
    assert latency[0, candidate] == pytest.approx(by_hand)


@pytest.mark.parametrize("kind", [Spinn, Dyno])
def test_a_tighter_share_of_the_deadline_forbids_what_is_slow(table, kind):
    moment = steady(40.0, rtt_s=0.14)

    whole = chosen(table, kind(table, DeadlineKnobs()), moment)
    half = chosen(table, kind(table, DeadlineKnobs(deadline_share=0.65)), moment)

    assert whole.split_point < 3
    assert half.split_point == 3


def test_an_answer_that_costs_too_much_time_is_given_up(table):
    moment = steady(40.0, slack_s=0.5)

    patient = Spinn(table, DeadlineKnobs()).choose(moment)[0]
    hasty = Spinn(table, DeadlineKnobs(latency_weight=100.0)).choose(moment)[0]

    assert accuracy(table)[hasty] < accuracy(table)[patient]
    assert table.grid.exit_threshold[hasty] < NEVER


def test_a_pair_changes_at_its_threshold():
    pair = ThresholdPair(PairKnobs(below=3, above=7, threshold_mbps=5.0))

    assert pair.choose(steady(4.99))[0] == 3
    assert pair.choose(steady(5.01))[0] == 7


@pytest.mark.parametrize(
    ("rate", "changes", "expected"),
    [
        (9.0, {}, Decision(0, NEVER, 8)),
        (9.0, {"uplink_busy_s": 0.01}, Decision(3, NEVER, 0)),
        (1.0, {}, Decision(3, NEVER, 0)),
        (1.0, {"waiting": 1.0}, Decision(3, 0.4, 0)),
        (9.0, {"waiting": 1.0}, Decision(0, NEVER, 8)),
    ],
)
def test_busy_skip_asks_for_the_link_then_the_uplink_then_the_device(
    table, rate, changes, expected
):
    grid = table.grid
    knobs = BusyKnobs(
        local=grid.index(Decision(3, NEVER, 0)), picture=grid.index(Decision(0, NEVER, 8)),
        threshold_mbps=5.0,
    )  # fmt: skip

    assert chosen(table, BusySkip(table, knobs), steady(rate, **changes)) == expected


def test_the_newest_sample_weighs_what_it_is_told():
    rates = np.where(np.arange(16) == 0, 10.0, 0.0)

    for weight in (0.1, 0.3, 0.8):
        rate, _ = mean_link(steady(rates), weight)
        expected = 10 * weight / (1 - (1 - weight) ** 16)
        assert rate[0, 0] == pytest.approx(expected)


def test_a_harmonic_mean_leans_towards_the_slow_samples():
    rates = np.array([[1.0, 4.0, 100.0], [1.0, 4.0, 100.0]])
    valid = np.array([[True, True, False], [False, False, False]])

    mean = harmonic_mean(rates, valid)

    assert mean[0, 0] == pytest.approx(2 / (1 + 1 / 4))
    assert mean[1, 0] == pytest.approx(3 / (1 + 1 / 4 + 1 / 100))


def test_the_pessimist_divides_by_its_largest_recent_error():
    halved = np.where(np.arange(16) == 0, 2.0, 4.0)

    # Forecast 4 and seen 2 is an error of 1; the mean of 2, 4 and 4 is 3.
    assert pessimistic_rate(steady(halved), 3, 5)[0, 0] == pytest.approx(1.5)
    assert pessimistic_rate(steady(7.0), 3, 5)[0, 0] == pytest.approx(7.0)
    assert pessimistic_rate(support.moment(samples=1), 3, 5)[0, 0] > 0


def test_the_pessimist_stays_local_where_the_optimist_sends(table):
    jumping = np.where(np.arange(16) % 2 == 0, 0.1, 40.0)
    moment = steady(jumping, rtt_s=0.05, slack_s=0.15)
    knobs = PlannerSettings(rate_window=5, rtt_window=5)

    hopeful = chosen(table, HarmonicPlanner(table, knobs), moment)
    careful = chosen(table, PessimisticPlanner(table, knobs), moment)

    assert hopeful.split_point < 3
    assert careful.split_point == 3
