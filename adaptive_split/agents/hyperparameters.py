"""Hyper-parameters in the YAML form of rl-baselines3-zoo: a scenario's name, settings below it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from adaptive_split.agents.train import TrainConfig
from adaptive_split.errors import ConfigError

FIELDS = {
    "n_timesteps": "num_frames",
    "n_envs": "num_envs",
    "learning_rate": "learning_rate",
    "batch_size": "batch_size",
    "gradient_steps": "gradient_steps",
    "gamma": "gamma",
}
"""A setting's name in the file, as Stable-Baselines3 calls it, and ours."""
SHARES = ("learning_rate", "gamma")
"""Settings in (0, 1]; the others are whole numbers from 1 on."""


def with_settings(config: TrainConfig, settings: Mapping[str, Any]) -> TrainConfig:
    """Replace what is set, by the names of the file.

    Raises:
        ConfigError: If a setting is unknown or its value cannot be.
    """
    changes: dict[str, Any] = {}
    for name, value in settings.items():
        if name not in FIELDS:
            raise ConfigError(f"a hyper-parameter must be one of {', '.join(FIELDS)}; got {name!r}")
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if name in SHARES:
            if not (number and 0 < value <= 1):
                raise ConfigError(f"{name} must be a number in (0, 1]; got {value!r}")
            changes[FIELDS[name]] = float(value)
        else:
            # In such files 4e5 is the usual way to write a large count.
            if not (number and value >= 1 and value % 1 == 0):
                raise ConfigError(f"{name} must be a whole number from 1 on; got {value!r}")
            changes[FIELDS[name]] = int(value)
    return replace(config, **changes)


def read_settings(path: Path, scenario: str) -> dict[str, Any]:
    """Read the settings of a scenario.

    Args:
        path: The file.
        scenario: The key to look under.

    Raises:
        ConfigError: If the file cannot be read or has no settings for the scenario.
    """
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"--config must be a YAML file; got {path}: {error}") from error
    settings = found.get(scenario) if isinstance(found, dict) else None
    if not isinstance(settings, dict):
        keys = sorted(map(str, found)) if isinstance(found, dict) else found
        raise ConfigError(f"{path} must hold settings under {scenario!r}; got {keys!r}")
    return settings


def write_settings(path: Path, scenario: str, settings: Mapping[str, Any]) -> None:
    """Write the settings of a scenario."""
    text = yaml.safe_dump({scenario: dict(settings)}, sort_keys=False)
    path.write_text(text, encoding="utf-8")
