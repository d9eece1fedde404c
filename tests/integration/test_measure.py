"""Runner, measurement and profiler on a bundle of hand-made graphs that names the main color."""

import numpy as np
import pytest

from adaptive_split.decision import DecisionGrid
from adaptive_split.errors import BundleError, ConfigError
from adaptive_split.profile import MEASURED, UNAVAILABLE
from adaptive_split.runtime.measure import measure
from adaptive_split.runtime.profiler import profile_bundle, profile_bundles
from adaptive_split.runtime.stages import StageRunner
from adaptive_split.runtime.views import in_views
from tests.color_bundle import SIDE, color_pictures, write_color_bundle


@pytest.fixture
def bundle(tmp_path):
    return write_color_bundle(tmp_path)


@pytest.fixture
def pictures():
    return color_pictures()


def test_every_exit_and_every_payload_names_the_color(bundle, pictures):
    grid, counts = DecisionGrid(2), []

    outcomes = measure(bundle, pictures, grid, subset="policy", progress=counts.append)

    assert counts == [1, 2, 3]
    assert outcomes.bundle_hash == bundle.hash
    assert outcomes.files == ("red.png", "green.png", "blue.png")
    assert outcomes.payloads == grid.payloads
    assert outcomes.exit_right.all()
    assert outcomes.server_right.all()
    assert ((outcomes.server_confidence > 0) & (outcomes.server_confidence < 1)).all()


def test_the_bytes_measured_are_those_of_the_codec(bundle, pictures):
    outcomes = measure(bundle, pictures, DecisionGrid(2), subset="judge")

    sizes = dict(zip(outcomes.payloads, outcomes.payload_bytes.T, strict=True))
    assert (sizes[0, 1] > 600).all()  # a JPEG's tables
    assert (sizes[1, 8] < 64).all()  # a plain feature


def test_the_first_view_of_a_picture_is_the_picture(bundle, pictures):
    grid = DecisionGrid(2)

    plain = measure(bundle, pictures, grid, subset="judge")
    seen = measure(bundle, in_views(pictures, 3), grid, subset="judge")

    assert seen.files[:4] == ("red.png", "red.png#1", "red.png#2", "green.png")
    assert seen.server_right.all()
    np.testing.assert_array_equal(seen.plain().server_confidence, plain.server_confidence)
    np.testing.assert_array_equal(seen.plain().payload_bytes, plain.payload_bytes)


def test_a_grid_of_another_model_is_refused(bundle, pictures):
    with pytest.raises(ConfigError, match="the bundle's 2 stages; got 5"):
        measure(bundle, pictures, DecisionGrid(5), subset="policy")


def test_a_batch_is_answered_as_its_pictures_are(bundle, pictures):
    with StageRunner(bundle, parts=bundle.parts) as runner:
        inputs = [runner.prepare(pixels) for _, _, pixels in pictures]
        singles = [runner.exit(1, runner.stage(1, tensor)) for tensor in inputs]
        batch = runner.exit_all(1, runner.stage(1, np.concatenate(inputs)))

    assert [one.answer for one in batch] == [0, 1, 2]
    for single, one in zip(singles, batch, strict=True):
        np.testing.assert_allclose(single.logits, one.logits, rtol=1e-6)
        assert single.confidence == pytest.approx(one.confidence)


def test_a_prepared_picture_lies_between_0_and_1(bundle):
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    pixels[3, 5] = (255, 51, 0)

    tensor = StageRunner(bundle).prepare(pixels)

    assert tensor.shape == (1, 3, SIDE, SIDE)
    assert tensor.dtype == np.float32
    np.testing.assert_allclose(tensor[0, :, 3, 5], (1, 0.2, 0), rtol=1e-6)


def test_codes_are_for_one_picture_and_features_for_any_number(bundle):
    feature = np.random.default_rng(0).random((1, 3, 8, 8), np.float32)
    runner = StageRunner(bundle)

    codes = runner.encode(1, feature)

    np.testing.assert_array_equal(codes, feature[0])
    np.testing.assert_array_equal(runner.decode(1, codes), feature)
    assert runner.decode_all(1, np.stack([codes] * 3)).shape == (3, 3, 8, 8)


def test_a_file_that_is_no_graph_is_refused_when_opened(bundle):
    bundle.file("exit", 2).write_bytes(b"no graph")

    with pytest.raises(BundleError, match=r"must open .*exit-2\.onnx; got"):
        StageRunner(bundle, parts=bundle.parts)


def test_a_profile_times_every_part(bundle):
    counts = []

    profile = profile_bundle(bundle, repeats=3, warmup=1, progress=counts.append)

    assert counts == [1, 2, 3, 4]
    assert profile.bundle_hash == bundle.hash
    assert profile.num_stages == 2
    parts = profile.stage_s + profile.exit_s + profile.encoder_s + profile.decoder_s
    assert min(parts) > 0
    late = profile.stage_p95_s + profile.exit_p95_s + profile.encoder_p95_s + profile.decoder_p95_s
    assert all(slow >= middle for slow, middle in zip(late, parts, strict=True))
    assert len(profile.stage_spread) == len(profile.decoder_spread) == 2
    assert (profile.scale, profile.energy_provenance) == (1.0, UNAVAILABLE)
    assert profile.power_mode


class StepMeter:
    """Counts a joule every time it is read."""

    source = "steps"
    count = 0.0

    def energy_j(self):
        """Joules so far."""
        self.count += 1
        return self.count


@pytest.mark.slow  # it rests first
def test_a_machine_that_counts_joules_has_measured_watts(bundle):
    profile = profile_bundle(bundle, repeats=3, warmup=0, meter=StepMeter())

    assert profile.energy_provenance == MEASURED
    assert profile.compute_w > 0
    assert "steps; above 0.50 W at rest" in profile.energy_source


def test_a_provider_that_does_not_start_here_is_refused(bundle):
    with pytest.raises(ConfigError, match=r"that starts here, of .*CPU.*; got WaterProvider"):
        profile_bundle(bundle, provider="WaterProvider", repeats=1)


def test_bundles_that_are_timed_in_turns_share_their_rounds(bundle):
    counts = []

    first, second = profile_bundles((bundle, bundle), repeats=2, warmup=0, progress=counts.append)

    assert counts == [1, 2]
    assert first.bundle_hash == second.bundle_hash == bundle.hash
    assert first.stage_s != second.stage_s


def test_a_profile_of_no_rounds_is_refused(bundle):
    with pytest.raises(ConfigError, match="repeats must be positive"):
        profile_bundle(bundle, repeats=0)
