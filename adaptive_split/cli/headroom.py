"""`adaptive-split headroom`: is there anything to win over one fixed decision?"""

from __future__ import annotations

import argparse
from pathlib import Path

from adaptive_split.cli.common import Bars, Commands, add_command, load_traces, say


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands, "headroom", "the oracle against the best static decision",
        "Tell how far one decision for every frame, searched in hindsight, stays behind the oracle "
        "that knows link, server and how accurate everything is on the judged pictures. Where that "
        "is little, no controller can win much.",
        "adaptive-split headroom default --traces traces/test",
    )  # fmt: skip
    parser.add_argument("scenario", help="a shipped scenario, as 'default', or a scenario.toml")
    parser.add_argument("--traces", type=Path, nargs="+", metavar="DIR",
                        help="folders with trace files; default: the test traces")  # fmt: skip
    parser.add_argument("--seeds", type=int, default=2, help="draws of streams (default: 2)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print both and what lies between."""
    from adaptive_split.agents.compare import CompareConfig, compare
    from adaptive_split.agents.summary import summarize
    from adaptive_split.cli.tables import table
    from adaptive_split.scenario import load_scenario

    scenario = load_scenario(arguments.scenario)
    traces, sentence = load_traces(arguments.traces, "test")
    say(sentence)
    config = CompareConfig(names=("best-static", "oracle-pictures"), num_seeds=arguments.seeds)
    with Bars() as bars:
        summary = summarize(compare(scenario, traces, config, None, bars), {})
    everywhere = {"all": {"controllers": summary["controllers"]}, **summary["families"]}
    rows = [["family", "best static", "oracle", "headroom"]]
    for name, one in everywhere.items():
        static, oracle = (one["controllers"][key]["utility"]["value"] for key in config.names)
        rows.append([name, f"{static:.4f}", f"{oracle:.4f}", f"{oracle - static:.4f}"])
    print(table(rows))
    print(f"best static: {summary['settings']['picked_in_hindsight']['best-static']}")
    return 0
