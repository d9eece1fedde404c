"""A user's model: made by their factory, with their weights."""

from __future__ import annotations

import importlib
import pickle
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from adaptive_split.errors import ConfigError


def load_own_model(factory: str, weights: Path | None) -> nn.Module:
    """Call `module:factory` of the working directory or the Python path, and load weights.

    Args:
        factory: E.g. `shop.nets:make`; takes no argument and gives an `nn.Module`.
        weights: A file of `torch.save` with a state dict, itself or under `state_dict` or `model`;
            read without unpickling objects. None: the factory loads them.

    Raises:
        ConfigError: If there is no such factory, it fails, or the weights do not fit.
    """
    module_name, _, name = factory.partition(":")
    if not module_name or not name:
        raise ConfigError(f"--model must be module:factory; got {factory!r}")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        model = getattr(importlib.import_module(module_name), name)()
    except Exception as error:  # whatever a stranger's code raises
        raise ConfigError(
            f"--model must name a factory that can be called; got {factory!r}: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not isinstance(model, nn.Module):
        raise ConfigError(f"{factory} must give a torch.nn.Module; got {type(model).__name__}")
    if weights is not None:
        _load(model, weights)
    return model.float().eval()


def _load(model: nn.Module, weights: Path) -> None:
    try:
        saved: Any = torch.load(weights, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        line = str(error).splitlines()[0]
        raise ConfigError(
            f"--weights must be a state dict written by torch.save; got {weights}: {line}"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(saved, Mapping) and isinstance(saved.get(key), Mapping):
            saved = saved[key]
    try:
        model.load_state_dict(saved)
    except (RuntimeError, TypeError) as error:
        lines = " ".join(line.strip() for line in str(error).splitlines()[:3])
        raise ConfigError(f"--weights must fit the model; got {weights}: {lines}") from error
