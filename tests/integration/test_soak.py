"""A minute on a link that changes: nothing grows or gets lost, telemetry and records agree."""

import importlib.util
import sys
from pathlib import Path

import pytest

from adaptive_split.scenario import load_scenario

PATH = Path(__file__).parents[2] / "experiments" / "soak.py"
SPEC = importlib.util.spec_from_file_location("soak", PATH)
soak = importlib.util.module_from_spec(SPEC)
sys.modules["soak"] = soak  # dataclasses look their module up
SPEC.loader.exec_module(soak)

NUM_FRAMES = 600
TOLERANCE = {"memory, MiB": 5.0, "threads": 4.0, "open files": 6.0}
"""Growth that allocators, thread pools and reconnections explain; per side."""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What is left after a minute at ten frames per second."""
    records = tmp_path_factory.mktemp("soak") / "frames.jsonl"
    return soak.soak(load_scenario("default"), NUM_FRAMES, records)


@pytest.mark.slow
def test_every_frame_is_recorded_once_and_every_one_that_started_is_answered(found):
    assert sorted(found.indices) == list(range(NUM_FRAMES))
    assert found.unanswered == 0


@pytest.mark.slow
def test_the_telemetry_counts_what_the_records_tell(found):
    assert found.counted == pytest.approx(found.recorded)
    assert found.recorded["frame_latency_seconds_count"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("side", ["device", "server"])
@pytest.mark.parametrize("name", list(TOLERANCE))
def test_a_process_holds_no_more_at_the_end_than_in_the_middle(found, side, name):
    middle, last = found.thirds(f"{side}, {name}")

    assert last <= middle + TOLERANCE[name]


@pytest.mark.slow
def test_a_closed_device_leaves_no_thread_and_no_file_behind(found):
    assert found.left_behind["process_threads"] <= TOLERANCE["threads"]
    assert found.left_behind["process_open_files"] <= TOLERANCE["open files"]
