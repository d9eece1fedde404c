"""Slowdowns, prices, batteries and heat, lane by lane."""

from dataclasses import replace

import numpy as np
import pytest

from adaptive_split.decision import NEVER, Decision
from adaptive_split.errors import ConfigError
from adaptive_split.planner import BacklogPrices, link_pairs, read_link, utility_terms
from adaptive_split.runtime.controller import DistributionPlanner, PlannerSettings
from adaptive_split.runtime.simulated.backend import SimulatorBackend
from adaptive_split.runtime.simulated.power import Heat
from adaptive_split.runtime.simulated.simulator import Simulator
from adaptive_split.scenario import Battery, Thermal, load_scenario
from tests import support

LOCAL = support.GRID.index(Decision(3, NEVER, 0))
THERMAL = Thermal(
    ambient_c=25.0, resistance_c_per_w=10.0, time_constant_s=2.0, throttle_at_c=45.0,
    resume_below_c=35.0, slowdown=2.0,
)  # fmt: skip


def play(simulator, candidate=LOCAL):
    steps, moments = [], []
    while not simulator.done.all():
        moments.append(simulator.moment())
        steps.append(simulator.step(np.full(simulator.lanes, candidate)))
    return steps, moments


def test_a_slow_lane_takes_longer_and_as_much_more_energy():
    table = support.table()
    streams = [replace(support.stream(20), device_slowdown=factor) for factor in (1.0, 1.5)]
    simulator = Simulator(table, streams)

    slowdown, step = simulator.moment().device_slowdown, simulator.step(np.full(2, LOCAL))

    np.testing.assert_array_equal(slowdown, [1.0, 1.5])
    assert step.head_s[1] == pytest.approx(1.5 * step.head_s[0])
    assert step.energy_j[1] == pytest.approx(1.5 * step.energy_j[0])


def test_a_slow_server_answers_later_and_says_so():
    table = support.table()
    streams = [replace(support.stream(20), server_slowdown=factor) for factor in (1.0, 3.0)]
    for stream in streams:
        stream.uplink_mbps[:], stream.rtt_s[:], stream.server_wait_s[:] = 20.0, 0.02, 0.0
    simulator = Simulator(table, streams)
    picture = np.zeros(2, int)

    step = simulator.step(picture)

    assert step.by_server.all()
    assert step.tail_s[1] == pytest.approx(3 * step.tail_s[0])
    np.testing.assert_array_equal(simulator.moment().sample_slowdown[:, 0], [1.0, 3.0])


def test_the_price_in_force_decides_and_that_of_the_stream_is_scored():
    table = support.table()
    streams = [replace(support.stream(20), energy_price=0.2), support.stream(20)]
    simulator = Simulator(table, streams)
    np.testing.assert_array_equal(simulator.moment().energy_price, [0.2, 0.05])
    simulator.energy_price[:] = 50.0

    moment = simulator.moment()
    choice = DistributionPlanner(table, PlannerSettings()).choose(moment)
    step = simulator.step(np.full(2, LOCAL))

    np.testing.assert_array_equal(moment.energy_price, 50.0)
    assert (table.grid.split_point[choice] < 3).all()
    np.testing.assert_allclose(step.utility, step.correct - [0.2, 0.05] * step.energy_j)


def test_a_lane_of_another_price_expects_what_a_table_of_that_price_would():
    dear = support.table(replace(support.table().objective, energy_price=0.4))
    moment = support.moment(lanes=30)

    def terms(table, moment):
        readings = read_link(table, moment, *link_pairs(moment))
        return utility_terms(table, moment, BacklogPrices(), readings)

    asked = terms(support.table(), replace(moment, energy_price=np.full(30, 0.4)))

    np.testing.assert_array_equal(
        asked, terms(dear, replace(moment, energy_price=np.full(30, 0.4)))
    )
    assert (asked[0] < terms(support.table(), moment)[0]).any()


def test_the_charge_falls_by_the_frames_and_by_time():
    battery = Battery(capacity_j=50.0, idle_w=0.5, start_soc=0.8)
    simulator = Simulator(support.table(), [support.stream(60)], battery=battery)

    steps, moments = play(simulator)

    used_j = sum(step.energy_j[0] for step in steps[:-1])
    left = 0.8 - (used_j + 0.5 * steps[-1].start_s[0]) / 50.0
    assert moments[-1].soc[0] == pytest.approx(left)
    halfway = moments[len(moments) // 2]
    share_left = 1 - steps[len(moments) // 2].start_s[0] / 3.0
    assert halfway.mission_ratio[0] == pytest.approx(halfway.soc[0] / share_left)
    assert moments[0].soc[0] == moments[0].mission_ratio[0] == 0.8


def test_an_empty_battery_ends_the_lane_and_no_other():
    battery = Battery(capacity_j=2.0, idle_w=0.0)
    streams = [replace(support.stream(60), device_slowdown=slow) for slow in (1.0, 1e-3)]
    simulator = Simulator(support.table(), streams, battery=battery)

    steps, _ = play(simulator)

    started = np.sum([step.active for step in steps], 0)
    used_j = sum(step.energy_j[0] * step.active[0] for step in steps)
    assert started[0] < started[1] == 60
    # The frame that empties it is finished.
    assert 2.0 <= used_j < 2.0 + steps[0].energy_j[0] + 1e-9
    assert not any(step.utility[0] for step in steps[started[0] :])


def test_frames_after_an_empty_battery_settle_as_dropped():
    backend = SimulatorBackend(
        support.table(), lambda seed: support.stream(30, seed),
        battery=Battery(capacity_j=1.0, idle_w=0.0),
    )  # fmt: skip
    backend.reset(0)
    settled, done = [], False

    while not done:
        _, reports, done = backend.step(support.GRID.candidates[LOCAL])
        settled += reports

    dropped = [report for report in settled if report.fallback_reason == "dropped"]
    assert sorted(report.frame_index for report in settled) == list(range(30))
    assert max(report.frame_index for report in dropped) == 29


def test_the_temperature_goes_to_that_of_the_mean_power_and_throttles_with_a_memory():
    heat, now = Heat(THERMAL, 1, compute_w=4.0), 0.0
    factors = []
    for busy_share in [1.0] * 20 + [0.0] * 20:
        now += 0.2
        heat.busy_s[:] = 0.2 * busy_share
        factors.append(heat.throttling(np.array([now]))[0])

    # Up: 25 + 40 (1 - exp(-t / 2)) passes 45 at t = 2 ln 2 = 1.386 s. It is 59.6 at t = 4 s;
    # down: 25 + 34.6 exp(-t / 2) passes 35 at t = 2.48 s.
    assert factors == [1.0] * 6 + [2.0] * (14 + 12) + [1.0] * 8


def test_a_device_that_works_hard_throttles_and_one_that_rests_does_not():
    table = support.table()
    streams = [replace(support.stream(100), device_slowdown=slow) for slow in (1.0, 0.05)]
    simulator = Simulator(table, streams, thermal=THERMAL)

    _, moments = play(simulator)

    assert moments[0].device_slowdown[0] == 1.0
    assert moments[-1].device_slowdown[0] == 2.0
    assert {moment.device_slowdown[1] for moment in moments} == {0.05}


def test_lanes_start_again_with_a_full_battery_and_a_cool_device():
    knobs = {"battery": Battery(capacity_j=30.0, idle_w=0.1), "thermal": THERMAL}
    streams = [replace(support.stream(60, seed), energy_price=0.3) for seed in range(2)]
    fresh = replace(support.stream(60, 7), device_slowdown=0.8)
    replaced, alone = (Simulator(support.table(), s, **knobs) for s in (streams, [fresh]))
    step = [replaced.step(np.full(2, LOCAL)) for _ in range(25)][-1]
    before = step.start_s.copy()

    replaced.replace(np.array([1]), [fresh])

    np.testing.assert_array_equal(step.start_s, before)
    for _ in range(30):
        ours, new = replaced.moment(), alone.moment()
        for name in ours.__slots__:
            np.testing.assert_array_equal(getattr(ours, name)[1:], getattr(new, name))
        assert replaced.step(np.full(2, LOCAL)).utility[1] == alone.step([LOCAL]).utility[0]


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        (Battery(capacity_j=1, idle_w=0), {"capacity_j": 0.0}, "capacity_j must be positive"),
        (Battery(capacity_j=1, idle_w=0), {"idle_w": -1.0}, "idle_w must be 0 or more; got -1"),
        (Battery(capacity_j=1, idle_w=0), {"start_soc": 2.0}, r"start_soc must lie in \(0, 1\]"),
        (THERMAL, {"time_constant_s": 0.0}, "time_constant_s must be positive; got 0"),
        (THERMAL, {"slowdown": 0.5}, "slowdown must be 1 or more; got 0.5"),
        (THERMAL, {"resume_below_c": 50.0}, "temperatures must ascend: ambient_c.*25.0, 50.0, 45"),
        (support.stream(5), {"device_slowdown": 0.0}, "device_slowdown must be positive; got 0"),
        (
            support.stream(5),
            {"energy_price": -1.0},
            "energy_price must be 0 or more, in 1/J; got -1",
        ),
    ],
)
def test_what_cannot_be_is_refused(kind, change, message):
    with pytest.raises(ConfigError, match=message):
        replace(kind, **change)


def test_a_scenario_may_hold_a_battery_and_heat(tmp_path):
    support.write_toy_bundle(tmp_path / "toy")
    text = 'bundle = "toy"\n[grid]\nthresholds = [0.4, 1.0]\nbits = [1, 8]\n'
    plain, powered = tmp_path / "plain.toml", tmp_path / "powered.toml"
    plain.write_text(text)
    powered.write_text(
        text + "[battery]\ncapacity_j = 100\nidle_w = 0.5\n[thermal]\nambient_c = 25\n"
        "resistance_c_per_w = 10\ntime_constant_s = 30\nthrottle_at_c = 60\nresume_below_c = 50\n"
        "slowdown = 1.5\n"
    )

    neither, both = load_scenario(str(plain)), load_scenario(str(powered))

    assert (neither.battery, neither.thermal) == (None, None)
    assert both.battery == Battery(capacity_j=100, idle_w=0.5)
    assert (both.thermal.throttle_at_c, both.thermal.slowdown) == (60, 1.5)
    assert "not measured" in both.thermal.source


def test_a_battery_without_its_size_is_refused_with_its_file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[battery]\nidle_w = 0.5\n")

    with pytest.raises(ConfigError, match=r"mine.toml: \[battery\] .*capacity_j"):
        load_scenario(str(path))
