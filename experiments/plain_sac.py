"""Plain Stable-Baselines3 SAC on the same environment: `python experiments/plain_sac.py`.

The reference that the candidate-scoring form is held to: a continuous action in the cube, decoded
to the nearest candidate, learning from the taken action's reward alone.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from adaptive_split.agents.evaluate import play
from adaptive_split.agents.reference import train_plain_sac
from adaptive_split.agents.roster import make_policy
from adaptive_split.cli.common import SHIPPED_CONTROLLER
from adaptive_split.runtime.controller_bundle import ControllerBundle
from adaptive_split.runtime.streams import StreamSource
from adaptive_split.scenario import load_scenario
from adaptive_split.trace_sets import default_traces


def main() -> None:
    """Train, then play it beside the shipped controller on test streams."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=8_000)
    arguments = parser.parse_args()
    scenario = load_scenario("default")
    learning, sentence = default_traces("train")
    print(sentence)
    started = time.monotonic()
    plain = train_plain_sac(scenario, learning, num_frames=arguments.frames)
    print(f"{arguments.frames} frames in {time.monotonic() - started:.0f} s")
    traces, sentence = default_traces("test")
    print(sentence)
    judging, deciding = scenario.table("judge"), scenario.table("policy")
    streams = StreamSource(scenario, judging.outcomes, traces).draw_evenly(20, seed=0)
    learned = ControllerBundle.load(SHIPPED_CONTROLLER)
    names = ("distribution-planner", "sac")
    policies = [plain, *(make_policy(name, deciding, learned) for name in names)]
    for policy in policies:
        utility = play(policy, judging, streams).per_stream("utility")
        error = np.std(utility) / np.sqrt(len(utility))
        print(f"{policy.name:22s} utility {utility.mean():.4f}, standard error {error:.4f}")


if __name__ == "__main__":
    main()
