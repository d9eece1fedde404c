"""The published rules and systems that need no new networks, against hand-made cases."""

from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from adaptive_split.agents.rules import LinkKnobs
from adaptive_split.bundle import ModelBundle, bundle_path
from adaptive_split.errors import ConfigError
from adaptive_split.outcomes import Outcomes
from adaptive_split.scenario import load_scenario
from adaptive_split.server_load import SERVICES
from experiments.systems import (
    aecnn,
    common,
    dynamic_split,
    dyno,
    fluid_batching,
    neurosurgeon,
    rules,
    spinn,
    table,
)
from tests import support

GARMENTS = ModelBundle.load(bundle_path("garments"))
MINE = ("aecnn", "dynamic_split", "dyno", "fluid_batching", "neurosurgeon", "spinn")
FINDING = common.Finding(
    system="S", paper="P", claim="C", command="c", measured="M", verdict="partly", sentence="s",
)  # fmt: skip


@pytest.fixture(scope="module")
def outcomes():
    return Outcomes.load(GARMENTS.path / "outcomes_policy.npz").plain()


@pytest.mark.parametrize("name", MINE)
def test_a_system_has_a_finding_and_a_figure_that_stands_alone(name):
    finding = common.load_finding(name)
    figure = common.figure_path(name).read_text(encoding="utf-8")

    assert finding.command == f"python -m experiments.systems.{name}"
    assert name in table.NAMES
    assert ElementTree.fromstring(figure).tag == "{http://www.w3.org/2000/svg}svg"


def test_the_page_shows_every_system_as_it_was_measured():
    page = table.PAGE.read_text(encoding="utf-8")

    assert [name for name in table.NAMES if common.load_finding(name).row not in page] == []
    assert [name for name in table.NAMES if common.figure_path(name).name not in page] == []


def test_the_table_replaces_what_is_between_the_marks_alone(tmp_path):
    page = tmp_path / "PAGE.md"
    page.write_text(f"above\n{table.BEGIN}\nold\n{table.END}\nbelow\n", encoding="utf-8")

    for _ in range(2):
        table.write_between(page, table.markdown([FINDING]))

    lines = page.read_text(encoding="utf-8").splitlines()
    assert (lines[0], lines[-1]) == ("above", "below")
    assert lines[2:-2] == table.markdown([FINDING]).splitlines()


@pytest.mark.parametrize("text", ["", table.BEGIN, f"{table.END}{table.BEGIN}", table.BEGIN * 2])
def test_a_page_without_its_marks_is_refused_and_kept(tmp_path, text):
    page = tmp_path / "PAGE.md"
    page.write_text(text, encoding="utf-8")

    with pytest.raises(ConfigError, match="must hold the lines"):
        table.write_between(page, "new")
    assert page.read_text(encoding="utf-8") == text


def test_the_smallest_payload_that_loses_little_is_picked(outcomes):
    change, size = aecnn.gained(outcomes).mean(0), outcomes.payload_bytes.mean(0)

    column = aecnn.pick(outcomes, [1, 2, 3, 4], 0.03)

    smaller = [
        at for at, (split, _) in enumerate(outcomes.payloads) if split and size[at] < size[column]
    ]
    assert change[column] >= -0.03
    assert all(change[at] < -0.03 for at in smaller)


def test_where_every_payload_loses_too_much_the_most_accurate_is_picked(outcomes):
    change = aecnn.gained(outcomes).mean(0)
    members = [at for at, (split, _) in enumerate(outcomes.payloads) if split == 1]

    assert aecnn.pick(outcomes, [1], -1.0) == max(members, key=lambda at: change[at])


def test_a_feature_takes_four_bytes_an_element():
    assert aecnn.feature_bytes(GARMENTS, 4) == 4 * 128 * 14 * 14


def test_a_pipeline_is_as_fast_as_its_slowest_part():
    way = dyno.Way(1, 8, device_s=0.02, request_bytes=2500.0, server_s=0.01)

    assert way.fps(1.0) == pytest.approx(50.0)  # 20 ms of both device and uplink
    assert way.fps(0.5) == pytest.approx(25.0)
    assert way.fps(100.0) == pytest.approx(50.0)


def test_the_joint_choice_is_never_slower_than_its_own_parts():
    scenario, config = (
        load_scenario("nano-light-10fps-100ms"),
        dyno.DynoConfig(rates_mbps=(0.1, 5.0)),
    )

    found = dyno.sweep(scenario, config)

    assert (dyno.gain(found, dyno.DEVICE_ONLY) >= 1).all()
    allowed = [scenario.grid.payloads[at] for at in dyno.accurate(scenario, config.most_lost)]
    stages = scenario.grid.num_stages
    assert all(tuple(one) in [*allowed, (stages, 0)] for one in found["chosen"])


def test_the_best_split_is_the_least_sum_of_head_upload_and_tail():
    options = [
        dynamic_split.Option("picture", 0.0, 100_000.0, 0.01),
        dynamic_split.Option("bottleneck", 0.05, 10_000.0, 0.005),
        dynamic_split.Option("local", 0.1, 0.0, 0.0),
    ]
    config = dynamic_split.DynamicSplitConfig(rates_mbps=(1.0, 4.0, 100.0))

    found = dynamic_split.sweep(options, 1, config)

    np.testing.assert_allclose(found.latency_s[:, 1], [0.21, 0.075, 0.1])
    assert found.best == [2, 1, 0]
    assert found.switches(config.rates_mbps) == [(4.0, "bottleneck"), (100.0, "picture")]
    assert found.fixed_optimal() == pytest.approx(1 / 3)
    assert found.fixed_slower() > 0


def test_a_batch_takes_what_one_more_costs():
    options = [dynamic_split.Option("split", 0.1, 1000.0, 0.2)]
    config = dynamic_split.DynamicSplitConfig(rates_mbps=(1.0,), device_more=0.5, server_more=0.1)

    found = dynamic_split.sweep(options, 3, config)

    assert found.latency_s[0, 0] == pytest.approx(0.1 * 2 + 0.2 * 1.2 + 3 * 0.008)


def test_natural_bottlenecks_of_a_profile_are_smaller_than_the_picture():
    options = dynamic_split.profiled("default")

    first, *inner, last = options
    assert (first.head_s, last.sent_bytes, last.tail_s) == (0.0, 0.0, 0.0)
    assert all(0 < one.sent_bytes < first.sent_bytes for one in inner)
    assert [one.head_s for one in options] == sorted(one.head_s for one in options)


@pytest.mark.parametrize(("rate", "local"), [(0.05, True), (40.0, False)])
def test_least_energy_sends_where_that_is_cheaper_than_computing(rate, local):
    toy = support.table()
    link = {"sample_mbps": rate, "sample_rtt_s": 0.02, "sample_wait_s": 0.0}
    moment = support.moment(slack_s=0.2, gap_s=0.05, **link)

    [chosen] = neurosurgeon.LeastEnergy(toy, LinkKnobs()).choose(moment)

    assert bool(toy.grid.local[chosen]) is local


def test_alone_no_early_exit_costs_time_and_no_request_waits():
    given, config = load_scenario("default"), neurosurgeon.NeurosurgeonConfig()

    scenario = neurosurgeon.one_at_a_time(given, config)

    whole_s = sum(given.device.stage_s) + given.device.exit_s[-1]
    assert scenario.device.full_s == pytest.approx(whole_s)
    assert scenario.objective.fps * whole_s < 0.1


def test_a_frames_rate_is_that_of_its_moment():
    stream = support.stream(num_frames=20, fps=5.0)

    [rates] = rules.rates_of([stream], fps=5.0)

    np.testing.assert_array_equal(rates, stream.uplink_mbps[0:40:2])


def test_every_rate_inside_falls_into_one_bin():
    rate = np.geomspace(0.5, 7.9, 40)

    middles, inside = rules.rate_bins(rate, 0.5, 8.0, 4)

    np.testing.assert_array_equal(np.sum(inside, axis=0), 1)
    np.testing.assert_allclose(middles[1:] / middles[:-1], 2.0)


def played(**means):
    """One scenario of two streams."""
    columns = {
        name: {measure: np.full(2, float(value)) for measure in rules.MEASURES}
        for name, value in means.items()
    }
    correct = {name: np.full((2, 4), float(value)) for name, value in means.items()}
    boot = rules.Bootstrap(["f", "f"], ["a", "b"])
    return rules.Played(boot, columns, np.full((2, 4), 1.0), correct)


def test_who_is_ahead_is_told_scenario_by_scenario():
    scenarios = {"A": played(x=0.6, y=0.5), "B": played(x=0.4, y=0.5)}

    assert rules.tally(scenarios, "x", "y") == "+0.000 (ahead in 1, behind in 1 of 2)"


def test_what_exits_bring_is_counted_against_the_rule_without_them():
    found = spinn.gains({"A": played(spinn=0.6, neurosurgeon=0.5)})["A"]

    assert found["throughput"] == pytest.approx(1.2)
    assert found["server"] == pytest.approx(0.5 / 0.6)
    assert found["points"] == pytest.approx(10.0)


def test_below_the_capacity_everybody_is_in_time_with_steady_arrivals():
    config = replace(fluid_batching.FluidConfig(), loads=(0.2,), seeds=1, seconds=3.0)

    capacity, found = fluid_batching.play_loads(config)

    assert capacity > 50
    assert found["conv", 0.2, fluid_batching.OURS]["on_time_share"] > 0.95
    ratios = fluid_batching.ratios(found, 0.2, fluid_batching.BATCHING)
    assert set(ratios) == {
        f"{service} {measure}" for service in SERVICES for measure in ("on_time", "latency")
    }
