"""The baseline-gap curriculum: what it remembers, what it draws, what the environment tells it."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from adaptive_split.envs.curriculum import Curriculum
from adaptive_split.envs.vector_env import TraceVectorEnv
from adaptive_split.errors import ConfigError
from adaptive_split.planner import combine
from adaptive_split.runtime.simulated.streams import StreamSource
from tests import support

TRACES = [support.trace(0, "a"), support.trace(1, "a"), support.trace(2, "b")]


@pytest.fixture
def source(tmp_path):
    scenario = support.scenario(tmp_path, num_frames=10)
    return StreamSource(scenario, support.outcomes(), TRACES)


@pytest.fixture
def scenario(tmp_path):
    return support.scenario(tmp_path, num_frames=10)


def noted(share, *gaps):
    """A curriculum that was told a gap of each of `TRACES`."""
    curriculum = Curriculum(share)
    for trace, gap in zip(TRACES, gaps, strict=True):
        curriculum.gap[trace.family, trace.name] = gap
    return curriculum


def names(draw, source, count=150):
    """How often each trace is drawn."""
    generator = np.random.default_rng(0)
    return Counter(draw(source, generator).name for _ in range(count))


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(ConfigError, match=rf"share must lie in \[0, 1\]; got {share}"):
        Curriculum(share)


def test_the_gap_of_a_trace_is_a_running_mean():
    curriculum, stream = Curriculum(0.5), support.stream(10)

    curriculum.note(stream, 0.2)
    first = dict(curriculum.gap)
    curriculum.note(stream, -0.1)

    assert first == {("toy", "toy"): 0.2}
    assert curriculum.gap["toy", "toy"] == pytest.approx(0.7 * 0.2 - 0.3 * 0.1)


def test_traces_of_one_name_in_two_families_are_two():
    curriculum, stream = Curriculum(0.5), support.stream(10)

    curriculum.note(stream, 0.2)
    curriculum.note(replace(stream, family="other"), 0.4)

    assert curriculum.gap == {("toy", "toy"): 0.2, ("other", "toy"): 0.4}


def test_traces_are_drawn_in_proportion_to_what_was_lost_on_them(source):
    drawn = names(noted(1.0, 0.3, -0.5, 0.1).draw, source)

    assert set(drawn) == {"toy-0", "toy-2"}
    assert drawn["toy-0"] / drawn["toy-2"] == pytest.approx(3.0, rel=0.4)


@pytest.mark.parametrize("gaps", [(0.0, -0.2, -0.1), ()])
def test_streams_are_drawn_evenly_over_families_where_nothing_is_lost(source, gaps):
    curriculum = noted(1.0, *gaps) if gaps else Curriculum(1.0)

    drawn = names(curriculum.draw, source)

    assert drawn["toy-2"] / 150 == pytest.approx(0.5, abs=0.12)
    assert drawn["toy-0"] / 150 == pytest.approx(0.25, abs=0.12)


def test_only_its_share_of_the_streams_follows_the_gap(source):
    drawn = names(noted(0.4, 1.0, 0.0, 0.0).draw, source)

    # The rest are drawn evenly over families, and so a quarter of it is this trace as well.
    assert drawn["toy-0"] / 150 == pytest.approx(0.4 + 0.6 / 4, abs=0.12)


def play(scenario, choose):
    """Lanes that go through two episodes; the gaps that they reported."""
    curriculum = Curriculum(0.0)
    env = TraceVectorEnv(scenario, TRACES, 3, curriculum=curriculum)
    env.reset(seed=0)
    for _ in range(20):
        env.step(choose(env))
    return curriculum.gap


def planned(env):
    """What the planner takes, its chances clipped as in the observation."""
    chance = 1 / (1 + np.exp(-env.view.payloads[:, :, 0]))
    return combine(env.table, env.view.base, env.view.gain, chance).argmax(1)


def test_the_planner_itself_has_no_gap(scenario):
    gap = play(scenario, planned)

    assert gap
    assert set(gap.values()) == {0.0}


def test_a_policy_that_does_worse_than_the_planner_has_a_gap(scenario):
    def worst(env):
        on_time, _ = env._simulator.payload_on_time()
        return combine(env.table, env.view.base, env.view.gain, on_time * 1.0).argmin(1)

    gap = play(scenario, worst)

    assert len(gap) > 1
    assert min(gap.values()) > 0.1


def test_a_gap_is_per_captured_frame(scenario):
    """One lane, summed up by hand."""
    curriculum = Curriculum(0.0)
    env = TraceVectorEnv(scenario, TRACES[:1], 1, curriculum=curriculum)
    env.reset(seed=0)
    lost, ended = 0.0, np.array([False])

    while not ended[0]:
        on_time, _ = env._simulator.payload_on_time()
        true = combine(env.table, env.view.base, env.view.gain, on_time * 1.0)[0]
        lost += true[planned(env)[0]] - true[3]
        _, _, _, ended, _ = env.step(np.array([3]))

    assert curriculum.gap["a", "toy-0"] == pytest.approx(lost / 10)


def test_a_seeded_reset_forgets_the_gaps(tmp_path):
    curriculum = Curriculum(0.5)
    env = TraceVectorEnv(support.scenario(tmp_path), [support.trace(0)], 2, curriculum=curriculum)
    curriculum.gap["toy", "toy-0"] = 0.3

    env.reset(seed=1)

    assert curriculum.gap == {}
