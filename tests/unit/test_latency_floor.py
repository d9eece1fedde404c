"""The arithmetic of the latency floor."""

import importlib.util
import sys
from pathlib import Path

import pytest

from adaptive_split.decision import NEVER, Decision
from adaptive_split.measurement import DEVICE, SERVER, FrameReport

PATH = Path(__file__).parents[2] / "experiments" / "latency_floor.py"
SPEC = importlib.util.spec_from_file_location("latency_floor", PATH)
floor = importlib.util.module_from_spec(SPEC)
sys.modules["latency_floor"] = floor  # dataclasses look their module up
SPEC.loader.exec_module(floor)


def report(index, answered_by=SERVER):
    return FrameReport(
        frame_index=index, sample_index=0, arrival_s=1.0, decision=Decision(1, NEVER, 8), answer=0,
        answered_by=answered_by, exit_index=3, confidence=0.5, correct=True, on_time=True,
        fallback_reason="", latency_s=0.05, head_s=0.010, encode_s=0.001, server_wait_s=0.0002,
        tail_s=0.004, payload_bytes=12_500,
    )  # fmt: skip


def watch_of(one):
    watch = floor.Watch()
    watch.frames[one.frame_index] = floor.Marks(
        decide_s=101.0003, decided_s=101.0004, send_s=101.0120, sent_s=101.0125, reply_s=101.0480,
        told_s=101.0482, report=one,
    )  # fmt: skip
    return watch


def test_what_is_above_the_floor_is_the_sum_of_its_parts():
    (row,) = floor.rows_of(
        watch_of(report(floor.WARM_FRAMES)), zero_s=100.0, mbps=10.0, rtt_s=0.020
    )

    assert row.floor_s == pytest.approx(0.010 + 0.001 + 0.010 + 0.020 + 0.004)
    assert row.latency_s == pytest.approx(0.0482)
    assert row.latency_s - row.floor_s == pytest.approx(sum(row.parts_s))
    parts_s = dict(zip(floor.PARTS, row.parts_s, strict=True))
    assert parts_s["start"] == pytest.approx(0.0003)
    assert parts_s["device"] == pytest.approx(0.0006)
    assert parts_s["network"] == pytest.approx(0.0355 - 0.030 - 0.0042)
    assert parts_s["other"] == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("one", [report(floor.WARM_FRAMES - 1), report(floor.WARM_FRAMES, DEVICE)])
def test_early_frames_and_answers_of_the_device_do_not_count(one):
    assert floor.rows_of(watch_of(one), zero_s=100.0, mbps=10.0, rtt_s=0.020) == []
