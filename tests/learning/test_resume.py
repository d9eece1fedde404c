"""A training that was cut short ends as if nobody had."""

import numpy as np
import pytest
from stable_baselines3.common.callbacks import BaseCallback

from adaptive_split.agents.checkpoint import Checkpointer, arrays_of, weights_of
from adaptive_split.agents.sac import CandidateSAC
from adaptive_split.agents.sb3_env import TraceVecEnv
from adaptive_split.envs.vector_env import TraceVectorEnv
from adaptive_split.errors import ConfigError
from tests import support

pytestmark = pytest.mark.slow

NUM_FRAMES, EVERY_FRAMES = 480, 160


class Interrupt(Exception):  # noqa: N818 - stands for whatever ends a process
    """Stops a training."""


class Watcher(BaseCallback):
    """Remembers the frames it saw; may interrupt."""

    def __init__(self, last_frame=np.inf):
        super().__init__()
        self.last_frame, self.frames = last_frame, []

    def memory(self):
        """Tell the frames."""
        return {"frames": np.array(self.frames)}

    def remember(self, memory):
        """Take them back."""
        self.frames = memory["frames"].tolist()

    def _on_step(self):
        self.frames.append(self.num_timesteps)
        if self.num_timesteps >= self.last_frame:
            raise Interrupt
        return True


class Blind(TraceVecEnv):
    """Hides the counterfactuals of half of the lanes, so that every part of the state is used."""

    def step_wait(self):
        """Leave them out."""
        observation, reward, ended, infos = super().step_wait()
        for info in infos[::2]:
            del info["payload_on_time"]
        return observation, reward, ended, infos


def train(scenario, folder, about="a", last_frame=np.inf):
    """Train, from the newest checkpoint if there is one."""
    env = Blind(TraceVectorEnv(scenario, [support.trace(0)], 8))
    model = CandidateSAC(
        env, layout=env.layout, learning_starts=100, buffer_size=240, seed=0,
        learning_rate=lambda left: 1e-3 * left,
    )  # fmt: skip
    watcher = Watcher(last_frame)
    keeper = Checkpointer(
        folder, {"name": about}, every_frames=EVERY_FRAMES, seed=0, watcher=watcher
    )
    done = keeper.resume(model)
    model.learn(NUM_FRAMES - done, callback=[watcher, keeper], reset_num_timesteps=not done)
    return model, watcher, done


@pytest.fixture(scope="module")
def scenario(tmp_path_factory):
    return support.scenario(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def whole(scenario, tmp_path_factory):
    return train(scenario, tmp_path_factory.mktemp("whole"))


@pytest.fixture
def interrupt(scenario, tmp_path):
    def at(last_frame):
        with pytest.raises(Interrupt):
            train(scenario, tmp_path, last_frame=last_frame)

    return at


@pytest.mark.parametrize(("last_frame", "taken_up"), [(40, 0), (200, 160), (440, 320)])
def test_a_training_taken_up_again_ends_with_the_same_weights(
    scenario, tmp_path, whole, interrupt, last_frame, taken_up
):
    interrupt(last_frame)

    model, watcher, done = train(scenario, tmp_path)

    assert done == taken_up
    assert watcher.frames == whole[1].frames
    for name, value in whole[0].policy.state_dict().items():
        np.testing.assert_array_equal(model.policy.state_dict()[name], value)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_training_interrupted_twice_ends_with_the_same_weights(
    scenario, tmp_path, whole, interrupt
):
    interrupt(200)
    interrupt(240)

    model, _, _ = train(scenario, tmp_path)

    for name, value in whole[0].policy.state_dict().items():
        np.testing.assert_array_equal(model.policy.state_dict()[name], value)


def test_a_checkpoint_of_another_training_is_refused(scenario, tmp_path, interrupt):
    interrupt(40)

    with pytest.raises(ConfigError, match="with the same settings; got name 'a'"):
        train(scenario, tmp_path, about="b")


@pytest.mark.parametrize("file", ["model.pt", "replay.npz", "memory.npz", "about.json"])
@pytest.mark.parametrize("damage", [None, b"nothing"])
def test_a_damaged_checkpoint_is_refused(scenario, tmp_path, interrupt, file, damage):
    interrupt(40)
    (checkpoint,) = tmp_path.iterdir()
    (checkpoint / file).unlink()
    if damage is not None:
        (checkpoint / file).write_bytes(damage)

    with pytest.raises(ConfigError, match="must be a whole checkpoint"):
        train(scenario, tmp_path)


def test_a_half_written_checkpoint_is_passed_over(scenario, tmp_path, interrupt):
    interrupt(200)
    (tmp_path / "frames-000000320.partial").mkdir()

    _, _, done = train(scenario, tmp_path)

    assert done == 160


def test_the_weights_of_a_controller_survive_as_arrays():
    weights = support.weights(seed=1)

    again = weights_of(arrays_of(weights))

    for name, values in arrays_of(weights).items():
        np.testing.assert_array_equal(values, arrays_of(again)[name])
