"""Frame records come back as they were written."""

import gzip
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptive_split.decision import Decision
from adaptive_split.errors import ConfigError
from adaptive_split.measurement import FrameReport
from adaptive_split.runtime.records import RecordWriter, read_records

numbers = st.floats(allow_nan=False, allow_infinity=False)
decisions = st.none() | st.builds(Decision, st.integers(0, 5), st.floats(0, 1), st.integers(0, 8))
reports = st.builds(
    FrameReport,
    frame_index=st.integers(0, 10**6),
    sample_index=st.integers(0, 10**6),
    arrival_s=numbers,
    decision=decisions,
    answer=st.none() | st.integers(0, 20),
    answered_by=st.sampled_from(["device", "server", ""]),
    exit_index=st.none() | st.integers(1, 5),
    confidence=st.none() | st.floats(0, 1),
    correct=st.booleans(),
    on_time=st.booleans(),
    fallback_reason=st.sampled_from(["", "late", "dropped"]),
    latency_s=st.none() | numbers,
)


def dropped(index=0):
    return FrameReport(
        frame_index=index, sample_index=1, arrival_s=0.1, decision=None, answer=None,
        answered_by="", exit_index=None, confidence=None, correct=False, on_time=False,
        fallback_reason="dropped", latency_s=None,
    )  # fmt: skip


@settings(max_examples=30)
@given(report=reports, observation=st.none() | st.lists(numbers, max_size=4))
def test_a_record_comes_back_as_written(report, observation):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "frames.jsonl"
        with RecordWriter(path) as writer:
            writer.write(report, observation)

        (record,) = read_records(path)

    assert record.report == report
    assert record.observation == (None if observation is None else tuple(observation))


def test_a_record_file_is_never_overwritten(tmp_path):
    path = tmp_path / "frames.jsonl"
    path.write_text("precious")

    with pytest.raises(ConfigError, match=r"a record file must be new; got .*frames\.jsonl"):
        RecordWriter(path)
    assert path.read_text() == "precious"


def test_rows_are_in_the_file_before_it_is_closed(tmp_path):
    path = tmp_path / "frames.jsonl"
    with RecordWriter(path) as writer:
        writer.write(dropped(0))
        writer.write(dropped(1))

        indices = [record.report.frame_index for record in read_records(path)]

    assert indices == [0, 1]


def test_a_last_line_cut_short_is_left_out(tmp_path):
    path = tmp_path / "frames.jsonl"
    with RecordWriter(path) as writer:
        writer.write(dropped(0))
        writer.write(dropped(1))
    path.write_text(path.read_text()[:-20])

    assert [record.report.frame_index for record in read_records(path)] == [0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 99}, "line 1: a record must be of version 1; got 99"),
        ({"surprise": 1}, r"line 1: a record must hold known columns; got \['surprise'\]"),
        ({"decision": 7}, "line 1: a record must be whole"),
    ],
)
def test_what_is_no_record_is_refused(tmp_path, change, message):
    path = tmp_path / "frames.jsonl"
    with RecordWriter(path) as writer:
        writer.write(dropped())
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}) + "\n")

    with pytest.raises(ConfigError, match=message):
        list(read_records(path))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="a record file must be readable"):
        list(read_records(tmp_path / "none.jsonl"))


def test_packed_records_are_read_as_they_are(tmp_path):
    path = tmp_path / "frames.jsonl"
    with RecordWriter(path) as writer:
        writer.write(dropped(0))
    (tmp_path / "frames.jsonl.gz").write_bytes(gzip.compress(path.read_bytes()))

    (record,) = read_records(tmp_path / "frames.jsonl.gz")

    assert record.report == dropped(0)


def test_a_packed_file_cut_short_is_refused(tmp_path):
    path = tmp_path / "frames.jsonl.gz"
    path.write_bytes(gzip.compress(b"{}\n" * 100)[:-9])

    with pytest.raises(ConfigError, match="a record file must be readable"):
        list(read_records(path))


FULL = """
import resource, sys
from dataclasses import replace
from pathlib import Path
from adaptive_split.runtime.records import RecordWriter
from tests.unit.test_records import dropped
with RecordWriter(Path(sys.argv[1])) as writer:
    for index, most_bytes in ((0, -1), (1, 700), (2, 700), (3, -1)):
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, -1))
        try:
            writer.write(dropped(index))
        except OSError:
            print(index)
"""


@pytest.mark.slow
def test_a_row_that_found_no_room_leaves_no_trace_and_the_next_is_whole(tmp_path):
    path = tmp_path / "frames.jsonl"

    done = subprocess.run(
        [sys.executable, "-c", FULL, path], capture_output=True, text=True, check=True
    )

    assert done.stdout.split() == ["1", "2"]
    assert [record.report.frame_index for record in read_records(path)] == [0, 3]
