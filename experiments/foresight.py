"""What nobody could foresee: `python experiments/foresight.py --only F A`.

Two tests on the benchmark's test streams. An oracle is kept from knowing the round trips, the
server's queue, or both, better than to within a second: it expects over moments drawn within one
second of the true one. And the round trips of the streams themselves are redrawn within a second,
which leaves their level and takes their order: what a policy gains over the planner there does not
come from the persistence of single round trips.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from benchmark import SCENARIOS, traces
from numpy.typing import NDArray

from adaptive_split.agents.baselines import Oracle
from adaptive_split.agents.evaluate import lane_utility
from adaptive_split.agents.rivals import make_rival
from adaptive_split.candidates import CandidateTable, Floats
from adaptive_split.planner import BacklogPrices, Moment, Readings, combine, utility_terms
from adaptive_split.runtime.controller import Choice
from adaptive_split.runtime.controller_bundle import ControllerBundle
from adaptive_split.runtime.simulated.servers import Servers
from adaptive_split.runtime.simulated.streams import PERIOD_S, Stream, StreamSource
from adaptive_split.scenario import load_scenario

WITHIN_S = 1.0
NUM_DRAWS = 12
PRICES = BacklogPrices(device=0.3, uplink=0.05)


class ShiftedServers(Servers):
    """The servers as they are some seconds later, or earlier."""

    def __init__(self, servers: Servers, shift_s: float) -> None:
        self.servers, self.shift_s, self.slowdown = servers, shift_s, servers.slowdown

    def backlog_s(self, lane: NDArray[np.int64], moment_s: Floats) -> Floats:
        """The queue that a request arriving then would find."""
        return self.servers.backlog_s(lane, np.maximum(moment_s + self.shift_s, 0.0))

    def wait_s(
        self, lane: NDArray[np.int64], at_server_s: Floats, tail_s: Floats, deadline_s: Floats
    ) -> Floats:
        """How long it would wait."""
        moved = np.maximum(at_server_s + self.shift_s, 0.0)
        return self.servers.wait_s(lane, moved, tail_s, deadline_s + moved - at_server_s)


class BlurredOracle(Oracle):
    """Knows the rates to come, but round trips or the queue only to within a second."""

    def __init__(self, table: CandidateTable, *, rtt: bool, wait: bool) -> None:
        super().__init__(table, PRICES, "blurred")
        self.rtt, self.wait = rtt, wait
        self.generator = np.random.default_rng(0)

    def choose(self, moment: Moment) -> Choice:
        """Expect over shifted futures."""
        simulator = self._simulator
        assert simulator is not None
        links = simulator.links
        rtt, servers, drawn = links.rtt, links.servers, []
        most = round(WITHIN_S / PERIOD_S)
        for _ in range(NUM_DRAWS):
            if self.rtt:
                links.rtt = np.roll(rtt, int(self.generator.integers(-most, most + 1)), axis=1)
            if self.wait:
                shift_s = float(self.generator.uniform(-WITHIN_S, WITHIN_S))
                links.servers = ShiftedServers(servers, shift_s)
            drawn.append(simulator.payload_on_time())
        links.rtt, links.servers = rtt, servers
        on_time = np.stack([draw[0] for draw in drawn], 1)
        upload = np.stack([draw[1] for draw in drawn], 1)
        valid = np.ones(on_time.shape[:2], bool)
        readings = Readings(valid, upload, upload, on_time)
        base, gain = utility_terms(self.table, moment, self.prices, readings)
        return np.asarray(combine(self.table, base, gain, on_time.mean(1)).argmax(1))


def redrawn(streams: Sequence[Stream], seed: int = 0) -> list[Stream]:
    """The streams with every round trip drawn anew from within a second of it."""
    generator, most = np.random.default_rng(seed), round(WITHIN_S / PERIOD_S)
    found = []
    for stream in streams:
        size = len(stream.rtt_s)
        moved = np.arange(size) + generator.integers(-most, most + 1, size)
        found.append(replace(stream, rtt_s=stream.rtt_s[np.clip(moved, 0, size - 1)]))
    return found


def main() -> None:
    """Print one row per scenario."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--benchmark", type=Path, default=Path("runs/benchmark"))
    parser.add_argument("--data", type=Path, help="recordings; default as for adaptive-split train")
    parser.add_argument("--only", nargs="+", choices=tuple(SCENARIOS), default=list(SCENARIOS))
    parser.add_argument("--streams", type=int, default=25, help="per link family")
    parser.add_argument("--seed", type=int, default=0, help="of the trained policy")
    arguments = parser.parse_args()
    print(
        "| scenario | planner | sac | oracle | rtt blurred | queue blurred | both blurred | "
        "room left when both are blurred | sac - planner | the same, round trips redrawn |"
    )
    print("| --- |" + " --- |" * 9, flush=True)
    for letter in arguments.only:
        print(row(letter, arguments), flush=True)


def row(letter: str, arguments: argparse.Namespace) -> str:
    """Play planner, policy and oracles, all on the pictures they decide with."""
    scenario = load_scenario(SCENARIOS[letter])
    table = scenario.table("policy")
    source = StreamSource(scenario, table.outcomes, traces("test", arguments))
    streams = source.draw_evenly(arguments.streams, 0)
    knobs = (arguments.benchmark / f"tuned-{letter}.json").read_text(encoding="utf-8")
    planner = make_rival("distribution-planner", table, json.loads(knobs))
    place = arguments.benchmark / f"seed-{arguments.seed}" / letter
    sac = ControllerBundle.load(place).controller(table)
    oracles = [Oracle(table, PRICES)] + [
        BlurredOracle(table, rtt=rtt, wait=wait)
        for rtt, wait in ((True, False), (False, True), (True, True))
    ]
    policies = (planner, sac, *oracles)
    means: list[float] = [float(lane_utility(p, table, streams).mean()) for p in policies]
    other = redrawn(streams)
    apart: Floats = lane_utility(sac, table, other) - lane_utility(planner, table, other)
    left = (means[-1] - means[0]) / (means[2] - means[0])
    cells = [f"{value:.4f}" for value in means]
    cells += [f"{100 * left:.0f} %", f"{means[1] - means[0]:+.4f}", f"{apart.mean():+.4f}"]
    return f"| {letter} | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
