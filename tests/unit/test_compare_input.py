"""What `compare` refuses: one clear line each, before anything is written."""

import shutil
from dataclasses import replace

import pytest

from adaptive_split import cli
from adaptive_split.outcomes import Outcomes
from adaptive_split.trace import write_trace
from tests import support
from tests.unit.test_cli import SCENARIO, failure


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A toy bundle, its scenario and a trace."""
    folder = tmp_path_factory.mktemp("sound")
    support.write_toy_bundle(folder / "bundle")
    (folder / "toy.toml").write_text(SCENARIO)
    (folder / "traces" / "toy").mkdir(parents=True)
    write_trace(support.trace(), folder / "traces" / "toy" / "toy-0.csv")
    return folder


@pytest.fixture
def place(sound, tmp_path):
    """A copy that a test may spoil."""
    shutil.copytree(sound, tmp_path / "place")
    return tmp_path / "place"


def no_traces(place):
    shutil.rmtree(place / "traces" / "toy")


def traces_of_another_kind(place):
    (place / "traces" / "toy" / "toy-0.csv").rename(place / "traces" / "toy" / "toy-0.txt")


def a_rate_that_is_no_number(place):
    file = place / "traces" / "toy" / "toy-0.csv"
    lines = file.read_text().splitlines()
    lines[4] = lines[4].split(",")[0] + ",nan,20"
    file.write_text("\n".join(lines) + "\n")


def outcomes_of_another_bundle(place):
    path = place / "bundle" / "outcomes_judge.npz"
    replace(Outcomes.load(path), bundle_hash="b" * 64).save(path)


def a_report(place):
    (place / "out").mkdir()
    (place / "out" / "summary.json").write_text("precious")


def a_file(place):
    (place / "out").write_text("precious")


def nothing(place):
    pass


@pytest.mark.parametrize(
    ("spoil", "arguments", "message"),
    [
        (nothing, ["--controllers", "planer"], "got 'planer'; did you mean 'planner'?"),
        (nothing, ["--controllers", "best-statics"], "did you mean 'best-static'?"),
        (nothing, ["--controllers", "planner,planner"], "must be named once each"),
        (nothing, ["--controllers", "static:9:1:8"], "must lie on the grid"),
        (nothing, ["--seeds", "0"], "must be at least 1; got 0"),
        (nothing, ["--traces", "nowhere"], "traces must be folders; got nowhere"),
        (no_traces, [], "folder must hold traces"),
        (traces_of_another_kind, [], "folder must hold traces"),
        (a_rate_that_is_no_number, [], "toy-0.csv, line 5: uplink_mbps must be finite; got 'nan'"),
        (outcomes_of_another_bundle, [], "outcomes_judge.npz must have been measured with bundle"),
        (a_report, [], "--out must not exist yet"),
        (a_file, [], "--out must not exist yet"),
    ],
)
def test_bad_input_is_refused_in_a_line_and_nothing_is_written(
    place, capsys, spoil, arguments, message
):
    spoil(place)
    before = sorted(place.rglob("*"))
    given = ["--controllers", "planner", "--traces", place / "traces", *arguments]

    line = failure(capsys, "compare", place / "toy.toml", *given, "--out", place / "out")

    assert message in line
    assert sorted(place.rglob("*")) == before
    if (place / "out").exists():
        kept = place / "out" if (place / "out").is_file() else place / "out" / "summary.json"
        assert kept.read_text() == "precious"


def test_headroom_refuses_a_folder_without_traces(place, capsys):
    no_traces(place)

    line = failure(capsys, "headroom", place / "toy.toml", "--traces", place / "traces")

    assert "folder must hold traces" in line


@pytest.mark.slow
def test_headroom_ends_with_a_verdict_and_its_reason(place, capsys):
    status = cli.main(["headroom", str(place / "toy.toml"), "--traces", str(place / "traces"),
                       "--seeds", "1", "--streams", "1"])  # fmt: skip

    out = capsys.readouterr().out
    assert status == 0
    for name in ("best static", "two-arm rule", "planner", "oracle", "toy"):
        assert f"\n{name}  " in out
    last = out.strip().splitlines()[-3:]
    assert last[0].startswith(("adaptation is pointless here", "there is something to win"))
    assert any("is best or within 0.01 of it in" in line for line in last)
