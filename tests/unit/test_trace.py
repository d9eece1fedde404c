"""A trace is checked where it is read, and never changes its megabits."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from adaptive_split.errors import ConfigError, TraceError
from adaptive_split.trace import Trace, read_trace, read_traces, write_trace

HEADER = "time_s,uplink_mbps,rtt_ms\n"


def make_trace(uplink_mbps, period_s=0.5, name="x", family="lte"):
    rate = np.asarray(uplink_mbps, np.float64)
    return Trace(name, family, np.arange(len(rate)) * period_s, rate, np.full(len(rate), 0.05))


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


rates = hnp.arrays(np.float64, st.integers(2, 60), elements=st.floats(0, 1000, width=32))


@settings(max_examples=40)
@given(rate=rates, period_s=st.floats(0.05, 3))
def test_resampling_keeps_the_megabits(rate, period_s):
    trace = make_trace(rate)
    if period_s > trace.duration_s / 2:
        return

    resampled = trace.resample(period_s)

    edges = np.append(trace.time_s, trace.duration_s)
    kept_s = np.clip(edges, 0, len(resampled.time_s) * period_s)
    assert resampled.uplink_mbps.sum() * period_s == pytest.approx(
        (trace.uplink_mbps * np.diff(kept_s)).sum(), abs=1e-6
    )


@settings(max_examples=15)
@given(rate=rates)
def test_a_written_trace_reads_back(rate, tmp_path_factory):
    path = tmp_path_factory.mktemp("traces") / "walk.csv.gz"
    trace = make_trace(rate)
    trace.rtt_s[0] = np.nan

    write_trace(trace, path)
    read = read_trace(path)

    assert (read.name, read.family) == ("walk", path.parent.name)
    np.testing.assert_allclose(read.time_s, trace.time_s)
    np.testing.assert_allclose(read.uplink_mbps, trace.uplink_mbps, rtol=1e-9)
    np.testing.assert_allclose(read.rtt_s, trace.rtt_s)


def test_the_provenance_is_written_and_read_back(tmp_path):
    trace = Trace(
        "x", "y", np.arange(3.0), np.ones(3), np.ones(3), "synthetic", "recorded elsewhere"
    )

    write_trace(trace, tmp_path / "x.csv")
    read = read_trace(tmp_path / "x.csv")

    assert (read.source, read.rtt_source) == ("synthetic", "recorded elsewhere")


def test_equal_traces_give_equal_files(tmp_path):
    for name in ("a", "b"):
        write_trace(make_trace([1, 2, 3]), tmp_path / f"{name}.csv.gz")

    assert (tmp_path / "a.csv.gz").read_bytes() == (tmp_path / "b.csv.gz").read_bytes()


def test_time_counts_from_the_first_row(tmp_path):
    trace = read_trace(write(tmp_path / "x.csv", HEADER + "100,1,5\n100.5,2,5\n"))

    np.testing.assert_array_equal(trace.time_s, [0, 0.5])
    assert trace.duration_s == 1.0


def test_an_empty_rtt_and_a_lost_row_are_lost_replies(tmp_path):
    text = "time_s,uplink_mbps,downlink_mbps,rtt_ms,loss\n0,1,9,40,0\n1,1,9,,0\n2,1,9,40,1\n"

    trace = read_trace(write(tmp_path / "x.csv", text))

    np.testing.assert_array_equal(trace.rtt_s, [0.04, np.nan, np.nan])
    assert trace.rtt_source == "recorded"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"x\.csv, line 1: .*got an empty file"),
        ("a,b\n0,1\n", r"x\.csv, line 1: header must be time_s,uplink_mbps.*got 'a,b'"),
        ("time_s,downlink_mbps\n0,1\n1,1\n", r"line 1: .*got a downlink only"),
        ("time_s,uplink_mbps,uplink_mbps\n0,1,1\n", r"line 1: header must be"),
        (HEADER + "0,1,5\n1,fast,5\n", r"line 3: uplink_mbps must be a number; got 'fast'"),
        (HEADER + "0,1,5\n1,nan,5\n", r"line 3: uplink_mbps must be finite; got 'nan'"),
        (HEADER + "0,1,5\n1,-2,5\n", r"line 3: uplink_mbps must be at least 0; got '-2'"),
        (HEADER + "0,1,5\n1,1,-5\n", r"line 3: rtt_ms must be at least 0; got '-5'"),
        (HEADER + "0,1,5\n1,1\n", r"line 3: row must have 3 columns; got 2"),
        (HEADER + "0,1,5\n1,1,5\n1,1,5\n", r"line 4: time_s must rise; got 1\.0 after 1\.0"),
        (HEADER + "0,1,5\n1,1,5\n0.5,1,5\n", r"line 4: time_s must rise; got 0\.5 after 1\.0"),
        (HEADER + "0,1,5\n", r"line 2: trace must hold two rows or more; got 1"),
        ("time_s,uplink_mbps,loss\n0,1,2\n", r"line 2: loss must be a share"),
    ],
)
def test_a_file_that_is_no_trace_is_refused(tmp_path, text, message):
    with pytest.raises(TraceError, match=message):
        read_trace(write(tmp_path / "x.csv", text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\n2\n1.5\n", r"line 3: line must be a whole ms; got '1\.5'"),
        ("5\n4\n", r"line 2: time must not run back; got 4 after 5"),
        ("0\n0\n", r"last time must be above 0 ms"),
    ],
)
def test_a_file_that_is_not_mahimahi_is_refused(tmp_path, text, message):
    with pytest.raises(TraceError, match=message):
        read_trace(write(tmp_path / "x.up", text))


def test_a_name_that_tells_no_format_is_refused(tmp_path):
    with pytest.raises(TraceError, match="must end in one of"):
        read_trace(write(tmp_path / "x.txt", "1\n"))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(TraceError, match="got no file"):
        read_trace(tmp_path / "x.csv")


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: data[:10] + b"\xff" * 9])
def test_a_damaged_gzip_is_refused(tmp_path, damage):
    path = tmp_path / "x.csv.gz"
    path.write_bytes(damage(gzip.compress(b"time_s,uplink_mbps\n0,1\n" * 50)))

    with pytest.raises(TraceError, match="must be readable"):
        read_trace(path)


def test_mahimahi_opportunities_become_megabits(tmp_path):
    text = "".join(f"{moment}\n" for moment in (0, 10, 150, 2000))

    trace = read_trace(write(tmp_path / "x.up", text))

    assert trace.duration_s == pytest.approx(2.0)
    np.testing.assert_allclose(trace.uplink_mbps[:3], [0.24, 0.12, 0])


def test_a_mahimahi_file_of_one_line_is_a_constant_rate(tmp_path):
    trace = read_trace(write(tmp_path / "x.mahi", "1\n"))

    np.testing.assert_allclose(trace.uplink_mbps, 12.0)


def test_a_trace_without_rtt_gets_a_synthetic_one_that_repeats(tmp_path):
    path = write(tmp_path / "walk.csv", "time_s,uplink_mbps\n0,1\n1,1\n2,1\n")

    first, second = read_trace(path), read_trace(path)

    assert first.rtt_source == "synthetic"
    np.testing.assert_array_equal(first.rtt_s, second.rtt_s)


@pytest.mark.parametrize(
    ("family", "name", "ping", "source"),
    [
        ("maine", "att_tcp_20240527_105711129", "att_20240527_105919489", "recorded"),
        ("maine", "att_tcp_20240527_105711129", "att_20240527_120000000", "recorded elsewhere"),
        ("maine", "att_tcp_20240527_105711129", "att_20240527_105711128", "recorded elsewhere"),
        ("memu", "driving_5g_throughput_run01", "driving_5g_ping_run01", "recorded"),
        ("memu", "driving_5g_throughput_run01", "driving_5g_ping_run07", "recorded elsewhere"),
        ("maine", "att_tcp_20240527_105711129", "verizon_20240527_105919489", "synthetic"),
        ("memu", "driving_5g_throughput_run01", "driving_lte_ping_run01", "synthetic"),
    ],
)
def test_recorded_pings_are_joined_and_repeated(tmp_path, family, name, ping, source):
    write(tmp_path / "rtt" / family / f"{ping}.csv", "time_s,rtt_ms\n0,10\n1,\n")
    rate = "time_s,uplink_mbps\n" + "".join(f"{second},1\n" for second in range(5))

    trace = read_trace(write(tmp_path / "traces" / family / f"{name}.csv", rate))

    assert trace.rtt_source == source
    if source != "synthetic":
        np.testing.assert_array_equal(trace.rtt_s, [0.01, np.nan, 0.01, np.nan, 0.01])


def test_sessions_of_mecperf_are_joined_to_mahimahi_without_their_waking_replies(tmp_path):
    lines = ["access,protocol,endpoint,observer,cross_traffic_mbps,trace,t_s,rtt_ms"]
    for session in range(6):
        lines += [
            f"lte,TCP,Client,edge,0,{session},{0.04 * i:.2f},{900 - 430 * min(i, 2)}"
            for i in range(5)
        ]
    path = tmp_path / "rtt" / "mecperf" / "rtt_ms.csv.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress("\n".join(lines).encode()))

    trace = read_trace(
        write(tmp_path / "traces" / "mahimahi" / "a.csv", "time_s,uplink_mbps\n0,1\n1,1\n")
    )

    assert trace.rtt_source == "recorded elsewhere"
    np.testing.assert_allclose(trace.rtt_s, 0.04)


def test_a_slice_begins_at_its_start():
    part = make_trace([1, 2, 3, 4]).slice(0.75, 2.0)

    np.testing.assert_allclose(part.time_s, [0, 0.25, 0.75])
    np.testing.assert_array_equal(part.uplink_mbps, [2, 3, 4])


@pytest.mark.parametrize("bounds", [(-1, 1), (1, 1), (0, 9), (0.1, 0.2)])
def test_a_slice_outside_or_too_short_is_refused(bounds):
    with pytest.raises(ConfigError, match="slice of x must"):
        make_trace([1, 2, 3, 4]).slice(*bounds)


@pytest.mark.parametrize("period_s", [0, -1, 1.1, float("nan")])
def test_a_period_that_does_not_fit_is_refused(period_s):
    with pytest.raises(ConfigError, match="period_s must be in"):
        make_trace([1, 2, 3, 4]).resample(period_s)


def test_arrays_that_are_no_trace_are_refused():
    with pytest.raises(TraceError, match="at least two rows"):
        make_trace([1])
    with pytest.raises(TraceError, match="finite rates"):
        make_trace([1, -1])
    with pytest.raises(TraceError, match="one shape"):
        Trace("x", "y", np.arange(3.0), np.ones(3), np.ones(2))


def test_every_trace_below_a_folder_is_read_and_downlinks_left_out(tmp_path):
    write(tmp_path / "a" / "x.csv", HEADER + "0,1,5\n1,1,5\n")
    write(tmp_path / "b" / "y.up", "1\n")
    write(tmp_path / "b" / "y.down", "1\n")
    write(tmp_path / "b" / "README", "no trace")

    traces = read_traces([tmp_path])

    assert [(trace.family, trace.name) for trace in traces] == [("a", "x"), ("b", "y")]


def test_a_folder_without_traces_is_refused(tmp_path):
    with pytest.raises(TraceError, match="got none below"):
        read_traces([tmp_path])
