"""Build a bundle from a checkpoint: `python experiments/build_garments.py`.

Exports the graphs, measures outcomes on two halves of the pictures not trained on, profiles this
machine, and writes the table of accuracy and bytes.
"""

from __future__ import annotations

import argparse
import csv
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from adaptive_split.bundle import ModelBundle, add_provenance, bundle_path
from adaptive_split.codec import decode_picture, encode_picture
from adaptive_split.decision import DecisionGrid
from adaptive_split.models.export import export_bundle
from adaptive_split.models.multi_exit import GARMENTS, NETWORKS, GarmentsNet
from adaptive_split.models.pictures import LabelledPictures, load_pictures
from adaptive_split.outcomes import Outcomes
from adaptive_split.profile import Profile
from adaptive_split.runtime.measure import measure
from adaptive_split.runtime.profiler import NANO_FULL_S, nano_class, profile_bundles
from adaptive_split.runtime.stages import StageRunner
from adaptive_split.runtime.views import LabelledPicture, in_views

PICTURE_QUALITIES = {1: 8, 2: 20, 4: 45, 8: 80}
SWEPT_QUALITIES = (4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 60, 75, 90)
NUM_COPIED = 120
VIEWS = 6
"""Of every picture measured; the tables are of the pictures as they are."""
ROUNDS = 300
"""Rounds that a profile is the median of."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What a checkpoint holds."""

    net: GarmentsNet
    name: str
    classes: tuple[str, ...]
    held_out: tuple[str, ...]
    """Senders whose training pictures the network has not seen."""


def main() -> None:
    """Build next to the place and move into it at the end, so that nobody sees half a bundle."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=Path("runs/garments/garments.pt"))
    parser.add_argument("--pictures", type=Path, default=Path("../shared/data/images/clothing"))
    parser.add_argument("--out", type=Path, help="default: the shipped bundle of that name")
    parser.add_argument("--copies", type=Path, help="also copy some judge pictures to this folder")
    parser.add_argument("--license", type=Path, help="default: LICENSE beside the pictures")
    parser.add_argument("--table", type=Path, help="default: experiments/NAME_accuracy.md")
    parser.add_argument("--force", action="store_true", help="replace OUT and COPIES")
    parser.add_argument(
        "--measure", action="store_true", help="only measure the outcomes of OUT anew, as it is"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    trained = load_checkpoint(arguments.checkpoint)
    out = arguments.out or Path("adaptive_split/data/bundles") / trained.name
    table = Path(f"experiments/{trained.name.replace('-', '_')}_accuracy.md")
    if arguments.measure:
        bundle = ModelBundle.load(out)
        measure_halves(bundle, unseen_pictures(trained, arguments.pictures), out)
        return
    for place in filter(None, (out, arguments.copies)):
        if place.exists() and not arguments.force:
            parser.error(f"{place} exists; --force replaces it")
    pictures = unseen_pictures(trained, arguments.pictures)
    staging = out.with_name(out.name + ".new")
    shutil.rmtree(staging, ignore_errors=True)
    bundle, outcomes = build(trained, pictures, staging)
    write_profiles(bundle)
    bundle = add_provenance(bundle, {"accuracy": accuracy_table(outcomes)})
    text = report(bundle, outcomes, sweep_jpeg(bundle, pictures))
    shutil.rmtree(out, ignore_errors=True)
    staging.rename(out)
    if arguments.copies:
        license_ = arguments.license or arguments.pictures / "LICENSE"
        copy_pictures(outcomes[1], trained.classes, arguments.pictures, license_, arguments.copies)
    (arguments.table or table).write_text(text, encoding="utf-8")
    print(text)


def load_checkpoint(path: Path) -> Trained:
    """Read a finished network; `garments` is older than the keys `network` and `held_out`."""
    saved = torch.load(path, map_location="cpu", weights_only=True)
    name, classes = saved.get("network", GARMENTS.name), tuple(saved["classes"])
    net = GarmentsNet(NETWORKS[name], len(classes))
    net.load_state_dict(saved["net"])
    return Trained(net, name, classes, tuple(saved.get("held_out", ())))


def unseen_pictures(trained: Trained, folder: Path) -> LabelledPictures:
    """Read all that the network was not trained on: `val`, then what was held out."""
    val, held = (
        load_pictures(folder, split, trained.classes, held_out=trained.held_out)
        for split in ("val", "held")
    )
    return LabelledPictures(
        torch.cat([val.pixels, held.pixels], 1),
        torch.cat([val.labels, held.labels]),
        val.files + held.files,
        val.classes,
    )


def build(
    trained: Trained, pictures: LabelledPictures, staging: Path
) -> tuple[ModelBundle, list[Outcomes]]:
    """Export the graphs, with temperatures fitted on the policy half, and measure both halves."""
    policy, _ = halves(pictures)
    training = {"script": "experiments/train_garments.py", "seed": 0, "network": trained.name}
    bundle = export_bundle(
        trained.net,
        trained.classes,
        staging,
        name=trained.name,
        picture_qualities=PICTURE_QUALITIES,
        provenance={
            "data": "alexeygrigorev/clothing-dataset @ 7ed86a9c, ten largest classes",
            "data_license": "CC0-1.0",
            "training": {**training, "senders_held_out": len(trained.held_out)},
            "versions": {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__},
        },
        calibration=subset(pictures, policy),
    )
    print(f"exported {bundle.hash[:12]}, temperatures {bundle.temperatures}", flush=True)
    return bundle, measure_halves(bundle, pictures, staging)


def measure_halves(bundle: ModelBundle, pictures: LabelledPictures, place: Path) -> list[Outcomes]:
    """Measure both halves in views, save them below a place, and give what is of no view."""
    grid, outcomes = DecisionGrid(bundle.num_stages), []
    for name, rows in zip(("policy", "judge"), halves(pictures), strict=True):
        seen = in_views(labelled(pictures, rows), VIEWS)
        half = measure(bundle, seen, grid, subset=name, progress=_show)
        half.save(place / f"outcomes_{name}.npz")
        outcomes.append(half.plain())
    return outcomes


def write_profiles(bundle: ModelBundle) -> None:
    """Profile this machine, and model the Nano on which `garments` takes `NANO_FULL_S`.

    Another bundle is timed in turns with `garments` and scaled by what that one took when its own
    profile was made over what it takes now: so both describe the same server and the same Nano.
    """
    if bundle.name == GARMENTS.name:
        [profile] = profile_bundles([bundle], repeats=ROUNDS)
        reference = profile
    else:
        garments = ModelBundle.load(bundle_path(GARMENTS.name))
        profile, now = profile_bundles([bundle, garments], repeats=ROUNDS)
        reference = Profile.load(garments.path / "profile_server.json")
        factor = reference.full_s / now.full_s
        machine = f"{profile.machine}, timed in turns with garments, times {factor:.3f}"
        print(f"garments {1e3 * now.full_s:.2f} ms, {bundle.name} {1e3 * profile.full_s:.2f} ms")
        profile = profile.scaled(factor, machine)
    profile.save(bundle.path / "profile_server.json")
    nano = nano_class(profile, NANO_FULL_S * profile.full_s / reference.full_s)
    nano.save(bundle.path / "profile_device.json")


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
                tensor = runner.prepare(decode_picture(payload, bundle.input_shape[1:]))
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
    bundle: ModelBundle, outcomes: list[Outcomes], sweep: dict[int, tuple[float, float]]
) -> str:
    """Write the tables as Markdown."""
    sizes = [len(half.label) for half in outcomes]
    lines = [
        f"# Accuracy and bytes of `{bundle.name}`",
        "",
        f"`python experiments/build_garments.py --checkpoint runs/{bundle.name}/{bundle.name}.pt`; "
        f"bundle {bundle.hash[:12]}; {sum(sizes)} pictures not trained on, of which {sizes[0]} "
        f"policy and {sizes[1]} judge; one standard error of top-1 is about "
        f"{100 * (0.2 / sum(sizes)) ** 0.5:.1f} points.",
        "",
        *_exit_rows(bundle, outcomes),
        "",
        "A payload's JPEG of equal accuracy is the smallest of the sweep below that is at least as",
        "accurate; the share is the payload's bytes over that JPEG's.",
        "",
        *_payload_rows(bundle, outcomes, sweep),
        "",
        "| JPEG quality | mean bytes | top-1 |",
        "| --- | --- | --- |",
        *(f"| {q} | {size:.0f} | {top1:.3f} |" for q, (size, top1) in sweep.items()),
    ]
    return "\n".join(lines) + "\n"


def _exit_rows(bundle: ModelBundle, outcomes: list[Outcomes]) -> list[str]:
    """Tabulate the exits; `strangers` are pictures of senders that training never saw."""
    policy, judge = outcomes
    right = np.concatenate([half.exit_right for half in outcomes])
    files = [file for half in outcomes for file in half.files]
    strange = np.array([file.startswith("train/") for file in files])
    rows = [
        "| exit | temperature | top-1 | policy | judge | val | strangers | mean confidence |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for k in range(bundle.num_stages):
        far = f"{right[strange, k].mean():.3f}" if strange.any() else "-"
        rows.append(
            f"| {k + 1} | {bundle.temperatures[k]:.2f} | {right[:, k].mean():.3f} | "
            f"{policy.exit_right[:, k].mean():.3f} | {judge.exit_right[:, k].mean():.3f} | "
            f"{right[~strange, k].mean():.3f} | {far} | {judge.exit_confidence[:, k].mean():.2f} |"
        )
    return rows


def _payload_rows(
    bundle: ModelBundle, outcomes: list[Outcomes], sweep: dict[int, tuple[float, float]]
) -> list[str]:
    """Tabulate the payloads, each against the JPEG of equal accuracy."""
    policy, judge = outcomes
    rows = [
        "| split point | bits | mean bytes | top-1 | policy | judge | equal JPEG | share |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for index, row in enumerate(accuracy_table(outcomes)["payloads"]):
        equal, share = "-", "-"
        if row["split_point"]:
            better = {q: size for q, (size, top1) in sweep.items() if top1 >= row["top1"] - 1e-4}
            quality = min(better, key=lambda q: better[q], default=None)
            equal = "none" if quality is None else f"q{quality}, {better[quality]:.0f} B"
            share = "-" if quality is None else f"{row['bytes'] / better[quality]:.2f}"
        rung = f" (q{bundle.picture_qualities[row['bits']]})" if not row["split_point"] else ""
        rows.append(
            f"| {row['split_point']} | {row['bits']}{rung} | {row['bytes']:.0f} | "
            f"{row['top1']:.3f} | {policy.server_right[:, index].mean():.3f} | "
            f"{judge.server_right[:, index].mean():.3f} | {equal} | {share} |"
        )
    return rows


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
    if count % 100 == 0:
        print(f"{count} views measured", flush=True)


if __name__ == "__main__":
    main()
