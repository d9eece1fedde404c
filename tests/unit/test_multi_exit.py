"""Networks: their shapes are those of the shipped bundles, and impossible ones are refused."""

import dataclasses

import pytest
import torch

from adaptive_split.bundle import ModelBundle, bundle_path
from adaptive_split.errors import ConfigError
from adaptive_split.models.multi_exit import (
    GARMENTS,
    NETWORKS,
    BottleneckShape,
    ChannelAttention,
    GarmentsNet,
    code_entropy,
)

TINY = dataclasses.replace(
    GARMENTS,
    stem=(8,),
    stages=(((8, 2),),),
    exits=((8, 1, 1), (8, 1, 1)),
    bottlenecks=(BottleneckShape(code_channels=4, stride=1, decoder_channels=8),),
)


@pytest.mark.parametrize("name", sorted(NETWORKS))
@torch.no_grad()
def test_a_network_has_the_shapes_of_the_bundle_that_ships(name):
    bundle = ModelBundle.load(bundle_path(name), verify=False)
    net = GarmentsNet(NETWORKS[name], len(bundle.classes)).eval()

    feature = net.normalize(torch.zeros(1, *bundle.input_shape))
    for index, stage in enumerate(net.stages, start=1):
        feature = stage(feature)
        assert feature.shape[1:] == bundle.feature_shapes[index - 1]
        assert net.exits[index - 1](feature).shape == (1, len(bundle.classes))
        if index < len(net.stages):
            codes = net.encoders[index - 1](feature)
            assert codes.shape[1:] == bundle.code_shapes[index]
            assert net.decoders[index - 1](codes).shape == feature.shape


def test_samples_that_pass_a_bottleneck_change_and_the_others_do_not():
    torch.manual_seed(0)
    net = GarmentsNet(TINY, 3).eval()
    pictures, bits = torch.rand(4, 3, 16, 16), torch.full((4,), 1)

    plain, none = net(pictures, torch.tensor([0, 2, 0, 2]), bits)
    sent, error = net(pictures, torch.tensor([0, 1, 1, 2]), bits)

    assert torch.allclose(sent[0], plain[0])
    assert torch.allclose(sent[1][[0, 3]], plain[1][[0, 3]])
    assert not torch.isclose(sent[1][1:3], plain[1][1:3]).any()
    assert none == 0 < error


def test_a_shape_whose_counts_do_not_agree_is_refused():
    with pytest.raises(ConfigError, match="got 5 stages, 4 exits, 4 bottlenecks"):
        dataclasses.replace(GARMENTS, exits=GARMENTS.exits[:-1])


def test_the_estimated_entropy_is_that_of_the_levels_used():
    levels = torch.arange(16) / 15
    even = levels.repeat(64).view(4, 1, 16, 16)
    halves = torch.tensor([2 / 15, 13 / 15]).repeat(512).view(4, 1, 16, 16)
    plain = torch.full((4, 1, 16, 16), 7 / 15)

    assert code_entropy(even) == pytest.approx(4, abs=0.05)
    # A soft histogram of one level is as wide as its kernel.
    width = float(code_entropy(plain))
    assert 0 < width < 1
    assert float(code_entropy(halves)) == pytest.approx(1 + width, abs=0.01)


def test_following_the_entropys_gradient_lowers_the_entropy():
    generator = torch.Generator().manual_seed(0)
    codes = torch.rand(8, 2, 6, 6, generator=generator).requires_grad_()
    before = code_entropy(codes)

    (gradient,) = torch.autograd.grad(before, codes)

    assert code_entropy((codes - gradient).clamp(0, 1)) < before


@torch.no_grad()
def test_a_channel_without_attention_says_nothing():
    torch.manual_seed(0)
    attention = ChannelAttention(8)
    attention[1].weight.zero_()  # weights depend on the biases only
    attention[3].bias[3] = -100.0
    feature = torch.rand(2, 8, 8, 8)

    weights = attention(feature)

    assert weights.shape == (2, 8, 1, 1)
    assert (weights[:, 3] == 0).all()
    assert (weights[:, [0, 1, 2, 4, 5, 6, 7]] > 0).all()
