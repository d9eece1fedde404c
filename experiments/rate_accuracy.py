"""How many bytes does an answer need: JPEG, WebP, plain quantization, and learned bottlenecks?

    python -m experiments.rate_accuracy --pictures DIR

Sends every validation picture of `garments` through codec and tail in every way that the bundle's
outcomes do not have, prints bytes and top-1 of all ways, and draws `figures/rate_accuracy.svg`. DIR
is a folder of the clothing pictures with `labels.csv`. With `--ablation` it trains bottlenecks
instead, and prints what each of their parts is worth (needs the checkpoint of `garments`, and half
an hour of a core). What was measured is kept in `--out` and not measured again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from adaptive_split.bundle import ModelBundle, bundle_path
from adaptive_split.codec import decode_feature, decode_picture, encode_feature, encode_picture
from adaptive_split.models.pictures import LabelledPictures, load_pictures
from adaptive_split.outcomes import Outcomes
from adaptive_split.runtime.stages import StageRunner
from experiments.bottleneck_ablation import ablate, print_ablation
from experiments.build_garments import load_checkpoint
from experiments.rate_accuracy_figure import draw

FIGURE = Path(__file__).parent / "figures" / "rate_accuracy.svg"
QUALITIES = {
    "JPEG": (4, 6),
    "WebP": (1, 5, 10, 20, 45, 80),
}
PLAIN_BITS = (1, 2, 4, 8)
RANGE_BYTES = 8
"""Least and largest element of a feature, float32, that plain quantization has to send as well."""
BATCH = 16
MOST_LOST = 0.02
"""Top-1 that a compression ratio may cost."""

Floats = NDArray[np.float32]
Sender = Callable[[Floats], tuple[int, Floats]]
"""What one picture or feature becomes: its payload's bytes, and what is read from it."""


@dataclass(frozen=True, slots=True)
class Point:
    """One way to send, on all pictures."""

    family: str
    """`JPEG`, `WebP`, `plain K` or `ours K` at split point K."""
    setting: int
    """Quality, or bits."""
    payload_bytes: float
    right: tuple[int, ...]
    """1 for every picture answered right."""

    @property
    def top1(self) -> float:
        """Share of right answers."""
        return float(np.mean(self.right))

    @property
    def standard_error(self) -> float:
        """Of `top1`."""
        return (self.top1 * (1 - self.top1) / len(self.right)) ** 0.5

    def lost(self, whole: Point) -> tuple[float, float]:
        """Top-1 lost against another point, and the standard error of that paired difference."""
        difference = np.subtract(whole.right, self.right)
        return float(difference.mean()), float(difference.std() / len(difference) ** 0.5)


def main() -> None:
    """Measure and draw, or ablate."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=Path, required=True, metavar="DIR")
    parser.add_argument("--out", type=Path, default=Path("runs/rate_accuracy"), metavar="DIR")
    parser.add_argument("--ablation", action="store_true")
    parser.add_argument("--checkpoint", type=Path, default=Path("runs/garments/garments.pt"))
    parser.add_argument("--split", type=int, default=3, help="split point of the ablation")
    parser.add_argument("--steps", type=int, default=200, help="training steps of a variant")
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.ablation:
        run_ablation(arguments)
        return
    bundle = ModelBundle.load(bundle_path("garments"))
    whole, *rest = shipped(bundle)
    rest += measured(bundle, arguments.pictures, arguments.out / "points.json")
    rest.sort(key=lambda point: (point.family, point.setting))
    print_points(whole, rest)
    print_ratios(bundle, whole, rest)
    FIGURE.write_text(draw(bundle, whole, rest, whole.standard_error), encoding="utf-8")
    print(f"\nwrote {FIGURE}")


def run_ablation(arguments: argparse.Namespace) -> None:
    """Train what is missing and print the tables."""
    trained = load_checkpoint(arguments.checkpoint)
    train, judged = (
        load_pictures(arguments.pictures, split, trained.classes) for split in ("train", "val")
    )
    rows = ablate(
        trained.net, train, judged, split=arguments.split, seeds=range(arguments.seeds),
        num_steps=arguments.steps, kept=arguments.out / f"ablation-{arguments.split}.json",
    )  # fmt: skip
    print_ablation(rows)


def shipped(bundle: ModelBundle) -> list[Point]:
    """The uncut model, JPEG's rungs and the bottlenecks, as the bundle's outcomes have them."""
    halves = [
        Outcomes.load(bundle.path / f"outcomes_{half}.npz").plain() for half in ("policy", "judge")
    ]
    files = [file for half in halves for file in half.files]
    order = sorted(range(len(files)), key=files.__getitem__)

    def joined(name: str) -> NDArray[np.int64]:
        return np.concatenate([getattr(half, name) for half in halves])[order].astype(np.int64)

    def point(family: str, setting: int, size: float, right: NDArray[np.int64]) -> Point:
        return Point(family, setting, size, tuple(right.tolist()))

    sizes, served = joined("payload_bytes").mean(0), joined("server_right")
    found = [point("whole", 0, 0.0, joined("exit_right")[:, -1])]
    for index, (split, bits) in enumerate(halves[0].payloads):
        family, setting = f"ours {split}", bits
        if split == 0:
            family, setting = "JPEG", bundle.picture_qualities[bits]
        found.append(point(family, setting, float(sizes[index]), served[:, index]))
    return found


def measured(bundle: ModelBundle, folder: Path, kept: Path) -> list[Point]:
    """Every other point; those in `kept` are not measured again."""
    found: list[Point] = []
    if kept.is_file():
        saved = json.loads(kept.read_text(encoding="utf-8"))
        if saved["bundle"] == bundle.hash:
            found = [Point(**point) for point in saved["points"]]
    done = {(one.family, one.setting) for one in found}
    if all(name in done for split in range(bundle.num_stages) for name, _ in ways(split)):
        return found
    pictures = load_pictures(folder, "val", bundle.classes)
    kept.parent.mkdir(parents=True, exist_ok=True)
    with StageRunner(bundle) as runner:
        for point in missing_points(runner, pictures, done):
            found.append(point)
            saved = {"bundle": bundle.hash, "points": [asdict(one) for one in found]}
            kept.write_text(json.dumps(saved), encoding="utf-8")
    return found


def missing_points(
    runner: StageRunner, pictures: LabelledPictures, done: set[tuple[str, int]]
) -> Iterator[Point]:
    """Measure every way to send that is not done; `pictures` in the order of their files."""
    feature = pictures.pixels[0].numpy().astype(np.float32) / 255
    labels = pictures.labels.numpy()
    for split in range(runner.bundle.num_stages):
        if split:
            feature = in_batches(lambda batch, at=split: runner.stage(at, batch), feature)
        for name, send in ways(split):
            if name not in done:
                yield measure_point(runner, feature, labels, name, split, send)


def ways(split: int) -> Iterator[tuple[tuple[str, int], Sender]]:
    """Name the ways to send at a split point that the bundle's outcomes do not have."""
    if split == 0:
        for family, qualities in QUALITIES.items():
            for quality in qualities:
                yield (family, quality), picture_sender(family, quality)
        return
    for bits in PLAIN_BITS:
        yield (f"plain {split}", bits), plain_sender(bits)


def measure_point(
    runner: StageRunner,
    features: Floats,
    labels: NDArray[np.int64],
    name: tuple[str, int],
    split: int,
    send: Sender,
) -> Point:
    """Send every picture or feature `(N, C, H, W)` and let the rest of the model answer."""
    sizes, answers = [], []
    for batch in batches(features):
        read = []
        for one in batch:
            size, back = send(one)
            sizes.append(size)
            read.append(back)
        tensor = np.stack(read)
        for stage in range(split + 1, runner.bundle.num_stages + 1):
            tensor = runner.stage(stage, tensor)
        answers += [one.answer for one in runner.exit_all(runner.bundle.num_stages, tensor)]
    right = tuple(int(value) for value in np.equal(answers, labels))
    point = Point(*name, float(np.mean(sizes)), right)
    print(
        f"{point.family}, {point.setting}: {point.payload_bytes:.0f} B, {point.top1:.3f}",
        flush=True,
    )
    return point


def picture_sender(family: str, quality: int) -> Sender:
    """Compress the picture."""

    def send(planes: Floats) -> tuple[int, Floats]:
        pixels = np.rint(255 * planes.transpose(1, 2, 0)).astype(np.uint8)
        payload = encode_picture(pixels, quality, family.lower())
        back = decode_picture(payload, pixels.shape[:2], family.lower())
        return len(payload), back.transpose(2, 0, 1).astype(np.float32) / 255

    return send


def plain_sender(bits: int) -> Sender:
    """Quantize the feature itself between its extremes."""

    def send(feature: Floats) -> tuple[int, Floats]:
        low, high = feature.min(), feature.max()
        span = max(high - low, np.float32(1e-6))
        payload = encode_feature((feature - low) / span, bits)
        return len(payload) + RANGE_BYTES, low + span * decode_feature(payload, feature.shape)

    return send


def batches(features: Floats) -> Iterator[Floats]:
    """Part features `(N, C, H, W)`."""
    for start in range(0, len(features), BATCH):
        yield features[start : start + BATCH]


def in_batches(run: Callable[[Floats], Floats], features: Floats) -> Floats:
    """Run something on all features."""
    return np.concatenate([run(batch) for batch in batches(features)])


def print_points(whole: Point, points: list[Point]) -> None:
    """Print the table of all points."""
    print(f"\nuncut: top-1 {whole.top1:.3f} of {len(whole.right)} pictures, "
          f"one standard error is {100 * whole.standard_error:.1f} points\n")  # fmt: skip
    print("| sent | quality or bits | mean bytes | top-1 | points lost |")
    print("| --- | --- | --- | --- | --- |")
    for one in points:
        print(f"| {one.family} | {one.setting} | {one.payload_bytes:.0f} | {one.top1:.3f} | "
              f"{loss(one, whole)} |")  # fmt: skip


def print_ratios(bundle: ModelBundle, whole: Point, points: list[Point]) -> None:
    """Print the largest compression of every split point that costs `MOST_LOST` or less."""
    print("\n| split point, how | float32 feature | smallest payload | ratio | points lost |")
    print("| --- | --- | --- | --- | --- |")
    for split, shape in enumerate(bundle.feature_shapes[:-1], start=1):
        size = 4 * int(np.prod(shape))
        for how in ("plain", "ours"):
            family = [point for point in points if point.family == f"{how} {split}"]
            kept = [point for point in family if point.lost(whole)[0] <= MOST_LOST]
            best = min(kept, key=lambda point: point.payload_bytes, default=None)
            if best is None:
                print(f"| {split}, {how} | {size} | none | - | more than {100 * MOST_LOST:.0f} |")
                continue
            print(f"| {split}, {how} | {size} | {best.payload_bytes:.0f} at {best.setting} bits | "
                  f"{size / best.payload_bytes:.0f} | {loss(best, whole)} |")  # fmt: skip


def loss(point: Point, whole: Point) -> str:
    """Points of top-1 lost, and their standard error."""
    lost, error = point.lost(whole)
    return f"{100 * lost:+.1f} ± {100 * error:.1f}"


if __name__ == "__main__":
    main()
