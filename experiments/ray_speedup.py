"""What a second worker brings, and what limits a hundred: `python experiments/ray_speedup.py`.

Rolls out the shards of one training with 1 and with 2 workers, measures what travels per step, and
how many frames a second one learner takes up.
"""

from __future__ import annotations

import argparse
import pickle
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from adaptive_split.agents.cluster import RayCluster
from adaptive_split.agents.sac import CandidateSAC
from adaptive_split.agents.sb3_env import TraceVecEnv
from adaptive_split.agents.shards import LocalShards, RayShards, Shards
from adaptive_split.agents.train import TrainConfig
from adaptive_split.cli.common import say
from adaptive_split.cli.tables import table
from adaptive_split.envs.vector_env import TraceVectorEnv
from adaptive_split.scenario import load_scenario
from adaptive_split.trace_sets import default_traces

WARMUP_STEPS = 5


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--lanes", type=int, default=128, help="of each shard")
    parser.add_argument("--steps", type=int, default=100)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    scenario, (traces, sentence) = load_scenario("default"), default_traces("train")
    say(sentence)
    maker = partial(TraceVectorEnv, scenario, traces, arguments.lanes)
    makers = [maker] * arguments.shards
    frames = arguments.lanes * arguments.shards
    rows = [["where", "frames/s", "speed-up"]]
    base = frames / step_s(LocalShards([maker() for _ in makers]), arguments)
    rows.append(["in process", f"{base:.0f}", "1.00"])
    for workers in (1, 2):
        with RayCluster(num_workers=workers):
            rate = frames / step_s(RayShards(makers), arguments)
        rows.append([f"{workers} workers", f"{rate:.0f}", f"{rate / base:.2f}"])
    print(table(rows))
    env = maker()
    env.reset(seed=0)
    actions = np.zeros(arguments.lanes, np.int64)
    size = len(pickle.dumps(env.step(actions), protocol=5)) + actions.nbytes
    print(f"{size / arguments.lanes:.0f} bytes per frame between learner and shard")
    config = TrainConfig()
    seconds = gradient_step_s(TraceVecEnv(env), config)
    taken = config.num_envs / config.gradient_steps / seconds
    print(f"a gradient step of {config.batch_size} takes {1e3 * seconds:.1f} ms on one core: "
          f"{taken:.0f} frames/s at one step per {config.num_envs} frames")  # fmt: skip


def step_s(shards: Shards, arguments: argparse.Namespace) -> float:
    """Seconds that a step of all shards takes, with random candidates; median."""
    generator = np.random.default_rng(0)
    shards.reset(range(arguments.shards))

    def step() -> None:
        shards.step([generator.integers(0, 17, arguments.lanes) for _ in range(arguments.shards)])

    seconds = median_s(step, arguments.steps)
    shards.close()
    return seconds


def gradient_step_s(env: TraceVecEnv, config: TrainConfig) -> float:
    """Seconds that one gradient step of the candidate form takes."""
    model = CandidateSAC(env, layout=env.layout, batch_size=config.batch_size, seed=0)
    model.learn(5_000)
    return median_s(lambda: model.train(1, config.batch_size), 50)


def median_s(work: Callable[[], None], repeats: int) -> float:
    """Median time of a piece of work after a few rounds to warm up."""
    seconds = []
    for _ in range(WARMUP_STEPS + repeats):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds[WARMUP_STEPS:]))


if __name__ == "__main__":
    main()
