"""The columns of a comparison: exact where arithmetic can tell, an interval around each."""

from dataclasses import replace

import numpy as np
import pytest

from adaptive_split.agents.columns import Drain, columns_of, gap_closed
from adaptive_split.agents.frames import frames_of_reports
from adaptive_split.agents.intervals import Bootstrap, Estimate
from adaptive_split.cli.compare_tables import controller_tables
from adaptive_split.decision import Decision
from adaptive_split.measurement import FrameReport
from adaptive_split.scenario import Battery

NOTHING_KNOWN = Drain(10.0, None)


def frame(index, split_point=1, latency_s=0.1, energy_j=0.5):
    """A frame that was right; dropped where there is no split point, unanswered without latency."""
    decision = None if split_point is None else Decision(split_point, 1.0, 8)
    answered = latency_s is not None and decision is not None
    return FrameReport(
        frame_index=index, sample_index=0, arrival_s=index / 10, decision=decision,
        answer=1 if answered else None, answered_by="device" if answered else "",
        exit_index=1 if answered else None, confidence=0.9 if answered else None,
        correct=answered, on_time=answered, fallback_reason="",
        latency_s=latency_s if answered else None, energy_j=energy_j,
    )  # fmt: skip


def columns(runs, drain=NOTHING_KNOWN):
    """Columns of runs of frames, each on a trace of its own in one family."""
    count = len(runs)
    bootstrap = Bootstrap(["a"] * count, [str(index) for index in range(count)])
    members = np.arange(count)
    return columns_of(frames_of_reports(runs), bootstrap, members, np.zeros(count), drain)


def test_a_switch_is_a_split_point_that_differs_from_the_started_frame_before():
    steady = [frame(index) for index in range(5)]
    lively = [frame(index, split) for index, split in enumerate((1, 2, None, 2, 0))]

    found = columns([steady, lively])["switch_share"]

    assert found == {"value": pytest.approx(1 / 3, abs=1e-5), "low": 0.0,
                     "high": pytest.approx(2 / 3, abs=1e-5)}  # fmt: skip


def test_a_battery_lasts_its_capacity_over_the_mean_power():
    battery = Battery(capacity_j=72_000.0, idle_w=1.0, start_soc=0.5)
    runs = [[frame(0, energy_j=0.2), frame(1, energy_j=0.4)]]

    found = columns(runs, Drain(10.0, battery))["battery_life_h"]

    assert found["value"] == pytest.approx(72_000 / (0.3 * 10 + 1) / 3600)


def test_the_hungrier_the_shorter_a_charge_lasts():
    drain = Drain(10.0, Battery(capacity_j=3_600.0, idle_w=0.0))

    assert drain.life_h(Estimate(0.2, 0.1, 0.4)) == {"value": 0.5, "low": 0.25, "high": 1.0}


@pytest.mark.parametrize("drain", [NOTHING_KNOWN, Drain(10.0, Battery(capacity_j=1.0, idle_w=0.0))])
def test_a_life_that_nobody_can_tell_is_unknown(drain):
    found = columns([[frame(0, energy_j=0.0)]], drain)

    assert found["battery_life_h"] is None


def test_latencies_are_those_of_the_answered_frames():
    runs = [[frame(0, latency_s=0.1), frame(1, latency_s=0.3), frame(2, latency_s=None)]] * 3

    found = columns(runs)["latency_s"]["p50"]

    assert found["value"] == pytest.approx(0.2)
    assert 0.1 <= found["low"] <= found["value"] <= found["high"] <= 0.3


def test_without_an_answer_there_is_no_latency():
    found = columns([[frame(0, latency_s=None), frame(1, None)]])

    assert found["latency_s"] == {"p50": None, "p95": None, "p99": None}
    assert found["latency_percentiles_s"] == []


def test_the_interval_of_a_percentile_widens_with_what_differs_between_files():
    generator = np.random.default_rng(0)
    alike = generator.uniform(0, 1, (8, 500))
    apart = alike + np.arange(8)[:, None]
    bootstrap = Bootstrap(["a"] * 8, list("stuvwxyz"))

    [narrow], [wide] = (bootstrap.percentiles(values, (50.0,)) for values in (alike, apart))

    assert narrow.low < 0.5 < narrow.high
    assert narrow.high - narrow.low < 0.1
    assert wide.high - wide.low > 1


def test_the_gap_is_not_told_without_both_of_its_ends():
    bootstrap = Bootstrap(["a"] * 3, list("xyz"))
    utility = {"sac": np.ones(3), "best-static": np.zeros(3)}

    assert gap_closed(utility, bootstrap) == {"sac": None, "best-static": None}
    found = gap_closed(utility | {"oracle": np.full(3, 4.0)}, bootstrap)
    assert found["sac"] == {"value": 0.25, "low": 0.25, "high": 0.25}


def test_the_best_controller_comes_first_with_an_interval_for_every_number():
    numbers = columns([[frame(0), frame(1)], [frame(0), frame(1, 2)]]) | {"gap_closed": None}
    worse = numbers | {"utility": {"value": -0.25, "low": -0.5, "high": 0.1}}

    lines = controller_tables({"worse": worse, "better": numbers}).splitlines()

    assert [line.split()[0] for line in lines if line.startswith(("worse", "better"))] == [
        "better", "worse", "better", "worse",
    ]  # fmt: skip
    assert "-0.2500  -0.5000 to 0.1000" in lines[3]
    assert lines[2].endswith("50.0  0.0-100.0")
    assert lines[-2].endswith("unknown")
    assert lines[-1] == "95 % intervals; energy: modelled"


def test_columns_of_some_streams_leave_the_others_out():
    runs = [[frame(0, latency_s=0.1)], [frame(0, latency_s=0.9)]]
    frames = frames_of_reports([[replace(one, utility=one.latency_s) for one in run]
                                for run in runs])  # fmt: skip

    found = columns_of(frames, Bootstrap(["a"], ["x"]), [1], np.zeros(2), NOTHING_KNOWN)

    assert found["utility"]["value"] == found["latency_s"]["p99"]["value"] == 0.9
