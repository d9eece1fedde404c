"""`adaptive-split compare`: controllers against each other on traces, simulated and live."""

from __future__ import annotations

import argparse
import json
import logging
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptive_split.cli.common import (
    SHIPPED_PICTURES,
    Bars,
    Commands,
    add_command,
    add_controller_bundle,
    add_link,
    add_ray,
    load_controller,
    load_traces,
    open_cluster,
    say,
)
from adaptive_split.cli.controllers import ALL, LISTED, ListsControllers, find_knobs, names_of

if TYPE_CHECKING:
    from adaptive_split.agents.compare import CompareConfig, Comparison
    from adaptive_split.agents.live_windows import LiveConfig
    from adaptive_split.agents.unfinished import Unfinished
    from adaptive_split.runtime.controller_bundle import ControllerBundle
    from adaptive_split.scenario import Scenario
    from adaptive_split.trace import Trace

_log = logging.getLogger(__name__)

COMMAND = "adaptive-split "
REPORT = "report.html"


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands, "compare", "compare controllers on traces, simulated and live",
        "Play controllers over the same streams of link, server load and pictures. Writes "
        "summary.json, report.html and every frame's record, as Parquet, into a new folder. What "
        "was interrupted lies beside it, and the same command goes on with it. Rules and planners "
        "use the knobs picked on the training traces when the controller bundle was made; "
        "best-static, the oracles and NAME-hindsight are picked on the very streams compared.",
        "adaptive-split compare default --controllers sac,planner,best-static,oracle "
        "--traces traces/test --seeds 5 --out runs/compare",
    )  # fmt: skip
    parser.formatter_class = ListsControllers
    parser.epilog = f"controllers, * those compared by default:\n{LISTED}\n\n{parser.epilog}"
    parser.add_argument("scenario", help="a shipped scenario, as 'default', or a scenario.toml")
    parser.add_argument(
        "--controllers", metavar="NAMES",
        help=f"separated by commas, or {ALL!r} for every one that is listed below, in hindsight "
        "as well (default: those with a *)",
    )  # fmt: skip
    parser.add_argument(
        "--traces", type=Path, nargs="+", metavar="DIR",
        help="folders with trace files; a family is the name of a file's folder; default: the "
        "test traces of ../shared/data or of the package",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, default=5, help="draws of streams (default: 5)")
    parser.add_argument(
        "--streams", type=int, default=8, metavar="N",
        help="streams per family and seed (default: 8)",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    add_controller_bundle(parser)
    parser.add_argument("--no-records", action="store_true", help="leave the frame records out")
    parser.add_argument(
        "--live", action="store_true",
        help="also run in real time: a server process, a device slowed to the scenario's, a link "
        "that plays the traces",
    )  # fmt: skip
    parser.add_argument(
        "--live-windows", type=int, default=1, metavar="N",
        help="windows of trace per family (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--live-seconds", type=float, default=10.0, metavar="S",
        help="length of a window; each controller plays each (default: 10)",
    )  # fmt: skip
    add_link(parser)
    parser.add_argument(
        "--pictures", type=Path, default=SHIPPED_PICTURES, metavar="DIR",
        help="pictures of the live run (default: the shipped ones)",
    )  # fmt: skip
    add_ray(parser, "controllers and seeds")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Compare; print the tables. What was interrupted goes on where it stopped."""
    from adaptive_split.agents.compare import CompareConfig, check_comparison
    from adaptive_split.agents.compare_live import check_live
    from adaptive_split.agents.identity import identity
    from adaptive_split.agents.live_windows import LiveConfig
    from adaptive_split.agents.record_tables import check_parquet
    from adaptive_split.agents.roster import LEARNED
    from adaptive_split.agents.unfinished import Unfinished
    from adaptive_split.runtime.emulation.namespace_link import check_link
    from adaptive_split.scenario import load_scenario

    check_parquet()
    scenario = load_scenario(arguments.scenario)
    learned, controller = load_controller(arguments.controller_bundle, scenario)
    names = names_of(arguments.controllers)
    if learned is None and arguments.controllers is None:
        names = names[1:]
        _log.warning(
            "%s stays out: no controller was trained for %s; 'adaptive-split train' makes one",
            LEARNED, scenario.name,
        )  # fmt: skip
    config = CompareConfig(
        names=names,
        num_seeds=arguments.seeds,
        per_family=arguments.streams,
    )
    live = LiveConfig(
        windows_per_family=arguments.live_windows,
        block_s=arguments.live_seconds,
        link=arguments.link,
    )
    check_comparison(scenario, config, learned)
    if arguments.live:
        check_link(arguments.link)
        check_live(scenario, config.names, arguments.pictures)
    traces, sentence = load_traces(arguments.traces, "test")
    say(sentence)
    about = identity(
        scenario, traces, config, controller,
        (live, arguments.pictures.resolve()) if arguments.live else None,
        records=not arguments.no_records,
    )  # fmt: skip
    with Unfinished(arguments.out, about, COMMAND + shlex.join(sys.argv[1:])) as kept:
        if kept.resumed:
            say(f"going on with what {kept.folder} holds")
        try:
            _compare(arguments, scenario, traces, config, (learned, controller), live, kept)
        except KeyboardInterrupt:
            say(f"what is done lies in {kept.folder}; the same command goes on from there")
            raise
    return 0


def _compare(
    arguments: argparse.Namespace,
    scenario: Scenario,
    traces: list[Trace],
    config: CompareConfig,
    learned: tuple[ControllerBundle | None, Path | None],
    live: LiveConfig,
    kept: Unfinished,
) -> None:
    """Play everything that is not done yet; print and write what came out."""
    from adaptive_split.agents.compare import compare
    from adaptive_split.agents.summary import provenance_of, summarize
    from adaptive_split.trace_sets import default_traces

    bundle, controller = learned
    found = kept.knobs()
    if found is None:
        found = find_knobs(config.names, scenario, bundle, lambda: default_traces("train"))
        kept.keep_knobs(found)
    with Bars() as bars:
        with open_cluster(arguments) as workers:
            comparison = compare(
                scenario, traces, config, bundle, bars, workers, found=found, kept=kept
            )
        command = COMMAND + shlex.join(sys.argv[1:])
        summary = summarize(comparison, provenance_of(comparison, controller, command))
        add_sweep(comparison, summary, bars)
        if not arguments.no_records:
            write_records(comparison, kept.folder, bars)
    print(f"\nsimulated: scenario {scenario.name}, {len(comparison.streams)} streams")
    print_tables(summary)
    if arguments.live:
        play_live(comparison, traces, live, arguments.pictures, kept.folder, summary)
        print_live(summary["live"])
    finish(comparison, summary, kept.folder)
    kept.finish()
    print(f"\nreport: {kept.out / REPORT}")


def print_tables(summary: dict[str, Any]) -> None:
    """Print the columns, and sac against its rivals."""
    from adaptive_split.cli.compare_tables import controller_tables, differences

    print(controller_tables(summary["controllers"]))
    if summary["paired_difference"]:
        print(differences(summary["paired_difference"]), flush=True)


def add_sweep(comparison: Comparison, summary: dict[str, Any], bars: Bars) -> None:
    """Put every split point on constant links under `sweep` of the summary.

    Their round trip is the median of the compared streams.
    """
    import numpy as np

    from adaptive_split.agents.static_sweep import static_sweep

    rtt_s = float(np.median(np.concatenate([stream.rtt_s for stream in comparison.streams])))
    summary["sweep"] = static_sweep(comparison.scenario, comparison.policies, rtt_s, bars)


def write_records(comparison: Comparison, out: Path, bars: Bars) -> None:
    """Write every simulated frame: one Parquet file per controller."""
    from adaptive_split.agents.record_tables import ENDING, Origin, write_frames
    from adaptive_split.agents.roster import file_name

    folder = out / "records"
    folder.mkdir(exist_ok=True)
    origins = [
        Origin(stream.family, stream.name, stream.source, seed)
        for seed, stream in zip(comparison.seeds, comparison.streams, strict=True)
    ]
    for index, (name, frames) in enumerate(comparison.frames.items()):
        bars("writing records", index, len(comparison.frames))
        write_frames(frames, origins, folder / f"{file_name(name)}{ENDING}")


def play_live(
    comparison: Comparison,
    traces: list[Trace],
    config: LiveConfig,
    pictures: Path,
    out: Path,
    summary: dict[str, Any],
    names: tuple[str, ...] | None = None,
) -> None:
    """Run the live part and put it under `live` of the summary."""
    from adaptive_split.agents.compare_live import compare_live, summarize_live

    folder = out / "live-records"
    folder.mkdir(exist_ok=True)
    chosen = {
        name: policy
        for name, policy in comparison.policies.items()
        if names is None or name in names
    }
    with Bars("frame") as bars:
        live = compare_live(comparison.scenario, traces, chosen, pictures, folder, config, bars)
    summary["live"] = summarize_live(comparison.scenario, live)


def print_live(live: dict[str, Any]) -> None:
    """Print the live table and where it was measured."""
    from adaptive_split.agents.report import BUSY
    from adaptive_split.cli.compare_tables import controller_tables

    windows, others = live["windows"], live["settings"]["other_load"]
    if others >= BUSY:
        say(f"warning: other programs kept {others:.0%} of this machine busy; live numbers suffer")
    where = ", ".join(
        f"{one['name']} ({one['source']}) at {one['offset_s']:.0f} s" for one in windows
    )
    print(f"\nlive, measured in {len(windows)} windows of {windows[0]['seconds']:g} s: {where}")
    print(controller_tables(live["controllers"]))


def finish(comparison: Comparison, summary: dict[str, Any], out: Path) -> None:
    """Write summary and report."""
    from adaptive_split.agents.report import write_report
    from adaptive_split.agents.timeline import timeline_of

    text = json.dumps(summary, indent=1, allow_nan=False) + "\n"
    (out / "summary.json").write_text(text, encoding="utf-8")
    write_report(summary, timeline_of(comparison), out / REPORT)
