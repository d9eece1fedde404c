"""What each part of the learning is worth: `python experiments/ablation.py --out runs/ablation`.

Every variant trains one policy for three scenarios of the benchmark and is judged on validation
streams: other traces than it learnt from, the pictures that every controller decides with. Needs
the knobs that `experiments/benchmark.py tune` found. What the future of a choice is worth, and is
learned after all this, is told by `experiments/future_worth.py`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adaptive_split.agents.evaluate import lane_utility
from adaptive_split.agents.rivals import make_rival
from adaptive_split.agents.sac import CandidateSAC
from adaptive_split.agents.task import DISTRIBUTION, Task
from adaptive_split.agents.train import TrainConfig, make_model
from adaptive_split.observation import CONTEXT, PAYLOAD_COLUMNS
from adaptive_split.planner import BacklogPrices
from adaptive_split.runtime.controller import ForecastController
from adaptive_split.runtime.simulated.streams import StreamSource
from adaptive_split.scenario import load_scenario
from adaptive_split.trace import Trace
from adaptive_split.trace_sets import default_traces

SCENARIOS = {"F": "default", "A": "nano-30fps", "B": "pi-230ms-10fps-100ms"}
HISTORY = tuple(
    column.name for column in CONTEXT
    if any(part in column.name for part in ("_mean_", "_spread_", "_low_", "_high_", "trend"))
)  # fmt: skip
QUANTILES = ("chance_4", "chance_cautious", "slack_worst_4", "slack_floor", "slack_mean")
Change = Callable[[CandidateSAC], None]


def main() -> None:
    """Train every variant with every seed, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--tuned", type=Path, default=Path("runs/benchmark"))
    parser.add_argument("--data", type=Path, help="recordings; default as for adaptive-split train")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--frames", type=int, default=150_000)
    parser.add_argument("--only", nargs="+", choices=tuple(VARIANTS), default=list(VARIANTS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    learning, _ = default_traces("train", arguments.data)
    checking, _ = default_traces("validation", arguments.data)
    tasks = [make_task(letter, arguments.tuned, checking) for letter in SCENARIOS]
    found: dict[str, Any] = {}
    for name in arguments.only:
        file = arguments.out / f"{name}.json"
        if not file.exists():
            rows = [run(name, tasks, learning, seed, arguments.frames) for seed in arguments.seeds]
            file.write_text(json.dumps(rows), encoding="utf-8")
        found[name] = json.loads(file.read_text(encoding="utf-8"))
        print(line(name, found[name]), flush=True)


def make_task(letter: str, tuned: Path, traces: Sequence[Trace]) -> Task:
    """A scenario of the benchmark with 24 validation streams per family."""
    scenario = load_scenario(SCENARIOS[letter])
    table = scenario.table("policy")
    knobs = json.loads((tuned / f"tuned-{letter}.json").read_text(encoding="utf-8"))
    streams = StreamSource(scenario, table.outcomes, traces).draw_evenly(24, 1)
    return Task(scenario=scenario, table=table, tuned=knobs, streams=tuple(streams))


def run(
    name: str, tasks: Sequence[Task], traces: Sequence[Trace], seed: int, frames: int
) -> list[list[float]]:
    """Train one variant; give `(gain, standard error)` over the planner in every scenario."""
    config, change, prices = VARIANTS[name]
    taught = tasks if prices is None else [priced(task, prices) for task in tasks]
    model = make_model(taught, traces, replace(config, seed=seed, num_frames=frames))
    if change is not None:
        change(model)
    if name != "untrained":
        model.learn(frames, log_interval=10**9)
    weights = model.policy.export()
    rows = []
    for task in tasks:
        rival = make_rival(DISTRIBUTION, task.table, task.tuned)
        ours = ForecastController(task.table, weights, prices or task.prices)
        apart = lane_utility(ours, task.table, task.streams)
        apart = apart - lane_utility(rival, task.table, task.streams)
        rows.append([float(apart.mean()), float(apart.std() / len(apart) ** 0.5)])
    return rows


def priced(task: Task, prices: BacklogPrices) -> Task:
    """The same task with other backlog prices to train with."""
    knobs = {f"{name}_price": value for name, value in asdict(prices).items()}
    return replace(task, tuned={**task.tuned, DISTRIBUTION: knobs})


def line(name: str, seeds: Sequence[Sequence[Sequence[float]]]) -> str:
    """One row of the table."""
    values = np.array(seeds)
    cells = [
        f"{values[:, i, 0].mean():+.4f} ({values[:, i, 1].mean():.4f})"
        for i in range(values.shape[1])
    ]
    return f"| {name} | " + " | ".join(cells) + f" | {values[:, :, 0].mean():+.4f} |"


def blind(names: Sequence[str]) -> Change:
    """Take some columns of the observation away from the networks."""

    def change(model: CandidateSAC) -> None:
        forecast = model.policy.forecast
        learn_scales = forecast.normalize_on

        def normalize_on(context: torch.Tensor, payloads: torch.Tensor) -> None:
            learn_scales(context, payloads)
            for columns, scale in (
                (CONTEXT, forecast.context_scale), (PAYLOAD_COLUMNS, forecast.payload_scale)
            ):  # fmt: skip
                for index, column in enumerate(columns):
                    if column.name in names:
                        scale[index] = 1e9

        forecast.normalize_on = normalize_on  # type: ignore[method-assign]

    return change


def hide_counterfactuals(model: CandidateSAC) -> None:
    """Let the policy learn from the payload that was sent alone, as on a device."""
    env: Any = model.get_env()
    step = env.step_wait

    def step_wait() -> Any:
        observation, reward, ended, infos = step()
        for info in infos:
            info.pop("payload_on_time", None)
        return observation, reward, ended, infos

    env.step_wait = step_wait


DEFAULT = TrainConfig()
FREE = BacklogPrices(device=0.0, uplink=0.0)
VARIANTS: dict[str, tuple[TrainConfig, Change | None, BacklogPrices | None]] = {
    "untrained": (DEFAULT, None, None),
    "default": (DEFAULT, None, None),
    "no-counterfactuals": (DEFAULT, hide_counterfactuals, None),
    "varied-streams": (replace(DEFAULT, vary=True), None, None),
    "varied-slo": (replace(DEFAULT, slo_factors=(1.0, 0.5)), None, None),
    "curriculum": (replace(DEFAULT, curriculum=0.5), None, None),
    "no-prices": (DEFAULT, None, FREE),
    "no-history": (DEFAULT, blind(HISTORY), None),
    "one-link-quantile": (DEFAULT, blind(QUANTILES), None),
    "two-steps": (replace(DEFAULT, gradient_steps=2), None, None),
    "small-batch": (replace(DEFAULT, batch_size=128), None, None),
}


if __name__ == "__main__":
    main()
