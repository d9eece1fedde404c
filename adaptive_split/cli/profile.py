"""`adaptive-split profile`: how long every part of a bundle takes on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path

from adaptive_split.cli.common import Bars, Commands, add_command
from adaptive_split.errors import ConfigError


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands, "profile", "measure how long every part of a bundle takes here",
        "Time every stage, exit, encoder and decoder on this machine and write profile.json. "
        "Energy is not measured: it stays unavailable, or modelled with --nano.",
        "adaptive-split profile garments --out profile.json",
    )  # fmt: skip
    parser.add_argument("bundle", help="a shipped bundle or its directory")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="a new file")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="default: 1")
    parser.add_argument("--repeats", type=int, default=100, metavar="N", help="default: 100")
    parser.add_argument(
        "--nano", action="store_true",
        help="scale all times to a Jetson-Nano class whose whole network takes 190 ms, with "
        "modelled watts",
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure and write."""
    from adaptive_split.bundle import ModelBundle, bundle_path
    from adaptive_split.cli.tables import table
    from adaptive_split.runtime.profiler import nano_class, profile_bundle

    if arguments.out.exists():
        raise ConfigError(f"--out must be a new file; got {arguments.out}")
    bundle = ModelBundle.load(bundle_path(arguments.bundle))
    warmup = 10
    with Bars("round") as bars:
        profile = profile_bundle(
            bundle, num_threads=arguments.threads, repeats=arguments.repeats, warmup=warmup,
            progress=lambda done: bars("timing", done, arguments.repeats + warmup),
        )  # fmt: skip
    if arguments.nano:
        profile = nano_class(profile)
    profile.save(arguments.out)
    columns = ("stage_s", "exit_s", "encoder_s", "decoder_s")
    rows = [["index", "stage ms", "exit ms", "encoder ms at split", "decoder ms at split"]]
    for index in range(bundle.num_stages):
        values = [getattr(profile, name)[index] for name in columns]
        rows.append([f"{index + 1} (split {index})", *(f"{1e3 * value:.2f}" for value in values)])
    print(table(rows))
    print(f"{profile.machine}\nall stages and the last exit: {1e3 * profile.full_s:.1f} ms; "
          f"spread {100 * profile.spread:.0f} %; energy {profile.energy_provenance}")  # fmt: skip
    return 0
