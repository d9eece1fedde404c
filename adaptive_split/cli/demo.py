"""`adaptive-split demo`: the whole loop on what ships, simulated and live, with a report."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from adaptive_split.cli.common import (
    SHIPPED_PICTURES,
    Bars,
    Commands,
    add_command,
    add_controller_bundle,
    add_link,
    load_controller,
    new_folder,
    say,
)
from adaptive_split.cli.controllers import find_knobs, shipped_training

LIVE_CONTROLLERS = ("sac", "distribution-planner", "best-static")


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands, "demo", "the whole loop on what ships, in under three minutes",
        "Compare the shipped controller with rules, planners and oracles on the shipped test "
        "traces, first simulated, then live: a server process, a device slowed to the scenario's, "
        "and a link that plays a recorded trace, in real time. Writes a report and the frame "
        "records. If the folder exists, a new one with a number is made beside it.",
        "adaptive-split demo --out runs/demo",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="default: runs/demo")
    parser.add_argument("--scenario", default="default", help="default: default")
    add_controller_bundle(parser)
    add_link(parser)
    parser.add_argument("--pictures", type=Path, default=SHIPPED_PICTURES, metavar="DIR",
                        help="default: the shipped ones")  # fmt: skip
    parser.add_argument("--streams", type=int, default=12, metavar="N",
                        help="simulated streams per link family (default: 12)")  # fmt: skip
    parser.add_argument("--live-windows", type=int, default=4, metavar="N",
                        help="windows of the recorded trace (default: 4)")  # fmt: skip
    parser.add_argument("--live-seconds", type=float, default=8.0, metavar="S",
                        help="length of a window (default: 8)")  # fmt: skip
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Compare on what ships; print both tables and the report's place."""
    from adaptive_split.agents.compare import CompareConfig, compare
    from adaptive_split.agents.live_windows import LiveConfig
    from adaptive_split.agents.record_tables import check_parquet
    from adaptive_split.agents.summary import provenance_of, summarize
    from adaptive_split.cli.compare import (
        REPORT,
        add_sweep,
        finish,
        play_live,
        print_live,
        print_tables,
        write_records,
    )
    from adaptive_split.runtime.emulation.namespace_link import check_link
    from adaptive_split.scenario import load_scenario
    from adaptive_split.trace_sets import shipped

    started = time.monotonic()
    config = CompareConfig(num_seeds=1, per_family=arguments.streams)
    live_config = LiveConfig(
        windows_per_family=arguments.live_windows,
        block_s=arguments.live_seconds,
        link=arguments.link,
    )
    check_link(arguments.link)
    check_parquet()
    scenario = load_scenario(arguments.scenario)
    learned, controller = load_controller(arguments.controller_bundle, scenario)
    traces = shipped("test")
    recorded = [trace for trace in traces if trace.source == "recorded"]
    out = new_folder(free_name(arguments.out))
    say(
        f"shipped test traces: {len(recorded)} recorded (lte, round trips synthetic), "
        f"{len(traces) - len(recorded)} synthetic"
    )
    found = find_knobs(config.names, scenario, learned, shipped_training)
    with Bars() as bars:
        comparison = compare(scenario, traces, config, learned, bars, found=found)
        command = f"adaptive-split demo --out {arguments.out}"
        summary = summarize(comparison, provenance_of(comparison, controller, command))
        add_sweep(comparison, summary, bars)
        write_records(comparison, out, bars)
    print(f"\nsimulated: {len(comparison.streams)} streams of {scenario.camera.frames_per_stream} "
          f"frames, {len(traces) - len(recorded)} of {len(traces)} traces synthetic")  # fmt: skip
    print_tables(summary)
    simulated_s = time.monotonic() - started
    play_live(comparison, recorded, live_config, arguments.pictures, out, summary, LIVE_CONTROLLERS)
    print_live(summary["live"])
    finish(comparison, summary, out)
    print(f"\nreport: {out / REPORT}")
    total_s = time.monotonic() - started
    say(f"took {total_s:.0f} s: simulated {simulated_s:.0f} s, live {total_s - simulated_s:.0f} s")
    return 0


def free_name(path: Path) -> Path:
    """The path itself, or the first of `path-2`, `path-3`, ... that is free."""
    if not path.exists():
        return path
    number = 2
    while (numbered := path.with_name(f"{path.name}-{number}")).exists():
        number += 1
    say(f"{path} exists; writing to {numbered}")
    return numbered
