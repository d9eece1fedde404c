"""Export: the bundle answers as torch does, is the same every time, and replaces nothing."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from adaptive_split.errors import BundleError, ConfigError
from adaptive_split.models import export
from adaptive_split.models.export import export_bundle
from adaptive_split.models.multi_exit import BottleneckShape, GarmentsNet, NetworkShape
from adaptive_split.models.pictures import LabelledPictures
from adaptive_split.runtime.stages import StageRunner

pytestmark = pytest.mark.slow

CLASSES = ("hat", "shoe", "shirt")


TINY = NetworkShape(
    name="tiny",
    stem=(8,),
    stages=(((16, 2),),),
    exits=((8, 3, 2), (16, 1, 1)),
    bottlenecks=(
        BottleneckShape(code_channels=4, stride=2, encoder_channels=16, decoder_channels=16),
    ),
)
"""Two stages for 16x16 pictures."""


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    tiny = GarmentsNet(TINY, len(CLASSES))
    for module in tiny.modules():  # statistics that folding must not forget
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    return tiny


@pytest.fixture(scope="module")
def pictures():
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (1, 12, 3, 16, 16), generator=generator).to(torch.uint8)
    files = tuple(f"{index}.jpg" for index in range(12))
    return LabelledPictures(pixels, torch.arange(12) % 3, files, CLASSES)


def export_to(out_dir, net, pictures):
    return export_bundle(
        net,
        CLASSES,
        out_dir,
        name="tiny",
        picture_qualities={1: 8, 2: 20, 4: 45, 8: 80},
        provenance={"data_license": "CC0-1.0"},
        calibration=pictures,
    )


@pytest.fixture(scope="module")
def bundle(net, pictures, tmp_path_factory):
    return export_to(tmp_path_factory.mktemp("export") / "tiny", net, pictures)


def test_a_bundle_tells_shapes_and_calibration(bundle):
    assert bundle.classes == CLASSES
    assert bundle.input_shape == (3, 16, 16)
    assert bundle.feature_shapes == ((8, 8, 8), (16, 4, 4))
    assert bundle.code_shapes == {1: (4, 4, 4)}
    assert bundle.provenance["data_license"] == "CC0-1.0"
    assert bundle.provenance["calibration"]["pictures"] == 12
    assert len(bundle.provenance["calibration"]["error_after"]) == 2


@torch.no_grad()
def test_exits_answer_as_torch_does_for_any_batch(bundle, net, pictures):
    batch = pictures.pixels[0, :5].float() / 255
    net = copy.deepcopy(net).eval()
    feature = net.normalize(batch)
    with StageRunner(bundle) as runner:
        tensor = batch.numpy()
        for index, stage in enumerate(net.stages, start=1):
            feature, tensor = stage(feature), runner.stage(index, tensor)
            expected = net.exits[index - 1](feature).numpy() / bundle.temperatures[index - 1]
            logits = np.stack([answer.logits for answer in runner.exit_all(index, tensor)])
            np.testing.assert_allclose(logits, expected, atol=1e-4)


@torch.no_grad()
def test_a_bottleneck_gives_what_torch_gives(bundle, net):
    feature = torch.rand(1, 8, 8, 8, generator=torch.Generator().manual_seed(1))
    net = copy.deepcopy(net).eval()
    expected = net.encoders[0](feature)
    with StageRunner(bundle) as runner:
        codes = runner.encode(1, feature.numpy())
        np.testing.assert_allclose(codes, expected[0].numpy(), atol=1e-5)
        decoded = runner.decode(1, codes)
    np.testing.assert_allclose(decoded, net.decoders[0](expected).numpy(), atol=1e-4)


def test_the_same_network_gives_the_same_bytes_and_no_path_of_ours(bundle, net, pictures, tmp_path):
    again = export_to(tmp_path / "again", net, pictures)

    assert again.hash == bundle.hash
    assert not any(b".py" in bundle.file(*part).read_bytes() for part in bundle.parts)


def test_the_network_handed_in_stays_in_training_mode(bundle, net):
    assert net.training


def test_a_network_that_answers_otherwise_is_noticed(bundle, net, pictures):
    other = copy.deepcopy(net).eval()
    torch.nn.init.normal_(other.exits[1][-1].weight)

    with pytest.raises(BundleError, match=r"agree with torch at split point 1 within 0\.001"):
        export._check_parity(other, bundle, pictures.pixels[0, :2])


def test_an_existing_directory_is_not_replaced(net, pictures, tmp_path):
    with pytest.raises(ConfigError, match="out_dir must not exist yet"):
        export_to(tmp_path, net, pictures)
