"""The SAC learns what the planners cannot know, on toys where that is plain to see."""

import numpy as np
import pytest
import torch

from adaptive_split.agents.evaluate import mean_utility
from adaptive_split.agents.hindsight import static_values
from adaptive_split.agents.sac import CandidateSAC
from adaptive_split.agents.sb3_env import TraceVecEnv
from adaptive_split.envs.vector_env import TraceVectorEnv
from adaptive_split.objective import Objective
from adaptive_split.planner import BacklogPrices
from adaptive_split.runtime.controller import (
    DistributionPlanner,
    ForecastController,
    PlannerSettings,
)
from adaptive_split.runtime.simulated.streams import StreamSource
from adaptive_split.trace import Trace
from tests import support

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def two_states(seed, num_rows=400):
    """A link that is fast or all but dead; its round trip tells 0.2 to 0.3 s ahead of each turn."""
    generator = np.random.default_rng(seed)
    rate, rtt = [], []
    while len(rate) < num_rows:
        good, bad = int(generator.integers(8, 16)), int(generator.integers(5, 12))
        rate += [20.0] * good + [0.05] * bad
        rtt += [0.01] * (good - 3) + [0.05] * 3 + [0.05] * (bad - 2) + [0.01] * 2
    time_s = np.arange(num_rows) * 0.1
    return Trace(f"two-{seed}", "toy", time_s, np.array(rate[:num_rows]), np.array(rtt[:num_rows]),
                 source="synthetic", rtt_source="synthetic")  # fmt: skip


TRAIN = [two_states(seed) for seed in range(8)]
TEST = [two_states(100 + seed) for seed in range(8)]


def learn(env, num_frames, **settings):
    """Train on a vector environment; give the controller."""
    model = CandidateSAC(env, layout=env.layout, learning_starts=1000, gradient_steps=2, seed=0,
                         **settings)  # fmt: skip
    env.seed(0)
    model.learn(num_frames)
    return ForecastController(env.env.table, model.policy.export(), env.env.prices)


def test_it_beats_every_static_decision_and_the_distribution_planner(tmp_path):
    scenario = support.scenario(tmp_path, Objective(slo_s=0.2, fps=20.0), num_frames=100)
    env = TraceVecEnv(TraceVectorEnv(scenario, TRAIN, 32))
    table = env.env.table
    streams = StreamSource(scenario, table.outcomes, TEST).draw_evenly(32, 0)
    static = static_values(table, streams, np.arange(len(table.grid))).max()
    planner = mean_utility(DistributionPlanner(table, PlannerSettings()), table, streams)

    controller = learn(env, 16_000, learning_rate=2e-3)

    learnt = mean_utility(controller, table, streams)
    assert learnt > static + 0.005
    assert learnt > planner + 0.01


class WithoutForesight(TraceVecEnv):
    """As a live device: nobody tells what the other payloads would have met."""

    def step_wait(self):
        """Leave the counterfactuals out."""
        observation, reward, ended, infos = super().step_wait()
        return observation, reward, ended, [
            {key: value for key, value in info.items() if key != "payload_on_time"}
            for info in infos
        ]  # fmt: skip


def test_without_counterfactuals_it_learns_that_the_table_is_wrong(tmp_path):
    """The planner believes a server that is always right; it is right half of the time."""
    scenario = support.scenario(tmp_path, Objective(slo_s=0.2, fps=5.0), num_frames=50)
    prices = BacklogPrices(device=0.0, uplink=0.0)
    env = WithoutForesight(TraceVectorEnv(scenario, TRAIN, 32, prices=prices))
    table = env.env.table
    label = table.outcomes.label[:, None]
    wrong = np.random.default_rng(0).random(table.outcomes.server_answer.shape) < 0.5
    table.outcomes.server_answer[:] = np.where(wrong, label + 1, label)
    table.server_right = table.send_share.copy()
    streams = StreamSource(scenario, table.outcomes, TEST).draw_evenly(16, 0)
    knobs = PlannerSettings(device_price=0.0, uplink_price=0.0)
    planner = mean_utility(DistributionPlanner(table, knobs), table, streams)

    controller = learn(env, 4_000)

    assert mean_utility(controller, table, streams) > planner + 0.1
