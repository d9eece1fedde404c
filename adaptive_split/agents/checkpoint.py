"""Checkpoints of a training: an interrupted one goes on and ends with the same weights.

At every checkpoint all lanes start anew and all generators are seeded from the training's seed and
the frames done, whether or not anybody interrupts. So what follows depends on nothing but what a
checkpoint holds: weights, optimizers, replay and the watcher's memory. Nothing in it is unpickled.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback

from adaptive_split.agents.sac import CandidateSAC
from adaptive_split.errors import ConfigError
from adaptive_split.runtime.controller import ForecastWeights

Arrays = dict[str, NDArray[Any]]
MODEL, REPLAY, MEMORY, ABOUT = "model.pt", "replay.npz", "memory.npz", "about.json"
REPLAY_ARRAYS = (
    "observations", "next_observations", "actions", "rewards", "dones", "timeouts", "on_time",
)  # fmt: skip
NETS = ("forecast", "residual")
PARTIAL = ".partial"


class Remembers(Protocol):
    """Something beside the model that a training needs back."""

    def memory(self) -> Arrays:
        """Tell everything."""
        ...

    def remember(self, memory: Arrays) -> None:
        """Take it back."""
        ...


class Checkpointer(BaseCallback):
    """Saves the state of a training every so many frames; the newest checkpoint is kept.

    Args:
        folder: Of this training alone.
        about: Plain values that tell the training from others, as its config.
        every_frames: Frames between checkpoints.
        seed: The training's.
        watcher: What else is saved.
    """

    def __init__(
        self,
        folder: Path,
        about: Mapping[str, Any],
        *,
        every_frames: float,
        seed: int,
        watcher: Remembers,
    ) -> None:
        super().__init__()
        self.folder, self.about = folder, json.loads(json.dumps(about))
        self.every_frames, self.seed, self.watcher = every_frames, seed, watcher
        self._next_frame = 0.0

    def resume(self, model: CandidateSAC) -> int:
        """Put model and watcher where the newest checkpoint left them, if there is one.

        Returns:
            Frames done. Go on with `model.learn(rest, reset_num_timesteps=False)`.

        Raises:
            ConfigError: If the checkpoint is of another training, or damaged.
        """
        found = sorted(self.folder.glob("frames-*[0-9]"))
        if not found:
            return 0
        newest = found[-1]
        try:
            about = json.loads((newest / ABOUT).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{newest} must be a whole checkpoint; got {error!r}") from error
        if about != self.about:
            raise ConfigError(
                f"{newest} must be of a training with the same settings; got "
                f"{_difference(about, self.about)}; remove it or name another folder"
            )
        try:
            restore_model(model, newest)
            with np.load(newest / MEMORY, allow_pickle=False) as memory:
                self.watcher.remember(dict(memory))
        except (OSError, ValueError, KeyError, RuntimeError, UnpicklingError) as error:
            raise ConfigError(f"{newest} must be a whole checkpoint; got {error!r}") from error
        self._next_frame = model.num_timesteps
        return model.num_timesteps

    def _on_rollout_start(self) -> None:
        if self.num_timesteps < self._next_frame:
            return
        model = self.model
        assert isinstance(model, CandidateSAC)
        self._save(model, self.folder / f"frames-{self.num_timesteps:09d}")
        self._start_anew(model)
        self._next_frame = (self.num_timesteps // self.every_frames + 1) * self.every_frames

    def _on_step(self) -> bool:
        return True

    def _save(self, model: CandidateSAC, path: Path) -> None:
        if path.is_dir():
            return
        staging = path.with_name(path.name + PARTIAL)
        shutil.rmtree(staging, ignore_errors=True)
        older = list(path.parent.glob("frames-*"))
        staging.mkdir(parents=True)
        save_model(model, staging)
        np.savez(staging / MEMORY, **self.watcher.memory())  # type: ignore[arg-type]
        (staging / ABOUT).write_text(json.dumps(self.about, indent=1) + "\n", encoding="utf-8")
        staging.rename(path)
        for one in older:
            shutil.rmtree(one)

    def _start_anew(self, model: CandidateSAC) -> None:
        """Seed every generator from seed and frames, and start every lane on a fresh stream."""
        sequence = np.random.SeedSequence([self.seed, self.num_timesteps])
        model.set_random_seed(int(sequence.generate_state(1)[0]) % 2**31)
        assert model.env is not None
        model._last_obs = model.env.reset()  # type: ignore[assignment]


def save_model(model: CandidateSAC, folder: Path) -> None:
    """Write weights, optimizers and counts, and the filled part of the replay."""
    policy, replay = model.policy, model.replay_buffer
    assert replay is not None
    state = {
        "policy": policy.state_dict(),
        "optimizer": policy.optimizer.state_dict(),
        "temperature_optimizer": policy.temperature_optimizer.state_dict(),
        "residual_used": policy.residual_used,
        "normalized": model._normalized,
        "num_timesteps": model.num_timesteps,
        "num_updates": model._n_updates,
    }
    torch.save(state, folder / MODEL)
    top = replay.buffer_size if replay.full else replay.pos
    arrays = {name: getattr(replay, name)[:top] for name in REPLAY_ARRAYS}
    np.savez(folder / REPLAY, position=replay.pos, full=replay.full, **arrays)


def restore_model(model: CandidateSAC, folder: Path) -> None:
    """Read what `save_model` wrote into a model made with the same settings."""
    policy, replay = model.policy, model.replay_buffer
    assert replay is not None
    state = torch.load(folder / MODEL, weights_only=True)
    policy.load_state_dict(state["policy"])
    policy.optimizer.load_state_dict(state["optimizer"])
    policy.temperature_optimizer.load_state_dict(state["temperature_optimizer"])
    policy.residual_used = bool(state["residual_used"])
    model._normalized = bool(state["normalized"])
    model.num_timesteps = int(state["num_timesteps"])
    model._n_updates = int(state["num_updates"])
    with np.load(folder / REPLAY, allow_pickle=False) as arrays:
        for name in REPLAY_ARRAYS:
            rows = arrays[name]
            getattr(replay, name)[: len(rows)] = rows
        replay.pos, replay.full = int(arrays["position"]), bool(arrays["full"])


def arrays_of(weights: ForecastWeights) -> Arrays:
    """The networks of a controller as named arrays."""
    layers = {
        f"{net}_{index}": layer for net in NETS for index, layer in enumerate(getattr(weights, net))
    }
    names = ("context_mean", "context_scale", "payload_mean", "payload_scale")
    return layers | {name: getattr(weights, name) for name in names}


def weights_of(arrays: Arrays) -> ForecastWeights:
    """The inverse of `arrays_of`."""
    counts = {net: sum(name.startswith(f"{net}_") for name in arrays) for net in NETS}
    nets = {
        net: tuple(arrays[f"{net}_{index}"] for index in range(count))
        for net, count in counts.items()
    }
    return ForecastWeights(
        context_mean=arrays["context_mean"], context_scale=arrays["context_scale"],
        payload_mean=arrays["payload_mean"], payload_scale=arrays["payload_scale"],
        forecast=nets["forecast"], residual=nets["residual"],
    )  # fmt: skip


def _difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    names = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
    return ", ".join(f"{name} {found.get(name)!r}" for name in names)
