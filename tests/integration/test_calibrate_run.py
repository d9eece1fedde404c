"""`calibrate` on a real, tiny live run: recorded, fitted, judged, used by a scenario."""

from dataclasses import replace

import pytest
from PIL import Image

from adaptive_split import cli
from adaptive_split.agents.fidelity import load_run
from adaptive_split.calibration import Calibration
from adaptive_split.decision import DecisionGrid
from adaptive_split.profile import MODELLED
from adaptive_split.runtime.measure import measure
from adaptive_split.runtime.profiler import profile_bundle
from adaptive_split.runtime.simulated.streams import StreamSource
from adaptive_split.scenario import load_scenario
from adaptive_split.trace import read_traces, write_trace
from tests import support
from tests.color_bundle import color_pictures, write_color_bundle

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
    (folder / "bundle").mkdir()
    bundle = write_color_bundle(folder / "bundle")
    fast = profile_bundle(bundle, repeats=3, warmup=1)
    slow = fast.scaled(0.030 / fast.full_s, "a slow device")
    slow = replace(slow, compute_w=3.0, energy_provenance=MODELLED, energy_source="made up")
    slow.save(folder / "bundle" / "profile_device.json")
    fast.save(folder / "bundle" / "profile_server.json")
    for subset in ("policy", "judge"):
        outcomes = measure(bundle, color_pictures(), DecisionGrid(2), subset=subset)
        outcomes.save(folder / "bundle" / f"outcomes_{subset}.npz")
    (folder / "pictures").mkdir()
    for file, _, pixels in color_pictures():
        Image.fromarray(pixels).save(folder / "pictures" / file)
    labels = [f"{file},{file.split('.')[0]}" for file, _, _ in color_pictures()]
    (folder / "pictures" / "labels.csv").write_text("\n".join(["file,label", *labels]))
    (folder / "traces" / "toy").mkdir(parents=True)
    trace = support.trace()
    free = replace(trace, uplink_mbps=0 * trace.uplink_mbps + 20, rtt_s=0 * trace.rtt_s + 0.02)
    write_trace(free, folder / "traces" / "toy" / "toy-0.csv")
    (folder / "colors.toml").write_text(SCENARIO)


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
