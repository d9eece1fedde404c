"""Frame records as Parquet: one row per frame, columns of fixed types, for any table tool.

=====================================  =======  ====================================================
column                                 type     what it holds
=====================================  =======  ====================================================
stream                                 int32    which window of a link: rows of one lie together
seed                                   int32    the draw that the stream belongs to; null if live
family, trace, source                  string   the link; `recorded` or `synthetic`
frame_index, sample_index              int32    position in the stream; row of the outcomes
arrival_s                              float64  capture, since the stream's start
split_point, bits                      int8     the decision; null for a frame dropped unstarted
exit_threshold                         float64  likewise
answer                                 int32    class; null where nobody answered
answered_by                            string   `device`, `server` or empty
exit_index                             int8     null where nobody answered
confidence                             float64  likewise
correct, on_time                       bool
fallback_reason                        string   why the server's answer was not used; else empty
latency_s                              float64  null where nobody answered
wait_s, head_s, encode_s, uplink_s,    float64  parts of the latency
server_wait_s, tail_s, downlink_s,
fallback_s
payload_bytes                          int64    0 = nothing was sent
energy_j                               float64
energy_provenance                      string   `measured`, `modelled` or `unavailable`
utility                                float64
observation                            list     of float64: what a learned controller saw, if live
=====================================  =======  ====================================================

Whatever else a `FrameReport` holds follows `utility`, its type by its annotation. A device writes
JSON lines (`runtime.records`); both are read back into the same `FrameRecord`.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from adaptive_split.agents.frames import Frames
from adaptive_split.decision import Decision
from adaptive_split.errors import ConfigError
from adaptive_split.measurement import DEVICE, NOBODY, SERVER, FrameReport
from adaptive_split.runtime.records import VERSION, FrameRecord, read_records

ENDING = ".parquet"
_VERSION_KEY = b"adaptive_split.records"
_BATCH = 4096

_STREAM = {"stream": "int32", "seed": "int32", "family": "string", "trace": "string",
           "source": "string"}  # fmt: skip
_DECISION = {"split_point": "int8", "exit_threshold": "float64", "bits": "int8"}
_NARROW = {"exit_index": "int8", "payload_bytes": "int64"}
_KINDS = {"int": "int32", "float": "float64", "bool": "bool_", "str": "string"}
"""What a column of a frame report becomes, by its annotation."""
_REPORT = {
    field.name: _NARROW.get(field.name, _KINDS[str(field.type).removesuffix(" | None")])
    for field in fields(FrameReport)
    if field.name != "decision"
}
_DEFAULTS = {
    field.name: field.default for field in fields(FrameReport) if field.default is not MISSING
}


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the frames of a stream come from."""

    family: str
    trace: str
    source: str
    """`recorded` or `synthetic`."""
    seed: int | None = None


def check_parquet() -> None:
    """Refuse to begin what could not be written.

    Raises:
        ConfigError: If pyarrow is not installed.
    """
    _pyarrow("pyarrow.parquet")


def write_frames(frames: Frames, origins: Sequence[Origin], path: Path) -> None:
    """Write every frame of simulated streams, stream by stream.

    Args:
        frames: Of B streams.
        origins: Of every stream, B of them.
        path: A new file, ending in `.parquet`.
    """
    gone = ~frames.started.ravel()
    unanswered = gone | np.isnan(frames.latency_s.ravel())
    num_frames = frames.started.shape[1]
    who = np.where(frames.by_server, SERVER, np.where(frames.started, DEVICE, NOBODY))
    plain = {name: getattr(frames, name).ravel() for name in (
        "sample_index", "arrival_s", "correct", "on_time", "energy_j", "utility",
    )}  # fmt: skip
    optional = {name: (getattr(frames, name).ravel(), gone) for name in _DECISION}
    optional |= {name: (getattr(frames, name).ravel(), unanswered) for name in (
        "answer", "exit_index", "confidence", "latency_s",
    )}  # fmt: skip
    columns: dict[str, Any] = {
        **_columns_of(origins, num_frames), **plain, **optional,
        "frame_index": np.tile(np.arange(num_frames), len(origins)),
        "answered_by": who.ravel(), "fallback_reason": frames.reason.ravel(),
        "payload_bytes": frames.payload_bytes.ravel().astype(np.int64),
        **{name: values.ravel() for name, values in frames.parts_s.items()},
        "energy_provenance": [frames.energy_provenance] * frames.started.size,
    }  # fmt: skip
    absent = {**_DEFAULTS, "observation": None}
    _write({name: [value] * frames.started.size for name, value in absent.items()} | columns, path)


def write_records(runs: Sequence[Path], origins: Sequence[Origin], path: Path) -> None:
    """Write what a device recorded as JSON lines in several runs; one stream each."""
    rows = []
    for stream, (run, origin) in enumerate(zip(runs, origins, strict=True)):
        where = {"stream": stream, **asdict(origin)}
        rows += [where | _row(record) for record in read_records(run)]
    _write({name: [row[name] for row in rows] for name in _types()}, path)


def read_frame_records(path: Path) -> Iterator[FrameRecord]:
    """Read frame records in the order of their rows: Parquet, or JSON lines as a device writes.

    Raises:
        ConfigError: If the file holds no frame records; names it.
    """
    if path.suffix != ENDING:
        yield from read_records(path)
        return
    parquet = _pyarrow("pyarrow.parquet")
    try:
        with parquet.ParquetFile(path) as file:
            _check(file.schema_arrow, path)
            for batch in file.iter_batches(_BATCH):
                yield from map(_record, batch.to_pylist())
    except (OSError, _pyarrow("pyarrow").ArrowException) as error:
        raise ConfigError(f"a record file must be readable; got {path}: {error}") from error


def _row(record: FrameRecord) -> dict[str, Any]:
    """The columns of one frame that its record knows."""
    report = record.report
    row = {name: getattr(report, name) for name in _REPORT}
    row |= {name: getattr(report.decision, name, None) for name in _DECISION}
    seen = record.observation
    return row | {"observation": None if seen is None else list(seen)}


def _record(row: Mapping[str, Any]) -> FrameRecord:
    """The inverse of `_row`."""
    chosen = {name: row[name] for name in _DECISION}
    decision = None if chosen["split_point"] is None else Decision(**chosen)
    seen = row["observation"]
    report = FrameReport(decision=decision, **{name: row[name] for name in _REPORT if name in row})
    return FrameRecord(report, None if seen is None else tuple(seen))


def _columns_of(origins: Sequence[Origin], num_frames: int) -> dict[str, Any]:
    """The columns that all frames of a stream share."""
    columns: dict[str, Any] = {"stream": np.repeat(np.arange(len(origins)), num_frames)}
    for name in (field.name for field in fields(Origin)):
        columns[name] = [getattr(one, name) for one in origins for _ in range(num_frames)]
    return columns


def _types() -> dict[str, str]:
    """Type of every column, in order; an observation is a list of its own type."""
    report = dict(_REPORT)
    first = {name: report.pop(name) for name in ("frame_index", "sample_index", "arrival_s")}
    return {**_STREAM, **first, **_DECISION, **report, "observation": "float64"}


def _schema() -> Any:
    arrow = _pyarrow("pyarrow")
    kinds = {name: getattr(arrow, kind)() for name, kind in _types().items()}
    kinds["observation"] = arrow.list_(kinds["observation"])
    return arrow.schema(list(kinds.items()), {_VERSION_KEY: str(VERSION)})


def _write(columns: Mapping[str, Any], path: Path) -> None:
    """Write columns; a pair is values and where they are missing."""
    arrow, schema = _pyarrow("pyarrow"), _schema()
    arrays = []
    for field in schema:
        values = columns[field.name]
        values, missing = values if isinstance(values, tuple) else (values, None)
        arrays.append(arrow.array(values, field.type, mask=missing))
    table = arrow.Table.from_arrays(arrays, schema=schema)
    _pyarrow("pyarrow.parquet").write_table(table, path, compression="zstd")


def _check(found: Any, path: Path) -> None:
    version = (found.metadata or {}).get(_VERSION_KEY, b"none").decode()
    if version != str(VERSION):
        raise ConfigError(
            f"{path}: frame records must be of version {VERSION}; got version {version}"
        )
    known = {field.name: field for field in _schema()}
    wrong = [
        field.name
        for field in found
        if field.name not in known or field.type != known[field.name].type
    ]
    wrong += [name for name in known if name not in found.names and name not in _DEFAULTS]
    if wrong:
        raise ConfigError(
            f"{path}: frame records must have the columns {', '.join(known)}, each of its type; "
            f"got others in {', '.join(wrong)}"
        )


def _pyarrow(module: str) -> Any:
    """Import a part of pyarrow, which comes with the extra `train`.

    Raises:
        ConfigError: If it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ConfigError(
            "pyarrow must be installed for Parquet; it is not; "
            "install it with: pip install 'adaptive-split[train]'"
        ) from None
