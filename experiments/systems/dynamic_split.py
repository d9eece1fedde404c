"""Dynamic split computing's best split: `python -m experiments.systems.dynamic_split`.

"Dynamic Split Computing" (arXiv 2205.11269) cuts a network, unchanged, at its natural bottlenecks,
features smaller than the input, and picks the one of least head time + bytes / data rate + tail
time. Here: `garments` and `garments-light` with their profiles, and ResNet-18 and EfficientNet-B0
with a roofline of what was published of a Jetson Nano. Every element sent takes 8 bits, of the
picture as of a feature; there are no round trips, as in the paper.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
import torch
from torch import nn

from adaptive_split.candidates import Floats
from adaptive_split.cli.tables import table
from adaptive_split.models.cuts import Cut, CuttableModel
from adaptive_split.models.propose import distinct_cuts, is_natural
from adaptive_split.models.trace import Logits
from adaptive_split.runtime.peaks import Peaks
from adaptive_split.scenario import load_scenario
from experiments.systems.common import Finding, Series, chart, publish

SIDE = 224
PICTURE = 3 * SIDE * SIDE
LOCAL = "device only"
LEAST_MOVED = 0.05
"""Share of the rates at which a batch must have another best split to count as moving it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DynamicSplitConfig:
    """Machines and links."""

    rates_mbps: tuple[float, ...] = tuple(np.geomspace(1.0, 1000.0, 301).tolist())
    batches: tuple[int, ...] = (1, 16)
    device_more: float = 0.9
    """What one more in a batch costs the device of one alone; as measured on a CPU."""
    server_more: float = 0.15
    """The same on the server; a guess for an accelerator."""
    device_gflops: float = 79.0
    """ResNet-18's 3.63 GFLOP in the 45.9 ms that MAHPPO measured on a Jetson Nano in 5 W mode."""
    device_gbps: float = 12.8
    """Half of what the Nano's memory has on paper."""
    server_speed: float = 10.0
    """Of the server over the device, for the networks without profiles."""


@dataclass(frozen=True, slots=True)
class Option:
    """One split of a network, for one picture."""

    name: str
    head_s: float
    sent_bytes: float
    tail_s: float


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """The best split at every rate, of one network and batch."""

    options: tuple[Option, ...]
    latency_s: Floats
    """Of every option at every rate, shape `(N, R)`."""

    @property
    def best(self) -> list[int]:
        """Index of the best option at every rate."""
        return [int(index) for index in self.latency_s.argmin(0)]

    @property
    def share_of_local(self) -> Floats:
        """Latency of the best split over that of the device alone, shape `(R,)`."""
        return np.asarray(self.latency_s.min(0) / self.latency_s[-1])

    @property
    def fixed(self) -> int:
        """The fixed split of least mean latency over all rates, each decade weighing the same."""
        return int(self.latency_s.mean(1).argmin())

    def fixed_optimal(self) -> float:
        """The largest share of the rates, on a logarithmic scale, at which one split is best."""
        return float(np.bincount(self.best).max() / len(self.best))

    def fixed_slower(self) -> float:
        """How much longer the best fixed split takes on average than the best at every rate."""
        return float((self.latency_s[self.fixed] / self.latency_s.min(0)).mean() - 1)

    def switches(self, rates: Sequence[float]) -> list[tuple[float, str]]:
        """Rates from which another split is best, and its name."""
        changes = enumerate(pairwise(self.best), 1)
        return [(rates[at], self.options[new].name) for at, (old, new) in changes if new != old]


def sweep(options: Sequence[Option], batch: int, config: DynamicSplitConfig) -> Found:
    """Latency of a batch: `head + batch * bytes / rate + tail` of every option at every rate."""
    device = 1 + config.device_more * (batch - 1)
    server = 1 + config.server_more * (batch - 1)
    computing = np.array([device * one.head_s + server * one.tail_s for one in options])
    bits = np.array([8 * batch * one.sent_bytes for one in options])
    return Found(tuple(options), computing[:, None] + bits[:, None] / 1e6 / config.rates_mbps)


def profiled(name: str) -> list[Option]:
    """Options of a scenario's network, by its profiles; no exits, no learned bottlenecks."""
    scenario = load_scenario(name)
    device, server, stages = scenario.device, scenario.server, scenario.grid.num_stages

    def option(split: int, size: int) -> Option:
        tail_s = sum(server.stage_s[split:]) + server.exit_s[-1]
        return Option(_named(split, size), sum(device.stage_s[:split]), float(size), tail_s)

    sizes = [prod(scenario.bundle.input_shape), *map(prod, scenario.bundle.feature_shapes)]
    inner = [k for k in range(1, stages) if sizes[k] < sizes[0]]
    whole_s = sum(device.stage_s) + device.exit_s[-1]
    return [option(k, sizes[k]) for k in (0, *inner)] + [Option(LOCAL, whole_s, 0.0, 0.0)]


def _named(split: int, size: int) -> str:
    return "picture to the server" if split == 0 else f"split point {split}, {size / 1000:.1f} kB"


def traced(make: Callable[[], nn.Module], config: DynamicSplitConfig) -> list[Option]:
    """Options of an untrained backbone: its natural bottlenecks, by a roofline over its cuts.

    Between two cuts the device takes the longer of computing and moving; what moves inside a
    block, between no cuts, is not counted.
    """
    model = Logits(make().eval())
    cuts = distinct_cuts(CuttableModel(model, torch.rand(2, 3, SIDE, SIDE)).cuts)
    seconds = _part_seconds(cuts, Peaks(config.device_gflops, config.device_gbps))
    whole_s, passed = sum(seconds), np.cumsum(seconds)
    natural = [
        Option(
            f"{_place(cut)}, {cut.num_elements / 1000:.1f} kB", float(before),
            float(cut.num_elements), (whole_s - float(before)) / config.server_speed,
        )
        for cut, before in zip(cuts, passed, strict=False)
        if is_natural(cut, PICTURE)
    ]  # fmt: skip
    picture = Option("picture to the server", 0.0, float(PICTURE), whole_s / config.server_speed)
    return [picture, *natural, Option(LOCAL, whole_s, 0.0, 0.0)]


def _part_seconds(cuts: Sequence[Cut], peaks: Peaks) -> list[float]:
    """Device time up to every cut from the one before, and after the last."""
    flops = [0, *(cut.flops_before for cut in cuts), cuts[-1].flops_before + cuts[-1].flops_after]
    elements = [PICTURE, *(cut.num_elements for cut in cuts), 0]
    return [
        max((late - early) / peaks.gflops, 4 * (came + went) / peaks.memory_gbps) / 1e9
        for (early, late), (came, went) in zip(pairwise(flops), pairwise(elements), strict=True)
    ]


def _place(cut: Cut) -> str:
    return f"after {100 * cut.share:.0f} % of the work"


# Imported late, as they take seconds.
def _resnet() -> nn.Module:
    from transformers import ResNetConfig, ResNetForImageClassification

    return ResNetForImageClassification(
        ResNetConfig(depths=[2, 2, 2, 2], hidden_sizes=[64, 128, 256, 512], layer_type="basic")
    )


def _efficientnet() -> nn.Module:
    from transformers import EfficientNetConfig, EfficientNetForImageClassification

    return EfficientNetForImageClassification(
        EfficientNetConfig(
            width_coefficient=1.0, depth_coefficient=1.0, image_size=SIDE, hidden_dim=1280
        )
    )


def networks(config: DynamicSplitConfig) -> dict[str, list[Option]]:
    """Options of all networks."""
    makers: dict[str, Callable[[], list[Option]]] = {
        "garments": partial(profiled, "default"),
        "garments-light": partial(profiled, "nano-light-10fps-100ms"),
        "ResNet-18": partial(traced, _resnet, config),
        "EfficientNet-B0": partial(traced, _efficientnet, config),
    }
    return {name: make() for name, make in makers.items()}


def main() -> None:
    """Sweep, print and leave the finding."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    config = DynamicSplitConfig()
    found = {
        name: {batch: sweep(options, batch, config) for batch in config.batches}
        for name, options in networks(config).items()
    }
    print(_table(found, config))
    results = {
        name: {f"batch {batch}": _as_json(one, config) for batch, one in batches.items()}
        for name, batches in found.items()
    }
    publish("dynamic_split", _finding(found, config), config, results, _figure(found, config))


def _as_json(one: Found, config: DynamicSplitConfig) -> dict[str, Any]:
    return {
        "options": [option.name for option in one.options],
        "switches": one.switches(config.rates_mbps), "first": one.options[one.best[0]].name,
        "local_s": float(one.latency_s[-1, 0]), "fixed": one.options[one.fixed].name,
        "fixed_optimal": one.fixed_optimal(), "fixed_slower": one.fixed_slower(),
    }  # fmt: skip


Networks = Mapping[str, Mapping[int, Found]]


def _table(found: Networks, config: DynamicSplitConfig) -> str:
    rows = [["network, batch", "options", "best split by data rate in Mbit/s"]]
    for name, batches in found.items():
        for batch, one in batches.items():
            switches = one.switches(config.rates_mbps)
            words = [one.options[one.best[0]].name, *(f"{rate:.0f}: {to}" for rate, to in switches)]
            rows.append([f"{name}, {batch}", str(len(one.options)), words[0]])
            rows += [["", "", word] for word in words[1:]]
    return table(rows)


def _finding(found: Networks, config: DynamicSplitConfig) -> Finding:
    single = {name: batches[config.batches[0]] for name, batches in found.items()}
    told = "; ".join(
        f"{name} ({len(one.options) - 2} natural bottlenecks) at "
        + ", ".join(f"{rate:.0f}" for rate, _ in one.switches(config.rates_mbps))
        for name, one in single.items()
    )
    optimal = [one.fixed_optimal() for one in single.values()]
    slower = [one.fixed_slower() for one in single.values()]
    moved = [
        float(np.mean(np.array(single[name].best) != batches[config.batches[-1]].best))
        for name, batches in found.items()
    ]
    moves = all(len(set(one.best)) > 2 for one in single.values())
    return Finding(
        system="Dynamic split computing",
        paper="arXiv 2205.11269",
        claim="natural bottlenecks suffice, the best split moves with data rate and batch, and a "
        "fixed one is almost never the best (15 to 68 bottlenecks in EfficientNets)",
        command="python -m experiments.systems.dynamic_split",
        measured=f"the best split changes, in Mbit/s: {told}; no split is best at more than "
        f"{_range(optimal)} of the rates from 1 to 1000 Mbit/s, the best fixed one is "
        f"{_range(slower)} slower on average; a batch of {config.batches[-1]} has another best "
        f"split at {_range(moved)} of the rates",
        verdict="agrees" if moves and min(moved) > LEAST_MOVED else "partly",
        sentence="natural bottlenecks do move the best split with the data rate, and fixing it "
        "costs dearly; but some split is best over a third to a half of the rates, hardly almost "
        "never, of EfficientNet's 30 bottlenecks two are ever best, and a batch, whose bytes grow "
        "as its computing does, moves the switching rates by a few percent only; the backbones are "
        "untrained and their times a roofline, no measurement",
    )


def _range(shares: Sequence[float]) -> str:
    return f"{100 * min(shares):.0f} to {100 * max(shares):.0f} %"


def _figure(found: Networks, config: DynamicSplitConfig) -> str:
    """Latency of the best split over that of the device, and where another split is best."""
    rates = list(config.rates_mbps)
    single = {name: batches[config.batches[0]] for name, batches in found.items()}
    series = [
        Series(name=name, color=color, x=rates, y=one.share_of_local.tolist(), dots=False)
        for color, (name, one) in enumerate(single.items())
    ]
    changes = [
        (rate, float(one.share_of_local[rates.index(rate)]), f"{name}, from {rate:.0f}: {split}")
        for name, one in single.items()
        for rate, split in one.switches(rates)
    ]
    xs, ys, notes = zip(*changes, strict=True)
    another = Series(name="another split is best", color=6, x=xs, y=ys, joined=False, notes=notes)
    return chart(
        "Dynamic split computing: the best split at every data rate", [*series, another],
        x_title="data rate in Mbit/s", log_x=True,
        y_title="latency of the best split over that of the device alone",
    )  # fmt: skip


if __name__ == "__main__":
    main()
