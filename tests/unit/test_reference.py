"""SAC, PPO and DQN of Stable-Baselines3 as controllers of the same environment."""

import numpy as np
import pytest

from adaptive_split.agents.reference import REFERENCES, train_reference
from adaptive_split.errors import ConfigError
from tests import support

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", REFERENCES)
def test_a_reference_trains_on_the_same_environment_and_decides(name, tmp_path):
    scenario = support.scenario(tmp_path)

    policy = train_reference(name, scenario, [support.trace(0)], num_frames=2_100)
    choice = policy.choose(support.moment(lanes=5))

    assert choice.shape == (5,)
    assert ((choice >= 0) & (choice < len(policy.table.grid))).all()


def test_the_same_seed_gives_the_same_reference(tmp_path):
    scenario = support.scenario(tmp_path)
    moment = support.moment(lanes=64)

    first, again, other = (
        train_reference("ppo", scenario, [support.trace(0)], num_frames=2_048, seed=seed)
        for seed in (0, 0, 1)
    )

    assert (first.choose(moment) == again.choose(moment)).all()
    assert not np.array_equal(first.choose(moment), other.choose(moment))


def test_an_unknown_reference_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="must be one of plain-sac, ppo, dqn; got 'td3'"):
        train_reference("td3", support.scenario(tmp_path), [support.trace(0)], num_frames=1)
