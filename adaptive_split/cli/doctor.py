"""`adaptive-split doctor`: what this machine can measure, and what is wrong."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from adaptive_split.cli.common import Commands, add_command, add_tls, tls_files
from adaptive_split.cli.hardware import add_battery

if TYPE_CHECKING:
    from adaptive_split.runtime.credentials import TlsFiles
    from adaptive_split.runtime.doctor.finding import Finding
    from adaptive_split.scenario import Scenario

SICK = 1
"""Exit status with anything red."""
ROOT = Path("/")


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands, "doctor", "what this machine can measure, and what is wrong",
        "Try what a device needs: sensors, ONNX Runtime's providers, clock, memory, disk, "
        "certificates, and the link to each server. Green is well, yellow works with less, red "
        "does not work; what is not green comes with advice. Where TensorRT has no engine yet, it "
        "builds that of stage 1. Exit status 1 when anything is red.",
        "adaptive-split doctor --server edge.example:50051 --ca ca.pem --certificate cam-1.pem "
        "--key cam-1.key",
    )  # fmt: skip
    parser.add_argument(
        "--server", action="append", default=[], metavar="HOST:PORT", help="may be repeated"
    )
    parser.add_argument("--scenario", default="default", help="default: default")
    parser.add_argument("--bundle", help="a shipped bundle or its directory (default: scenario's)")
    parser.add_argument(
        "--records", type=Path, default=Path(), metavar="DIR",
        help="where records are to be written (default: here)",
    )  # fmt: skip
    add_battery(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_tls(parser, "server's")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Examine; print what was found."""
    from adaptive_split.runtime.addresses import host_and_port
    from adaptive_split.runtime.doctor.finding import RED, worst
    from adaptive_split.scenario import load_scenario

    for address in arguments.server:
        host_and_port(address, "--server")
    named = arguments.server or arguments.insecure or arguments.ca or arguments.certificate
    tls = tls_files(arguments) if named or arguments.key else None
    scenario = load_scenario(arguments.scenario, arguments.bundle)
    findings = list(examine_all(arguments, scenario, tls))
    level = worst(findings)
    if arguments.json:
        print(json.dumps({"worst": level, "findings": [asdict(one) for one in findings]}))
    else:
        _print(findings)
    return SICK if level == RED else 0


def examine_all(
    arguments: argparse.Namespace, scenario: Scenario, tls: TlsFiles | None
) -> Iterator[Finding]:
    """Every check that the arguments ask for, one after the other."""
    from datetime import datetime, timezone

    from adaptive_split.runtime.doctor import certificates, engines, link, machine, senses
    from adaptive_split.runtime.doctor.finding import examine
    from adaptive_split.runtime.sensors.batteries import SYSTEM
    from adaptive_split.runtime.sensors.boards import linux_release

    bundle, objective = scenario.bundle, scenario.objective
    model_bytes = sum((bundle.path / name).stat().st_size for name in bundle.files)
    is_jetson = bool(linux_release())
    checks = {
        "sensors": partial(senses.examine_senses, ROOT, arguments.battery or SYSTEM),
        "providers": partial(engines.examine_providers, bundle, is_jetson),
        "clock": partial(machine.examine_clock, machine.clock_is_synchronized()),
        "memory": partial(machine.examine_memory, machine.available_memory(), model_bytes),
        "disk": partial(machine.examine_disk, arguments.records, objective.fps),
    }
    if tls is not None:
        now = datetime.now(timezone.utc)
        checks["certificates"] = partial(certificates.examine_certificates, tls, now)
    for address in arguments.server:
        checks[f"server {address}"] = partial(
            link.examine_link, address, bundle, tls, objective.slo_s
        )
    for subject, check in checks.items():
        yield from examine(subject, check)


def _print(findings: list[Finding]) -> None:
    """One row per finding, its advice below it; words as well as colors tell the level."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from adaptive_split.runtime.doctor.finding import GREEN, LEVELS, RED, worst

    styles = dict(zip(LEVELS, ("green", "yellow", "bold red"), strict=True))
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("", no_wrap=True)
    table.add_column("what", no_wrap=True, overflow="ellipsis", max_width=40)
    table.add_column("found, and what to do", overflow="fold")
    for one in findings:
        text = Text(one.found)
        if one.advice:
            text.append(f"\n-> {one.advice}", styles[one.level])
        table.add_row(Text(one.level, styles[one.level]), one.subject, text)
    console = Console(highlight=False)
    console.print(table)
    counts = [sum(one.level == level for one in findings) for level in LEVELS]
    told = ", ".join(f"{count} {level}" for count, level in zip(counts, LEVELS, strict=True))
    verdict = {GREEN: "all is well", RED: "what is red does not work"}
    console.print(f"\n{told}: {verdict.get(worst(findings), 'it works, with less')}")
