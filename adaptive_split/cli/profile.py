"""`adaptive-split profile`: how long every part of a bundle takes here, or on another machine."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from adaptive_split.cli.common import Bars, Commands, add_command, say
from adaptive_split.errors import ConfigError

if TYPE_CHECKING:
    from adaptive_split.bundle import ModelBundle
    from adaptive_split.profile import Profile

WARMUP = 10
PROVIDERS = ("cpu", "cuda", "tensorrt")
"""As `runtime.providers` has them, which is not imported to parse a line."""


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands, "profile", "measure how long every part of a bundle takes here",
        "Time every stage, exit, encoder and decoder on this machine and write profile.json. "
        "Energy is measured where the machine has power rails or counts joules that we may read, "
        "modelled with --watts or --nano, else unavailable. With --roofline, the profile written "
        "is a prediction for another machine, and its error on this one is shown.",
        "adaptive-split profile garments --out profile.json",
    )  # fmt: skip
    parser.add_argument("bundle", help="a shipped bundle or its directory")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="a new file")
    parser.add_argument("--provider", choices=PROVIDERS, default="cpu",
                        help="what ONNX Runtime computes with (default: cpu)")  # fmt: skip
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="default: 1")
    parser.add_argument("--repeats", type=int, default=100, metavar="N", help="default: 100")
    parser.add_argument("--watts", type=float, metavar="W",
                        help="model its energy: power while computing, above that at "
                        "rest; with --watts-source")  # fmt: skip
    parser.add_argument("--watts-source", metavar="TEXT", help="where the watts come from")
    other = parser.add_mutually_exclusive_group()
    other.add_argument(
        "--nano", action="store_true",
        help="scale all times to a Jetson-Nano class whose whole network takes 190 ms, with "
        "modelled watts",
    )  # fmt: skip
    other.add_argument(
        "--roofline", type=float, nargs=2, metavar=("GFLOPS", "GBPS"),
        help="predict a machine with this float32 peak and memory bandwidth",
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure, maybe predict, and write."""
    from adaptive_split.bundle import ModelBundle, bundle_path
    from adaptive_split.cli.profile_tables import origin, parts_table
    from adaptive_split.runtime.profiler import nano_class, with_watts

    if arguments.out.exists():
        raise ConfigError(f"--out must be a new file; got {arguments.out}")
    if (arguments.watts is None) != (arguments.watts_source is None) or (
        arguments.nano and arguments.watts is not None
    ):
        raise ConfigError("--watts must come with --watts-source, and without --nano")
    bundle = ModelBundle.load(bundle_path(arguments.bundle))
    measured = profile = _measure(bundle, arguments)
    print(parts_table(measured))
    if arguments.roofline:
        profile = _predict(bundle, measured, arguments.roofline)
    if arguments.nano:
        profile = nano_class(profile)
    if arguments.watts is not None:
        profile = with_watts(profile, arguments.watts, arguments.watts_source)
    profile.save(arguments.out)
    print(origin(profile))
    return 0


def _measure(bundle: ModelBundle, arguments: argparse.Namespace) -> Profile:
    from adaptive_split.runtime.profiler import profile_bundle
    from adaptive_split.runtime.providers import PROVIDERS as FULL_NAMES
    from adaptive_split.runtime.sensors.energy import find_energy_meter

    with ExitStack() as stack:
        meter = find_energy_meter()
        if meter is not None:
            stack.callback(meter.close)
        bars = stack.enter_context(Bars("round"))
        return profile_bundle(
            bundle, num_threads=arguments.threads, provider=FULL_NAMES[arguments.provider],
            repeats=arguments.repeats, warmup=WARMUP, meter=meter,
            progress=lambda done: bars("timing", done, arguments.repeats + WARMUP),
        )  # fmt: skip


def _predict(bundle: ModelBundle, measured: Profile, roofs: list[float]) -> Profile:
    """Predict the other machine; print how wrong such predictions are of this one."""
    from adaptive_split.cli.profile_tables import prediction_table
    from adaptive_split.runtime.peaks import Peaks, measure_peaks
    from adaptive_split.runtime.roofline import count_work, predict_elsewhere

    there = Peaks(*roofs)
    say("measuring what this machine computes and copies at most")
    here, work = measure_peaks(measured.num_threads), count_work(bundle)
    elsewhere = predict_elsewhere(bundle, work, measured, here, there)
    print(f"\n{prediction_table(bundle, work, measured, here, elsewhere)}")
    return elsewhere
