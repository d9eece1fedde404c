"""Links of a kind that nobody was trained on: `python experiments/unseen_links.py DATA`.

`DATA/traces_down` holds recordings of downlinks; their uplinks were not measured. They stand in as
an unseen kind of link, and are named so: 5G and LTE in Ireland with the pings of the same drives,
and 3G in Norway, whose round trip was not recorded and is assumed.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
import torch
from benchmark import SCENARIOS, words

from adaptive_split.agents.evaluate import lane_utility
from adaptive_split.agents.intervals import Bootstrap
from adaptive_split.agents.rivals import RIVALS, make_rival
from adaptive_split.runtime.controller import Policy
from adaptive_split.runtime.controller_bundle import ControllerBundle
from adaptive_split.runtime.simulated.streams import StreamSource
from adaptive_split.scenario import load_scenario
from adaptive_split.trace import Trace

ASSUMED_RTT_S = 0.09
"""Of the 3G links: between the medians of LTE to a cloud and of older HSDPA networks."""


def main() -> None:
    """Print utilities and paired differences per scenario and source."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--benchmark", type=Path, default=Path("runs/benchmark"))
    parser.add_argument("--only", nargs="+", choices=tuple(SCENARIOS), default=list(SCENARIOS))
    parser.add_argument("--streams", type=int, default=40, help="per source")
    parser.add_argument("--seed", type=int, default=0, help="of the trained policy")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder = arguments.data / "traces_down"
    traces = read(folder / "irish5g") + read(folder / "norway3g")
    for letter in arguments.only:
        bundle = ControllerBundle.load(arguments.benchmark / f"seed-{arguments.seed}" / letter)
        scenario = load_scenario(SCENARIOS[letter])
        deciding, judging = scenario.table("policy"), scenario.table("judge")
        source = StreamSource(scenario, judging.outcomes, traces)
        streams = source.draw_evenly(arguments.streams, 0)
        policies: dict[str, Policy] = {"sac": bundle.controller(deciding)}
        policies |= {name: make_rival(name, deciding, bundle.tuned) for name in RIVALS}
        utility = {name: lane_utility(one, judging, streams) for name, one in policies.items()}
        bootstrap = Bootstrap([s.family for s in streams], [s.name for s in streams])
        family = np.array([s.family for s in streams])
        kinds = sorted(set(family))
        print(f"\n| {letter} | utility | sac minus it | " + " | ".join(kinds) + " |")
        print("| --- |" + " --- |" * (2 + len(kinds)))
        for name in sorted(utility, key=lambda name: -utility[name].mean()):
            apart = bootstrap.estimate(utility["sac"] - utility[name])
            cells = " | ".join(f"{utility[name][family == kind].mean():.4f}" for kind in kinds)
            print(f"| {name} | {utility[name].mean():.4f} | "
                  f"{'' if name == 'sac' else words(apart)} | {cells} |", flush=True)  # fmt: skip


def read(folder: Path) -> list[Trace]:
    """Read the downlinks of one source as if they were uplinks."""
    found = []
    for file in sorted(folder.glob("*.csv")):
        with file.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        if len(rows) < 60:
            continue
        pings = [float(row["rtt_ms"]) for row in rows if row.get("rtt_ms")]
        usual = float(np.median(pings)) / 1e3 if pings else ASSUMED_RTT_S
        rtt = [float(row["rtt_ms"]) / 1e3 if row.get("rtt_ms") else usual for row in rows]
        found.append(
            Trace(
                file.stem, f"downlink-{folder.name}", np.array([float(r["time_s"]) for r in rows]),
                np.array([float(row["downlink_mbps"]) for row in rows]), np.array(rtt),
                source="recorded", rtt_source="recorded" if pings else "synthetic",
            )
        )  # fmt: skip
    return found


if __name__ == "__main__":
    main()
