"""A comparison whose process is killed goes on where it stopped, also one on a Ray cluster."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from adaptive_split import cli
from adaptive_split.agents.unfinished import SUFFIX
from adaptive_split.trace import write_trace
from tests import support
from tests.unit.test_cli import SCENARIO

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # a busy machine starts Ray slowly

DIES = """
import os, signal, sys
from adaptive_split import cli
from adaptive_split.agents.unfinished import Unfinished

keep, kept = Unfinished.keep_cell, []

def keep_and_die(self, *cell):
    keep(self, *cell)
    kept.append(cell)
    if len(kept) == 2:
        os.kill(os.getpid(), signal.SIGKILL)

Unfinished.keep_cell = keep_and_die
cli.main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A toy bundle, its scenario and a trace; the comparison, not interrupted."""
    folder = tmp_path_factory.mktemp("killed")
    support.write_toy_bundle(folder / "bundle")
    (folder / "toy.toml").write_text(SCENARIO)
    (folder / "traces").mkdir()
    write_trace(support.trace(), folder / "traces" / "toy-0.csv")
    assert cli.main(call(folder, "whole")) == 0
    return folder


def call(folder, out, seeds=2):
    return [
        "compare", str(folder / "toy.toml"), "--controllers", "planner,static:0:1:8",
        "--traces", str(folder / "traces"), "--seeds", str(seeds), "--streams", "1",
        "--out", str(folder / out),
    ]  # fmt: skip


def clean_up_after(pid):
    """Remove what a killed process's cluster left; its daemons die with it, or are killed here."""
    session = f"_{pid}"
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any(f"{session}/" in word for word in process.cmdline()):
                process.kill()
    for path in Path("/tmp").glob(f"ray-*/*{session}"):
        shutil.rmtree(path.parent, ignore_errors=True)


@pytest.mark.parametrize("where", [[], ["--ray", "--workers", "1"]], ids=["alone", "ray"])
def test_a_killed_comparison_goes_on_and_ends_as_if_nothing_had_been(place, capsys, where):
    if where:
        pytest.importorskip("ray")
    out = place / f"killed-{len(where)}"
    killed = subprocess.Popen([sys.executable, "-c", DIES, *call(place, out.name), *where])
    assert killed.wait() == -signal.SIGKILL
    clean_up_after(killed.pid)
    state = out.with_name(out.name + SUFFIX) / "state"
    cells = sorted(path.name for path in state.glob("*.npz"))
    refused = cli.main(call(place, out.name, seeds=3))
    line = capsys.readouterr().err.splitlines()[-1]

    status = cli.main(call(place, out.name))

    assert len(cells) == 2
    assert refused == cli.FAILED
    assert "got --seeds 3, begun with 2; repeat 'adaptive-split" in line
    assert status == 0
    assert "going on with what" in capsys.readouterr().err
    found, whole = (json.loads((place / name / "summary.json").read_text())
                    for name in (out.name, "whole"))  # fmt: skip
    del found["provenance"], whole["provenance"]
    assert found == whole
    assert sorted(os.listdir(out)) == sorted(os.listdir(place / "whole"))
    assert not state.parent.exists()
