"""Train a network on the clothing pictures: `python experiments/train_garments.py`."""

from __future__ import annotations

import argparse
import json
import platform
from dataclasses import asdict
from pathlib import Path

import torch

from adaptive_split.models.fit import FitConfig, accuracy, fit
from adaptive_split.models.multi_exit import GARMENTS, GARMENTS_LIGHT, NETWORKS
from adaptive_split.models.pictures import held_out_senders, largest_classes, load_pictures

CONFIGS = {
    GARMENTS.name: FitConfig(
        phases=((20, 96), (30, 128), (14, 160), (5, 224)), exit_weights=(0.3, 0.4, 0.6, 0.8, 1.0)
    ),
    GARMENTS_LIGHT.name: FitConfig(
        phases=((30, 96), (36, 128), (12, 160), (4, 224)), exit_weights=(0.3, 0.5, 0.8, 1.0)
    ),
}


def main() -> None:
    """Train, log every epoch to `OUT/train.log` and leave `OUT/NETWORK.pt` (weights only)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", choices=sorted(NETWORKS), default=GARMENTS.name)
    parser.add_argument("--pictures", type=Path, default=Path("../shared/data/images/clothing"))
    parser.add_argument("--out", type=Path, help="default: runs/NETWORK")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    shape, config = NETWORKS[arguments.network], CONFIGS[arguments.network]
    out = arguments.out or Path("runs") / shape.name
    out.mkdir(parents=True, exist_ok=True)
    classes = largest_classes(arguments.pictures, 10)
    # `garments` is older than the rule, and was trained on every sender.
    held_out = held_out_senders(arguments.pictures, classes) if shape != GARMENTS else ()
    train = load_pictures(arguments.pictures, "train", classes, held_out=held_out, with_jpeg=True)
    val = load_pictures(arguments.pictures, "val", classes)
    with (out / "train.log").open("a", encoding="utf-8") as stream:

        def log(line: str) -> None:
            print(line, file=stream, flush=True)

        log(json.dumps({"network": shape.name, **asdict(config)}))
        log(f"torch {torch.__version__}, {platform.processor() or platform.machine()}, "
            f"{arguments.threads} threads; {len(train.labels)} train, {len(val.labels)} val, "
            f"{len(held_out)} senders held out; classes {', '.join(classes)}")  # fmt: skip
        net = fit(shape, config, train, val, out / "checkpoint.pt", log)
        for split_point in range(1, len(net.stages)):
            for bits in (1, 2, 3, 4, 6, 8):
                value = accuracy(net, val, split_point, bits)[-1]
                log(f"split_point {split_point} bits {bits}: {value:.4f}")
    saved = {"network": shape.name, "net": net.state_dict(), "classes": classes}
    torch.save({**saved, "held_out": held_out}, out / f"{shape.name}.pt")


if __name__ == "__main__":
    main()
