"""The batched simulator against a slow and obvious one, and what must hold for every frame."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptive_split.candidates import MARGIN_S
from adaptive_split.decision import NEVER, Decision
from adaptive_split.errors import ConfigError
from adaptive_split.objective import Objective
from adaptive_split.planner import BacklogPrices
from adaptive_split.runtime.simulated.simulator import Simulator
from adaptive_split.scenario import Battery, Thermal
from tests import support
from tests.unit.reference_simulator import ReferenceDevice

pytestmark = pytest.mark.slow

REASONS = {"": 0, "late": 1, "unsent": 2}
CASES = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 10_000),
        "static": st.booleans(),
        "slo_s": st.sampled_from([0.06, 0.1, 0.2, 0.45]),
        "fps": st.sampled_from([4.0, 10.0, 20.0, 30.0]),
        "scale": st.sampled_from([0.2, 0.5, 1.0, 1.6]),
        "outages": st.booleans(),
        "probes": st.booleans(),
        "device_slowdown": st.sampled_from([1.0, 0.7, 1.9]),
        "server_slowdown": st.sampled_from([1.0, 4.0]),
        "energy_price": st.sampled_from([None, 0.3]),
    }
)
BATTERIES = st.none() | st.builds(
    Battery, capacity_j=st.sampled_from([3.0, 12.0, 100.0]), idle_w=st.sampled_from([0.0, 1.0]),
    start_soc=st.sampled_from([0.5, 1.0]),
)  # fmt: skip
THERMALS = st.none() | st.builds(
    Thermal, ambient_c=st.just(25.0), resistance_c_per_w=st.sampled_from([3.0, 8.0]),
    time_constant_s=st.sampled_from([0.05, 0.5]), throttle_at_c=st.just(33.0),
    resume_below_c=st.sampled_from([29.0, 33.0]), slowdown=st.sampled_from([1.3, 4.0]),
)  # fmt: skip


def world(case, num_lanes=2, num_frames=40):
    objective = Objective(slo_s=case["slo_s"], fps=case["fps"], byte_price=0.5)
    table = support.table(objective, device=support.profile(case["scale"] * 1.000713))
    given_values = {
        name: case[name]
        for name in ("device_slowdown", "server_slowdown", "energy_price")
        if name in case
    }
    streams = [
        replace(
            support.stream(num_frames, case["seed"] + i, outages=case["outages"], fps=case["fps"]),
            **given_values,
        )
        for i in range(num_lanes)
    ]
    generator = np.random.default_rng(case["seed"])
    shape = (num_lanes, 1 if case["static"] else num_frames)
    picks = np.broadcast_to(generator.integers(0, len(table.grid), shape), (num_lanes, num_frames))
    return table, streams, picks


def play(simulator, picks):
    """All steps, with the moments before them."""
    steps, moments = [], []
    while not simulator.done.all():
        moments.append(simulator.moment())
        steps.append(simulator.step(picks[simulator.lane, simulator.frame_index]))
    return steps, moments


def column(steps, name, lane):
    return np.array([getattr(step, name)[lane] for step in steps if step.active[lane]])


@settings(max_examples=80)
@given(CASES, BATTERIES, THERMALS)
def test_the_batch_does_what_one_frame_after_the_other_does(case, battery, thermal):
    table, streams, picks = world(case)
    # Lanes differ, so that none can borrow from another.
    streams[1] = replace(streams[1], device_slowdown=1.2, server_slowdown=0.5, energy_price=0.02)
    knobs = {"probes": case["probes"], "battery": battery, "thermal": thermal}
    simulator = Simulator(table, streams, **knobs)

    steps, _ = play(simulator, picks)

    for lane, stream in enumerate(streams):
        device = ReferenceDevice(table, stream, **knobs)
        frames = device.play(lambda frame, lane=lane: picks[lane, frame])
        for name in ("frame_index", "by_server", "exit_index", "on_time", "correct",
                     "payload_bytes"):  # fmt: skip
            expected = [frame[name] for frame in frames]
            np.testing.assert_array_equal(column(steps, name, lane), expected, err_msg=name)
        for name in ("start_s", "latency_s", "energy_j", "utility"):
            expected = [frame[name] for frame in frames]
            np.testing.assert_allclose(column(steps, name, lane), expected, rtol=0, atol=1e-6)
        reasons = [REASONS[frame["reason"]] for frame in frames]
        np.testing.assert_array_equal(column(steps, "fallback", lane), reasons)
        assert simulator.total_probe_bytes[lane] == device.probe_bytes
        started = {frame["frame_index"] for frame in frames}
        assert started | set(device.dropped) == set(range(stream.num_frames))


@settings(max_examples=12)
@given(CASES)
def test_every_frame_that_starts_is_answered_by_its_deadline(case):
    table, streams, picks = world(case)

    steps, _ = play(Simulator(table, streams), picks)

    for lane in range(len(streams)):
        assert column(steps, "on_time", lane).all()
        assert (column(steps, "latency_s", lane) <= case["slo_s"] + 1e-6).all()
        assert (column(steps, "latency_s", lane) > 0).all()


@settings(max_examples=12)
@given(CASES)
def test_the_parts_of_the_latency_add_up(case):
    table, streams, picks = world(case)
    names = ("wait_s", "head_s", "encode_s", "uplink_s", "server_wait_s", "tail_s", "downlink_s",
             "fallback_s")  # fmt: skip

    steps, _ = play(Simulator(table, streams), picks)

    for lane in range(len(streams)):
        parts = np.array([column(steps, name, lane) for name in names])
        assert (parts > -1e-9).all()
        np.testing.assert_allclose(parts.sum(0), column(steps, "latency_s", lane), atol=1e-9)


@settings(max_examples=12)
@given(CASES)
def test_utility_is_what_the_objective_says(case):
    table, streams, picks = world(case)
    objective = table.objective
    if case["energy_price"] is not None:
        objective = replace(objective, energy_price=case["energy_price"])

    steps, _ = play(Simulator(table, streams), picks)

    for lane in range(len(streams)):
        rows = zip(*(column(steps, n, lane) for n in ("correct", "energy_j", "payload_bytes")),
                   strict=True)  # fmt: skip
        expected = [
            objective.utility(correct_on_time=float(c), energy_j=e, payload_bytes=b)
            for c, e, b in rows
        ]
        np.testing.assert_allclose(column(steps, "utility", lane), expected, atol=1e-12)


@settings(max_examples=12)
@given(CASES)
def test_no_frame_starts_twice_or_before_its_capture(case):
    table, streams, picks = world(case)

    steps, _ = play(Simulator(table, streams), picks)

    for lane in range(len(streams)):
        frames, start = column(steps, "frame_index", lane), column(steps, "start_s", lane)
        assert len(set(frames)) == len(frames)
        assert (start >= frames / case["fps"] - 1e-9).all()
        assert (np.diff(start) > 0).all()


@settings(max_examples=12)
@given(CASES)
def test_the_uplink_is_first_in_first_out(case):
    table, streams, picks = world(case)
    simulator = Simulator(table, streams, probes=False)

    steps, _ = play(simulator, picks)

    for lane in range(len(streams)):
        sent = column(steps, "by_server", lane)
        ready = sum(column(steps, n, lane) for n in ("arrival_s", "wait_s", "head_s", "encode_s"))
        crossed = ready + column(steps, "uplink_s", lane) - column(steps, "downlink_s", lane)
        assert (np.diff(crossed[sent]) > -1e-9).all()


def test_equal_streams_give_equal_episodes():
    case = {"seed": 3, "static": False, "slo_s": 0.2, "fps": 20.0, "scale": 1.0, "outages": True}
    table, streams, picks = world(case)

    first, moments = play(Simulator(table, streams), picks)
    second, again = play(Simulator(table, streams), picks)

    for one, two in zip(first + moments, second + again, strict=True):
        for name in one.__slots__:
            np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


@pytest.mark.parametrize("lanes", [[0], [1, 2]])
def test_replaced_lanes_equal_a_fresh_simulator_and_the_rest_go_on(lanes):
    case = {"seed": 5, "static": False, "slo_s": 0.2, "fps": 20.0, "scale": 1.0, "outages": True}
    table, streams, picks = world(case, num_lanes=3)
    fresh = [support.stream(40, 50 + lane) for lane in lanes]
    replaced, untouched = Simulator(table, streams), Simulator(table, streams)
    for _ in range(15):
        for simulator in (replaced, untouched):
            simulator.step(picks[simulator.lane, simulator.frame_index])

    replaced.replace(np.array(lanes), fresh)

    alone = Simulator(table, fresh)
    for _ in range(15):
        ours, kept, new = (s.moment() for s in (replaced, untouched, alone))
        a = replaced.step(picks[replaced.lane, replaced.frame_index])
        b = untouched.step(picks[untouched.lane, untouched.frame_index])
        c = alone.step(picks[lanes, alone.frame_index])
        others = [lane for lane in range(3) if lane not in lanes]
        for name in ours.__slots__:
            np.testing.assert_allclose(getattr(ours, name)[others], getattr(kept, name)[others])
            np.testing.assert_allclose(getattr(ours, name)[lanes], getattr(new, name))
        for name in a.__slots__:
            np.testing.assert_allclose(getattr(a, name)[others], getattr(b, name)[others])
            np.testing.assert_allclose(getattr(a, name)[lanes], getattr(c, name))


@settings(max_examples=12)
@given(CASES)
def test_a_moment_tells_nothing_of_the_future(case):
    """Two links that are equal until now look equal now, whatever comes next."""
    table, streams, picks = world(case, num_lanes=1)
    moment_s = 20 / case["fps"]
    slot = int(moment_s / 0.1) + 1
    stream = streams[0]
    dark = replace(stream, uplink_mbps=stream.uplink_mbps.copy())
    dark.uplink_mbps[slot:] = 0.0
    bright, blind = (Simulator(table, [s], probes=case["probes"]) for s in (stream, dark))

    while not bright.done[0] and bright.start_s[0] < slot * 0.1:
        one, two = bright.moment(), blind.moment()
        for name in one.__slots__:
            np.testing.assert_allclose(getattr(one, name), getattr(two, name), err_msg=name)
        for simulator in (bright, blind):
            simulator.step(picks[simulator.lane, simulator.frame_index])
        if bright.start_s[0] != blind.start_s[0]:
            break


@settings(max_examples=12)
@given(CASES)
def test_a_counterfactual_is_what_would_have_happened(case):
    """With every payload of its mean size, the payload sent is on time just as foretold."""
    table, streams, picks = world(case)
    table.wire_bytes[:] = table.mean_bytes
    simulator = Simulator(table, streams, probes=case["probes"])

    while not simulator.done.all():
        foretold, _ = simulator.payload_on_time()
        candidate = picks[simulator.lane, simulator.frame_index]
        step = simulator.step(candidate)
        payload = table.grid.payload_index[candidate]
        sent = step.active & (step.payload_bytes > 0)
        np.testing.assert_array_equal(step.by_server[sent], foretold[simulator.lane, payload][sent])


def test_utility_may_be_expected_over_other_pictures_than_those_played():
    """Link, sizes and times are those played; right answers are those of the other table."""
    objective = Objective(slo_s=0.2, fps=20.0, energy_price=0.0)
    played, other = support.table(objective), support.table(objective, seed=1)
    simulator = Simulator(played, [support.stream(40, seed) for seed in range(20)])
    moment, nothing = simulator.moment(), BacklogPrices(device=0.0, uplink=0.0)
    on_time, _ = simulator.payload_on_time()

    found = simulator.true_utility(moment, nothing, other)

    picture = played.grid.index(Decision(0, NEVER, 8))
    local = played.grid.index(Decision(3, NEVER, 0))
    in_time = on_time[:, played.grid.payload_index[picture]]
    expected = np.where(in_time, other.server_right[picture], other.fallback_right[picture])
    assert 0 < in_time.sum() < 20
    np.testing.assert_allclose(found[:, picture], expected)
    np.testing.assert_allclose(found[:, local], other.outcomes.exit_right[:, 2].mean())
    default = simulator.true_utility(moment, nothing)
    np.testing.assert_array_equal(default, simulator.true_utility(moment, nothing, played))
    assert not np.allclose(default, found)


def test_a_picture_behind_a_dead_link_is_answered_by_the_first_exit_just_in_time():
    table = support.table()
    stream = support.stream(20)
    stream.uplink_mbps[:] = 0.0
    picture = np.array([0])
    assert table.grid.candidates[0].split_point == 0
    simulator = Simulator(table, [stream])

    first, second = simulator.step(picture), simulator.step(picture)

    assert first.latency_s[0] == pytest.approx(0.2 - MARGIN_S)
    assert first.exit_index[0] == 1
    assert first.fallback_s[0] > 0
    # the uplink is known to be taken: the next one is not even encoded
    assert second.fallback[0] == 2
    assert second.latency_s[0] == pytest.approx(table.head_s[1])
    assert second.payload_bytes[0] == 0


def test_a_simulator_needs_streams_of_one_length():
    table = support.table()

    with pytest.raises(ConfigError, match="at least one stream; got none"):
        Simulator(table, [])
    with pytest.raises(ConfigError, match="the same number of frames"):
        Simulator(table, [support.stream(20), support.stream(30)])
