"""Roofline: what is counted, and what is predicted from it."""

import numpy as np
import pytest

from adaptive_split.bundle import GRAPH_INPUT, GRAPH_OUTPUT
from adaptive_split.errors import ConfigError
from adaptive_split.profile import UNAVAILABLE, Profile
from adaptive_split.runtime.peaks import Peaks, measure_peaks
from adaptive_split.runtime.profiler import profile_bundle
from adaptive_split.runtime.roofline import (
    AT_ROOFS,
    Coding,
    Work,
    count_work,
    left_out,
    predict,
    predict_elsewhere,
    reached,
    time_coding,
    typical_shares,
)
from tests.color_bundle import write_color_bundle, write_graph

CODING = Coding((0.5, 0.25), (0.75, 0.125))


@pytest.fixture
def bundle(tmp_path):
    return write_color_bundle(tmp_path)


def add(path, nodes, **constants):
    """Put another graph in the place of stage 2, which maps `(3, 8, 8)`."""
    write_graph(path / "stage-2.onnx", nodes, **constants)


@pytest.mark.parametrize(
    ("operator", "attributes", "weights", "flops", "moved"),
    [
        ("Conv", {}, (5, 3, 3, 3), 2 * 5 * 36 * 27, 4 * (192 + 135 + 180)),
        ("Conv", {"group": 3}, (3, 1, 3, 3), 2 * 3 * 36 * 9, 4 * (192 + 27 + 108)),
        ("ConvTranspose", {}, (3, 2, 2, 2), 2 * 192 * 8, 4 * (192 + 24 + 162)),
        ("MatMul", {}, (8, 4), 2 * 96 * 8, 4 * (192 + 32 + 96)),
        ("Add", {}, (3, 8, 8), 192, 4 * (192 + 192 + 192)),
    ],
    ids=["convolution", "depthwise", "transposed", "product", "sum"],
)
def test_an_operator_computes_and_moves_what_its_shapes_say(
    bundle, operator, attributes, weights, flops, moved
):
    constants = {"weights": np.ones(weights)}
    add(bundle.path, [(operator, [GRAPH_INPUT, "weights"], GRAPH_OUTPUT, attributes)], **constants)

    [work] = count_work(bundle)["stage", 2]

    assert (work.operator, work.flops, work.moved_bytes) == (operator, flops, moved)


def test_every_part_is_counted(bundle):
    work = count_work(bundle)

    assert tuple(work) == bundle.parts
    assert [one.operator for one in work["exit", 1]] == ["GlobalAveragePool", "Flatten", "Mul"]


def test_an_operator_waits_for_computing_or_for_memory():
    peaks = Peaks(gflops=2.0, memory_gbps=4.0)

    assert Work("Conv", 8e9, 4e9).seconds(peaks) == pytest.approx(4.0)
    assert Work("Add", 1e9, 4e9).seconds(peaks) == pytest.approx(1.0)


def test_a_part_takes_what_its_operators_take_and_codecs_what_they_take(bundle):
    work = dict.fromkeys(bundle.parts, ())
    work["stage", 2] = (Work("Conv", 8e9, 0.0), Work("Add", 0.0, 4e9))
    work["encoder", 1] = (Work("Conv", 2e9, 0.0),)

    profile = predict(bundle, work, Peaks(2.0, 4.0), CODING)

    assert profile.stage_s == profile.stage_p95_s == pytest.approx((0.0, 5.0))
    assert profile.encoder_s == pytest.approx((0.5, 1.25))
    assert profile.decoder_s == pytest.approx((0.75, 0.125))
    assert (profile.provider, profile.energy_provenance) == ("roofline", UNAVAILABLE)
    assert profile.bundle_hash == bundle.hash


def test_a_graph_takes_longer_by_the_share_of_its_roofline_that_its_kind_reaches(bundle):
    work, peaks = count_work(bundle), Peaks(2.0, 4.0)
    shares = {"stage": 0.5, "exit": 0.25, "encoder": 1.0, "decoder": 0.1}

    least, slower = (
        predict(bundle, work, peaks, CODING),
        predict(bundle, work, peaks, CODING, shares),
    )

    assert slower.stage_s == pytest.approx([2 * one for one in least.stage_s])
    assert slower.exit_s == pytest.approx([4 * one for one in least.exit_s])
    assert slower.decoder_s[0] == CODING.decoder_s[0]


def test_a_machine_at_half_its_roofs_reaches_half_of_them(bundle):
    work = {part: (Work("Conv", 1e9, 0.0),) for part in bundle.parts}
    half = predict(bundle, work, Peaks(1.0, 1.0), CODING)

    found = reached(work, half, Peaks(2.0, 2.0), CODING)

    assert found == pytest.approx(dict.fromkeys(bundle.parts, 0.5))
    assert typical_shares(found) == pytest.approx(dict.fromkeys(AT_ROOFS, 0.5))


def test_the_error_of_a_graph_is_that_of_a_share_it_had_no_part_in():
    shares = {("stage", 1): 0.5, ("stage", 2): 0.25, ("stage", 3): 0.25, ("exit", 1): 0.75}

    ratios = left_out(shares)

    assert ratios["stage", 1] == pytest.approx(2.0)
    assert ratios["stage", 2] == pytest.approx(0.25 / 0.375)
    assert ratios["exit", 1] == pytest.approx(3.0)


def test_another_machine_is_predicted_with_the_shares_of_this_one(bundle, tmp_path):
    work, here = count_work(bundle), Peaks(10.0, 8.0)
    measured = predict(bundle, work, here, CODING, dict.fromkeys(AT_ROOFS, 0.5))

    profile = predict_elsewhere(bundle, work, measured, here, Peaks(5.0, 4.0))
    profile.save(tmp_path / "profile.json")

    assert profile.stage_s == pytest.approx([2 * one for one in measured.stage_s])
    assert profile.encoder_s[0] == pytest.approx(2 * measured.encoder_s[0])
    assert "5 GFLOP/s and 4 GB/s, predicted: operators at these shares" in profile.machine
    assert f"[{measured.machine}]" in profile.machine
    assert Profile.load(tmp_path / "profile.json") == profile


def test_codecs_are_timed_for_every_split_point(bundle):
    measured = profile_bundle(bundle, repeats=3, warmup=1)

    coding = time_coding(bundle, measured)

    assert (coding.encoder_s[0], coding.decoder_s[0]) == (
        measured.encoder_s[0],
        measured.decoder_s[0],
    )
    assert len(coding.encoder_s) == len(coding.decoder_s) == bundle.num_stages
    assert min(*coding.encoder_s, *coding.decoder_s) > 0


@pytest.mark.slow
def test_this_machine_has_peaks():
    peaks = measure_peaks()

    assert peaks.gflops > 0.1
    assert peaks.memory_gbps > 0.1


@pytest.mark.parametrize("roofs", [(0.0, 1.0), (1.0, -1.0), (float("nan"), 1.0)])
def test_a_machine_that_never_finishes_is_refused(roofs):
    with pytest.raises(ConfigError, match="must be given as GFLOP/s and GB/s, both positive"):
        Peaks(*roofs)
