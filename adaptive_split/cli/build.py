"""`adaptive-split build`: a model bundle from a torch classifier and labelled pictures."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from adaptive_split.cli.common import Bars, Commands, add_command, say
from adaptive_split.cli.measure import add_views
from adaptive_split.errors import ConfigError

if TYPE_CHECKING:
    from adaptive_split.models.build import Built
    from adaptive_split.models.division import Division

NUM_SHOWN = 12
"""Rows of the ranking of cuts."""
SHOWN_BITS = 4


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands, "build", "turn a torch classifier into a model bundle",
        "Find where a model can be cut, propose stages, attach exits and bottlenecks and train "
        "them, export every part, check it against the model, measure it on pictures held out and "
        "time it here. Pictures are DIR/CLASS/*.jpg, DIR/{train,val}/CLASS/*.jpg, or named in "
        "DIR/labels.csv (file,label[,split]); classes in the order of their names must be the "
        "model's logits. An interrupted build goes on where it stopped.",
        "adaptive-split build --model nets:make --weights shop.pt --data pictures --out shop",
    )  # fmt: skip
    parser.add_argument("--model", required=True, metavar="MODULE:FACTORY",
                        help="a function without arguments that gives a torch.nn.Module; it may "
                        "give logits or an object with .logits")  # fmt: skip
    parser.add_argument("--weights", type=Path, metavar="FILE", help="a state dict of torch.save")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="labelled pictures")
    parser.add_argument("--out", type=Path, required=True, metavar="BUNDLE", help="a new folder")
    parser.add_argument("--size", type=int, nargs="+", default=[224], metavar="N",
                        help="side of the model's pictures, or height and width "
                        "(default: 224)")  # fmt: skip
    for name, values in (("mean", "0.485 0.456 0.406"), ("std", "0.229 0.224 0.225")):
        parser.add_argument(f"--{name}", type=float, nargs=3, metavar=("R", "G", "B"),
                            default=tuple(map(float, values.split())),
                            help=f"{name} that the model's pictures are normalized with, values "
                            f"in [0, 1] (default: {values}, ImageNet's)")  # fmt: skip
    parser.add_argument("--stages", type=int, default=4, metavar="S", help="at most (default: 4)")
    parser.add_argument("--epochs", type=int, default=10, metavar="N",
                        help="default: 10; an epoch sees few pictures several times")  # fmt: skip
    parser.add_argument("--fine-tune", action="store_true",
                        help="train the model's own weights, too")  # fmt: skip
    parser.add_argument("--entropy-weight", type=float, default=0.0, metavar="X",
                        help="loss per bit of entropy of a bottleneck's codes: fewer bytes after "
                        "compression, at some accuracy (default: 0)")  # fmt: skip
    parser.add_argument("--picture-format", choices=("jpeg", "webp"), default="jpeg",
                        help="how pictures are sent at split point 0: webp is smaller and slower "
                        "to make (default: jpeg)")  # fmt: skip
    add_views(parser)
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Build and say what came of it."""
    from adaptive_split.models.build import BuildConfig, build, divide_for
    from adaptive_split.models.own_model import load_own_model
    from adaptive_split.models.own_pictures import read_own_pictures
    from adaptive_split.models.teach import TeachConfig

    config = BuildConfig(
        num_stages=arguments.stages, mean=tuple(arguments.mean), std=tuple(arguments.std),
        teach=TeachConfig(
            epochs=arguments.epochs, fine_tune=arguments.fine_tune, seed=arguments.seed,
            entropy_weight=arguments.entropy_weight,
        ),
        picture_format=arguments.picture_format,
        views=arguments.views,
    )  # fmt: skip
    if len(arguments.size) > 2:
        raise ConfigError(f"--size must be a side or height and width; got {arguments.size}")
    model = load_own_model(arguments.model, arguments.weights)
    pictures = read_own_pictures(arguments.data, *arguments.size)
    parts = (pictures.train, pictures.policy, pictures.judge)
    say("{} pictures to train on, {} + {} held out".format(*(len(part.files) for part in parts)))
    division = divide_for(model, pictures, config)
    if division.cuts:
        say(_ranking(division, pictures.train.pixels[0, 0].numel()))
    with Bars() as bars:
        built = build(division, pictures, arguments.out, config, bars)
    print(_summary(division, built))
    _say_next(arguments.out)
    return 0


def _ranking(division: Division, picture_elements: int) -> str:
    """The best cuts: natural bottlenecks first, then by bytes, then early ones."""
    from adaptive_split.cli.tables import table
    from adaptive_split.models.propose import is_natural, rank

    ranked = rank(division.cuts, picture_elements)
    rows = [["cut after", "feature", "bytes at 8 bits", "computing before", "natural"]]
    for cut in ranked[:NUM_SHOWN]:
        natural = "yes" if is_natural(cut, picture_elements) else "-"
        shape, share = "x".join(map(str, cut.shape)), f"{100 * cut.share:.0f} %"
        rows.append([cut.layer, shape, str(cut.num_elements), share, natural])
    return f"{table(rows)}\n{len(division.cuts)} valid cuts, {len(ranked)} of them distinct"


def _summary(division: Division, built: Built) -> str:
    """Stages, exits and payloads of 4 bits, on both halves of the pictures held out."""
    import numpy as np

    from adaptive_split.cli.tables import table

    halves = (built.policy, built.judge)
    exits = np.concatenate([half.exit_right for half in halves]).mean(0)
    served = np.concatenate([half.server_right for half in halves]).mean(0)
    sizes = np.concatenate([half.payload_bytes for half in halves]).mean(0)
    payloads = built.policy.payloads
    rows = [["stage", "ends after", "feature", "top-1 of exit", "calibration error",
             f"top-1 sent, {SHOWN_BITS} bits", "bytes"]]  # fmt: skip
    held_out = built.bundle.provenance["calibration_held_out"]
    errors = list(zip(held_out["error_before"], held_out["error_after"], strict=True))
    for index, (name, shape) in enumerate(
        zip(division.names, built.bundle.feature_shapes, strict=True), start=1
    ):
        sent = ["-", "-"]
        if (index, SHOWN_BITS) in payloads:
            at = payloads.index((index, SHOWN_BITS))
            sent = [f"{served[at]:.3f}", f"{sizes[at]:.0f}"]
        feature = "x".join(map(str, shape))
        before, after = errors[index - 1]
        honesty = f"{before:.3f} -> {after:.3f}"
        rows.append([str(index), name, feature, f"{exits[index - 1]:.3f}", honesty, *sent])
    picture = payloads.index((0, SHOWN_BITS))
    return (
        f"{table(rows)}\nthe picture as {built.bundle.picture_format}: "
        f"top-1 {served[picture]:.3f}, {sizes[picture]:.0f} bytes; the last exit is your model\n"
        "calibration error: without and with an exit's temperature, on pictures it was not "
        "fitted on"
    )


def _say_next(out: Path) -> None:
    say(
        f"wrote {out}; next, on the device:\n"
        f"  adaptive-split profile {out} --out {out / 'profile_device.json'}\n"
        f"  adaptive-split headroom {out / (out.name + '.toml')}"
    )
