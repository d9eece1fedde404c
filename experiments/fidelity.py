"""Is the simulator like a live run? `python -m experiments.fidelity`; as root for both links.

Controllers take turns in windows of recorded test traces, live, and every block's decisions are
played once more, live: the floor. Then the simulator plays the same decisions, pictures, links and
server load from the same moments on, as it is and calibrated. Calibrations are fitted on one half
of the windows and judged on the other, both ways round. The records stay in `--out`: what is there
is not recorded again. Tables are Markdown, for `FIDELITY.md`; figures go to `experiments/figures`.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import psutil

from adaptive_split.agents.fidelity import LiveRun, load_run, save_run
from adaptive_split.agents.fidelity_errors import (
    Residual,
    errors_of,
    ranking_of,
    residuals_of,
    utilities_of,
)
from adaptive_split.agents.fidelity_fit import fit
from adaptive_split.agents.fidelity_live import record_run
from adaptive_split.agents.fidelity_replay import Pair, Replay
from adaptive_split.agents.hindsight import best_static
from adaptive_split.agents.live_windows import LiveConfig
from adaptive_split.agents.report_style import STYLE
from adaptive_split.agents.report_svg import Drawing, nice_ticks
from adaptive_split.agents.roster import make_policy
from adaptive_split.agents.trial import Venue
from adaptive_split.calibration import Calibration
from adaptive_split.cli.calibrate import constants_of
from adaptive_split.cli.common import SHIPPED_CONTROLLER, SHIPPED_PICTURES, Bars, say
from adaptive_split.runtime.controller import Policy
from adaptive_split.runtime.controller_bundle import ControllerBundle
from adaptive_split.runtime.emulation.namespace_link import LINKS
from adaptive_split.runtime.emulation.priority import run_first
from adaptive_split.runtime.emulation.tun_device import find_obstacle
from adaptive_split.runtime.live_controller import LiveController
from adaptive_split.runtime.simulated.streams import StreamSource
from adaptive_split.scenario import Scenario, load_scenario
from adaptive_split.trace import Trace
from adaptive_split.trace_sets import default_traces

CONTROLLERS = ("sac", "distribution-planner", "planner", "two-arm", "local", "jpeg")
"""Beside the best static decision."""
STREAMS_PER_FAMILY = 8
"""Over which that one is searched, in the simulator."""
FIGURES = Path("experiments/figures")
WIDTH, ROW, MARGINS = 680, 44, (30, 20, 58, 110)
KINDS = {"live again": "c6", "simulated": "c5", "calibrated": "c0"}
"""What is held against live, and its color."""
OWN_STYLE = """
svg { background: var(--card); } .whisker.c0 { stroke: var(--c0); }
.whisker.c5 { stroke: var(--c5); } .whisker.c6 { stroke: var(--c6); }
circle.c6 { fill: var(--c6); stroke: var(--card); }
"""


@dataclass(frozen=True, slots=True)
class Found:
    """Frames of a run, each beside what is held against it."""

    run: LiveRun
    calibrations: Sequence[Calibration]
    """Fitted on the first half of the windows, and on the second."""
    pairs: Mapping[str, Sequence[Pair]]
    """By kind, see `KINDS`."""
    deciding: Sequence[Pair]
    """Calibrated, with the controllers deciding for themselves."""

    def family(self, kind: str, family: str) -> list[Pair]:
        """The pairs of one link family."""
        windows = self.run.windows
        return [one for one in self.pairs[kind] if windows[one.block.window].family == family]


def name_of_best(scenario: Scenario, traces: Sequence[Trace]) -> str:
    """The fixed decision that is best on simulated streams of the traces, as `static:K:T:B`."""
    judging = scenario.table("judge")
    source = StreamSource(scenario, judging.outcomes, traces)
    streams = tuple(source.draw_evenly(STREAMS_PER_FAMILY, 0))
    policy, _ = best_static(Venue(scenario.table("policy"), judging, streams))
    best = judging.grid.candidates[policy.candidate]
    return f"static:{best.split_point}:{best.exit_threshold:g}:{best.bits}"


def policies_of(scenario: Scenario, names: Sequence[str]) -> dict[str, Policy]:
    """Build controllers, with the knobs of the shipped controller bundle."""
    learned, table = ControllerBundle.load(SHIPPED_CONTROLLER), scenario.table("policy")
    return {name: make_policy(name, table, learned) for name in names}


def record(scenario: Scenario, config: LiveConfig, path: Path) -> None:
    """Make the live run on one kind of link."""
    traces, sentence = default_traces("test")
    say(sentence)
    policies = policies_of(scenario, (*CONTROLLERS, name_of_best(scenario, traces)))
    with Bars("block") as bars:
        run = record_run(
            scenario, traces, policies, SHIPPED_PICTURES, config, again=True, progress=bars
        )
    save_run(run, path)


def examine(scenario: Scenario, run: LiveRun) -> Found:
    """Play a run again in every way."""
    halves = run.halves
    calibrations = [fit(scenario, run, run.only(half)) for half in halves]
    repeats = {(one.window, one.controller): one for one in run.only(range(len(run.windows)), 1)}
    everything = run.only(range(len(run.windows)))
    again = [
        Pair(block, first, second)
        for block in everything
        for first, second in zip(
            block.reports, repeats[block.window, block.controller].reports, strict=True
        )
    ]
    replays = [Replay(scenario, run, one) for one in reversed(calibrations)]
    judged = list(zip(replays, halves, strict=True))
    return Found(
        run, calibrations,
        {
            "live again": again,
            "simulated": Replay(scenario, run).pairs(everything),
            "calibrated": [p for one, half in judged for p in one.pairs(run.only(half))],
        },
        [p for one, half in judged for p in decide(scenario, one, half)],
    )  # fmt: skip


def decide(scenario: Scenario, replay: Replay, windows: Sequence[int]) -> list[Pair]:
    """Let the controllers decide for themselves in the simulator."""
    blocks, table = replay.run.only(windows), scenario.table("policy")
    policies = policies_of(scenario, sorted({block.controller for block in blocks}))
    stand_in = make_policy("distribution-planner", table, None)
    return [
        Pair(block, live, again)
        for block in blocks
        for live, again in zip(
            block.reports,
            replay.play(block, LiveController(table, policies[block.controller], stand_in)),
            strict=True,
        )
    ]


def line(*cells: object) -> None:
    """Print one row of a table."""
    print("| " + " | ".join(str(cell) for cell in cells) + " |")


def header(*names: str) -> None:
    """Print the head of a table."""
    print()
    line(*names)
    line(*["---"] * len(names))


def print_totals(found: Found) -> None:
    """Print the errors over all windows."""
    errors = {kind: errors_of(pairs) for kind, pairs in found.pairs.items()}
    header("against the first live run", *errors)
    line("median error of a frame's latency", *(f"{one.latency:.1%}" for one in errors.values()))
    line("90 % quantile", *(f"{one.latency_p90:.1%}" for one in errors.values()))
    line("mean error of a block's utility", *(f"{one.utility:.4f}" for one in errors.values()))
    line("its bias", *(f"{one.utility_bias:+.4f}" for one in errors.values()))
    for name in ("answer", "exit", "fallback", "on time"):
        line(f"same {name}", *(f"{one.same[name]:.1%}" for one in errors.values()))


def print_families(found: Found) -> None:
    """Print errors and changes of rank family by family, then over all."""
    families = sorted({trace.family for trace in found.run.windows})
    parts: dict[str, Mapping[str, Sequence[Pair]]] = {
        one: {kind: found.family(kind, one) for kind in KINDS} for one in families
    }
    parts["all"] = found.pairs
    header("family", *(f"latency: {kind}" for kind in KINDS), *(f"utility: {k}" for k in KINDS))
    for name, pairs in parts.items():
        errors = [errors_of(pairs[kind]) for kind in KINDS]
        line(name, *(f"{one.latency:.1%}" for one in errors),
             *(f"{one.utility:.4f}" for one in errors))  # fmt: skip
    header("pairs that change places, and by how much live", *KINDS)
    for name, pairs in parts.items():
        line(name, *(_swapped(pairs[kind]) for kind in KINDS))


def _swapped(pairs: Sequence[Pair]) -> str:
    found = ranking_of(pairs).swapped
    return ", ".join(f"{one} - {other} ({gap:.4f})" for one, other, gap in found) or "none"


def print_controllers(found: Found) -> None:
    """Print mean utilities, the best live first."""
    columns = {**found.pairs, "calibrated, deciding itself": found.deciding}
    utilities = {kind: utilities_of(pairs) for kind, pairs in columns.items()}
    latencies = {
        kind: {name: errors_of([p for p in pairs if p.block.controller == name]).latency
               for name in utilities["simulated"]}
        for kind, pairs in found.pairs.items()
    }  # fmt: skip
    header("controller", "utility live", *utilities, *(f"latency error: {one}" for one in KINDS))
    for name, (live, _) in sorted(utilities["simulated"].items(), key=lambda item: -item[1][0]):
        line(name, f"{live:.4f}", *(f"{one[name][1]:.4f}" for one in utilities.values()),
             *(f"{one[name]:.1%}" for one in latencies.values()))  # fmt: skip


def print_residuals(residuals: Mapping[str, Mapping[str, Residual]]) -> None:
    """Print bias and spread of every component."""
    header("minus live, ms: median [quartiles]", *(f"{kind}, frames" for kind in residuals))
    for name in residuals["simulated"]:
        cells = [
            f"{1e3 * one.bias_s:+.2f} [{1e3 * one.low_s:+.2f}, {1e3 * one.high_s:+.2f}], mean "
            f"{1e3 * one.mean_s:+.2f}, {one.num_frames}"
            for kind in residuals
            if (one := residuals[kind].get(name))
        ]
        line(name, *cells)


def print_constants(calibrations: Sequence[Calibration]) -> None:
    """Print what was fitted on either half."""
    header("constant", "fitted on the first windows", "on the second")
    found = [constants_of(one) for one in calibrations]
    for name in found[0]:
        line(name, *(one[name] for one in found))


def print_crosswise(scenario: Scenario, runs: Sequence[LiveRun]) -> None:
    """Fit on the first windows of one run, and judge on the second ones of the other."""
    print("\n## Fitted on one run, judged on other windows of the other")
    header("fitted on", "judged on", "latency: simulated", "calibrated", "utility: simulated",
           "calibrated")  # fmt: skip
    for one, other in permutations(runs, 2):
        calibration = fit(scenario, one, one.only(one.halves[0]))
        blocks = other.only(other.halves[1])
        errors = [
            errors_of(Replay(scenario, other, how).pairs(blocks)) for how in (None, calibration)
        ]
        line(one.link, other.link, *(f"{each.latency:.1%}" for each in errors),
             *(f"{each.utility:.4f}" for each in errors))  # fmt: skip


def draw(residuals: Mapping[str, Mapping[str, Residual]], title: str) -> str:
    """Draw medians and quartiles of every component's residual."""
    names = list(residuals["simulated"])
    every = [one for kind in residuals.values() for one in kind.values()]
    low = min(1e3 * one.low_s for one in every) - 0.3
    high = max(1e3 * one.high_s for one in every) + 0.3
    height = ROW * len(names) + MARGINS[0] + MARGINS[2]
    drawing = Drawing(
        WIDTH, height, x_range=(low, high), y_range=(0, len(names)), margins=MARGINS, label=title
    )
    drawing.text(12, 18, title, kind="panel")
    drawing.axis_x(nice_ticks(low, high), "{:g}".format, "ms; dot: median, line: quartiles")
    drawing.segment(drawing.x(0), drawing.top, drawing.x(0), drawing.bottom, "zero")
    for row, name in enumerate(names):
        middle = drawing.top + ROW * (row + 0.5)
        drawing.text(drawing.left - 8, middle + 4, name, anchor="end")
        for index, (kind, color) in enumerate(KINDS.items()):
            one, at = residuals[kind].get(name), middle + 11 * (index - 1)
            if one is not None:
                ends = (drawing.x(1e3 * one.low_s), drawing.x(1e3 * one.high_s))
                drawing.segment(ends[0], at, ends[1], at, f"whisker {color}")
                drawing.dot(drawing.x(1e3 * one.bias_s), at, color, radius=4.0)
    for index, (kind, color) in enumerate(KINDS.items()):
        drawing.dot(drawing.left + 120 * index, height - 12, color, radius=4.0)
        drawing.text(drawing.left + 120 * index + 10, height - 8, kind)
    opening, rest = drawing.close().split(">", 1)
    opening = opening.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ')
    return f"{opening}><style>{STYLE}{OWN_STYLE}</style>{rest}\n"


def report(found: Found, figures: Path) -> None:
    """Print all tables of a run and draw its figure."""
    run = found.run
    print(f"\n## Link: {run.link}\n")
    print(f"{len(run.windows)} windows: " + "; ".join(
        f"{trace.name} ({trace.family}, {trace.source})" for trace in run.windows))  # fmt: skip
    residuals = {kind: residuals_of(pairs) for kind, pairs in found.pairs.items()}
    print_totals(found)
    print_families(found)
    print_controllers(found)
    print_residuals(residuals)
    print_constants(found.calibrations)
    title = f"Minus the first live run, by component; link: {run.link}"
    (figures / f"fidelity_{run.link}.svg").write_text(draw(residuals, title), encoding="utf-8")


def main() -> None:
    """Run the experiment."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--links", nargs="+", choices=tuple(LINKS), default=list(LINKS))
    parser.add_argument("--windows", type=int, default=2, help="per link family")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a window")
    parser.add_argument("--load", type=float, default=0.5, help="of the server, by other users")
    parser.add_argument("--out", type=Path, default=Path("runs/fidelity"))
    parser.add_argument("--figures", type=Path, default=FIGURES)
    parser.add_argument("--ordinary", action="store_true", help="do not run before others")
    arguments = parser.parse_args()
    if not arguments.ordinary:
        run_first()
    arguments.out.mkdir(parents=True, exist_ok=True)
    scenario, runs = load_scenario("default"), []
    for link in arguments.links:
        path = arguments.out / f"{link}.jsonl"
        if not path.exists():
            if link == "namespaces" and (obstacle := find_obstacle()):
                say(f"no link of namespaces here: {obstacle}")
                continue
            config = LiveConfig(
                windows_per_family=arguments.windows, block_s=arguments.seconds, link=link,
                utilization=arguments.load,
            )  # fmt: skip
            record(scenario, config, path)
        say(f"{path}; {platform.machine()}, load average {psutil.getloadavg()[0]:.1f}")
        runs.append(load_run(path))
        report(examine(scenario, runs[-1]), arguments.figures)
    print_crosswise(scenario, runs)


if __name__ == "__main__":
    main()
