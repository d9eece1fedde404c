"""A trace that grows: read back, gone on with, and mended after a crash."""

import json
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest

from adaptive_split.errors import ConfigError
from adaptive_split.runtime.recording.link_recorder import RecordedRow
from adaptive_split.runtime.recording.trace_file import TraceFile
from adaptive_split.trace import RECORDED, read_trace

NOON = datetime(2026, 1, 2, 12, tzinfo=timezone.utc)


def add_rows(path, starts_s, *, now=NOON, length_s=1.0):
    file = TraceFile(path, budget_mb=50.0, server="edge:1", period_s=1.0)
    for start_s in starts_s:
        row = RecordedRow(start_s, start_s + length_s, 2.0 + start_s, 0.04, 0.25)
        file.add(row, used_mb=0.1 * file.sidecar.num_rows, now=now)
    return file


def test_what_was_recorded_is_read_as_a_trace(tmp_path):
    path = tmp_path / "drive.csv"
    file = add_rows(path, [100.0, 101.0])
    file.add(RecordedRow(102.0, 103.0, 0.0, None, 1.0), used_mb=1.0, now=NOON)
    file.close("stopped")

    trace = read_trace(path)

    assert (trace.source, trace.rtt_source) == (RECORDED, RECORDED)
    np.testing.assert_allclose(trace.time_s, [0.0, 1.0, 2.0])
    np.testing.assert_allclose(trace.uplink_mbps, [102.0, 103.0, 0.0])
    np.testing.assert_allclose(trace.rtt_s, [0.04, 0.04, np.nan])
    sidecar = json.loads(path.with_suffix(".json").read_text())
    assert sidecar["parts"][0]["ended"] == "stopped"
    assert (sidecar["num_rows"], sidecar["used_mb"], sidecar["gaps"]) == (3, 1.0, [])


def test_a_gap_is_left_out_of_the_trace_and_marked_in_both_files(tmp_path):
    path = tmp_path / "drive.csv"
    add_rows(path, [0.0, 1.0, 31.0, 32.0]).close("stopped")

    np.testing.assert_allclose(read_trace(path).time_s, [0.0, 1.0, 2.0, 3.0])
    assert path.read_text().splitlines()[4] == ""
    (gap,) = json.loads(path.with_suffix(".json").read_text())["gaps"]
    assert (gap["time_s"], gap["seconds"]) == (2.0, 29.0)


def test_a_recording_goes_on_after_its_last_row(tmp_path):
    path = tmp_path / "drive.csv"
    add_rows(path, [0.0, 1.0]).close("stopped")
    file = add_rows(path, [7.0, 8.0], now=NOON + timedelta(hours=1))
    file.close("the budget is used up")

    np.testing.assert_allclose(read_trace(path).time_s, [0.0, 1.0, 2.0, 3.0])
    sidecar = json.loads(path.with_suffix(".json").read_text())
    assert [part["first_time_s"] for part in sidecar["parts"]] == [0.0, 2.0]
    (gap,) = sidecar["gaps"]
    assert (gap["time_s"], gap["seconds"]) == (2.0, 3599.0)
    assert sidecar["num_rows"] == 4


@pytest.mark.parametrize("torn", ["", "3.000,5.0", "3"])
def test_a_row_cut_short_by_a_crash_is_cut_off(tmp_path, torn):
    path = tmp_path / "drive.csv"
    add_rows(path, [0.0, 1.0, 2.0])
    with path.open("a") as file:
        file.write(torn)

    add_rows(path, [50.0]).close("stopped")

    np.testing.assert_allclose(read_trace(path).time_s, [0.0, 1.0, 2.0, 3.0])


def test_a_crash_between_row_and_sidecar_loses_no_row(tmp_path):
    path = tmp_path / "drive.csv"
    add_rows(path, [0.0, 1.0])
    before = path.with_suffix(".json").read_text()
    add_rows(path, [5.0])
    path.with_suffix(".json").write_text(before)

    add_rows(path, [9.0]).close("stopped")

    np.testing.assert_allclose(read_trace(path).time_s, [0.0, 1.0, 2.0, 3.0])
    assert json.loads(path.with_suffix(".json").read_text())["num_rows"] == 4


def test_a_crash_after_the_very_first_row_loses_nothing(tmp_path):
    path = tmp_path / "drive.csv"
    file = TraceFile(path, budget_mb=50.0, server="edge:1", period_s=1.0)
    saved, save = [], file._save
    file._save = lambda: (save(), saved.append(path.with_suffix(".json").read_text()))
    file.add(RecordedRow(0.0, 1.0, 5.0, 0.04, 0.0), used_mb=0.1, now=NOON)
    path.with_suffix(".json").write_text(saved[-2])

    add_rows(path, [9.0], now=NOON + timedelta(hours=1)).close("stopped")

    np.testing.assert_allclose(read_trace(path).time_s, [0.0, 1.0])
    (gap,) = json.loads(path.with_suffix(".json").read_text())["gaps"]
    assert gap["seconds"] == 3600.0


def test_nothing_is_written_before_there_is_a_row(tmp_path):
    add_rows(tmp_path / "drive.csv", []).close("failed")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "files", "message"),
    [
        ("drive.txt", {}, "must be named FILE.csv; got .*drive.txt"),
        ("no/drive.csv", {}, "must be writable"),
        ("drive.csv", {"drive.csv": "time_s,uplink_mbps\n"}, "must have its sidecar; .* name a"),
        ("drive.csv", {"drive.csv": "", "drive.json": "{}"}, "must have its sidecar; .*version"),
        ("drive.csv", {"drive.csv": "", "drive.json": "[1]"}, "must have its sidecar"),
    ],
)
def test_a_file_that_is_no_recording_is_left_alone(tmp_path, name, files, message):
    for file, text in files.items():
        (tmp_path / file).write_text(text)

    with pytest.raises(ConfigError, match=message):
        add_rows(tmp_path / name, [0.0])
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == files


def test_another_trace_with_a_sidecar_is_left_alone(tmp_path):
    path = tmp_path / "drive.csv"
    add_rows(path, [0.0]).close("stopped")
    path.write_text("time_s,uplink_mbps\n0,1\n")

    with pytest.raises(ConfigError, match="must begin as a recording does"):
        add_rows(path, [5.0])
    assert path.read_text() == "time_s,uplink_mbps\n0,1\n"
