"""`calibrate` on a real, tiny live run: recorded, fitted, judged, used by a scenario."""

from dataclasses import replace

import pytest

from adaptive_split import cli
from adaptive_split.agents.fidelity import load_run
from adaptive_split.calibration import Calibration
from adaptive_split.runtime.simulated.streams import StreamSource
from adaptive_split.scenario import load_scenario
from adaptive_split.trace import read_traces
from tests import support
from tests.color_place import write_place

pytestmark = pytest.mark.slow

SCENARIO = """
bundle = "bundle"
[objective]
slo_s = 0.4
fps = 20.0
[camera]
frames_per_stream = 10
"""


def invoke(*arguments):
    return cli.main([str(argument) for argument in arguments])


def make_place(folder):
    """A scenario whose device takes 30 ms for the whole network, pictures, and a trace."""
    trace = support.trace()
    free = replace(trace, uplink_mbps=0 * trace.uplink_mbps + 20, rtt_s=0 * trace.rtt_s + 0.02)
    write_place(folder, SCENARIO, [free], whole_s=0.03)


def test_a_live_run_calibrates_the_simulator(tmp_path, capsys):
    make_place(tmp_path)
    command = (
        "calibrate", tmp_path / "colors.toml", "--records", tmp_path / "live.jsonl", "--out",
        tmp_path / "calibration.json",
    )  # fmt: skip

    status = invoke(
        *command, "--live", "--live-windows", 2, "--live-seconds", 1.5, "--traces",
        tmp_path / "traces", "--pictures", tmp_path / "pictures",
    )  # fmt: skip

    assert status == 0
    printed = capsys.readouterr().out
    assert "other windows of that run" in printed
    assert 'calibration = "calibration.json"' in printed
    live = load_run(tmp_path / "live.jsonl")
    assert len(live.blocks) == 2 * 3
    assert all(len(block.reports) == 30 for block in live.blocks)
    assert all(block.load_s > 0 for block in live.blocks)
    found = Calibration.load(tmp_path / "calibration.json")
    assert found.overheads.message_s > 0

    # The same records calibrate again, and a scenario that names the file is simulated like that.
    named = tmp_path / "named.toml"
    named.write_text('calibration = "calibration.json"\n' + SCENARIO)
    scenario = load_scenario(str(named))
    traces = read_traces([tmp_path / "traces"])
    (stream,) = StreamSource(scenario, scenario.outcomes("judge"), traces).draw_evenly(1, 0)
    assert stream.overheads == found.overheads
    assert invoke(*command) == cli.FAILED
    assert "a file to write must be new" in capsys.readouterr().err
    (tmp_path / "calibration.json").unlink()
    assert invoke(*command) == 0
    assert Calibration.load(tmp_path / "calibration.json") == found
