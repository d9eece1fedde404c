"""What a second worker brings, and what limits a hundred: `python experiments/ray_speedup.py`.

With 1 and 2 workers: the matrix of a comparison, whose jobs share nothing, and the shards of one
training, which exchange every step. Then what travels per step, and how many frames a second one
learner takes up.
"""

from __future__ import annotations

import argparse
import pickle
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from adaptive_split.agents.cluster import InProcess, RayCluster, Workers
from adaptive_split.agents.matrix import Arena, play_matrix
from adaptive_split.agents.rivals import make_rival
from adaptive_split.agents.sac import CandidateSAC
from adaptive_split.agents.sb3_env import TraceVecEnv
from adaptive_split.agents.shards import LocalShards, RayShards, Shards
from adaptive_split.agents.train import TrainConfig
from adaptive_split.cli.common import say
from adaptive_split.cli.tables import table
from adaptive_split.envs.vector_env import TraceVectorEnv
from adaptive_split.runtime.simulated.streams import StreamSource
from adaptive_split.scenario import Scenario, load_scenario
from adaptive_split.trace import Trace
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
    arena = make_arena(scenario, traces)
    here = frames / step_s(LocalShards([maker() for _ in makers]), arguments)
    rows = [["where", "matrix s", "shards frames/s"]]
    rows.append(["in process", f"{matrix_s(arena, InProcess()):.1f}", f"{here:.0f}"])
    for workers in (1, 2):
        with RayCluster(num_workers=workers) as cluster:
            seconds = matrix_s(arena, cluster)
            rate = frames / step_s(RayShards(makers, workers), arguments)
        rows.append([f"{workers} workers", f"{seconds:.1f}", f"{rate:.0f}"])
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


def make_arena(scenario: Scenario, traces: Sequence[Trace]) -> Arena:
    """Three planners on twelve seeds: 36 jobs."""
    deciding, judging = scenario.table("policy"), scenario.table("judge")
    names = ("planner", "distribution-planner", "two-window-planner")
    source = StreamSource(scenario, judging.outcomes, traces)
    streams = tuple(tuple(source.draw_evenly(8, seed)) for seed in range(12))
    return Arena({name: make_rival(name, deciding, {}) for name in names}, judging, streams)


def matrix_s(arena: Arena, workers: Workers) -> float:
    """Seconds that a comparison's matrix takes on workers that have begun."""
    play_matrix(replace(arena, streams=arena.streams[:2]), workers)
    started = time.perf_counter()
    play_matrix(arena, workers)
    return time.perf_counter() - started


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
