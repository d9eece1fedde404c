"""The commands end to end on a real, tiny bundle: compare, live and simulated; serve and run."""

import json

import pytest

from adaptive_split import cli
from adaptive_split.agents import compare_live
from adaptive_split.agents.record_tables import read_frame_records
from adaptive_split.runtime.records import read_records
from adaptive_split.runtime.serving.server_process import ServerProcess
from tests import support
from tests.color_place import write_place

pytestmark = pytest.mark.slow

SCENARIO = """
bundle = "bundle"
[objective]
slo_s = 0.3
fps = 10.0
[camera]
frames_per_stream = 30
"""
RULES = "planner,distribution-planner,best-static,oracle"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A scenario whose device takes 60 ms for the whole network, two families, three pictures."""
    folder = tmp_path_factory.mktemp("a place")  # a space in its name
    traces = [support.trace(seed, family) for seed, family in enumerate(("far", "near"))]
    write_place(folder, SCENARIO, traces, whole_s=0.06, repeats=5)
    return folder


def invoke(*arguments):
    return cli.main([str(argument) for argument in arguments])


def test_compare_writes_summary_records_and_report(place, capsys):
    out = place / "compared"

    status = invoke(
        "compare", place / "colors.toml", "--controllers", RULES, "--seeds", 2, "--streams", 1,
        "--traces", place / "traces", "--out", out,
    )  # fmt: skip

    assert status == 0
    printed = capsys.readouterr()
    assert "Using 2 traces" in printed.err
    assert "2 of them synthetic" in printed.err
    assert all(name in printed.out for name in RULES.split(","))
    summary = json.loads((out / "summary.json").read_text())
    assert set(summary["controllers"]) == set(RULES.split(","))
    assert set(summary["families"]) == {"far", "near"}
    assert all(one["source"] == "synthetic" for one in summary["traces"])
    assert "<svg" in (out / "report.html").read_text()
    assert set(summary["sweep"]["curves"]) == {"0", "1", "2"}
    assert {path.name for path in (out / "records").iterdir()} == {
        f"{name}.parquet" for name in RULES.split(",")
    }
    assert len(list(read_frame_records(out / "records" / "planner.parquet"))) == 4 * 30
    assert not out.with_name(out.name + ".unfinished").exists()


class InterruptsAt:
    """Plays blocks until the one of that number, and counts them."""

    def __init__(self, number):
        self.number, self.played = number, 0
        self.play = compare_live._Stage.play

    def __call__(self, *arguments):
        """Play a block, or interrupt."""
        self.played += 1
        if self.played == self.number:
            raise KeyboardInterrupt
        return self.play(*arguments)


def test_an_interrupted_live_comparison_goes_on_and_measures_every_frame(
    place, capsys, monkeypatch
):
    out = place / "live"
    call = [
        "compare", place / "colors.toml", "--controllers", "planner,static:0:1:8,oracle",
        "--seeds", 1, "--streams", 1, "--traces", place / "traces", "--out", out, "--live",
        "--live-seconds", 2, "--pictures", place / "pictures", "--no-records",
    ]  # fmt: skip
    blocks = InterruptsAt(5)  # warming up, the first window, one block of the second
    monkeypatch.setattr(compare_live._Stage, "play", lambda *one: blocks(*one))
    stopped = invoke(*call)
    said, left = capsys.readouterr().err, out.exists()
    blocks.number = 0

    status = invoke(*call)

    assert (stopped, left) == (cli.INTERRUPTED, False)
    assert "the same command goes on from there" in said
    assert status == 0
    assert "going on with what" in capsys.readouterr().err
    assert blocks.played == 5 + 1 + 2
    live = json.loads((out / "summary.json").read_text())["live"]
    assert set(live["controllers"]) == {"planner", "static:0:1:8"}
    assert set(live["simulated"]["controllers"]) == {"planner", "static:0:1:8"}
    assert live["controllers"]["planner"]["frames"] == 2 * 20
    records = list(read_records(out / "live-records" / "static_0_1_8.jsonl"))
    assert records == list(read_frame_records(out / "live-records" / "static_0_1_8.parquet"))
    assert len(records) == 2 * 20
    started = [record for record in records if record.report.decision is not None]
    assert all(record.observation for record in started)
    assert not (out / "records").exists()
    assert len(list((out / "live-records").iterdir())) == 4


def test_run_answers_every_frame_with_the_server_of_serve(place, capsys):
    records = place / "run.jsonl"

    with ServerProcess(place / "bundle") as server:
        status = invoke(
            "run", "--server", server.address, "--bundle", place / "bundle", "--scenario",
            place / "colors.toml", "--controller", "static:1:1:8", "--pictures",
            place / "pictures", "--num-frames", 12, "--fps", 5, "--records", records,
            "--insecure",
        )  # fmt: skip

    assert status == 0
    found = [record.report for record in read_records(records)]
    assert sorted(report.frame_index for report in found) == list(range(12))
    assert {report.sample_index for report in found} == {0, 1, 2}
    assert "12 frames" in capsys.readouterr().out
    answered = [report for report in found if report.answer is not None]
    # Pictures are shown in the order of their names, and the network is never wrong.
    assert all(report.answer == (2, 1, 0)[report.sample_index] for report in answered)


def test_run_without_a_server_or_controller_answers_on_the_device(place, caplog):
    records = place / "alone.jsonl"

    status = invoke(
        "run", "--server", "127.0.0.1:9", "--scenario", place / "colors.toml", "--controller",
        place / "no controller", "--pictures", place / "pictures", "--num-frames", 8, "--fps", 5,
        "--records", records, "--insecure",
    )  # fmt: skip

    assert status == 0
    assert "the distribution planner decides instead" in caplog.text
    found = [record.report for record in read_records(records)]
    assert len(found) == 8
    assert {report.answered_by for report in found} <= {"device", ""}


def test_records_are_not_written_over(place, capsys):
    (place / "old.jsonl").write_text("")

    status = invoke(
        "run", "--server", "127.0.0.1:9", "--scenario", place / "colors.toml", "--controller",
        "local", "--pictures", place / "pictures", "--records", place / "old.jsonl", "--insecure",
    )  # fmt: skip

    assert status == cli.FAILED
    assert "a record file must be new" in capsys.readouterr().err
