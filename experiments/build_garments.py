"""Build the `garments` bundle from a checkpoint: `python experiments/build_garments.py`.

Exports the graphs, measures outcomes on both halves of the validation pictures, profiles this
machine, copies some pictures, and writes the table of accuracy and bytes.
"""

from __future__ import annotations

import argparse
import csv
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from adaptive_split.bundle import ModelBundle, add_provenance
from adaptive_split.codec import decode_picture, encode_picture
from adaptive_split.decision import DecisionGrid
from adaptive_split.models.export import export_bundle
from adaptive_split.models.multi_exit import GarmentsNet
from adaptive_split.models.pictures import LabelledPictures, largest_classes, load_pictures
from adaptive_split.outcomes import Outcomes
from adaptive_split.runtime.measure import LabelledPicture, measure
from adaptive_split.runtime.profiler import nano_class, profile_bundle
from adaptive_split.runtime.stages import StageRunner

PICTURE_QUALITIES = {1: 8, 2: 20, 4: 45, 8: 80}
SWEPT_QUALITIES = (4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 60, 75, 90)
NUM_COPIED = 120


def main() -> None:
    """Build next to the place and move into it at the end, so that nobody sees half a bundle."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=Path("runs/garments/garments.pt"))
    parser.add_argument("--pictures", type=Path, default=Path("../shared/data/images/clothing"))
    parser.add_argument("--license", type=Path, help="default: LICENSE beside the pictures")
    parser.add_argument("--out", type=Path, default=Path("adaptive_split/data/bundles/garments"))
    parser.add_argument("--copies", type=Path, default=Path("adaptive_split/data/pictures"))
    parser.add_argument("--table", type=Path, default=Path("experiments/garments_accuracy.md"))
    parser.add_argument("--force", action="store_true", help="replace OUT and COPIES")
    arguments = parser.parse_args()
    for place in (arguments.out, arguments.copies):
        if place.exists() and not arguments.force:
            parser.error(f"{place} exists; --force replaces it")
    torch.set_num_threads(1)
    net, classes, training = load_checkpoint(arguments.checkpoint, arguments.pictures)
    val = load_pictures(arguments.pictures, "val", classes)
    policy, judge = halves(val)
    staging = arguments.out.with_name(arguments.out.name + ".new")
    shutil.rmtree(staging, ignore_errors=True)
    bundle = export_bundle(
        net,
        classes,
        staging,
        name="garments",
        picture_qualities=PICTURE_QUALITIES,
        provenance={
            "data": "alexeygrigorev/clothing-dataset @ 7ed86a9c, ten largest classes",
            "data_license": "CC0-1.0",
            "training": training,
            "versions": {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__},
        },
        calibration=subset(val, policy),
    )
    print(f"exported {bundle.hash[:12]}, temperatures {bundle.temperatures}", flush=True)
    grid = DecisionGrid(bundle.num_stages)
    outcomes = []
    for name, rows in (("policy", policy), ("judge", judge)):
        outcomes.append(measure(bundle, labelled(val, rows), grid, subset=name, progress=_show))
        outcomes[-1].save(staging / f"outcomes_{name}.npz")
    profile = profile_bundle(bundle)
    profile.save(staging / "profile_server.json")
    nano_class(profile).save(staging / "profile_device.json")
    sweep = sweep_jpeg(bundle, val)
    bundle = add_provenance(bundle, {"accuracy": accuracy_table(outcomes)})
    text = report(bundle, outcomes, sweep, training)
    shutil.rmtree(arguments.out, ignore_errors=True)
    staging.rename(arguments.out)
    license_ = arguments.license or arguments.pictures / "LICENSE"
    copy_pictures(outcomes[1], classes, arguments.pictures, license_, arguments.copies)
    arguments.table.write_text(text, encoding="utf-8")
    print(text)


def load_checkpoint(
    path: Path, pictures: Path
) -> tuple[GarmentsNet, tuple[str, ...], dict[str, Any]]:
    """Read a finished network (`net`, `classes`) or a run's `checkpoint.pt` (its average)."""
    saved = torch.load(path, map_location="cpu", weights_only=True)
    finished = "classes" in saved
    classes = tuple(saved["classes"]) if finished else largest_classes(pictures, 10)
    net = GarmentsNet(len(classes))
    net.load_state_dict(saved["net"] if finished else saved["average"])
    state = "finished" if finished else f"draft after epoch {saved['epoch']}"
    return net, classes, {"script": "experiments/train_garments.py", "seed": 0, "state": state}


def halves(pictures: LabelledPictures) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split rows in two, alternating within every class in file order: (policy, judge)."""
    labels = pictures.labels.numpy()
    rank = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        rank[rows] = np.arange(len(rows))
    return np.flatnonzero(rank % 2 == 0), np.flatnonzero(rank % 2 == 1)


def subset(pictures: LabelledPictures, rows: NDArray[np.int64]) -> LabelledPictures:
    """Keep some rows."""
    files = tuple(pictures.files[row] for row in rows)
    index = torch.from_numpy(rows)
    return LabelledPictures(
        pictures.pixels[:, index], pictures.labels[index], files, pictures.classes
    )


def labelled(pictures: LabelledPictures, rows: NDArray[np.int64]) -> Iterator[LabelledPicture]:
    """Give file, label and pixels `(H, W, 3)` of some rows."""
    for row in rows:
        pixels = pictures.pixels[0, row].numpy().transpose(1, 2, 0)
        yield pictures.files[row], int(pictures.labels[row]), np.ascontiguousarray(pixels)


def sweep_jpeg(bundle: ModelBundle, pictures: LabelledPictures) -> dict[int, tuple[float, float]]:
    """Mean bytes and accuracy of the whole model behind JPEG, by quality."""
    found = {}
    with StageRunner(bundle) as runner:
        for quality in SWEPT_QUALITIES:
            sizes, right = [], []
            for _, label, pixels in labelled(pictures, np.arange(len(pictures.files))):
                payload = encode_picture(pixels, quality)
                tensor = runner.prepare(decode_picture(payload, bundle.input_shape[1]))
                for index in range(1, bundle.num_stages + 1):
                    tensor = runner.stage(index, tensor)
                sizes.append(len(payload))
                right.append(runner.exit(bundle.num_stages, tensor).answer == label)
            found[quality] = (float(np.mean(sizes)), float(np.mean(right)))
    return found


def accuracy_table(outcomes: list[Outcomes]) -> dict[str, Any]:
    """Top-1 of every exit and payload on all pictures measured."""
    exits = np.concatenate([half.exit_right for half in outcomes]).mean(0)
    served = np.concatenate([half.server_right for half in outcomes]).mean(0)
    sizes = np.concatenate([half.payload_bytes for half in outcomes]).mean(0)
    return {
        "pictures": sum(len(half.label) for half in outcomes),
        "exits": [round(float(value), 4) for value in exits],
        "payloads": [
            {
                "split_point": k,
                "bits": bits,
                "bytes": round(float(size), 1),
                "top1": round(float(a), 4),
            }
            for (k, bits), size, a in zip(outcomes[0].payloads, sizes, served, strict=True)
        ],
    }


def report(
    bundle: ModelBundle,
    outcomes: list[Outcomes],
    sweep: dict[int, tuple[float, float]],
    training: dict[str, Any],
) -> str:
    """Write the tables as Markdown."""
    table = accuracy_table(outcomes)
    policy, judge = outcomes
    lines = [
        "# Accuracy and bytes of `garments`",
        "",
        f"`python experiments/build_garments.py`; bundle {bundle.hash[:12]}; weights: "
        f"{training['state']}; {table['pictures']} validation pictures, of which "
        f"{len(policy.label)} policy and {len(judge.label)} judge; one standard error of top-1 is "
        f"about {100 * (0.2 / table['pictures']) ** 0.5:.1f} points.",
        "",
        "| exit | temperature | top-1 | policy | judge | mean confidence |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for k, top1 in enumerate(table["exits"]):
        lines.append(
            f"| {k + 1} | {bundle.temperatures[k]:.2f} | {top1:.3f} | "
            f"{policy.exit_right[:, k].mean():.3f} | {judge.exit_right[:, k].mean():.3f} | "
            f"{judge.exit_confidence[:, k].mean():.2f} |"
        )
    lines += [
        "",
        "A payload's JPEG of equal accuracy is the smallest of the sweep below that is at least as",
        "accurate; the share is the payload's bytes over that JPEG's.",
        "",
        "| split point | bits | mean bytes | top-1 | policy | judge | equal JPEG | share |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for index, row in enumerate(table["payloads"]):
        equal, share = "-", "-"
        if row["split_point"]:
            better = {q: size for q, (size, top1) in sweep.items() if top1 >= row["top1"] - 1e-4}
            quality = min(better, key=lambda q: better[q], default=None)
            equal = "none" if quality is None else f"q{quality}, {better[quality]:.0f} B"
            share = "-" if quality is None else f"{row['bytes'] / better[quality]:.2f}"
        rung = f" (q{bundle.picture_qualities[row['bits']]})" if not row["split_point"] else ""
        lines.append(
            f"| {row['split_point']} | {row['bits']}{rung} | {row['bytes']:.0f} | "
            f"{row['top1']:.3f} | "
            f"{policy.server_right[:, index].mean():.3f} | "
            f"{judge.server_right[:, index].mean():.3f} | {equal} | {share} |"
        )
    lines += ["", "| JPEG quality | mean bytes | top-1 |", "| --- | --- | --- |"]
    lines += [f"| {q} | {size:.0f} | {top1:.3f} |" for q, (size, top1) in sweep.items()]
    return "\n".join(lines) + "\n"


def copy_pictures(
    judge: Outcomes, classes: tuple[str, ...], source: Path, license_: Path, out: Path
) -> None:
    """Copy about `NUM_COPIED` judge pictures, the same share of every class, and their license."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    shutil.copyfile(license_, out / "LICENSE")
    share = min(1.0, NUM_COPIED / len(judge.label))
    chosen = []
    for label in range(len(classes)):
        rows = np.flatnonzero(judge.label == label)
        count = max(1, round(len(rows) * share))
        chosen += [judge.files[rows[i * len(rows) // count]] for i in range(count)]
    labels = dict(zip(judge.files, judge.label, strict=True))
    with (out / "labels.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("file", "label", "split"))
        for file in sorted(chosen):
            (out / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / file, out / file)
            writer.writerow((file, classes[labels[file]], "judge"))


def _show(count: int) -> None:
    if count % 50 == 0:
        print(f"{count} pictures measured", flush=True)


if __name__ == "__main__":
    main()
