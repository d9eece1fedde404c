"""Links of a kind that nobody was trained on: `python experiments/unseen_links.py DATA`.

`DATA/traces_down` holds recordings of downlinks; their uplinks were not measured. They stand in as
an unseen kind of link, and are named so: 5G and LTE in Ireland with the pings of the same drives,
and 3G in Norway, whose round trip was not recorded and is assumed. Everybody whom the benchmark in
OUT has played plays them, in both directions; what is printed lies below OUT/unseen.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
import torch
from benchmark import SCENARIOS, SWAPPED, cross, play_everybody

from adaptive_split.trace import Trace

ASSUMED_RTT_S = 0.09
"""Of the 3G links: between the medians of LTE to a cloud and of older HSDPA networks."""


def main() -> None:
    """Play in both directions and print the tables over them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark"))
    parser.add_argument("--only", nargs="+", choices=tuple(SCENARIOS), default=list(SCENARIOS))
    parser.add_argument("--streams", type=int, default=40, help="per source")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder = arguments.data / "traces_down"
    links = read(folder / "irish5g") + read(folder / "norway3g")
    out, arguments.hindsight = arguments.out, False
    for halves, below in (("given", ""), (SWAPPED, SWAPPED)):
        arguments.halves, arguments.out = halves, out / below
        boards = out / "unseen" / below
        boards.mkdir(parents=True, exist_ok=True)
        play_everybody(links, arguments, boards)
    arguments.out = out / "unseen"
    cross(arguments)


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
