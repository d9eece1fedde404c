"""The report: one HTML page from a summary, with everything in it and nothing fetched."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from adaptive_split.agents import report_figures as figures
from adaptive_split.agents.report_style import STYLE
from adaptive_split.agents.report_sweep import SWEEP_CAPTION, sweep_figure
from adaptive_split.agents.report_tables import by_utility, column_tables, plain_table
from adaptive_split.agents.roster import BEST_STATIC, LEARNED, ORACLE, ORACLE_PICTURES, about

Summary = Mapping[str, Any]
BUSY = 0.25
"""Share of the machine that others may use before a live run is called disturbed."""
SYNTHETIC = '<span class="badge">synthetic</span>'


def write_report(summary: Summary, timeline: Mapping[str, Any] | None, path: Path) -> None:
    """Write the page.

    Args:
        summary: As `summary.json` holds it; may lack `live`.
        timeline: One stream frame by frame, from `timeline.timeline_of`.
        path: The file to write.
    """
    sections = [
        _head(summary),
        _utility(summary),
        _families(summary),
        _timeline(timeline),
        _sweep(summary),
        _latency(summary),
        _losses(summary),
        _live(summary),
        _setting(summary),
    ]
    title = f"adaptive_split: {summary['scenario']}"
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>"
        f"<body><main>{''.join(sections)}</main></body></html>\n"
    )
    path.write_text(page, encoding="utf-8")


def _head(summary: Summary) -> str:
    settings, controllers = summary["settings"], summary["controllers"]
    objective = settings["objective"]
    streams = sum(one["streams"] for one in summary["families"].values())
    frames = next(iter(controllers.values()))["frames"]
    tiles = []
    if LEARNED in controllers:
        one = controllers[LEARNED]["utility"]
        tiles.append(
            (f"{one['value']:.4f}", f"utility of sac, {one['low']:.4f} to {one['high']:.4f}")
        )
        rival = summary["paired_difference"].get(BEST_STATIC)
        if rival:
            tiles.append((f"{rival['value']:+.4f}", f"against best-static{_interval(rival)}"))
        closed = controllers[LEARNED]["gap_closed"]
        if closed is not None:
            share = f"{100 * closed['low']:.0f} to {100 * closed['high']:.0f} %"
            words = f"of the way from best-static to oracle, {share}"
            tiles.append((f"{100 * closed['value']:.0f} %", words))
        live = summary.get("live", {}).get("controllers", {}).get(LEARNED)
        if live:
            right = f"{live['on_time_accuracy']['value']:.3f}"
            tiles.append((right, "on-time accuracy of sac, live"))
    boxes = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(words)}</span></div>'
        for value, words in tiles
    )
    return (
        f"<h1>adaptive_split on scenario {escape(str(summary['scenario']))}</h1>"
        f'<p class="soft">{streams} simulated streams of {settings["frames_per_stream"]} frames '
        f"({frames} frames for every controller), {objective['fps']:g} frames per second, an "
        f"answer promised within {1e3 * objective['slo_s']:g} ms, {objective['energy_price']:g} "
        f"utility per joule. {_sources(summary)}</p>"
        f'<div class="tiles">{boxes}</div>'
    )


def _interval(one: Mapping[str, float]) -> str:
    return f", {one['low']:.4f} to {one['high']:.4f}"


def _sources(summary: Summary) -> str:
    kinds = sorted({one["source"] for one in summary["traces"]})
    rtts = sorted({one["rtt_source"] for one in summary["traces"]})
    badge = f" {SYNTHETIC}" if "synthetic" in {*kinds, *rtts} else ""
    return f"Link rates: {escape(', '.join(kinds))}; round trips: {escape(', '.join(rtts))}.{badge}"


def _utility(summary: Summary) -> str:
    controllers, paired = summary["controllers"], summary["paired_difference"]
    parts = [
        "<h2>Utility</h2><p>Utility of a frame is 1 if it was answered rightly and in time, less "
        "the price of its energy and bytes. All controllers played the same streams.</p>",
        _figure(figures.utility_figure(controllers), summary["settings"]["interval"]),
    ]
    if paired:
        parts.append(
            _figure(
                figures.difference_figure(paired),
                "Paired on the same streams; right of 0, sac is ahead.",
            )
        )
        ahead = figures.rivals_that_win(summary)
        places = "".join(
            f"<li>{escape(place)}: {escape('; '.join(words))}</li>"
            for place, words in ahead.items()
        )
        answer = f"</p><ul>{places}</ul>" if ahead else " nowhere in this comparison.</p>"
        parts.append(f"<p><b>Where a rule is ahead of sac, and by how much:</b>{answer}")
    parts.append(column_tables(controllers))
    parts.append(_who(controllers))
    return "".join(parts)


def _who(controllers: Mapping[str, Any]) -> str:
    """What the controllers are, and what the oracles know."""
    parts = []
    if ORACLE in controllers:
        parts.append(
            "oracle knows the link and the server to come, and expects of the pictures what every "
            "controller expects. 'Gap closed' is the share of the way from best-static to it."
        )
    if ORACLE_PICTURES in controllers:
        parts.append(
            "oracle-pictures also knows how accurate every exit and payload is on the judged "
            "pictures; no controller can know that, as it follows from their labels."
        )
    words = f"<p>{' '.join(parts)}</p>" if parts else ""
    listed = _facts({name: about(name) for name in by_utility(controllers)})
    return f"{words}<details><summary>What the controllers are</summary>{listed}</details>"


def _families(summary: Summary) -> str:
    families = summary["families"]
    narrow = figures.label_width(summary["controllers"]) <= figures.HALF / 2
    width = figures.HALF if narrow else figures.WIDTH
    drawn = "".join(
        _figure(
            f"<h3>{escape(name)} {SYNTHETIC if 'synthetic' in one['source'] else ''}</h3>"
            + figures.utility_figure(one["controllers"], width=width),
            f"{one['streams']} streams of {one['files']} trace files, {one['source']} rates",
        )
        for name, one in families.items()
    )
    names = by_utility(summary["controllers"])
    rows = [
        [
            name,
            *(f"{one['controllers'][name]['utility']['value']:.4f}" for one in families.values()),
        ]
        for name in names
    ]
    return (
        "<h2>By link family</h2><p>The scales differ from panel to panel.</p>"
        + (f'<div class="two">{drawn}</div>' if narrow else drawn)
        + plain_table(["utility", *families], rows)
    )


def _timeline(timeline: Mapping[str, Any] | None) -> str:
    if timeline is None:
        return ""
    badge = f" {SYNTHETIC}" if timeline["source"] == "synthetic" else ""
    return (
        "<h2>One stream, frame by frame</h2>"
        f"<p>{escape(timeline['trace'])} of {escape(timeline['family'])}{badge}, seed "
        f"{timeline['seed']}; chosen by rule: {escape(timeline['choice'])}.</p>"
        + _figure(figures.timeline_figure(timeline), "Every mark is a frame, at its capture.")
    )


def _sweep(summary: Summary) -> str:
    sweep = summary.get("sweep")
    if not sweep:
        return ""
    words = "".join(f"<li>{escape(line)}</li>" for line in sweep["words"])
    ahead = f"<p><b>Where a fixed rule is ahead:</b></p><ul>{words}</ul>" if words else ""
    return (
        "<h2>Every split point against the uplink</h2><p>Links whose rate never changes, simulated "
        f"with a round trip of {1e3 * sweep['rtt_s']:.0f} ms, {sweep['draws']} streams of "
        f"{sweep['frames']} frames each. A split point is drawn with the exit threshold and bits "
        "that bring it most over all these links; the best fixed decision is picked anew for every "
        "link, in hindsight.</p>" + _figure(sweep_figure(sweep), SWEEP_CAPTION) + ahead
    )


def _latency(summary: Summary) -> str:
    slo_s = summary["settings"]["objective"]["slo_s"]
    return "<h2>Latency</h2>" + _figure(
        figures.latency_figure(summary["controllers"], slo_s),
        "Share of all captured frames answered within a time; what is missing to 100 % was never "
        "started. The jump at the deadline are fallbacks: the device waits for the server as long "
        "as it may.",
    )


def _losses(summary: Summary) -> str:
    controllers = summary["controllers"]
    rows = figures.oracle_loss_rows(controllers)
    more = ""
    if rows:
        head = ["more than oracle", *figures.CAUSE_WORDS.values(), "sum"]
        more = f"<h3>Against {ORACLE}</h3>" + plain_table(head, rows)
    return (
        "<h2>Where each controller loses</h2><p>A wrong answer of the whole network is lost for "
        "everyone; what differs is the controllers' doing.</p>"
        + _figure(figures.loss_figure(controllers), "The parts add up to 1 - utility.")
        + more
    )


def _live(summary: Summary) -> str:
    live = summary.get("live")
    if not live:
        return "<h2>Live</h2><p>This comparison was simulated only; add --live.</p>"
    windows = "".join(
        f"<li>{escape(one['name'])} ({escape(one['family'])}) from {one['offset_s']:g} s, "
        f"{one['seconds']:g} s, rate {escape(one['source'])}, round trip "
        f"{escape(one['rtt_source'])}</li>"
        for one in live["windows"]
    )
    simulated = live["simulated"]["controllers"]
    both = {
        f"{name}, {kind}": numbers[name]
        for name in by_utility(live["controllers"])
        for kind, numbers in (("live", live["controllers"]), ("simulated", simulated))
    }
    slo_s = summary["settings"]["objective"]["slo_s"]
    return (
        "<h2>Live</h2><p>A real server process, real pictures through the real network, a device "
        f"process slowed to the scenario's, joined by a link that plays traces; "
        f"{escape(live['settings']['order'])}. 'Simulated' is the simulator on the same windows "
        f"and pictures.</p><ul>{windows}</ul>"
        + _busy(live["settings"]["other_load"])
        + column_tables(both, ordered=list(both), strong=", live")
        + _figure(
            figures.utility_figure(live["controllers"]),
            "Measured live. The interval says how much the windows differ.",
        )
        + _figure(figures.latency_figure(live["controllers"], slo_s), "Measured live.")
    )


def _busy(other_load: float) -> str:
    """A warning where other programs held the machine back."""
    if other_load < BUSY:
        return ""
    return (
        f"<p><b>Other programs kept {other_load:.0%} of this machine busy when the live part "
        "began: device and server were slower than profiled, so these numbers are worse than "
        "those of an idle machine.</b></p>"
    )


def _setting(summary: Summary) -> str:
    settings, provenance = summary["settings"], summary["provenance"]
    energy = sorted({one["energy_provenance"] for one in summary["controllers"].values()})
    facts = {
        "command": provenance["command"],
        "device": settings["device"], "server": settings["server"],
        "energy": f"{', '.join(energy)}: {settings['energy_source'] or 'no source named'}",
        "planners' knobs": settings["planner_knobs"],
        **{f"{k}, in hindsight": v for k, v in settings["picked_in_hindsight"].items()},
        "latency": settings["latency"],
        "switches": settings["switches"],
        "battery": _battery(settings["battery"]),
        "model bundle": f"{provenance['bundle']} {provenance['bundle_hash'][:16]}",
        "controller": str(provenance["controller_hash"] or "none")[:16],
        "versions": ", ".join(f"{k} {v}" for k, v in provenance["versions"].items()),
    }  # fmt: skip
    traces = [
        [one["name"], one["family"], one["source"], one["rtt_source"], f"{one['duration_s']:g} s",
         str(one["streams"])]
        for one in summary["traces"]
    ]  # fmt: skip
    listed = plain_table(["trace", "family", "rate", "round trip", "length", "streams"], traces)
    return (
        f"<h2>How this was made</h2>{_facts(facts)}"
        f"<details><summary>{len(traces)} trace files</summary>{listed}</details>"
    )


def _battery(battery: Mapping[str, float] | None) -> str:
    if battery is None:
        return "unknown: the scenario has no [battery], so nobody knows how long a charge lasts"
    return (
        f"life is that of a full charge of {battery['capacity_j']:g} J at the mean power of the "
        f"frames and {battery['idle_w']:g} W beside them"
    )


def _facts(facts: Mapping[str, str]) -> str:
    """Names and sentences, in a table."""
    rows = "".join(
        f"<tr><td>{escape(key)}</td><td>{escape(str(value))}</td></tr>"
        for key, value in facts.items()
    )
    return f'<table class="facts">{rows}</table>'


def _figure(drawing: str, caption: str) -> str:
    return f"<figure>{drawing}<figcaption>{escape(caption)}</figcaption></figure>"
