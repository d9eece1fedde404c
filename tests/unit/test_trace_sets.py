"""The named sets: recorded traces where they are, else the shipped ones, and it says which."""

import os
from pathlib import Path

import pytest

from adaptive_split.errors import ConfigError, TraceError
from adaptive_split.trace import read_traces
from adaptive_split.trace_sets import (
    SPLITS,
    default_traces,
    list_recordings,
    prepare,
    recorded,
    shipped,
)

RECORDINGS = Path(os.environ.get("ADAPTIVE_SPLIT_DATA", "no such folder"))


@pytest.fixture
def data_dir(tmp_path):
    """A folder laid out as the recordings are: ten cellular runs, one of them held back."""
    folder = tmp_path / "data" / "traces" / "nuwins_maine2024"
    folder.mkdir(parents=True)
    rows = ["file,source,split,duration_s"]
    names = [f"att_tcp_20240527_1{minute:02d}000000" for minute in range(11)]
    for position, name in enumerate(names):
        text = "time_s,uplink_mbps\n" + "".join(f"{second},1\n" for second in range(20))
        (folder / f"{name}.csv").write_text(text, encoding="utf-8")
        split = "val" if position == 10 else "train"
        rows.append(f"traces/nuwins_maine2024/{name}.csv,nuwins_maine2024,{split},20")
    rows.append("traces/nuwins_maine2024/short.csv,nuwins_maine2024,train,5")
    rows.append("traces_down/irish5g/x.csv,irish5g,train,500")
    (tmp_path / "data" / "index_traces.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return tmp_path / "data"


def test_splits_share_no_recording_and_keep_the_held_back_for_the_test(data_dir):
    entries = list_recordings(data_dir)

    counts = {split: sum(entry.split == split for entry in entries) for split in SPLITS}
    assert counts == {"train": 8, "validation": 2, "test": 1}
    assert len({entry.path for entry in entries}) == len(entries) == 11


def test_recorded_traces_carry_the_name_of_their_link_family(data_dir):
    traces = recorded("train", data_dir)

    assert {trace.family for trace in traces} == {"maine-cellular"}


def test_prepared_traces_read_back_with_their_provenance(data_dir, tmp_path):
    counts = prepare(data_dir, tmp_path / "out")

    traces = read_traces([tmp_path / "out" / "validation"])
    assert counts == {
        "train/maine-cellular": 8,
        "validation/maine-cellular": 2,
        "test/maine-cellular": 1,
    }
    assert {(trace.family, trace.rtt_source) for trace in traces} == {
        ("maine-cellular", "synthetic")
    }


def test_prepared_traces_are_not_mixed_with_older_ones(data_dir, tmp_path):
    prepare(data_dir, tmp_path / "out")

    with pytest.raises(ConfigError, match="must not hold train yet"):
        prepare(data_dir, tmp_path / "out")


def test_a_folder_without_an_index_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"must hold index_traces\.csv"):
        list_recordings(tmp_path)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_shipped_traces_cover_four_families_and_say_what_is_synthetic(split):
    traces = shipped(split)

    families = {trace.family for trace in traces}
    assert families == {"lte", "maine-cellular", "maine-starlink", "5g-2022"}
    assert {trace.source for trace in traces if trace.family == "lte"} == {"recorded"}
    assert {trace.source for trace in traces if trace.family != "lte"} == {"synthetic"}
    assert {trace.rtt_source for trace in traces} == {"synthetic"}


def test_shipped_splits_share_no_trace():
    names = [{(trace.family, trace.name) for trace in shipped(split)} for split in SPLITS]

    assert len(set.union(*names)) == sum(len(part) for part in names)


def test_without_recordings_the_shipped_traces_are_used_and_named(monkeypatch, tmp_path):
    monkeypatch.delenv("ADAPTIVE_SPLIT_DATA", raising=False)
    monkeypatch.chdir(tmp_path)

    traces, sentence = default_traces("test")

    assert len(traces) == 25
    assert sentence.startswith("Using the package's 25 test traces: 1 recorded LTE")


def test_the_argument_comes_before_the_environment(monkeypatch, data_dir, tmp_path):
    monkeypatch.setenv("ADAPTIVE_SPLIT_DATA", str(tmp_path / "nowhere"))

    traces, sentence = default_traces("validation", data_dir)

    assert len(traces) == 2
    assert "2 recorded validation traces" in sentence
    assert "RTT: 2 synthetic" in sentence


def test_an_environment_that_names_no_recordings_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("ADAPTIVE_SPLIT_DATA", str(tmp_path))

    with pytest.raises(TraceError, match="must hold traces"):
        default_traces("train")


def test_traces_of_ones_own_are_split_by_file(tmp_path):
    text = "time_s,uplink_mbps\n" + "".join(f"{second},1\n" for second in range(20))
    for name in ("monday", "tuesday", "wednesday"):
        (tmp_path / f"{name}.csv").write_text(text, encoding="utf-8")

    train, sentence = default_traces("train", tmp_path)
    validation, _ = default_traces("validation", tmp_path)

    assert (len(train), len(validation)) == (2, 1)
    names = {trace.name for trace in [*train, *validation]}
    assert names == {"monday", "tuesday", "wednesday"}
    assert "2 recorded train traces" in sentence


@pytest.mark.parametrize(("count", "split"), [(1, "train"), (3, "test")])
def test_what_cannot_be_split_is_refused(tmp_path, count, split):
    for index in range(count):
        (tmp_path / f"{index}.csv").write_text("time_s,uplink_mbps\n0,1\n1,1\n", encoding="utf-8")

    with pytest.raises(ConfigError, match="two traces of your own at least"):
        default_traces(split, tmp_path)


def test_recordings_beside_the_current_folder_are_found(monkeypatch, data_dir, tmp_path):
    monkeypatch.delenv("ADAPTIVE_SPLIT_DATA", raising=False)
    (tmp_path / "shared").mkdir()
    data_dir.rename(tmp_path / "shared" / "data")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    traces, _ = default_traces("train")

    assert len(traces) == 8


def test_an_unknown_split_is_refused():
    with pytest.raises(ConfigError, match="split must be one of"):
        shipped("val")


@pytest.mark.slow
@pytest.mark.skipif(
    not RECORDINGS.is_dir(), reason="the recordings are not here: ADAPTIVE_SPLIT_DATA"
)
def test_the_recordings_give_every_family_in_every_split():
    entries = list_recordings(RECORDINGS)
    traces = recorded("test", RECORDINGS)

    assert len({(entry.split, entry.family) for entry in entries}) == 12
    assert "synthetic" not in {trace.rtt_source for trace in traces}
