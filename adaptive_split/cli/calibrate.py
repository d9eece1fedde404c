"""`adaptive-split calibrate`: correct the simulator by a short live run."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from adaptive_split.cli.common import (
    SHIPPED_PICTURES,
    Bars,
    Commands,
    add_command,
    add_link,
    load_traces,
    say,
)

if TYPE_CHECKING:
    from adaptive_split.agents.fidelity import LiveRun
    from adaptive_split.agents.fidelity_replay import Pair
    from adaptive_split.calibration import Calibration
    from adaptive_split.scenario import Scenario

CONTROLLERS = ("local", "jpeg", "distribution-planner")
"""Played live: everything on the device, everything on the server, and what lies between."""


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands, "calibrate", "correct the simulator by a short live run",
        "Play a live run again in the simulator, frame by frame, and fit what profiles and traces "
        "do not tell: how much slower device and server are, and what starting a frame, sending a "
        "message and the server's queue cost by themselves. Fitted on every other window of the "
        "run, judged on the rest. A scenario that says calibration = \"FILE\" (a path beside it) "
        "is simulated like that.",
        "adaptive-split calibrate default --live --records live.jsonl --out calibration.json",
    )  # fmt: skip
    parser.add_argument("scenario", help="a shipped scenario, as 'default', or a scenario.toml")
    parser.add_argument(
        "--records", type=Path, required=True, metavar="LIVE.jsonl",
        help="frame records of a live run; what it played lies beside them, in LIVE.played.json",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="file to make")
    parser.add_argument(
        "--live", action="store_true", help="make that live run first, on this machine"
    )
    parser.add_argument(
        "--traces", type=Path, nargs="+", metavar="DIR",
        help="folders with trace files; default: the validation traces",
    )  # fmt: skip
    parser.add_argument("--live-windows", type=int, default=1, metavar="N",
                        help="windows of trace per family (default: 1)")  # fmt: skip
    parser.add_argument("--live-seconds", type=float, default=10.0, metavar="S",
                        help="length of a window (default: 10)")  # fmt: skip
    add_link(parser)
    parser.add_argument("--pictures", type=Path, default=SHIPPED_PICTURES, metavar="DIR",
                        help="pictures of the live run (default: the shipped ones)")  # fmt: skip
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Record if asked to, fit, judge, write."""
    from adaptive_split.agents.fidelity import check_new, load_run
    from adaptive_split.agents.fidelity_fit import fit
    from adaptive_split.agents.fidelity_replay import Replay
    from adaptive_split.cli.tables import table
    from adaptive_split.scenario import load_scenario

    check_new(arguments.out)
    scenario = load_scenario(arguments.scenario)
    if arguments.live:
        record(scenario, arguments)
    live = load_run(arguments.records)
    fitted, judged = live.halves
    calibration = fit(scenario, live, live.only(fitted))
    calibration.save(arguments.out)
    print(table([["fitted", "value"], *(map(list, constants_of(calibration).items()))]))
    where = "other windows of that run" if judged != fitted else "the same window, for want of more"
    print(f"\nfitted on {calibration.fitted_on}; judged on {where}:")
    blocks = live.only(judged)
    before, after = (Replay(scenario, live, one).pairs(blocks) for one in (None, calibration))
    print(error_table(before, after))
    print(f"\n{residual_table(before, after)}")
    print(f'\nto use it: calibration = "{arguments.out.name}" in a scenario beside it')
    return 0


def record(scenario: Scenario, arguments: argparse.Namespace) -> LiveRun:
    """Make the live run and write both of its files."""
    from adaptive_split.agents.compare_live import load_of_others
    from adaptive_split.agents.fidelity import check_new, played_path, save_run
    from adaptive_split.agents.fidelity_live import record_run
    from adaptive_split.agents.live_windows import LiveConfig
    from adaptive_split.agents.report import BUSY
    from adaptive_split.agents.roster import make_policy
    from adaptive_split.runtime.emulation.namespace_link import check_link

    check_new(arguments.records)
    check_new(played_path(arguments.records))
    check_link(arguments.link)
    config = LiveConfig(
        windows_per_family=arguments.live_windows, block_s=arguments.live_seconds,
        link=arguments.link,
    )  # fmt: skip
    traces, sentence = load_traces(arguments.traces, "validation")
    say(sentence)
    if (others := load_of_others()) >= BUSY:
        say(f"warning: other programs keep {others:.0%} of this machine busy; the fit suffers")
    table = scenario.table("policy")
    policies = {name: make_policy(name, table, None) for name in CONTROLLERS}
    with Bars("block") as bars:
        live = record_run(scenario, traces, policies, arguments.pictures, config, progress=bars)
    save_run(live, arguments.records)
    return live


def constants_of(calibration: Calibration) -> dict[str, str]:
    """What was fitted, in a person's words."""
    overheads, by_slack = calibration.overheads, calibration.others_start_s is not None
    return {
        "device's times": f"x {calibration.device_slowdown:.4f}",
        "server's times": f"x {calibration.server_slowdown:.4f}",
        "starting a frame": f"{1e3 * overheads.start_s:.2f} ms",
        "a message and its reply": f"{1e3 * overheads.message_s:.2f} ms",
        "the server's queue": f"{1e3 * overheads.queue_s:.2f} ms",
        "order at the server": "least slack first" if by_slack else "first in, first out",
    }


def error_table(before: Sequence[Pair], after: Sequence[Pair]) -> str:
    """Errors before and after, as a table."""
    from adaptive_split.agents.fidelity_errors import errors_of
    from adaptive_split.cli.tables import table

    columns = [errors_of(pairs) for pairs in (before, after)]
    rows = [["simulated against live", "as it is", "calibrated"]]
    rows.append(["frame latency, median error", *(f"{one.latency:.1%}" for one in columns)])
    rows.append(["frame latency, 90 % quantile", *(f"{one.latency_p90:.1%}" for one in columns)])
    rows.append(["utility of a block, mean error", *(f"{one.utility:.4f}" for one in columns)])
    rows += [
        [f"same {name}", *(f"{one.same[name]:.1%}" for one in columns)] for name in columns[0].same
    ]
    return table(rows)


def residual_table(before: Sequence[Pair], after: Sequence[Pair]) -> str:
    """Residuals by component before and after, as a table."""
    from adaptive_split.agents.fidelity_errors import residuals_of
    from adaptive_split.cli.tables import table

    first, second = residuals_of(before), residuals_of(after)
    rows = [["simulated minus live, ms", "as it is: median", "quartiles",
             "calibrated: median", "quartiles", "frames"]]  # fmt: skip
    for name in (name for name in first if name in second):
        cells = [
            cell
            for one in (first[name], second[name])
            for cell in (f"{1e3 * one.bias_s:+.2f}",
                         f"{1e3 * one.low_s:+.2f} to {1e3 * one.high_s:+.2f}")
        ]  # fmt: skip
        rows.append([name, *cells, str(second[name].num_frames)])
    return table(rows)
