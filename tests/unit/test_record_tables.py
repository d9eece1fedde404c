"""Frame records as Parquet: fixed types, read back as they were, refused when they are others."""

from dataclasses import fields

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from adaptive_split.agents.log_frames import LogFrames, read_logs
from adaptive_split.agents.record_tables import Origin, read_frame_records, write_records
from adaptive_split.errors import ConfigError
from adaptive_split.measurement import FrameReport
from adaptive_split.runtime.records import RecordWriter, read_records
from tests import support
from tests.recorded import AtRandom, record

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """A device's JSON lines of two runs, with a dropped frame, and the same as Parquet."""
    folder, table = tmp_path_factory.mktemp("records"), support.table()
    runs = [folder / "first.jsonl", folder / "second.jsonl"]
    record(runs[0], table, AtRandom(table), [support.stream(110, seed=seed) for seed in (1, 2)])
    dropped = FrameReport(
        frame_index=999, sample_index=3, arrival_s=50.0, decision=None, answer=None,
        answered_by="", exit_index=None, confidence=None, correct=False, on_time=False,
        fallback_reason="dropped", latency_s=None,
    )  # fmt: skip
    with RecordWriter(runs[1]) as writer:
        writer.write(dropped)
    origins = [Origin("lte", "a drive", "recorded"), Origin("5g", "a walk", "synthetic", 7)]
    write_records(runs, origins, folder / "all.parquet")
    return runs, folder / "all.parquet"


def test_every_frame_is_read_back_as_the_device_wrote_it(logs):
    runs, table = logs
    written = [one for run in runs for one in read_records(run)]

    assert list(read_frame_records(table)) == written
    assert list(read_frame_records(runs[0])) == list(read_records(runs[0]))
    assert written[-1].report.decision is None


def test_a_policy_learns_the_same_from_both(logs):
    runs, path = logs
    table = support.table()

    lines, columns = read_logs(runs, table), read_logs([path], table)

    for field in fields(LogFrames):
        np.testing.assert_array_equal(
            getattr(lines, field.name), getattr(columns, field.name), field.name
        )


def test_columns_have_fixed_types(logs):
    schema = pyarrow.parquet.read_schema(logs[1])

    types = {field.name: str(field.type) for field in schema}
    told = {
        "stream": "int32", "seed": "int32", "family": "string", "trace": "string",
        "source": "string", "frame_index": "int32", "sample_index": "int32",
        "arrival_s": "double", "split_point": "int8", "exit_threshold": "double", "bits": "int8",
        "answer": "int32", "answered_by": "string", "exit_index": "int8", "confidence": "double",
        "correct": "bool", "on_time": "bool", "fallback_reason": "string", "latency_s": "double",
        "payload_bytes": "int64", "energy_j": "double", "energy_provenance": "string",
        "utility": "double", "observation": "list<element: double>",
    }  # fmt: skip
    assert {name: types[name] for name in told} == told
    parts = set(types) - set(told)
    assert {types[name] for name in parts if name.endswith("_s")} == {"double"}
    assert set(types) >= {field.name for field in fields(FrameReport)} - {"decision"}


def test_a_stream_says_where_it_comes_from(logs):
    rows = pyarrow.parquet.read_table(logs[1]).to_pylist()

    assert sorted({row["stream"] for row in rows}) == [0, 1]
    last = {name: rows[-1][name] for name in ("family", "trace", "source", "seed")}
    assert last == {"family": "5g", "trace": "a walk", "source": "synthetic", "seed": 7}
    assert rows[0]["seed"] is None


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda table: None, "must be readable; got .*all.parquet"),
        (lambda table: table.replace_schema_metadata({}), "of version 1; got version none"),
        (lambda table: table.drop_columns(["answer"]), "got others in answer"),
        (lambda table: table.append_column("mood", table["trace"]), "got others in mood"),
        (lambda table: table.set_column(0, "stream", table["utility"]), "others in stream"),
    ],
)
def test_what_is_no_table_of_frames_is_refused(logs, tmp_path, spoil, message):
    path = tmp_path / "all.parquet"
    spoiled = spoil(pyarrow.parquet.read_table(logs[1]))
    if spoiled is None:
        path.write_bytes(logs[1].read_bytes()[:100])
    else:
        pyarrow.parquet.write_table(spoiled, path)

    with pytest.raises(ConfigError, match=message):
        list(read_frame_records(path))
