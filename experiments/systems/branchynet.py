"""BranchyNet's speed-up at equal accuracy: `python -m experiments.systems.branchynet`.

BranchyNet (arXiv 1709.01686) leaves at the first exit whose entropy is below its threshold. Two
networks: `garments`, and a small AlexNet trained here twice, with exits and without. Times are the
bundles' profiles of this machine. Thresholds are picked on one half of the pictures, the fastest
that surely cost no more than a point of the last exit's accuracy, and judged on the other half;
both ways.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from adaptive_split.bundle import bundle_path
from adaptive_split.candidates import Floats
from adaptive_split.cli.tables import table
from adaptive_split.models.pictures import LabelledPictures
from adaptive_split.outcomes import Outcomes
from adaptive_split.profile import Profile
from experiments.systems.alexnet import (
    BUNDLE,
    AlexNet,
    AlexNetConfig,
    make_bundle,
    normalize,
    read_pictures,
    train,
)
from experiments.systems.common import Finding, Series, chart, over_pictures, points, publish

GARMENTS = "garments"
LEAST_SPEEDUP = 1.4
"""Times as fast, from which it counts as the paper's 1.48."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BranchyConfig:
    """What is trained and swept."""

    branches: AlexNetConfig = field(default_factory=AlexNetConfig)
    plain: AlexNetConfig = field(
        default_factory=lambda: AlexNetConfig(exit_weights=(0.0, 0.0, 0.0, 1.0))
    )
    thresholds: tuple[float, ...] = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    """Of an exit's normalized entropy; at 0 the exit is left out and costs no time."""
    tolerance: float = 0.01
    """Accuracy that leaving early may cost, on the pictures that thresholds are picked on."""


@dataclass(frozen=True, slots=True, eq=False)
class Net:
    """A network with exits, what it answered, and how right it is without them."""

    name: str
    halves: tuple[Outcomes, Outcomes]
    reference: tuple[NDArray[np.bool_], NDArray[np.bool_]]
    """Whether the network without exits is right, for every picture of each half."""
    profile: Profile

    @property
    def full_s(self) -> float:
        """Time without exits."""
        return sum(self.profile.stage_s) + self.profile.exit_s[-1]


def play(
    outcomes: Outcomes, profile: Profile, thresholds: Floats
) -> tuple[NDArray[np.bool_], Floats]:
    """Put every picture to every setting of the thresholds.

    Args:
        outcomes: Of M pictures at S exits.
        profile: Times of stages and exits.
        thresholds: Of the exits before the last, shape `(G, S - 1)`.

    Returns:
        Whether the answer is right, and its time in seconds, both `(G, M)`.
    """
    entropy = 1 - outcomes.exit_confidence[:, :-1]
    sure = entropy[None] < thresholds[:, None, :]
    last = np.ones((*sure.shape[:2], 1), bool)
    leaves = np.concatenate([sure, last], axis=2).argmax(2)
    used = np.concatenate([thresholds > 0, np.ones((len(thresholds), 1), bool)], axis=1)
    seconds = np.cumsum(profile.stage_s + used * np.asarray(profile.exit_s), axis=1)
    right = outcomes.exit_right[np.arange(len(entropy)), leaves]
    return right, np.take_along_axis(seconds, leaves, axis=1)


def pick(outcomes: Outcomes, profile: Profile, settings: Floats, tolerance: float) -> int:
    """The fastest setting whose accuracy is, at 95 %, within a tolerance of the last exit's."""
    right, seconds = play(outcomes, profile, settings)
    apart = right.astype(np.float32) - outcomes.exit_right[:, -1]
    least = apart.mean(1) - 1.96 * apart.std(1) / apart.shape[1] ** 0.5
    return int(np.where(least >= -tolerance, seconds.mean(1), np.inf).argmin())


def judge(net: Net, config: BranchyConfig) -> dict[str, Any]:
    """Pick thresholds on one half, judge them on the other, both ways."""
    sides = net.profile.num_stages - 1
    settings = np.array(list(product(config.thresholds, repeat=sides)))
    apart, seconds, picks = [], [], []
    for deciding in (0, 1):
        chosen = pick(net.halves[deciding], net.profile, settings, config.tolerance)
        picks.append(settings[chosen])
        right, took = play(net.halves[1 - deciding], net.profile, picks[-1][None])
        apart.append(right[0].astype(float) - net.reference[1 - deciding])
        seconds.append(took[0])
    exits = np.concatenate([half.exit_right for half in net.halves])
    reference = np.concatenate(net.reference)
    joint = exits[:, -1].astype(float) - reference
    return {
        "picks": [one.tolist() for one in picks],
        "speedup": net.full_s / float(np.concatenate(seconds).mean()),
        "full_ms": 1e3 * net.full_s,
        "accuracy_minus_reference": over_pictures(np.concatenate(apart)).to_json(),
        "last_exit_minus_reference": over_pictures(joint).to_json(),
        "reference_accuracy": float(reference.mean()),
        "exit_accuracy": exits.mean(0).tolist(),
        "pictures": len(reference),
        "sweep": sweep(net, config),
    }


def sweep(net: Net, config: BranchyConfig) -> list[dict[str, float]]:
    """One threshold for all exits, on all pictures: speed-up and accuracy."""
    same = np.repeat(np.array([config.thresholds]).T, net.profile.num_stages - 1, axis=1)
    both = [play(half, net.profile, same) for half in net.halves]
    right, seconds = (np.concatenate(parts, axis=1).mean(1) for parts in zip(*both, strict=True))
    return [
        {"threshold": t, "speedup": net.full_s / s, "accuracy": a}
        for t, s, a in zip(config.thresholds, seconds.tolist(), right.tolist(), strict=True)
    ]


def garments() -> Net:
    """The shipped network; without exits it is its last exit."""
    folder = bundle_path(GARMENTS)
    first, second = _halves(folder)
    reference = (first.exit_right[:, -1], second.exit_right[:, -1])
    profile = Profile.load(folder / "profile_server.json")
    return Net(GARMENTS, (first, second), reference, profile)


def small_alexnet(config: BranchyConfig, folder: Path, out: Path) -> Net:
    """Train it with exits and without, and build the bundle of the one with exits."""
    pictures = read_pictures(folder)

    def trained(name: str, one: AlexNetConfig) -> AlexNet:
        return train(one, pictures.train, out / f"{BUNDLE}-{name}.pt", _say)

    plain = trained("plain", config.plain)
    make_bundle(trained("branches", config.branches), pictures, out / BUNDLE, _say)
    reference = (_right(plain, pictures.policy), _right(plain, pictures.judge))
    profile = Profile.load(out / BUNDLE / "profile_server.json")
    return Net("small AlexNet", _halves(out / BUNDLE), reference, profile)


def _halves(folder: Path) -> tuple[Outcomes, Outcomes]:
    policy, judged = (
        Outcomes.load(folder / f"outcomes_{half}.npz").plain() for half in ("policy", "judge")
    )
    return policy, judged


@torch.no_grad()
def _right(net: AlexNet, pictures: LabelledPictures) -> NDArray[np.bool_]:
    logits = net(normalize(pictures.pixels[0].float() / 255))
    return np.asarray((logits.argmax(1) == pictures.labels).numpy())


def main() -> None:
    """Train what is not trained yet, sweep, print the table and leave the finding."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=Path, default=Path("../shared/data/images/clothing"))
    parser.add_argument("--out", type=Path, default=Path("runs/systems"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = BranchyConfig()
    nets = (small_alexnet(config, arguments.pictures, arguments.out), garments())
    results = {net.name: judge(net, config) for net in nets}
    print(_table(results))
    publish("branchynet", _finding(results), config, results, _figure(results))


def _table(results: dict[str, dict[str, Any]]) -> str:
    head = ["network", "without exits", "speed-up", "accuracy to it", "last exit to it",
            "thresholds, both picks"]  # fmt: skip
    rows = [
        [name, f"{one['reference_accuracy']:.3f}, {one['full_ms']:.2f} ms",
         f"{one['speedup']:.2f}", points(one["accuracy_minus_reference"]),
         points(one["last_exit_minus_reference"]), " | ".join(map(str, one["picks"]))]
        for name, one in results.items()
    ]  # fmt: skip
    return table([head, *rows])


def _finding(results: dict[str, dict[str, Any]]) -> Finding:
    (small, large) = results.values()
    both = (small, large)
    equal = [one for one in both if one["accuracy_minus_reference"]["high"] >= 0]
    fast = [one for one in equal if one["speedup"] >= LEAST_SPEEDUP]
    gains = small["accuracy_minus_reference"]["low"] > 0
    return Finding(
        system="BranchyNet",
        paper="ICPR 2016, arXiv 1709.01686",
        claim="B-AlexNet 1.48 times as fast as AlexNet and 1.5 points more accurate (CIFAR-10); "
        "B-LeNet about 5 times as fast (MNIST)",
        command="python -m experiments.systems.branchynet",
        measured=f"small AlexNet {small['speedup']:.2f} times as fast, "
        f"{points(small['accuracy_minus_reference'])} to the same network trained without exits "
        f"({100 * small['reference_accuracy']:.1f} %); `garments` {large['speedup']:.2f} times, "
        f"{points(large['accuracy_minus_reference'])} to its last exit "
        f"({large['pictures']} pictures each, ONNX Runtime, one thread)",
        verdict="agrees" if gains and len(fast) == 2 else "partly" if equal else "disagrees",
        sentence=_sentence(small, large, len(fast)),
    )


def _sentence(small: dict[str, Any], large: dict[str, Any], num_fast: int) -> str:
    joint = small["last_exit_minus_reference"]
    much = ("less than in the paper", "in one of two as much as in the paper", "as in the paper")
    better = "agrees" if joint["low"] > 0 else "is too unsure to agree"
    return (
        f"leaving early saves time at equal accuracy, {much[num_fast]}; training with exits moves "
        f"the last one by {points(joint)}, which {better} with the paper's gain (one training "
        "each); five times as fast needs a first exit about as good as the last, as on MNIST: "
        f"here they reach {100 * small['exit_accuracy'][0]:.0f} and "
        f"{100 * large['exit_accuracy'][0]:.0f} %"
    )


def _figure(results: dict[str, dict[str, Any]]) -> str:
    series = []
    for color, (name, one) in enumerate(results.items()):
        for kind, xs, ys in (
            ("one threshold for all exits", [p["speedup"] for p in one["sweep"]],
             [100 * (p["accuracy"] - one["reference_accuracy"]) for p in one["sweep"]]),
            ("picked", [one["speedup"]], [100 * one["accuracy_minus_reference"]["value"]]),
        ):  # fmt: skip
            series.append(
                Series(name=f"{name}, {kind}", x=xs, y=ys, joined=len(xs) > 1,
                       color=color if len(xs) > 1 else 4 + color)
            )  # fmt: skip
    series.append(Series(name="B-AlexNet (paper)", x=[1.48], y=[1.5], color=2, joined=False))
    return chart(
        "BranchyNet: accuracy against speed-up", series,
        x_title="times as fast as the network without exits",
        y_title="points of accuracy to the network without exits", marks={"equal": 0.0},
    )  # fmt: skip


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
