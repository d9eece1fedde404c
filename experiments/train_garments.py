"""Train the `garments` network on the clothing pictures: `python experiments/train_garments.py`."""

from __future__ import annotations

import argparse
import json
import platform
from dataclasses import asdict
from pathlib import Path

import torch

from adaptive_split.models.fit import FitConfig, accuracy, fit
from adaptive_split.models.pictures import largest_classes, load_pictures


def main() -> None:
    """Train, log every epoch to `OUT/train.log` and leave `OUT/garments.pt` (weights only)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=Path, default=Path("../shared/data/images/clothing"))
    parser.add_argument("--out", type=Path, default=Path("runs/garments"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    config = FitConfig(seed=arguments.seed)
    classes = largest_classes(arguments.pictures, 10)
    train = load_pictures(arguments.pictures, "train", classes, with_jpeg=True)
    val = load_pictures(arguments.pictures, "val", classes)
    with (arguments.out / "train.log").open("a", encoding="utf-8") as stream:

        def log(line: str) -> None:
            print(line, file=stream, flush=True)
            print(line, flush=True)

        log(json.dumps(asdict(config)))
        log(f"torch {torch.__version__}, {platform.processor() or platform.machine()}, "
            f"{arguments.threads} threads; {len(train.labels)} train, {len(val.labels)} val; "
            f"classes {', '.join(classes)}")  # fmt: skip
        net = fit(config, train, val, arguments.out / "checkpoint.pt", log)
        for split_point in range(1, len(net.stages)):
            for bits in (1, 2, 3, 4, 6, 8):
                value = accuracy(net, val, split_point, bits)[-1]
                log(f"split_point {split_point} bits {bits}: {value:.4f}")
    torch.save({"net": net.state_dict(), "classes": classes}, arguments.out / "garments.pt")


if __name__ == "__main__":
    main()
