"""The named sets of traces: recorded ones where they are at hand, else those the package ships."""

from __future__ import annotations

import csv
import dataclasses
import functools
import hashlib
import os
from pathlib import Path

from adaptive_split.errors import ConfigError
from adaptive_split.link_model import CELLULAR, FIVE_G, LTE, STARLINK, guess_family
from adaptive_split.trace import Trace, read_trace, read_traces, write_trace
from adaptive_split.trace_generator import generate
from adaptive_split.trace_rtt import stem

SPLITS = ("train", "validation", "test")
ENVIRONMENT = "ADAPTIVE_SPLIT_DATA"
"""Environment variable that names the folder of the recordings."""

MIN_DURATION_S = 12.0
SHIPPED_SEEDS = {"train": range(24), "validation": range(24, 32), "test": range(32, 40)}
SHIPPED_DURATION_S = 120.0

_INDEX = "index_traces.csv"
_SOURCES = ("mahimahi", "nuwins_maine2024", "nuwins_5gmemu2022")
_VALIDATION_SHARE = 0.2
_SHIPPED_LTE = Path(__file__).parent / "data" / "traces" / "lte"
# Four recordings are too few for a share; the test recording is the one that the index holds back.
_LTE_SPLIT = {
    "ATT-LTE-driving": "train",
    "TMobile-LTE-short": "train",
    "TMobile-UMTS-driving": "validation",
    "Verizon-EVDO-driving": "test",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """A recording and where it belongs."""

    split: str
    """One of `SPLITS`."""
    family: str
    """One of `link_model.FAMILIES`."""
    path: Path


def list_recordings(data_dir: Path) -> list[Entry]:
    """The recordings of the four link families, with their splits.

    Test are the rows that the index marks `val`; validation is a fifth of the `train` rows of each
    family, chosen by a hash of the file's name. Traces under 12 s are left out.

    Args:
        data_dir: A folder with `index_traces.csv` and `traces/<source>/*.csv`.

    Raises:
        ConfigError: If there is no index.
    """
    index = Path(data_dir) / _INDEX
    if not index.is_file():
        raise ConfigError(f"folder of recordings must hold {_INDEX}; got none in {data_dir}")
    held_back: list[Entry] = []
    pool: dict[str, list[Path]] = {}
    with index.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            is_uplink = row["file"].startswith("traces/") and row["source"] in _SOURCES
            if not is_uplink or float(row["duration_s"]) < MIN_DURATION_S:
                continue
            path = Path(data_dir) / row["file"]
            family = guess_family(row["source"], stem(path))
            if family == LTE and stem(path) in _LTE_SPLIT:
                held_back.append(Entry(_LTE_SPLIT[stem(path)], family, path))
            elif row["split"] == "val":
                held_back.append(Entry("test", family, path))
            else:
                pool.setdefault(family, []).append(path)
    entries = held_back
    for family, paths in pool.items():
        ordered = sorted(paths, key=lambda path: hashlib.sha256(stem(path).encode()).digest())
        num_validation = round(_VALIDATION_SHARE * len(ordered))
        for position, path in enumerate(ordered):
            entries.append(Entry(SPLITS[int(position < num_validation)], family, path))
    return sorted(entries, key=lambda entry: (entry.family, entry.path))


def recorded(split: str, data_dir: Path) -> list[Trace]:
    """The recorded traces of a split, each with its RTT, their `family` one of the four."""
    _check_split(split)
    return [
        dataclasses.replace(read_trace(entry.path), family=entry.family)
        for entry in list_recordings(data_dir)
        if entry.split == split
    ]


def own(split: str, folder: Path) -> list[Trace]:
    """Traces of the user's own, anywhere below a folder, as `record` writes them.

    A fifth of the files, one at least, are for validation, chosen by a hash of their names; the
    rest is to train on. None is for testing: `compare --traces` judges on what it is given.

    Raises:
        ConfigError: If there are fewer than two, or the split is `test`.
        TraceError: If there is none, or one cannot be read.
    """
    _check_split(split)
    ordered = sorted(
        read_traces([folder]), key=lambda one: hashlib.sha256(one.name.encode()).digest()
    )
    if len(ordered) < 2 or split == "test":
        raise ConfigError(
            f"{folder} must hold {_INDEX}, or two traces of your own at least, to train and to "
            f"validate on (none to test); got {len(ordered)}, asked for {split}"
        )
    count = max(1, round(_VALIDATION_SHARE * len(ordered)))
    return ordered[:count] if split == "validation" else ordered[count:]


def prepare(data_dir: Path, out_dir: Path) -> dict[str, int]:
    """Write the recordings with their RTTs to `out_dir/{train,validation,test}/<family>/*.csv`.

    Args:
        data_dir: As for `list_recordings`.
        out_dir: Must not hold a split yet, so that no file of an earlier run is left among them.

    Returns:
        Number of traces written, by `split/family`.

    Raises:
        ConfigError: If `out_dir` holds a split already, or `data_dir` no index.
    """
    entries = list_recordings(data_dir)
    for split in SPLITS:
        if (Path(out_dir) / split).exists():
            raise ConfigError(f"out_dir must not hold {split} yet; got {out_dir}; remove it first")
    counts: dict[str, int] = {}
    for entry in entries:
        folder = Path(out_dir) / entry.split / entry.family
        folder.mkdir(parents=True, exist_ok=True)
        trace = dataclasses.replace(read_trace(entry.path), family=entry.family)
        write_trace(trace, folder / f"{trace.name}.csv")
        key = f"{entry.split}/{entry.family}"
        counts[key] = counts.get(key, 0) + 1
    return counts


def shipped(split: str) -> list[Trace]:
    """The traces that come with the package.

    LTE: recorded uplinks (mahimahi, GPL-3.0, see `data/traces/lte/NOTICE`) with a synthetic RTT.
    The other three families: generated, rate and RTT synthetic; their recordings carry no license.
    """
    _check_split(split)
    return list(_shipped(split))


@functools.cache
def _shipped(split: str) -> tuple[Trace, ...]:
    recordings = [
        read_trace(_SHIPPED_LTE / f"{name}.csv.gz")
        for name, its_split in _LTE_SPLIT.items()
        if its_split == split
    ]
    generated = [
        generate(family, seed, SHIPPED_DURATION_S)
        for family in (CELLULAR, STARLINK, FIVE_G)
        for seed in SHIPPED_SEEDS[split]
    ]
    return (*recordings, *generated)


def default_traces(split: str, data_dir: Path | None = None) -> tuple[list[Trace], str]:
    """Recorded traces if they are at hand, else the shipped ones.

    Args:
        split: `train`, `validation` or `test`.
        data_dir: Where the recordings are, with their index, or traces of your own; None = the
            folder in `ADAPTIVE_SPLIT_DATA`, else `../shared/data` if it is there.

    Returns:
        The traces, and one sentence that says which they are.

    Raises:
        ConfigError: If `data_dir` or the variable names a folder that cannot be split.
        TraceError: If it holds no trace.
    """
    _check_split(split)
    if data_dir is None and os.environ.get(ENVIRONMENT):
        data_dir = Path(os.environ[ENVIRONMENT])
    if data_dir is None and (Path("../shared/data") / _INDEX).is_file():
        data_dir = Path("../shared/data")
    if data_dir is not None:
        indexed = (Path(data_dir) / _INDEX).is_file()
        traces = recorded(split, data_dir) if indexed else own(split, Path(data_dir))
        return traces, (
            f"Using {len(traces)} recorded {split} traces from {data_dir}; {_rtts(traces)}."
        )
    traces = shipped(split)
    num_synthetic = sum(trace.source == "synthetic" for trace in traces)
    num_recorded = len(traces) - num_synthetic
    return traces, (
        f"Using the package's {len(traces)} {split} traces: {num_recorded} recorded LTE uplinks"
        f" with synthetic RTT and {num_synthetic} synthetic traces of three other families"
        f" (set {ENVIRONMENT} to use recordings)."
    )


def _rtts(traces: list[Trace]) -> str:
    """How many RTTs came from where."""
    sources = [trace.rtt_source for trace in traces]
    parts = [f"{sources.count(source)} {source}" for source in sorted(set(sources))]
    return "RTT: " + ", ".join(parts)


def _check_split(split: str) -> None:
    if split not in SPLITS:
        raise ConfigError(f"split must be one of {SPLITS}; got {split!r}")
