"""SAC for discrete actions as SAC-d has it: one network, raw observation, the taken action only.

The algorithm of arXiv 1910.07207: a categorical actor, two critics that value every action, targets
of the taken action, and a temperature tuned to a share of the greatest entropy. It sees what a
device measures, not what a planner predicts from it. (SAC-d's own code and state are not public.)
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from adaptive_split.agents.sb3_env import TraceVecEnv
from adaptive_split.candidates import CandidateTable
from adaptive_split.observation import CONTEXT, observe
from adaptive_split.planner import BacklogPrices, Moment
from adaptive_split.runtime.controller import Choice

NUM_INPUTS = len(CONTEXT)


@dataclass(frozen=True, kw_only=True, slots=True)
class DiscreteSacConfig:
    """One training."""

    seed: int = 0
    num_frames: int = 120_000
    num_envs: int = 64
    gradient_steps: int = 2
    """After each step of all lanes."""
    batch_size: int = 256
    learning_rate: float = 1e-3
    gamma: float = 0.9
    target_rate: float = 0.005
    """Share of the critics that moves into their targets after each step."""
    target_entropy: float = 0.98
    """Share of an even choice's entropy that the temperature is tuned to; the paper's value."""
    width: int = 128
    warmup_frames: int = 4_000
    """Chosen evenly; they also give the scale of the observation."""
    checkpoints: int = 8


class DiscreteSac(nn.Module):
    """Actor and critics over the context columns of the observation."""

    center: Tensor
    spread: Tensor

    def __init__(self, num_actions: int, config: DiscreteSacConfig) -> None:
        super().__init__()
        self.config, self.num_actions = config, num_actions
        self.register_buffer("center", torch.zeros(NUM_INPUTS))
        self.register_buffer("spread", torch.ones(NUM_INPUTS))
        self.actor = _network(config.width, num_actions)
        self.critics = nn.ModuleList(_network(config.width, num_actions) for _ in range(2))
        self.targets = copy.deepcopy(self.critics).requires_grad_(False)
        self.log_temperature = nn.Parameter(torch.tensor(-3.0))

    def log_shares(self, context: Tensor) -> Tensor:
        """Log probability of every action, `(B, N)`."""
        return torch.log_softmax(self.actor(self.scaled(context)), 1)

    def scaled(self, context: Tensor) -> Tensor:
        """Bring columns `(B, D)` to mean 0 and spread 1."""
        return (context - self.center) / self.spread

    @torch.no_grad()
    def choose(self, context: NDArray[Any], *, greedy: bool) -> Choice:
        """Choose an action per row of `(B, D)`."""
        log_shares = self.log_shares(torch.as_tensor(context, dtype=torch.float32))
        if greedy:
            return np.asarray(log_shares.argmax(1).numpy())
        return np.asarray(torch.multinomial(log_shares.exp(), 1)[:, 0].numpy())

    def losses(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Losses of critics, actor and temperature on one batch (arXiv 1910.07207, eq. 10-12)."""
        temperature = self.log_temperature.exp().detach()
        taken = batch["action"][:, None]
        with torch.no_grad():
            target = batch["reward"] + self.config.gamma * self._soft_value(batch["next"])
        context = self.scaled(batch["context"])
        values = [critic(context) for critic in self.critics]
        errors = [(one.gather(1, taken)[:, 0] - target).square().mean() for one in values]
        log_shares = self.log_shares(batch["context"])
        shares = log_shares.exp()
        least = torch.minimum(*values).detach()
        actor = (shares * (temperature * log_shares - least)).sum(1).mean()
        entropy = -(shares * log_shares).sum(1).mean().detach()
        wanted = self.config.target_entropy * float(np.log(self.num_actions))
        return torch.stack(errors).sum(), actor, self.log_temperature * (entropy - wanted)

    def move_targets(self) -> None:
        """Move the targets towards the critics."""
        for kept, new in zip(self.targets.parameters(), self.critics.parameters(), strict=True):
            kept.data.lerp_(new.data, self.config.target_rate)

    def _soft_value(self, context: Tensor) -> Tensor:
        """Expected value of the next action with its entropy, `(B,)`."""
        log_shares, scaled = self.log_shares(context), self.scaled(context)
        least = torch.minimum(*(target(scaled) for target in self.targets))
        soft = least - self.log_temperature.exp() * log_shares
        return (log_shares.exp() * soft).sum(1)


class DiscreteSacController:
    """The greedy actor as a controller."""

    probes = True

    def __init__(self, table: CandidateTable, net: DiscreteSac, name: str = "sac-d") -> None:
        self.table, self.net, self.name = table, net, name

    def choose(self, moment: Moment) -> Choice:
        """Take the likeliest action."""
        context = observe(self.table, moment, BacklogPrices()).context
        return self.net.choose(context, greedy=True)


class _Memory:
    """What was seen, as many transitions as a training has."""

    def __init__(self, size: int) -> None:
        self.context = np.zeros((size, NUM_INPUTS), np.float32)
        self.next = np.zeros((size, NUM_INPUTS), np.float32)
        self.action, self.reward = np.zeros(size, np.int64), np.zeros(size, np.float32)
        self.count = 0

    def add(self, context: Any, action: Any, reward: Any, following: Any) -> None:
        """Keep one transition per lane."""
        rows = slice(self.count, self.count + len(action))
        self.context[rows], self.next[rows] = context, following
        self.action[rows], self.reward[rows] = action, reward
        self.count += len(action)

    def draw(self, size: int, generator: np.random.Generator) -> dict[str, Tensor]:
        """Sample transitions evenly."""
        rows = generator.integers(self.count, size=size)
        names = ("context", "next", "action", "reward")
        return {name: torch.from_numpy(getattr(self, name)[rows]) for name in names}


def train(
    env: TraceVecEnv, config: DiscreteSacConfig, judge: Callable[[DiscreteSac], float]
) -> tuple[DiscreteSac, list[tuple[int, float]]]:
    """Train on an environment of `config.num_envs` lanes.

    Args:
        env: Closed afterwards.
        config: The training.
        judge: Validates a network; called `config.checkpoints` times, evenly.

    Returns:
        The network that was best by `judge`, and `(frames, its value)` of all checkpoints.
    """
    torch.manual_seed(config.seed)
    generator = np.random.default_rng(config.seed)
    net = DiscreteSac(int(cast("Any", env.action_space).n), config)
    # Adam's steps do not depend on a loss's scale, so one optimizer serves all three losses.
    optimizer = torch.optim.Adam(net.parameters(), lr=config.learning_rate)
    memory = _Memory(config.num_frames + config.num_envs)
    curve: list[tuple[int, float]] = []
    best, best_value = copy.deepcopy(net), -np.inf
    env.seed(config.seed)
    context = env.reset()[:, :NUM_INPUTS]
    while memory.count < config.num_frames:
        warm = memory.count >= config.warmup_frames
        even = generator.integers(net.num_actions, size=len(context))
        action = net.choose(context, greedy=False) if warm else even
        context = _step(env, memory, context, action)
        if not warm and memory.count >= config.warmup_frames:
            _learn_scale(net, memory.context[: memory.count])
        for _ in range(config.gradient_steps if warm else 0):
            _learn(net, optimizer, memory.draw(config.batch_size, generator))
        if memory.count >= (len(curve) + 1) * config.num_frames / config.checkpoints:
            curve.append((memory.count, judge(net)))
            if curve[-1][1] > best_value:
                best, best_value = copy.deepcopy(net), curve[-1][1]
    env.close()
    return best, curve


def _learn(net: DiscreteSac, optimizer: torch.optim.Optimizer, batch: dict[str, Tensor]) -> None:
    optimizer.zero_grad(set_to_none=True)
    torch.stack(net.losses(batch)).sum().backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    net.move_targets()


def _step(env: TraceVecEnv, memory: _Memory, context: Any, action: Choice) -> Any:
    """Act in all lanes; a lane that starts anew keeps its last observation in the memory."""
    seen, reward, ended, infos = env.step(action)
    following = seen[:, :NUM_INPUTS].copy()  # type: ignore[call-overload, index]
    for lane in np.flatnonzero(ended):
        following[lane] = infos[lane]["terminal_observation"][:NUM_INPUTS]
    memory.add(context, action, reward, following)
    return seen[:, :NUM_INPUTS]  # type: ignore[call-overload, index]


def _learn_scale(net: DiscreteSac, context: NDArray[np.float32]) -> None:
    net.center.copy_(torch.from_numpy(context.mean(0)))
    net.spread.copy_(torch.from_numpy(context.std(0)).clamp(min=1e-3))


def _network(width: int, num_outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(NUM_INPUTS, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
        nn.Linear(width, num_outputs),
    )  # fmt: skip
