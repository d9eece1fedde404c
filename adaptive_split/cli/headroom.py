"""`adaptive-split headroom`: is there anything to win over one fixed decision?"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from adaptive_split.cli.common import (
    Bars,
    Commands,
    add_command,
    load_controller,
    load_traces,
    say,
)

if TYPE_CHECKING:
    from adaptive_split.agents.headroom import Headroom
    from adaptive_split.agents.intervals import Estimate


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands, "headroom", "is there anything to win by adapting, and why",
        "Tell how far one decision for every frame, searched in hindsight, stays behind the oracle "
        "that knows link, server and how accurate everything is on the judged pictures, and what "
        "the two-arm rule (its knobs searched in hindsight) and the planner bring of that. Where "
        "the oracle gains less than 5 % of the best fixed decision's utility, adaptation is called "
        "pointless, with the reason.",
        "adaptive-split headroom default --traces traces/test",
    )  # fmt: skip
    parser.add_argument("scenario", help="a shipped scenario, as 'default', or a scenario.toml")
    parser.add_argument("--traces", type=Path, nargs="+", metavar="DIR",
                        help="folders with trace files; default: the test traces")  # fmt: skip
    parser.add_argument("--seeds", type=int, default=2, help="draws of streams (default: 2)")
    parser.add_argument(
        "--streams", type=int, default=8, metavar="N",
        help="streams per family and seed (default: 8)",
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print who brings what, where, and what follows."""
    from adaptive_split.agents.compare import CompareConfig, compare
    from adaptive_split.agents.headroom import NAMES, headroom_of, reasons_of, verdict
    from adaptive_split.scenario import load_scenario

    config = CompareConfig(
        names=tuple(NAMES), num_seeds=arguments.seeds, per_family=arguments.streams
    )
    scenario = load_scenario(arguments.scenario)
    learned, _ = load_controller(None, scenario)
    traces, sentence = load_traces(arguments.traces, "test")
    say(sentence)
    with Bars() as bars:
        comparison = compare(scenario, traces, config, learned, bars)
        reasons = reasons_of(comparison, bars)
    found = headroom_of(comparison)
    print(who_brings_what(found[0]))
    print(f"\n{by_family(found)}\n")
    print("\n".join(verdict(found, reasons, comparison)))
    return 0


def who_brings_what(whole: Headroom) -> str:
    """The four controllers over all streams, with 95 % intervals."""
    from adaptive_split.agents.headroom import NAMES
    from adaptive_split.cli.tables import table

    rows = [["all families", "utility", "95 % interval", "above best static", "95 % interval"]]
    for name, shown in NAMES.items():
        utility, gain = whole.utility[name], whole.gain[name]
        rows.append([
            shown, f"{utility.value:.4f}", f"{utility.low:.4f} - {utility.high:.4f}",
            f"{gain.value:+.4f}", f"{gain.low:+.4f} to {gain.high:+.4f}",
        ])  # fmt: skip
    return table(rows)


def by_family(found: Sequence[Headroom]) -> str:
    """Best static and oracle in every family, and the headroom between them."""
    from adaptive_split.agents.headroom import NAMES
    from adaptive_split.cli.tables import table

    static, *_, oracle = NAMES
    head = ["family", "best static", "oracle", "headroom", "relative", "95 % interval"]
    rows = [
        [one.place, f"{one.utility[static].value:.4f}", f"{one.utility[oracle].value:.4f}",
         f"{one.gain[oracle].value:.4f}", *_relative(one.relative[oracle])]
        for one in found
    ]  # fmt: skip
    return table([head, *rows])


def _relative(share: Estimate | None) -> tuple[str, str]:
    if share is None:
        return "-", "-"
    return f"{share.value:.1%}", f"{share.low:.1%} - {share.high:.1%}"
