"""Neurosurgeon as a rule on our networks: `python -m experiments.systems.neurosurgeon`.

Neurosurgeon (Kang et al., ASPLOS 2017) runs the first layers on the phone and the rest on the
server, split where predicted latency, or predicted energy, is least. First its own setting: one
request at a time, nothing but 10 s promised, a network without early exits, full precision. There
it plays against sending every picture (the status quo, here a JPEG), staying on the device, the
best split kept for every request, and per request the best of all in hindsight. Then our
scenarios, where deadlines and queues count.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from adaptive_split.agents.baselines import Static
from adaptive_split.agents.link_readings import mean_link
from adaptive_split.agents.roster import BEST_STATIC, LEARNED, describe
from adaptive_split.agents.rules import LinkKnobs, Neurosurgeon
from adaptive_split.candidates import Floats
from adaptive_split.cli.tables import table
from adaptive_split.planner import Moment
from adaptive_split.runtime.controller import Choice
from adaptive_split.runtime.simulated.streams import Stream, StreamSource
from adaptive_split.scenario import Scenario, load_scenario
from adaptive_split.trace import Trace
from adaptive_split.trace_sets import default_traces
from experiments.systems.common import Finding, Series, chart, publish
from experiments.systems.rules import (
    DEVICE_ONLY,
    REFERENCES,
    SCENARIOS,
    SERVER_ONLY,
    Played,
    as_json,
    play_frames,
    play_scenarios,
    print_utilities,
    rate_bins,
    rates_of,
    tally,
    told,
)

RULE = "neurosurgeon"
FIXED, CLAIRVOYANT, ENERGY = "best fixed split", "best in hindsight", "least energy"
CLAIMED_SPEEDUP, CLAIMED_SAVING = 3.1, 0.595
SHOWN_MBPS = (0.3, 30.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class NeurosurgeonConfig:
    """Where and how much is played."""

    machines: tuple[str, ...] = ("F", "I", "B")
    """Scenarios whose device and network are used with one request at a time."""
    request_fps: float = 0.2
    slo_s: float = 10.0
    """When a lost request is given up; nothing else depends on it."""
    requests_per_stream: int = 60
    per_family: int = 12
    """Streams of each link family."""
    num_bins: int = 10
    """Of the link's rate in the figure."""


class LeastEnergy(Neurosurgeon):
    """Least predicted energy of the device, Neurosurgeon's other goal."""

    def choose(self, moment: Moment) -> Choice:
        """Take the allowed candidate of least computing and sending energy."""
        table, radio = self.table, self.table.radio
        rate, _ = mean_link(moment, self.knobs.newest_weight)
        upload_s = 8e-6 * table.mean_bytes / np.maximum(rate * self.knobs.safety, 1e-3)
        sending_j = radio.watts * upload_s + radio.joules_per_mbit * 8e-6 * table.mean_bytes
        payload = np.maximum(table.grid.payload_index, 0)
        energy_j = table.device.compute_w * table.busy_s + table.send_share * sending_j[:, payload]
        lost = ~table.grid.local & ~moment.server_usable[:, None]
        return np.asarray(np.where(self.allowed & ~lost, energy_j, np.inf).argmin(1))


@dataclass(frozen=True, slots=True, eq=False)
class Alone:
    """One device and network with one request at a time, arrays of shape `(B, F)`."""

    streams: tuple[Stream, ...]
    latency_s: Mapping[str, Floats]
    energy_j: Mapping[str, Floats]
    fixed: str
    """The best fixed split, in words."""
    between_share: float
    """Of the rule's requests, those cut in between: neither sent whole nor kept."""

    def ratios(self, above: str, below: str) -> dict[str, float]:
        """Mean latency of one over that of another, by link family."""
        family = np.array([stream.family for stream in self.streams])
        return {
            name: float(
                self.latency_s[above][family == name].mean()
                / self.latency_s[below][family == name].mean()
            )
            for name in np.unique(family).tolist()
        }


def one_at_a_time(given: Scenario, config: NeurosurgeonConfig) -> Scenario:
    """The same machines without early exits, and with requests so far apart that none waits."""
    device = given.device
    early_s = (0.0,) * (device.num_stages - 1)
    return replace(
        given,
        device=replace(device, exit_s=(*early_s, device.exit_s[-1])),
        objective=replace(given.objective, slo_s=config.slo_s, fps=config.request_fps),
        camera=replace(given.camera, frames_per_stream=config.requests_per_stream),
    )


def play_alone(letter: str, traces: Sequence[Trace], config: NeurosurgeonConfig) -> Alone:
    """Play the rule, both its goals, and every arm that it has, one request after the other."""
    scenario = one_at_a_time(load_scenario(SCENARIOS[letter]), config)
    deciding, judging = scenario.table("policy"), scenario.table("judge")
    source = StreamSource(scenario, judging.outcomes, traces)
    streams = tuple(source.draw_evenly(config.per_family, 0))
    rule = Neurosurgeon(deciding, LinkKnobs())
    arms = {
        int(index): play_frames(Static(int(index)), judging, streams)
        for index in np.flatnonzero(rule.allowed)
    }
    chosen = {RULE: rule, ENERGY: LeastEnergy(deciding, LinkKnobs())}
    found = {name: play_frames(policy, judging, streams) for name, policy in chosen.items()}
    best = min(arms, key=lambda index: float(arms[index].latency_s.mean()))
    splits = {int(judging.grid.split_point[index]): index for index in arms}
    found[DEVICE_ONLY], found[SERVER_ONLY] = arms[splits[judging.grid.num_stages]], arms[splits[0]]
    found[FIXED] = arms[best]
    latency_s = {name: frames.latency_s for name, frames in found.items()}
    latency_s[CLAIRVOYANT] = np.min([frames.latency_s for frames in arms.values()], axis=0)
    energy_j = {name: frames.energy_j for name, frames in found.items()}
    between = (found[RULE].split_point > 0) & (found[RULE].split_point < judging.grid.num_stages)
    fixed = describe(judging.grid.candidates[best])
    return Alone(streams, latency_s, energy_j, fixed, float(between.mean()))


def sum_up(alone: Mapping[str, Alone]) -> dict[str, Any]:
    """Speed-ups over every machine and link family, and the energy saved."""
    speedup = {
        name: [ratio for one in alone.values() for ratio in one.ratios(name, RULE).values()]
        for name in (SERVER_ONLY, DEVICE_ONLY, FIXED, CLAIRVOYANT)
    }
    saving = [
        1 - float(one.energy_j[ENERGY].mean() / one.energy_j[SERVER_ONLY].mean())
        for one in alone.values()
    ]
    return {
        "speedup_over": {
            name: {"mean": float(np.mean(values)), "least": min(values), "most": max(values)}
            for name, values in speedup.items()
        },
        "energy_saved_to_server_only": saving,
        "by_machine": {
            letter: {
                "scenario": SCENARIOS[letter], "fixed": one.fixed,
                "between_share": one.between_share,
                "latency_s": {name: float(v.mean()) for name, v in one.latency_s.items()},
                "energy_j": {name: float(v.mean()) for name, v in one.energy_j.items()},
                "speedup_by_family": one.ratios(SERVER_ONLY, RULE),
            }
            for letter, one in alone.items()
        },
    }  # fmt: skip


def by_rate(one: Alone, config: NeurosurgeonConfig) -> tuple[Floats, dict[str, Floats]]:
    """Median latency by the uplink's rate when the request came.

    Returns:
        Middle of every bin in Mbit/s, and by controller the latency in ms.
    """
    rate = rates_of(one.streams, config.request_fps)
    middles, bins = rate_bins(rate, *SHOWN_MBPS, config.num_bins)
    latency = {
        name: np.array([1e3 * np.median(values[inside]) for inside in bins])
        for name, values in one.latency_s.items()
    }
    return middles, latency


def main() -> None:
    """Play both settings, print them and leave the finding."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    config = NeurosurgeonConfig()
    traces, _ = default_traces("test")
    print(told(traces))
    alone = {letter: play_alone(letter, traces, config) for letter in config.machines}
    summed = sum_up(alone)
    _print_alone(summed)
    played = dict(play_scenarios((RULE, *REFERENCES), traces, config.per_family))
    print_utilities(played, RULE)
    results = {"traces": told(traces), "one_at_a_time": summed, "scenarios": as_json(played, RULE)}
    figure = _figure(alone[config.machines[0]], config)
    publish(RULE, _finding(summed, played), config, results, figure)


def _print_alone(found: Mapping[str, Any]) -> None:
    rows = [["machine, controller", "mean ms", "mean J"]]
    for letter, one in found["by_machine"].items():
        rows += [
            [f"{letter} {name}", f"{1e3 * latency:.0f}",
             f"{one['energy_j'][name]:.3f}" if name in one["energy_j"] else ""]
            for name, latency in one["latency_s"].items()
        ]  # fmt: skip
    print(table(rows))
    for name, one in found["speedup_over"].items():
        print(f"{RULE} is {one['mean']:.2f} times faster than {name} "
              f"({one['least']:.2f} to {one['most']:.2f})")  # fmt: skip


def _finding(found: Mapping[str, Any], played: Mapping[str, Played]) -> Finding:
    over = found["speedup_over"]
    server, device, fixed = (over[name] for name in (SERVER_ONLY, DEVICE_ONLY, FIXED))
    saving = float(np.mean(found["energy_saved_to_server_only"]))
    between = float(np.mean([one["between_share"] for one in found["by_machine"].values()]))
    held = (server["mean"] >= CLAIMED_SPEEDUP, saving >= CLAIMED_SAVING)
    apart = {name: tally(played, RULE, name) for name in REFERENCES}
    return Finding(
        system="Neurosurgeon",
        paper="ASPLOS 2017",
        claim="against sending everything: latency 3.1 times shorter on average (40.7 at most), "
        "59.5 % less energy of the device (94.7 % at most)",
        command="python -m experiments.systems.neurosurgeon",
        measured=f"one request at a time: {server['mean']:.1f} times as fast as sending JPEGs "
        f"({server['least']:.1f} to {server['most']:.1f} over 3 machines and 4 link families), "
        f"{device['mean']:.2f} times as the device alone, {fixed['mean']:.2f} as the best fixed "
        f"split; aimed at energy, {100 * saving:.0f} % less than sending. Utility in our "
        f"six scenarios to device only {apart[DEVICE_ONLY]}, JPEG only {apart[SERVER_ONLY]}, best "
        f"static {apart[BEST_STATIC]}, sac {apart[LEARNED]}",
        verdict="agrees" if all(held) else "partly" if any(held) else "disagrees",
        sentence="the latency claim holds against always sending, and mostly by staying local "
        f"where the link is poor: the device alone takes {device['mean']:.1f} times as long as "
        f"the rule, and a cut in between is chosen for {100 * between:.0f} % of the requests; the "
        "energy claim is missed by little, a JPEG being cheaper to send than raw input; under "
        "deadlines and queues, which it does not know, a fixed decision picked in hindsight and "
        "sac are ahead of it in most scenarios",
    )


def _figure(one: Alone, config: NeurosurgeonConfig) -> str:
    rates, latency = by_rate(one, config)
    names = {
        SERVER_ONLY: "JPEG only", DEVICE_ONLY: "device only", CLAIRVOYANT: CLAIRVOYANT, RULE: RULE,
    }  # fmt: skip
    series = [
        Series(name=name, color=color, x=rates.tolist(), y=latency[key].tolist())
        for color, (key, name) in zip((1, 2, 6, 0), names.items(), strict=True)
    ]
    return chart(
        "Neurosurgeon against the uplink: one request at a time", series,
        x_title="uplink in Mbit/s when the request comes, recorded links",
        y_title="median latency in ms, Nano with garments", log_x=True,
    )  # fmt: skip


if __name__ == "__main__":
    main()
