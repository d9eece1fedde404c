"""The candidate-scoring SAC: the same decision in torch and numpy, buffer, temperature."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from adaptive_split.agents.reference import train_plain_sac
from adaptive_split.agents.sac import (
    TARGET_ENTROPY,
    UNKNOWN,
    CandidatePolicy,
    CandidateSAC,
    CounterfactualBuffer,
)
from adaptive_split.agents.sb3_env import TraceVecEnv
from adaptive_split.envs.vector_env import TraceVectorEnv
from adaptive_split.errors import ConfigError
from adaptive_split.observation import bounds, observe
from adaptive_split.planner import BacklogPrices
from adaptive_split.runtime.controller import ForecastController, forecast
from adaptive_split.runtime.simulator import Simulator
from tests import support

PRICES = BacklogPrices()


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def table():
    return support.table()


@pytest.fixture
def policy(table):
    low, high = bounds(table)
    torch.manual_seed(0)
    index = tuple(int(payload) for payload in table.grid.payload_index)
    return CandidatePolicy(
        spaces.Box(low, high), spaces.Discrete(len(table.grid)), lambda _: 1e-3,
        payload_index=index,
    )  # fmt: skip


@pytest.fixture
def views(table):
    """What was seen in 10,000 moments of random runs."""
    simulator = Simulator(table, [support.stream(60, lane) for lane in range(200)])
    generator, found = np.random.default_rng(0), []
    for _ in range(50):
        found.append(observe(table, simulator.moment(), PRICES))
        simulator.step(generator.integers(0, len(table.grid), 200))
    return found


def disturb(policy):
    """Weights far from the untrained ones."""
    with torch.no_grad():
        for parameter in (*policy.forecast.parameters(), *policy.residual.parameters()):
            parameter.add_(0.3 * torch.randn_like(parameter) / parameter.shape[-1] ** 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("residual", [False, True])
def test_numpy_and_torch_decide_the_same_in_ten_thousand_moments(table, policy, views, residual):
    disturb(policy)
    policy.residual_used = residual
    if not residual:
        for parameter in policy.residual.layers[-1].parameters():
            torch.nn.init.zeros_(parameter)
    flat = torch.as_tensor(views[0].flat())
    context, rows, _ = policy.parts(torch.cat([torch.as_tensor(v.flat()) for v in views]))
    policy.forecast.normalize_on(context, rows)
    controller = ForecastController(table, policy.export(), PRICES)
    planned_apart = 0

    for view in views:
        flat = torch.as_tensor(view.flat())
        with torch.no_grad():
            values, odds = policy.values(flat)
        chance = forecast(policy.export(), view.context, view.payloads)
        assert np.abs(chance - torch.sigmoid(odds).numpy()).max() < 1e-5
        found = controller.values(view)
        np.testing.assert_allclose(found, values.numpy(), atol=1e-4)
        np.testing.assert_array_equal(found.argmax(1), policy._predict(flat, True).numpy())
        planned_apart += (found.argmax(1) != support.planned_utility(table, view).argmax(1)).sum()

    assert planned_apart > 100  # the networks do have a say


def test_an_untrained_policy_is_the_planner(table, policy, views):
    for view in views[:5]:
        with torch.no_grad():
            values, _ = policy.values(torch.as_tensor(view.flat()))

        # Chances are clipped to the range of their logit, hence the tolerance.
        np.testing.assert_allclose(values.numpy(), support.planned_utility(table, view), atol=1e-2)


def test_values_of_chosen_candidates_are_those_of_all(policy, views):
    policy.residual_used = True
    disturb(policy)
    flat = torch.as_tensor(views[0].flat()[:7])
    chosen = torch.tensor([[3, 0], [1, 1], [16, 4], [0, 5], [7, 7], [2, 15], [9, 10]])

    with torch.no_grad():
        everything, _ = policy.values(flat)
        some, _ = policy.values(flat, chosen)

    np.testing.assert_allclose(some, everything.gather(1, chosen), atol=1e-5)


def test_a_hot_policy_explores_and_a_cold_one_does_not(policy, views):
    flat = torch.as_tensor(views[3].flat())
    greedy = policy._predict(flat, deterministic=True)

    with torch.no_grad():
        policy.log_temperature.fill_(-20.0)
        cold = policy._predict(flat)
        policy.log_temperature.fill_(3.0)
        hot = policy._predict(flat)

    assert (cold == greedy).float().mean() > 0.95
    assert len(hot.unique()) > len(cold.unique())


def test_a_payload_index_of_another_grid_is_refused(table):
    low, high = bounds(table)

    with pytest.raises(ConfigError, match="for each of 20 candidates; got 2"):
        CandidatePolicy(
            spaces.Box(low, high), spaces.Discrete(20), lambda _: 1e-3, payload_index=(0, -1)
        )


def test_the_buffer_remembers_what_every_payload_would_have_met():
    space = spaces.Box(-1, 1, (2,))
    buffer = CounterfactualBuffer(8, space, spaces.Discrete(3), n_envs=2, num_payloads=3)
    zeros = np.zeros((2, 2), np.float32)
    infos = [{"payload_on_time": np.array([True, False, True])}, {}]

    buffer.add(zeros, zeros + 1, np.array([[0], [1]]), np.array([0.5, 2.0]), np.zeros(2), infos)
    batch = buffer.draw(200)

    known = batch["reward"] == 0.5
    assert 0 < known.sum() < 200
    assert (batch["on_time"][known] == torch.tensor([1, 0, 1])).all()
    assert (batch["on_time"][~known] == UNKNOWN).all()
    assert (batch["next_observation"] == 1).all()


@pytest.fixture
def model(tmp_path):
    env = TraceVecEnv(
        TraceVectorEnv(support.scenario(tmp_path), [support.trace(s) for s in range(3)], 8)
    )
    index = tuple(int(payload) for payload in env.env.table.grid.payload_index)
    return CandidateSAC(env, payload_index=index, learning_starts=200, buffer_size=2_000, seed=0)


@pytest.mark.slow
def test_learning_tunes_the_temperature_towards_the_target_entropy(model):
    with torch.no_grad():
        model.policy.log_temperature.fill_(1.0)

    model.learn(600)

    assert float(model.policy.log_temperature.detach()) < 1.0
    assert model.logger.name_to_value["train/entropy"] > TARGET_ENTROPY


@pytest.mark.slow
def test_equal_seeds_learn_the_same(model, tmp_path_factory):
    def learnt(seed):
        env = TraceVecEnv(TraceVectorEnv(
            support.scenario(tmp_path_factory.mktemp("toy")),
            [support.trace(s) for s in range(3)], 8,
        ))  # fmt: skip
        env.seed(seed)
        index = tuple(int(payload) for payload in env.env.table.grid.payload_index)
        twin = CandidateSAC(
            env, payload_index=index, learning_starts=200, buffer_size=2_000, seed=seed
        )
        twin.learn(500)
        return twin.policy.export().forecast[-2]

    np.testing.assert_array_equal(learnt(1), learnt(1))
    assert not np.array_equal(learnt(1), learnt(2))


@pytest.mark.slow
def test_plain_sac_trains_on_the_same_environment_and_decides(tmp_path):
    scenario = support.scenario(tmp_path)

    policy = train_plain_sac(
        scenario, [support.trace(0)], num_frames=120, learning_starts=60, seed=0
    )
    choice = policy.choose(support.moment(lanes=5))

    assert choice.shape == (5,)
    assert ((choice >= 0) & (choice < len(policy.table.grid))).all()
