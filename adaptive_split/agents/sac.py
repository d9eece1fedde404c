"""Soft Actor-Critic over described candidates, on the off-policy machinery of Stable-Baselines3.

The critic is the planner's own formula with two learned parts. A forecast corrects the planner's
chance that each payload is on time; `base + gain * chance` turns chances into expected utilities. A
residual may add what the formula leaves out.

Link and server do not depend on the action, so a simulator can tell what every payload would have
met (`info["payload_on_time"]`): the forecast then learns from all of them at once by cross-entropy,
and the residual stays at zero until `future.learn_future` fits it to rollouts. Where there are no
counterfactuals (live, logs), the residual learns the taken action's value by the ordinary SAC
target (Haarnoja et al., arXiv 1812.05905, eq. 5-6).

Over a finite set the soft-optimal actor is known in closed form, `softmax(Q / temperature)`; so no
actor network is fitted to it. The temperature is tuned to a target entropy as in that paper's
eq. 18. Deployed, the controller is greedy.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor
from torch.nn import functional

from adaptive_split.agents.networks import WIDTH, Forecast, Residual, export_weights
from adaptive_split.agents.sb3_env import NEVER_CHOSEN, Layout
from adaptive_split.errors import ConfigError
from adaptive_split.observation import CANDIDATE_COLUMNS, PAYLOAD_COLUMNS
from adaptive_split.runtime.controller import ForecastWeights

UNKNOWN = -1
TARGET_ENTROPY = 0.08
"""Share of the entropy of a choice among all valid candidates: most moments have few good ones."""


class CandidatePolicy(BasePolicy):
    """Value of every candidate of a flat observation, and the softmax actor over them."""

    payload_index: Tensor

    def __init__(
        self,
        observation_space: spaces.Box,
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        *,
        layout: Layout | None = None,
        width: int = WIDTH,
        **_: Any,
    ) -> None:
        super().__init__(observation_space, action_space)
        count = int(action_space.n)
        found = 0 if layout is None else layout.num_candidates
        if layout is None or found != count:
            raise ConfigError(
                f"layout must name a payload (or -1) for each of {count} candidates; got {found}"
            )
        self.layout = layout
        fill = [(*row, *[UNKNOWN] * (count - len(row))) for row in layout.payload_indices]
        self.register_buffer("payload_index", torch.tensor(fill))
        self.forecast = Forecast(width)
        self.residual = Residual()
        self.residual_used = False
        """Set by the first transition without counterfactuals; until then it is zero."""
        self.log_temperature = torch.nn.Parameter(torch.tensor(np.log(0.02), dtype=torch.float32))
        rate = lr_schedule(1)
        networks = [*self.forecast.parameters(), *self.residual.parameters()]
        self.optimizer = torch.optim.Adam(networks, lr=rate)
        self.temperature_optimizer = torch.optim.Adam([self.log_temperature], lr=rate)

    def parts(self, flat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Cut a flat observation into context, payload rows and candidate rows."""
        sizes = self.layout.sizes
        context, rows, candidates = torch.split(flat[:, : sum(sizes)], list(sizes), 1)
        rows = rows.reshape(len(flat), -1, len(PAYLOAD_COLUMNS))
        return context, rows, candidates.reshape(len(flat), -1, len(CANDIDATE_COLUMNS))

    def payloads_of(self, flat: Tensor) -> Tensor:
        """Payload of every candidate, -1 where it is local, shape `(B, N)`."""
        if self.layout.mixed:
            return self.payload_index[flat[:, -1].long()]
        return self.payload_index.expand(len(flat), -1)

    def values(self, flat: Tensor, chosen: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Value of candidates and log odds of every payload `(B, P)`.

        Args:
            flat: Observations, shape `(B, D)`.
            chosen: Which candidates, shape `(B, K)`; all by default.
        """
        context, rows, candidates = self.parts(flat)
        odds = self.forecast(context, rows)
        if chosen is None:
            chosen = torch.arange(self.layout.num_candidates).expand(len(flat), -1)
        lanes = torch.arange(len(flat))[:, None]
        own = candidates[lanes, chosen]
        payload = self.payloads_of(flat).gather(1, chosen)
        sends = (payload >= 0).float()
        payload = payload.clamp(min=0)
        chance = torch.sigmoid(odds)[lanes, payload]
        planned = own[..., 0] + own[..., 1] * chance
        if not self.residual_used:
            return planned, odds
        scaled, scaled_rows = self.forecast.normalize(context, rows)
        described = scaled_rows[lanes, payload] * sends[..., None]
        residual = self.residual(scaled, described, own, chance.detach() * sends)
        # Its target is the value of one action: that must not bend the forecast of all payloads.
        return planned.detach() + residual, odds

    def export(self) -> ForecastWeights:
        """Copy the networks for the numpy controller."""
        return export_weights(self.forecast, self.residual)

    def forward(self, obs: Tensor, deterministic: bool = True) -> Tensor:
        """Choose a candidate per row."""
        return self._predict(obs, deterministic)

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> Tensor:
        assert isinstance(observation, Tensor)
        values, _ = self.values(observation)
        if deterministic:
            return values.argmax(1)
        logits = values / self.log_temperature.exp()
        return torch.multinomial(torch.softmax(logits, 1), 1)[:, 0]


class CounterfactualBuffer(ReplayBuffer):
    """Replay that also keeps, per transition, whether each payload would have been on time."""

    def __init__(self, *args: Any, num_payloads: int = 1, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.on_time = np.full((self.buffer_size, self.n_envs, num_payloads), UNKNOWN, np.int8)

    def add(
        self,
        obs: NDArray[Any],
        next_obs: NDArray[Any],
        action: NDArray[Any],
        reward: NDArray[Any],
        done: NDArray[Any],
        infos: list[dict[str, Any]],
    ) -> None:
        """Store one transition per lane."""
        self.on_time[self.pos] = UNKNOWN
        for lane, info in enumerate(infos):
            known = info.get("payload_on_time")
            if known is not None:
                self.on_time[self.pos, lane, : len(known)] = known
        super().add(obs, next_obs, action, reward, done, infos)

    def draw(self, count: int) -> dict[str, Tensor]:
        """Sample `count` transitions uniformly."""
        top = self.buffer_size if self.full else self.pos
        rows = np.random.randint(0, top, count)  # noqa: NPY002 - SB3 seeds this generator
        lanes = np.random.randint(0, self.n_envs, count)  # noqa: NPY002
        arrays = {
            "observation": self.observations,
            "next_observation": self.next_observations,
            "action": self.actions,
            "reward": self.rewards,
            "done": self.dones,
            "timeout": self.timeouts,
            "on_time": self.on_time,
        }
        return {name: torch.as_tensor(values[rows, lanes]) for name, values in arrays.items()}


class CandidateSAC(OffPolicyAlgorithm):
    """SAC whose actions are the candidates of a decision grid; see the module's page."""

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"CandidatePolicy": CandidatePolicy}
    policy: CandidatePolicy
    replay_buffer: CounterfactualBuffer | None

    def __init__(
        self,
        env: VecEnv,
        *,
        layout: Layout,
        width: int = WIDTH,
        learning_rate: float | Schedule = 1e-3,
        buffer_size: int = 150_000,
        learning_starts: int = 4_000,
        batch_size: int = 256,
        gamma: float = 0.9,
        gradient_steps: int = 1,
        seed: int | None = None,
        tensorboard_log: str | None = None,
        verbose: int = 0,
    ) -> None:
        super().__init__(
            CandidatePolicy,
            env,
            learning_rate,
            buffer_size=buffer_size,
            learning_starts=learning_starts,
            batch_size=batch_size,
            gamma=gamma,
            train_freq=1,
            gradient_steps=gradient_steps,
            replay_buffer_class=CounterfactualBuffer,
            replay_buffer_kwargs={"num_payloads": layout.num_payloads},
            policy_kwargs={"layout": layout, "width": width},
            seed=seed,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            device="cpu",
            sde_support=False,
            supported_action_spaces=(spaces.Discrete,),
            support_multi_env=True,
        )
        self._setup_model()
        self._normalized = False

    def _sample_action(
        self, learning_starts: int, action_noise: Any = None, n_envs: int = 1
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        # The untrained policy is the planner with a soft choice: a better start than chance.
        assert self._last_obs is not None
        action, _ = self.predict(self._last_obs, deterministic=False)
        return action, action

    def train(self, gradient_steps: int, batch_size: int) -> None:
        """Take gradient steps on forecast, residual and temperature."""
        assert self.replay_buffer is not None
        self._update_learning_rate([self.policy.optimizer])
        if not self._normalized:
            batch = self.replay_buffer.draw(4096)
            context, rows, _ = self.policy.parts(batch["observation"])
            self.policy.forecast.normalize_on(context, rows)
            self._normalized = True
        for _ in range(gradient_steps):
            batch = self.replay_buffer.draw(batch_size)
            context, rows, _ = self.policy.parts(batch["observation"])
            forecast_loss = self._forecast_loss(self.policy.forecast(context, rows), batch)
            loss = forecast_loss + self._taken_loss(batch)
            self.policy.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self.policy.optimizer.step()
            if self._n_updates % 8 == 0:
                self._tune_temperature(batch["observation"][:64])
            self._n_updates += 1
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/forecast_loss", float(forecast_loss.detach()))
        self.logger.record("train/temperature", float(self.policy.log_temperature.detach().exp()))

    def _forecast_loss(self, odds: Tensor, batch: dict[str, Tensor]) -> Tensor:
        known = (batch["on_time"] != UNKNOWN).float()
        target = (batch["on_time"] > 0).float()
        each = functional.binary_cross_entropy_with_logits(odds, target, reduction="none")
        return (each * known).sum() / known.sum().clamp(min=1.0)

    def _taken_loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Squared error to the SAC target of the taken action.

        Learnt where no counterfactual is known. The mean of the next states' values is taken off,
        per scenario (an average-reward target): the planned value holds this frame's utility alone.
        """
        learnt = (batch["on_time"] == UNKNOWN).all(1)
        if not bool(learnt.any()):
            return torch.zeros(())
        self.policy.residual_used = True
        rows = {name: values[learnt] for name, values in batch.items()}
        with torch.no_grad():
            temperature = self.policy.log_temperature.exp()
            following, _ = self.policy.values(rows["next_observation"])
            soft = temperature * torch.logsumexp(following / temperature, 1)
            lasting = 1 - rows["done"] * (1 - rows["timeout"])
            above = soft - self._mean_of_scenario(soft, rows["next_observation"])
            target = rows["reward"] + self.gamma * lasting * above
        taken, _ = self.policy.values(rows["observation"], rows["action"].long().reshape(-1, 1))
        return (taken[:, 0] - target).square().mean()

    def _mean_of_scenario(self, values: Tensor, flat: Tensor) -> Tensor:
        """Mean over the rows of the same scenario, for every row, `(B,)`."""
        layout = self.policy.layout
        if not layout.mixed:
            return values.mean()
        which = flat[:, -1].long()
        total = torch.zeros(len(layout.payload_indices)).index_add(0, which, values)
        count = torch.bincount(which, minlength=len(total)).clamp(min=1)
        return (total / count)[which]

    def _tune_temperature(self, observation: Tensor) -> None:
        with torch.no_grad():
            values, _ = self.policy.values(observation)
            log_share = torch.log_softmax(values / self.policy.log_temperature.exp(), 1)
            entropy = -(log_share.exp() * log_share).sum(1).mean()
            valid = (self.policy.parts(observation)[2][..., 0] > NEVER_CHOSEN).sum(1)
            target = TARGET_ENTROPY * valid.float().log().mean()
        loss = self.policy.log_temperature * (entropy - target)
        self.policy.temperature_optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.policy.temperature_optimizer.step()
        self.logger.record("train/entropy", float(entropy))
