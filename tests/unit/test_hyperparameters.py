"""Settings in the YAML form that rl-baselines3-zoo has."""

from dataclasses import replace

import pytest

from adaptive_split.agents.hyperparameters import read_settings, with_settings, write_settings
from adaptive_split.agents.train import TrainConfig
from adaptive_split.errors import ConfigError

TEXT = """
# as people write them
default:
  n_timesteps: !!float 4e5
  n_envs: 64
  learning_rate: !!float 7e-4
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "sac.yml"
    path.write_text(TEXT)
    return path


def test_settings_are_read_by_the_names_of_stable_baselines(file):
    config = with_settings(TrainConfig(seed=3), read_settings(file, "default"))

    assert config == TrainConfig(seed=3, num_frames=400_000, num_envs=64, learning_rate=7e-4)


def test_settings_survive_a_file(tmp_path):
    settings = {"n_timesteps": 1_000, "learning_rate": 1e-5, "n_envs": 8}

    write_settings(tmp_path / "best.yml", "a-b.c", settings)

    assert read_settings(tmp_path / "best.yml", "a-b.c") == settings


def test_what_is_not_set_stays(file):
    config = TrainConfig(num_frames=5)

    assert with_settings(config, {}) == config
    assert with_settings(config, {"n_envs": 2.0}) == replace(config, num_envs=2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_env": 1}, "must be one of n_timesteps, n_envs, .*; got 'n_env'"),
        ({"n_envs": 0}, "n_envs must be a whole number from 1 on; got 0"),
        ({"n_envs": 1.5}, "n_envs must be a whole number from 1 on; got 1.5"),
        ({"n_envs": True}, "n_envs must be a whole number from 1 on; got True"),
        ({"n_envs": float("inf")}, "n_envs must be a whole number from 1 on; got inf"),
        ({"learning_rate": "lin_1e-3"}, "learning_rate must be a number in .*; got 'lin_1e-3'"),
        ({"learning_rate": 0}, "learning_rate must be a number in .*; got 0"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        with_settings(TrainConfig(), settings)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: {", "must be a YAML file"),
        ("!!python/object/apply:os.getcwd []", "must be a YAML file"),
        ("- a", "must hold settings under 'default'"),
        ("other: {n_envs: 1}", r"settings under 'default'; got \['other'\]"),
        ("default: 3", "must hold settings under 'default'"),
    ],
)
def test_a_file_of_another_form_is_refused(file, text, message):
    file.write_text(text)

    with pytest.raises(ConfigError, match=message):
        read_settings(file, "default")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="must be a YAML file"):
        read_settings(tmp_path / "none.yml", "default")
