"""Recorded frames tell what another policy would have brought, with an honest interval."""

from dataclasses import replace

import numpy as np
import pytest

from adaptive_split.agents.from_logs import LOG_SLACK
from adaptive_split.agents.log_frames import read_logs
from adaptive_split.agents.log_labels import payload_on_time
from adaptive_split.agents.off_policy import (
    blocks_of,
    decisions,
    judge,
    judge_chances,
    mean_of_blocks,
    observed_utility,
)
from adaptive_split.agents.sac import UNKNOWN
from adaptive_split.planner import BacklogPrices
from adaptive_split.runtime.controller import ForecastController, forecast
from adaptive_split.runtime.records import read_records
from tests import support
from tests.recorded import record

TABLE = support.table()
PRICES = BacklogPrices(device=0.2, uplink=0.05)
PLANNER = ForecastController(TABLE, support.weights(), PRICES)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Records of the untrained controller, which is the planner."""
    path = tmp_path_factory.mktemp("records") / "run.jsonl"
    streams = [support.stream(60, seed=seed) for seed in range(10)]
    record(path, TABLE, PLANNER, streams, PRICES)
    return path


@pytest.fixture(scope="module")
def log(place):
    return read_logs([place], TABLE)


@pytest.fixture(scope="module")
def labels(log):
    return payload_on_time(log, TABLE)


@pytest.mark.parametrize("guard", [None, 2])
def test_a_controller_decides_on_records_what_it_decided_when_they_were_made(tmp_path, guard):
    controller = ForecastController(
        TABLE, support.weights(seed=1), PRICES, guard_candidate=guard, guard_margin=0.05
    )
    streams = [support.stream(60, seed=seed) for seed in range(5)]
    record(tmp_path / "run.jsonl", TABLE, controller, streams, PRICES)

    log = read_logs([tmp_path / "run.jsonl"], TABLE)

    assert len(set(log.candidate)) > 3
    assert (decisions(controller, log) == log.candidate).mean() > 0.995


def test_the_observed_utility_is_the_recorded_one_without_the_luck_of_the_picture(log, place):
    recorded = np.array([row.report.utility for row in read_records(place)])

    observed = observed_utility(log, TABLE)

    assert abs(observed.mean() - recorded.mean()) < 0.04
    assert observed.std() < 0.8 * recorded.std()


def test_a_policy_that_decides_as_recorded_gets_what_was_observed(log, labels):
    judged = judge(log, labels, PLANNER, PLANNER)

    assert judged.agreement == 1
    assert (judged.gain.low, judged.gain.value, judged.gain.high) == (0, 0, 0)
    # Backlog prices are taken off: they stand for what later frames lose.
    assert 0 <= observed_utility(log, TABLE).mean() - judged.old.value < 0.2


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_policy_of_random_weights_is_seen_to_be_worse(log, labels, seed):
    wild = ForecastController(TABLE, support.weights(seed=seed), PRICES)

    judged = judge(log, labels, PLANNER, wild)

    assert judged.gain.value < -LOG_SLACK


def test_the_judge_believes_labels_and_corrects_a_forecast_that_is_off(log, labels):
    usual = support.weights()
    bold = replace(usual, forecast=(*usual.forecast[:-1], np.array([2.0], np.float32)))
    seen = log.parts(TABLE)[:2]

    chance, corrected = (judge_chances(log, TABLE, labels, each) for each in (usual, bold))

    known = labels != UNKNOWN
    np.testing.assert_array_equal(corrected[known], labels[known])
    gap = np.abs(forecast(bold, *seen) - forecast(usual, *seen))[~known].mean()
    assert np.abs(corrected - chance)[~known].mean() < 0.3 * gap


def test_blocks_lie_within_runs_and_have_neighbors_in_them(log):
    block = blocks_of(log)

    assert set(np.diff(block)) == {0, 1}
    assert all(len(set(log.run[block == one])) == 1 for one in np.unique(block))
    assert 10 <= block.max() + 1 <= 60


def test_the_interval_of_correlated_frames_is_wider_than_that_of_independent_ones():
    generator = np.random.default_rng(0)
    block = np.repeat(np.arange(30), 20)
    alike = np.repeat(generator.normal(size=30), 20)
    apart = generator.permutation(alike)

    wide, narrow = mean_of_blocks(alike, block), mean_of_blocks(apart, block)

    assert wide.value == pytest.approx(narrow.value)
    assert wide.low < wide.value < wide.high
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)
