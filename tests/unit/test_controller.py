"""The controllers: what each looks at, and the guard."""

import numpy as np
import pytest

from adaptive_split.agents.evaluate import play
from adaptive_split.errors import BundleError
from adaptive_split.observation import observe
from adaptive_split.planner import BacklogPrices
from adaptive_split.runtime.controller import (
    DistributionPlanner,
    ForecastController,
    Planner,
    PlannerSettings,
    TwoWindowPlanner,
    forecast,
)
from tests import support

SETTINGS = PlannerSettings()


@pytest.fixture(scope="module")
def table():
    return support.table()


@pytest.fixture
def fast_lately():
    """A link that was dead for 12 requests and is fast for 4."""
    rate = np.where(np.arange(16) < 4, 40.0, 0.01)
    return support.moment(
        sample_mbps=rate, sample_rtt_s=0.01, sample_wait_s=0.0, slack_s=0.2, gap_s=0.05
    )


def sends(table, choice):
    return not table.grid.local[choice[0]]


@pytest.mark.parametrize("kind", [Planner, DistributionPlanner, TwoWindowPlanner])
@pytest.mark.parametrize(("rate", "offloads"), [(40.0, True), (0.01, False)])
def test_every_planner_sends_over_a_fast_link_and_not_over_a_dead_one(table, kind, rate, offloads):
    moment = support.moment(
        sample_mbps=rate, sample_rtt_s=0.01, sample_wait_s=0.0, slack_s=0.2, gap_s=0.05
    )

    choice = kind(table, SETTINGS).choose(moment)

    payload = table.grid.payload_index[choice[0]]
    # A decision with an exit that is nearly always sure may send what hardly ever is sent.
    assert (payload >= 0 and table.send_share[choice[0]] > 0.5) == offloads


def test_the_distribution_planner_weighs_all_readings_alike(table, fast_lately):
    view = observe(table, fast_lately, SETTINGS.prices)

    assert DistributionPlanner(table, SETTINGS).choose(fast_lately) == support.planned_utility(
        table, view
    ).argmax(1)
    np.testing.assert_allclose(support.on_time(table, view), 4 / 16)


def test_the_two_window_planner_may_look_at_the_newest_readings_only(table, fast_lately):
    short = TwoWindowPlanner(table, PlannerSettings(rate_window=4, rtt_window=4))

    assert sends(table, short.choose(fast_lately))


def test_with_full_windows_the_two_window_planner_is_the_distribution_planner(table):
    moment = support.moment(lanes=50)

    ours = TwoWindowPlanner(table, SETTINGS).choose(moment)

    np.testing.assert_array_equal(ours, DistributionPlanner(table, SETTINGS).choose(moment))


def test_a_safety_factor_makes_a_planner_more_cautious(table):
    """At a rate that only just suffices."""
    payload = int(np.argmax(table.mean_bytes))
    rest = 0.2 - table.ready_s[payload] - table.tail_s[payload] - table.keep_back_s[payload] - 0.01
    just = table.mean_bytes[payload] * 8e-6 / rest * 1.02
    moment = support.moment(sample_mbps=just, sample_rtt_s=0.01, sample_wait_s=0.0, slack_s=0.2)
    view = observe(table, moment, SETTINGS.prices)
    moment_at_half = support.moment(
        sample_mbps=just / 2, sample_rtt_s=0.01, sample_wait_s=0.0, slack_s=0.2
    )

    cautious = Planner(table, PlannerSettings(safety=0.5)).choose(moment)

    assert support.on_time(table, view)[0, payload] == 1
    assert cautious == Planner(table, SETTINGS).choose(moment_at_half)


def test_an_untrained_forecast_is_the_planner(table):
    weights, moment = support.weights(), support.moment(lanes=200)
    view = observe(table, moment, SETTINGS.prices)

    values = ForecastController(table, weights, SETTINGS.prices).values(view)

    clipped = 1 / (1 + np.exp(5.0))
    chance = forecast(weights, view.context, view.payloads)
    np.testing.assert_allclose(
        chance, np.clip(support.on_time(table, view), clipped, 1 - clipped), atol=1e-6
    )
    np.testing.assert_allclose(values, support.planned_utility(table, view), atol=2e-2)


def test_a_guard_keeps_its_candidate_unless_another_promises_more_than_the_margin(table):
    moment, weights = support.moment(lanes=100), support.weights()
    free = ForecastController(table, weights, BacklogPrices())
    values = free.values(observe(table, moment, BacklogPrices()))
    kept, margin = 7, 0.1
    guarded = ForecastController(
        table, weights, BacklogPrices(), guard_candidate=kept, guard_margin=margin
    )

    choice = guarded.choose(moment)

    better = values.max(1) > values[:, kept] + margin
    assert 0 < better.sum() < 100
    np.testing.assert_array_equal(choice, np.where(better, values.argmax(1), kept))


def test_where_nothing_can_be_won_one_decision_is_kept_and_the_link_is_not_probed(table):
    weights, streams = support.weights(), [support.stream(20, seed) for seed in range(2)]
    kept = int(np.flatnonzero(table.grid.local)[-1])
    adapting = ForecastController(table, weights, BacklogPrices())
    keeping = ForecastController(table, weights, BacklogPrices(), kept=kept)

    choice = keeping.choose(support.moment(lanes=50))
    played = play(keeping, table, streams)

    np.testing.assert_array_equal(choice, np.full(50, kept))
    assert len(set(adapting.choose(support.moment(lanes=50)))) > 1
    assert (adapting.probes, keeping.probes) == (True, False)
    assert set(played.column("candidate")[0]) == {kept}
    assert not played.probe_bytes.any()


def test_weights_of_other_columns_are_refused(table):
    with pytest.raises(BundleError, match="trained on 14 payload columns; got"):
        ForecastController(table, support.weights(payload_columns=5), BacklogPrices())
