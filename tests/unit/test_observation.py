"""The observation: in its space whatever happens, and the same from a situation as in batch."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptive_split import observation
from adaptive_split.envs.split_env import SplitEnv
from adaptive_split.objective import Objective
from adaptive_split.observation import bounds, flat_size, observe
from adaptive_split.planner import BacklogPrices
from adaptive_split.runtime.live_controller import moment_of
from adaptive_split.runtime.simulated.backend import SimulatorBackend
from adaptive_split.runtime.simulated.simulator import Simulator
from tests import support

pytestmark = pytest.mark.slow

PRICES = BacklogPrices()


def assert_in_space(table, view):
    low, high = bounds(table)
    flat = view.flat()
    assert flat.shape == (len(view.context), flat_size(table))
    assert flat.dtype == np.float32
    assert (flat >= low).all()
    assert (flat <= high).all()


@settings(max_examples=10)
@given(st.integers(0, 1000), st.sampled_from([0.05, 0.2, 1.0]), st.sampled_from([4.0, 20.0]))
def test_every_observation_of_a_random_run_is_in_its_space(seed, slo_s, fps):
    table = support.table(Objective(slo_s=slo_s, fps=fps))
    simulator = Simulator(table, [support.stream(30, seed + lane, fps=fps) for lane in range(4)])
    generator = np.random.default_rng(seed)

    while not simulator.done.all():
        assert_in_space(table, observe(table, simulator.moment(), PRICES))
        simulator.step(generator.integers(0, len(table.grid), 4))


@given(
    st.fixed_dictionaries(
        {
            "slack_s": st.floats(-5, 5),
            "gap_s": st.floats(-5, 5),
            "waiting": st.floats(0, 100),
            "uplink_busy_s": st.floats(0, 1e4),
            "unanswered_s": st.floats(0, 1e4),
            "unanswered_bytes": st.floats(0, 1e9),
            "device_slowdown": st.floats(0.01, 1000),
            "server_usable": st.booleans(),
            "sample_mbps": st.floats(0.01, 2000),
            "sample_rtt_s": st.floats(0, 1e3),
            "mission_ratio": st.floats(0, 1e6),
            "energy_price": st.floats(0, 10),
        }
    ),
    st.integers(0, 16),
)
def test_an_observation_of_the_oddest_moment_is_in_its_space(values, samples):
    table = support.table()
    known = np.arange(16) < samples
    for name in ("sample_mbps", "sample_rtt_s"):
        values[name] = np.where(known, values[name], np.nan)
    moment = support.moment(samples=samples, **values)

    assert_in_space(table, observe(table, moment, PRICES))


@settings(max_examples=10)
@given(st.integers(0, 1000), st.sampled_from([0.1, 0.2, 0.45]), st.sampled_from([10.0, 30.0]))
def test_a_situation_says_what_the_simulator_knows(seed, slo_s, fps):
    table = support.table(Objective(slo_s=slo_s, fps=fps), device=support.profile(1.000713))

    def draw(seed):
        stream = support.stream(40, seed, fps=fps)
        return replace(stream, device_slowdown=1.3, server_slowdown=2.0)

    backend = SimulatorBackend(table, draw)
    generator = np.random.default_rng(seed)
    situation, done = backend.reset(seed), False

    while not done:
        ours, theirs = moment_of(situation, table), backend.moment()
        for name in ours.__slots__:
            np.testing.assert_allclose(
                getattr(ours, name), getattr(theirs, name), atol=1e-9, err_msg=name
            )
        decision = table.grid.candidates[generator.integers(len(table.grid))]
        situation, _, done = backend.step(decision)


def test_the_first_payload_column_is_the_log_odds_of_the_planned_chance():
    table = support.table()
    view = observe(table, support.moment(lanes=5), PRICES)

    chance = support.on_time(table, view)
    odds = np.log(np.clip(chance, 1e-9, 1) / np.clip(1 - chance, 1e-9, 1))

    np.testing.assert_allclose(view.payloads[..., 0], np.clip(odds, -5, 5), atol=1e-6)


def test_the_environment_page_lists_every_column():
    page = SplitEnv.__doc__
    groups = (observation.CONTEXT, observation.PAYLOAD_COLUMNS, observation.CANDIDATE_COLUMNS)

    for column in (column for group in groups for column in group):
        parts = column.name.rsplit("_", 1)
        assert f"`{column.name}`" in page or f"`_{parts[1]}`" in page or "_mean_" in column.name
