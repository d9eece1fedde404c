"""`adaptive-split traces`: bring, make and list network traces."""

from __future__ import annotations

import argparse
from pathlib import Path

from adaptive_split.cli.common import Bars, Commands, add_command, new_folder
from adaptive_split.errors import ConfigError


def add_parser(commands: Commands) -> None:
    """Add the command and its own commands."""
    parser = add_command(
        commands, "traces", "fetch, prepare, list and generate network traces",
        "Recorded traces where they are at hand, synthetic ones where they are not; what is "
        "synthetic says so in its file.",
        "adaptive-split traces fetch maine --out traces",
    )  # fmt: skip
    kinds = parser.add_subparsers(required=True, metavar="WHAT", title="what")
    fetch = add_command(
        kinds, "fetch", "bring recordings from their public repository",
        "Download the recordings of a source at a fixed commit and convert them to CSV.",
        "adaptive-split traces fetch maine --out traces",
    )  # fmt: skip
    fetch.add_argument("name", help="mahimahi, maine or 5gmemu")
    fetch.add_argument("--out", type=Path, default=Path("traces"), help="default: traces")
    fetch.add_argument("--base-url", metavar="URL", help="a mirror of https://codeload.github.com")
    fetch.set_defaults(run=run_fetch)
    prepare = add_command(
        kinds, "prepare", "split recordings into train, validation and test",
        "Write every recording of the four link families with its round trips to "
        "OUT/{train,validation,test}/<family>/.",
        "adaptive-split traces prepare ../shared/data --out traces",
    )  # fmt: skip
    prepare.add_argument("data", type=Path, help="recordings with index_traces.csv")
    prepare.add_argument("--out", type=Path, required=True, help="a folder without splits")
    prepare.set_defaults(run=run_prepare)
    listing = add_command(
        kinds, "list", "list traces with their provenance",
        "List the traces of some folders, else those that train and compare use by default.",
        "adaptive-split traces list traces/test",
    )  # fmt: skip
    listing.add_argument("folders", type=Path, nargs="*", metavar="DIR")
    listing.add_argument("--split", choices=("train", "validation", "test"), default="test",
                         help="of the default traces (default: test)")  # fmt: skip
    listing.set_defaults(run=run_list)
    generate = add_command(
        kinds, "generate", "draw synthetic traces of a link family",
        "Draw traces from the generator fitted to a family; each file says that it is synthetic.",
        "adaptive-split traces generate maine-cellular --count 8 --out traces/synthetic",
    )  # fmt: skip
    generate.add_argument("family", help="maine-cellular, maine-starlink or 5g-2022")
    generate.add_argument("--count", type=int, default=8, metavar="N", help="default: 8")
    generate.add_argument("--seed", type=int, default=0, help="of the first (default: 0)")
    generate.add_argument("--seconds", type=float, default=120.0, metavar="S", help="default: 120")
    generate.add_argument("--out", type=Path, required=True, help="gets OUT/<family>/*.csv")
    generate.set_defaults(run=run_generate)


def run_fetch(arguments: argparse.Namespace) -> int:
    """Download and convert; print what came and under which license."""
    from adaptive_split.trace_fetch import fetch

    with Bars("byte") as bars:
        found = fetch(
            arguments.name, arguments.out, arguments.base_url,
            lambda done, total: bars("downloading", done, total or done),
        )  # fmt: skip
    print(f"{len(found.traces)} traces in {arguments.out / arguments.name / 'traces'}")
    print(f"license: {found.license}\nplease cite: {found.citation}")
    if found.note:
        print(f"note: {found.note}")
    if found.left_raw:
        print(f"{len(found.left_raw)} files left out, see fetched.json")
    return 0


def run_prepare(arguments: argparse.Namespace) -> int:
    """Write the splits; print how many traces each got."""
    from adaptive_split.cli.tables import table
    from adaptive_split.trace_sets import prepare

    counts = prepare(arguments.data, arguments.out)
    rows = [["split/family", "traces"], *([name, str(n)] for name, n in sorted(counts.items()))]
    print(table(rows))
    return 0


def run_list(arguments: argparse.Namespace) -> int:
    """Print a line per trace."""
    from adaptive_split.cli.common import load_traces, say
    from adaptive_split.cli.tables import table

    traces, sentence = load_traces(arguments.folders, arguments.split)
    say(sentence)
    rows = [["trace", "family", "seconds", "mean Mbit/s", "rate", "round trip"]]
    for one in traces:
        rate = float(one.uplink_mbps.mean())
        rows.append([one.name, one.family, f"{one.duration_s:.0f}", f"{rate:.2f}", one.source,
                     one.rtt_source])  # fmt: skip
    print(table(rows))
    return 0


def run_generate(arguments: argparse.Namespace) -> int:
    """Write the traces."""
    from adaptive_split.trace import write_trace
    from adaptive_split.trace_generator import generate

    if arguments.count < 1:
        raise ConfigError(f"--count must be at least 1; got {arguments.count}")
    seeds = range(arguments.seed, arguments.seed + arguments.count)
    traces = [generate(arguments.family, seed, arguments.seconds) for seed in seeds]
    folder = new_folder(arguments.out / arguments.family)
    for trace in traces:
        write_trace(trace, folder / f"{trace.name}.csv")
    print(f"{len(traces)} synthetic traces in {folder}")
    return 0
