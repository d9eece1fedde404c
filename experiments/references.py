"""Stable-Baselines3's SAC, PPO and DQN on the same links: `python experiments/references.py`.

What the candidate-scoring form is held to: the same observation, discount and lanes, but learning
from the taken action's reward alone. SAC acts in the cube, decoded to the nearest candidate.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from adaptive_split.agents.baselines import Static
from adaptive_split.agents.evaluate import play
from adaptive_split.agents.reference import REFERENCES, train_reference
from adaptive_split.agents.roster import make_policy
from adaptive_split.cli.common import SHIPPED_CONTROLLER, say
from adaptive_split.cli.tables import table
from adaptive_split.runtime.controller import Policy
from adaptive_split.runtime.controller_bundle import ControllerBundle
from adaptive_split.runtime.simulated.streams import StreamSource
from adaptive_split.scenario import load_scenario
from adaptive_split.trace_sets import default_traces

# What a core learns in about five minutes: PPO takes few gradient steps, SAC one per frame.
FRAMES = {"plain-sac": 6_000, "ppo": 80_000, "dqn": 30_000}


def main() -> None:
    """Train them, then play them beside the shipped controller on test streams."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--names", nargs="+", choices=REFERENCES, default=list(REFERENCES))
    parser.add_argument("--frames", type=int, help="of each; default: five minutes' worth")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--streams", type=int, default=20, help="test streams per family")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    scenario = load_scenario("default")
    learning, sentence = default_traces("train")
    say(sentence)
    policies: dict[str, Policy] = {}
    rows = [["controller", "frames", "seconds", "utility", "standard error"]]
    trained: dict[str, tuple[str, str]] = {}
    for name in arguments.names:
        frames, started = arguments.frames or FRAMES[name], time.monotonic()
        policies[name] = train_reference(
            name, scenario, learning, num_frames=frames, seed=arguments.seed
        )
        trained[name] = (str(frames), f"{time.monotonic() - started:.0f}")
        say(f"{name}: {frames} frames in {trained[name][1]} s")
    traces, sentence = default_traces("test")
    say(sentence)
    judging, deciding = scenario.table("judge"), scenario.table("policy")
    streams = StreamSource(scenario, judging.outcomes, traces).draw_evenly(arguments.streams, 0)
    learned = ControllerBundle.load(SHIPPED_CONTROLLER)
    others: dict[str, Policy] = {
        "trained-static": Static(int(learned.tuned["best-static"]["candidate"])),
        **{name: make_policy(name, deciding, learned) for name in ("distribution-planner", "sac")},
    }
    for name, policy in (policies | others).items():
        utility = play(policy, judging, streams).per_stream("utility")
        error = np.std(utility) / np.sqrt(len(utility))
        rows.append([name, *trained.get(name, ("", "")), f"{utility.mean():.4f}", f"{error:.4f}"])
    print(table(rows))


if __name__ == "__main__":
    main()
