"""The candidate-scoring SAC: the same decision in torch and numpy, buffer, temperature."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium import spaces

from adaptive_split.agents.sac import (
    TARGET_ENTROPY,
    UNKNOWN,
    CandidatePolicy,
    CandidateSAC,
    CounterfactualBuffer,
)
from adaptive_split.agents.sb3_env import NEVER_CHOSEN, Layout, TraceVecEnv
from adaptive_split.decision import NEVER, DecisionGrid
from adaptive_split.envs.vector_env import TraceVectorEnv
from adaptive_split.errors import ConfigError
from adaptive_split.observation import CONTEXT, bounds, observe
from adaptive_split.planner import BacklogPrices
from adaptive_split.runtime.controller import ForecastController, forecast
from adaptive_split.runtime.simulated.simulator import Simulator
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
    return CandidatePolicy(
        spaces.Box(low, high), spaces.Discrete(len(table.grid)), lambda _: 1e-3,
        layout=Layout([table.grid.payload_index.tolist()]),
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


def test_a_layout_of_another_grid_is_refused(table):
    low, high = bounds(table)

    with pytest.raises(ConfigError, match="for each of 20 candidates; got 2"):
        CandidatePolicy(
            spaces.Box(low, high), spaces.Discrete(20), lambda _: 1e-3, layout=Layout([(0, -1)])
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
    return CandidateSAC(env, layout=env.layout, learning_starts=200, buffer_size=2_000, seed=0)


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
        twin = CandidateSAC(
            env, layout=env.layout, learning_starts=200, buffer_size=2_000, seed=seed
        )
        twin.learn(500)
        return twin.policy.export().forecast[-2]

    np.testing.assert_array_equal(learnt(1), learnt(1))
    assert not np.array_equal(learnt(1), learnt(2))


def two_grids(tmp_path, lanes=4):
    """Environments of two scenarios whose grids differ in candidates and payloads."""
    small = DecisionGrid(3, thresholds=(0.5, NEVER), bits=(8,))
    found = []
    for name, grid in (("large", support.GRID), ("small", small)):
        folder = tmp_path / name
        folder.mkdir()
        scenario = replace(support.scenario(folder), grid=grid)
        for index, subset in enumerate(("policy", "judge")):
            support.outcomes(seed=index, grid=grid).save(folder / f"outcomes_{subset}.npz")
        found.append(TraceVectorEnv(scenario, [support.trace(s) for s in range(3)], lanes))
    return found


def test_scenarios_of_different_grids_are_one_environment(tmp_path):
    envs = two_grids(tmp_path)
    mixed = TraceVecEnv(*envs)
    mixed.seed(3)
    flat = torch.as_tensor(mixed.reset())
    alone = TraceVecEnv(envs[1])
    alone.seed(3 + 7919)
    expected = torch.as_tensor(alone.reset())
    policies = [
        CandidatePolicy(env.observation_space, env.action_space, lambda _: 1e-3, layout=env.layout)
        for env in (mixed, alone)
    ]
    policies[1].load_state_dict(policies[0].state_dict() | {
        "payload_index": policies[1].payload_index,
    })  # fmt: skip

    values, odds = policies[0].values(flat[4:])
    twin_values, twin_odds = policies[1].values(expected)

    count = len(envs[1].table.grid)
    np.testing.assert_allclose(values[:, :count].detach(), twin_values.detach(), atol=1e-5)
    np.testing.assert_allclose(
        odds[:, : twin_odds.shape[1]].detach(), twin_odds.detach(), atol=1e-5
    )
    assert (values[:, count:] <= 0.5 * NEVER_CHOSEN).all()
    assert (policies[0]._predict(flat[4:]) < count).all()


def test_a_mixed_environment_tells_the_counterfactuals_of_every_scenario(tmp_path):
    envs = two_grids(tmp_path)
    mixed = TraceVecEnv(*envs)
    mixed.seed(0)
    mixed.reset()

    _, reward, _, infos = mixed.step(np.zeros(8, int))

    assert reward.shape == (8,)
    sizes = [len(info["payload_on_time"]) for info in infos]
    assert sizes == [len(envs[0].table.grid.payloads)] * 4 + [len(envs[1].table.grid.payloads)] * 4


@pytest.mark.slow
def test_one_policy_learns_from_two_scenarios_at_once(tmp_path):
    mixed = TraceVecEnv(*two_grids(tmp_path, lanes=16))
    mixed.seed(0)
    model = CandidateSAC(mixed, layout=mixed.layout, learning_starts=300, buffer_size=4_000, seed=0)

    model.learn(2_000)

    learnt = model.policy.export()
    assert np.isfinite(learnt.forecast[-2]).all()
    assert np.any(learnt.forecast[-2])
    assert not np.any(learnt.residual[-2])


def test_what_never_varied_in_training_does_not_move_the_networks(table, policy, views):
    disturb(policy)
    context, rows, _ = policy.parts(torch.cat([torch.as_tensor(v.flat()) for v in views[:20]]))
    policy.forecast.normalize_on(context, rows)
    weights, view = policy.export(), views[0]
    soc = [column.name for column in CONTEXT].index("soc")
    empty = view.context.copy()

    empty[:, soc] = 0.05

    assert (view.context[:, soc] == 1.0).all()
    np.testing.assert_allclose(
        forecast(weights, empty, view.payloads), forecast(weights, view.context, view.payloads),
        atol=1e-6,
    )  # fmt: skip
