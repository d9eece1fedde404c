"""Comparing controllers: fair, paired, summed up without loss."""

import json

import numpy as np
import pytest

from adaptive_split.agents.compare import CompareConfig, compare
from adaptive_split.agents.frames import CAUSES, frames_of_reports
from adaptive_split.agents.hindsight import static_values
from adaptive_split.agents.intervals import Bootstrap
from adaptive_split.agents.record_tables import Origin, read_frame_records, write_frames
from adaptive_split.agents.rivals import knobs_of
from adaptive_split.agents.roster import make_policy, static_candidate
from adaptive_split.agents.summary import summarize
from adaptive_split.agents.timeline import timeline_of
from adaptive_split.decision import NEVER, Decision
from adaptive_split.errors import BundleError, ConfigError
from adaptive_split.planner import BacklogPrices
from adaptive_split.runtime.controller_bundle import ControllerBundle
from tests import support

pytestmark = pytest.mark.slow

NAMES = (
    "sac", "distribution-planner", "two-arm", "two-arm-hindsight", "best-static", "oracle",
    "oracle-pictures", "static:0:1:8",
)  # fmt: skip
LATENCY_PARTS = ("wait_s", "head_s", "encode_s", "uplink_s", "server_wait_s", "tail_s",
                 "downlink_s", "fallback_s")  # fmt: skip


def learned(**changes):
    """A controller bundle that is the distribution planner, with a guard that never holds."""
    values = {
        "weights": support.weights(), "prices": BacklogPrices(), "guard_candidate": 0,
        "guard_margin": -100.0, "model_hash": support.HASH, "grid": support.GRID,
        "tuned": {"two-arm": {"below": 0, "above": 4, "threshold_mbps": 4.0}}, "provenance": {},
    }  # fmt: skip
    return ControllerBundle(**values | changes)


@pytest.fixture(scope="module")
def scenario(tmp_path_factory):
    return support.scenario(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def comparison(scenario):
    traces = [support.trace(seed, family) for seed, family in enumerate("aabb")]
    return compare(
        scenario, traces, CompareConfig(names=NAMES, num_seeds=2, per_family=2), learned()
    )


@pytest.fixture(scope="module")
def summary(comparison):
    return summarize(comparison, {})


def reports_of(comparison, name, folder):
    """Write a controller's frames and read them back."""
    path = folder / "frames.parquet"
    origins = [Origin(one.family, one.name, one.source, 0) for one in comparison.streams]
    write_frames(comparison.frames[name], origins, path)
    return [record.report for record in read_frame_records(path)]


def test_every_controller_plays_the_same_streams(comparison):
    shown = [frames.sample_index for frames in comparison.frames.values()]

    assert len(comparison.streams) == 2 * 2 * 2
    assert comparison.seeds == (0,) * 4 + (1,) * 4
    for samples in shown:
        np.testing.assert_array_equal(samples, shown[0])


def test_controllers_decide_without_the_pictures_they_are_judged_on(comparison, scenario):
    deciding, judging = scenario.outcomes("policy"), scenario.outcomes("judge")

    for name in ("sac", "distribution-planner", "oracle"):
        np.testing.assert_array_equal(
            comparison.policies[name].table.outcomes.label, deciding.label
        )
    knowing = comparison.policies["oracle-pictures"].table.outcomes
    np.testing.assert_array_equal(knowing.label, judging.label)


def test_what_is_lost_and_what_is_left_add_up_to_one(summary):
    for one in summary["controllers"].values():
        assert tuple(one["loss"]) == CAUSES
        assert one["utility"]["value"] + sum(one["loss"].values()) == pytest.approx(1, abs=1e-5)


def test_the_summary_has_the_keys_that_others_rely_on(summary):
    assert summary["scenario"] == "toy"
    assert tuple(summary["controllers"]) == NAMES
    one = summary["controllers"]["sac"]
    told = [one[name] for name in ("utility", "on_time_accuracy", "miss_rate", "payload_bytes",
                                   "energy_j", "switch_share", "gap_closed")]  # fmt: skip
    for estimate in (*told, *one["latency_s"].values()):
        assert estimate["low"] <= estimate["value"] <= estimate["high"]
    assert set(one["latency_s"]) == {"p50", "p95", "p99"}
    assert 0 <= one["on_time_accuracy"]["value"] <= 1 - one["miss_rate"]["value"] <= 1
    assert one["energy_provenance"] == "modelled"
    assert one["energy_j"]["value"] > 0
    assert one["battery_life_h"] is None
    assert len(one["per_seed"]) == 2
    assert set(summary["families"]) == {"a", "b"}
    assert tuple(summary["families"]["a"]["controllers"]) == NAMES
    assert "sac" not in summary["paired_difference"]
    json.dumps(summary, allow_nan=False)


def test_families_weigh_the_same(summary):
    for name, one in summary["controllers"].items():
        parts = [
            family["controllers"][name]["utility"]["value"]
            for family in summary["families"].values()
        ]
        assert one["utility"]["value"] == pytest.approx(np.mean(parts), abs=1e-5)


def test_an_untrained_controller_is_the_planner_but_for_its_clipped_chances(summary):
    difference = summary["paired_difference"]["distribution-planner"]

    assert difference["value"] == pytest.approx(0, abs=0.01)
    assert difference["low"] <= 0 <= difference["high"]


def test_the_best_static_decision_beats_every_other_on_these_streams(comparison, scenario):
    table = scenario.table("judge")

    values = static_values(table, comparison.streams, np.arange(len(table.grid)))

    best = comparison.policies["best-static"].candidate
    assert values[best] == pytest.approx(values.max())
    played = comparison.frames["best-static"].utility.mean()
    assert values[best] == pytest.approx(played)


def test_the_oracle_closes_its_own_gap(summary):
    closed = {name: one["gap_closed"]["value"] for name, one in summary["controllers"].items()}

    assert closed["best-static"] == 0
    assert closed["oracle"] == 1


def test_the_same_seeds_give_the_same_numbers(comparison, summary):
    again = compare(comparison.scenario, comparison.traces, comparison.config, learned())

    assert summarize(again, {}) == summary


def test_every_captured_frame_has_a_record_whose_parts_add_up(comparison, tmp_path):
    reports = reports_of(comparison, "two-arm", tmp_path)

    assert len(reports) == len(comparison.streams) * 40
    assert [report.frame_index for report in reports[:40]] == list(range(40))
    answered = [report for report in reports if report.latency_s is not None]
    assert answered
    for report in answered:
        parts = sum(getattr(report, name) for name in LATENCY_PARTS)
        assert parts == pytest.approx(report.latency_s, abs=1e-5)
    mean = np.mean([report.utility for report in reports])
    assert mean == pytest.approx(comparison.frames["two-arm"].utility.mean(), abs=1e-6)


def test_records_and_live_reports_are_summed_up_alike(comparison, tmp_path):
    reports = reports_of(comparison, "sac", tmp_path)

    live = frames_of_reports([reports[at : at + 40] for at in range(0, len(reports), 40)])

    simulated = comparison.frames["sac"]
    for name in ("started", "split_point", "by_server", "correct", "on_time", "fell_back"):
        np.testing.assert_array_equal(getattr(live, name), getattr(simulated, name), name)
    for cause, values in simulated.losses.items():
        np.testing.assert_allclose(live.losses[cause], values, atol=1e-5)


def test_the_timeline_shows_sac_beside_the_best_static_decision(comparison):
    timeline = timeline_of(comparison)

    assert list(timeline["controllers"]) == ["sac", "best-static"]
    assert len(timeline["controllers"]["sac"]["time_s"]) == 40
    assert timeline["source"] == "synthetic"


def test_the_rule_picked_in_hindsight_is_at_least_as_good_as_the_one_picked_in_training(summary):
    found = {name: one["utility"]["value"] for name, one in summary["controllers"].items()}

    assert found["two-arm-hindsight"] >= found["two-arm"]
    assert set(summary["settings"]["picked_in_hindsight"]) == {
        "two-arm-hindsight", "best-static", "oracle", "oracle-pictures",
    }  # fmt: skip


def test_knobs_found_for_want_of_any_are_used_and_named(scenario):
    found = {"two-arm": {"below": 0, "above": 4, "threshold_mbps": 4.0}}
    config = CompareConfig(names=("two-arm",), num_seeds=1, per_family=1)

    made = compare(scenario, [support.trace()], config, learned(tuned={}), found=found)

    assert made.policies["two-arm"].knobs.threshold_mbps == 4.0
    assert (
        "two-arm tuned on training traces for this"
        in summarize(made, {})["settings"]["planner_knobs"]
    )
    with pytest.raises(ConfigError, match="two-arm must be tuned"):
        compare(scenario, [support.trace()], config, learned(tuned={}))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("fastest",), r"a controller must be one of sac, .*got 'fastest'"),
        (("sac", "sac"), "must be named once each"),
        ((), "must be named once each"),
    ],
)
def test_a_comparison_of_unknown_or_repeated_names_is_refused(names, message):
    with pytest.raises(ConfigError, match=message):
        CompareConfig(names=names)


def test_sac_without_a_controller_bundle_is_refused(scenario):
    with pytest.raises(ConfigError, match="sac must have a controller bundle"):
        compare(scenario, [support.trace()], CompareConfig(names=("sac",)), None)


def test_a_controller_of_another_model_is_refused(scenario):
    other = learned(model_hash="b" * 64)

    with pytest.raises(BundleError, match="was trained with model bundle bbbb"):
        compare(scenario, [support.trace()], CompareConfig(names=("sac",)), other)


def test_planners_take_the_knobs_tuned_with_the_controller():
    tuned = {"two_window": {"device_price": 0.6, "rate_window": 2}}

    assert knobs_of("two-window-planner", tuned).rate_window == 2
    assert knobs_of("planner", tuned).rate_window == 16
    with pytest.raises(ConfigError, match="knobs of the planner must be its settings"):
        knobs_of("planner", {"planner": {"speed": 1}})


@pytest.mark.parametrize(
    ("name", "decision"),
    [
        ("local", Decision(3, NEVER, 0)),
        ("jpeg", Decision(0, NEVER, 8)),
        ("static:1:0.7:8", Decision(1, 0.7, 8)),
    ],
)
def test_a_fixed_decision_can_be_named(name, decision):
    assert support.GRID.candidates[static_candidate(name, support.table())] == decision


@pytest.mark.parametrize("name", ["static:1", "static:a:b:c", "static:1:0.123:8", "oracle"])
def test_a_decision_that_cannot_be_made_is_refused(name):
    with pytest.raises(ConfigError, match=r"static:K:T:B|on the grid|hindsight"):
        make_policy(name, support.table(), None)


def test_an_interval_widens_with_what_differs_between_files():
    families, files = ["a"] * 6, list("uuvvww")
    alike, apart = np.array([0, 1, 0, 1, 0, 1.0]), np.array([0, 0, 1, 1, 2, 2.0])

    bootstrap = Bootstrap(families, files)

    assert bootstrap.estimate(alike).low == bootstrap.estimate(alike).high == 0.5
    spread = bootstrap.estimate(apart)
    assert spread.low < 0.5 < spread.value < 1.5 < spread.high


def test_windows_stand_for_files_where_there_is_only_one():
    estimate = Bootstrap(["a"] * 4, ["u"] * 4).estimate(np.array([0, 1, 2, 3.0]))

    assert estimate.low < estimate.value < estimate.high


def test_a_ratio_over_nothing_is_not_told():
    bootstrap = Bootstrap(["a"] * 4, list("uvwx"))

    assert bootstrap.ratio(np.ones(4), np.array([1, -1, 1, -1.0])) is None
    assert bootstrap.ratio(np.ones(4), np.full(4, 2.0)).value == 0.5


def test_a_bootstrap_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="every stream must have family and file"):
        Bootstrap([], [])
