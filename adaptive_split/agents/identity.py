"""What tells one comparison from another: plain values by the name that a person knows them by."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import adaptive_split
from adaptive_split.agents.compare import CompareConfig
from adaptive_split.agents.live_windows import LiveConfig
from adaptive_split.runtime.controller_bundle import WEIGHTS
from adaptive_split.scenario import SUBSETS, Scenario
from adaptive_split.trace import Trace


def identity(
    scenario: Scenario,
    traces: Sequence[Trace],
    config: CompareConfig,
    controller: Path | None,
    live: tuple[LiveConfig, Path] | None,
    *,
    records: bool,
) -> dict[str, Any]:
    """Everything that a comparison's numbers follow from; where it runs is no part of it.

    Args:
        scenario: With its bundle, profiles and outcomes, which are read.
        traces: What is played.
        config: Who plays, and how much.
        controller: Folder of the controller bundle.
        live: The live part, if there is one, and the folder of its pictures.
        records: Whether frame records are written.
    """
    return {
        "scenario": scenario.name,
        "scenario's content": _scenario_hash(scenario),
        "traces": _traces_hash(traces),
        "--controllers": ",".join(config.names),
        "--seeds": config.num_seeds,
        "--streams": config.per_family,
        "controller bundle": None if controller is None else file_hash(controller / WEIGHTS)[:16],
        "frame records": records,
        "live part": None if live is None else {**asdict(live[0]), "pictures": str(live[1])},
        "version": adaptive_split.__version__,
    }


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _scenario_hash(scenario: Scenario) -> str:
    """Of all values, and of the files that they stand for."""
    named = {field.name: getattr(scenario, field.name) for field in fields(scenario)}
    named["bundle"] = scenario.bundle.hash
    outcomes = [file_hash(scenario.bundle.path / f"outcomes_{name}.npz") for name in SUBSETS]
    return hashlib.sha256(repr((named, outcomes)).encode()).hexdigest()[:16]


def _traces_hash(traces: Sequence[Trace]) -> str:
    digest = hashlib.sha256()
    for trace in traces:
        digest.update(repr((trace.name, trace.family, trace.source, trace.rtt_source)).encode())
        for values in (trace.time_s, trace.uplink_mbps, trace.rtt_s):
            digest.update(values.tobytes())
    return f"{len(traces)} files {digest.hexdigest()[:16]}"
