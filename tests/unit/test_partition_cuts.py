"""Where a model can be cut, what is proposed, and how a model that cannot be cut is refused."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from adaptive_split.errors import ConfigError
from adaptive_split.models.cuts import CUT_PARITY, CuttableModel, check_cuts
from adaptive_split.models.division import divide
from adaptive_split.models.layout import Layout
from adaptive_split.models.propose import distinct_cuts, is_natural, propose, rank
from adaptive_split.models.trace import Logits, check_logits
from tests.own_models import SIDE, Declared, make_declared, make_residual

# Whoever traces first imports much of torch.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PICTURE = 3 * SIDE * SIDE


def pictures(count=3):
    return torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(count))


@pytest.fixture(scope="module")
def residual():
    model = Logits(make_residual().eval())
    return model, CuttableModel(model, pictures(2))


class Net(nn.Module):
    """Two convolutions, and whatever a test does with them."""

    def __init__(self, run):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, 2)
        self.last = nn.Conv2d(3, 3, 3, 2)
        self.run = run

    def forward(self, x):
        """Do what the test wants."""
        return self.run(self, x)


def branches(net, x):
    x = net.conv(x)
    if x.mean() > 0:
        x = 2 * x
    return x.mean((2, 3))


def fixes_its_batch(net, x):
    return net.conv(x).mean((2, 3)).reshape(2, 3)


def leaves_torch(net, x):
    return torch.from_numpy(net.conv(x).mean((2, 3)).detach().numpy())


def reads_the_picture_again(net, x):
    return net.last(net.conv(x)).mean((2, 3)) + x.mean((2, 3))


def writes_through_a_view(net, x):
    x = net.conv(x)
    x[:, 0] = 0.0
    return net.last(x).mean((2, 3))


def asks_for_the_batch(net, x):
    x = net.conv(x)
    x = x.reshape(x.shape[0], 3, -1).transpose(1, 2).contiguous()
    return net.last(x.transpose(1, 2).reshape(x.size(0), 3, 15, 15)).mean((2, 3))


def test_a_cut_is_where_one_tensor_passes_and_not_beside_a_shortcut(residual):
    _, cuttable = residual
    layers = [cut.layer for cut in cuttable.cuts]

    assert layers[:3] == ["stem.0", "stem.1", "body.0"]
    assert not any(layer.startswith("body.0.") for layer in layers)
    assert {cut.shape for cut in cuttable.cuts} == {
        (8, 16, 16), (16, 8, 8), (24, 4, 4), (24,),
    }  # fmt: skip


def test_every_cut_agrees_with_the_model(residual):
    model, cuttable = residual

    check_cuts(cuttable, model, pictures(5))


@torch.no_grad()
def test_a_part_leaves_the_feature_it_is_given_unchanged(residual):
    _, cuttable = residual
    cut = next(cut for cut in cuttable.cuts if cut.operator == "aten.add.Tensor")
    feature = cuttable.between(None, cut)(pictures())
    before = feature.clone()

    cuttable.between(cut, None)(feature)

    assert (feature < 0).any()
    torch.testing.assert_close(feature, before, atol=0, rtol=0)


def test_operations_are_counted_for_one_picture(residual):
    model, cuttable = residual
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(pictures(1))
    before = [cut.flops_before for cut in cuttable.cuts]

    assert before == sorted(before)
    for cut in cuttable.cuts:
        assert cut.flops_before + cut.flops_after == counter.get_total_flops()
        assert 0 <= cut.share <= 1


def test_distinct_cuts_are_behind_the_activation(residual):
    _, cuttable = residual
    distinct = distinct_cuts(cuttable.cuts)

    assert [cut.layer for cut in distinct] == [
        "stem.1", "body.0", "body.1", "body.2", "body.3", "body.4", "mean",
    ]  # fmt: skip
    assert distinct[1].operator == "aten.relu.default"


def test_natural_bottlenecks_are_ranked_first_and_by_bytes(residual):
    _, cuttable = residual
    ranked = rank(cuttable.cuts, 1500)
    sizes = [cut.num_elements for cut in ranked]

    assert sizes == [24, 384, 384, 1024, 1024, 2048, 2048]
    assert [is_natural(cut, 1500) for cut in ranked] == [True] * 5 + [False] * 2


@pytest.mark.parametrize(("wanted", "got"), [(2, 2), (4, 4), (9, 6)])
def test_as_many_stages_are_proposed_as_the_model_has_room_for(residual, wanted, got):
    _, cuttable = residual
    ends = propose(cuttable, PICTURE, wanted)

    assert len(ends) == got
    assert len({cut.flops_before for cut in ends[:-1]}) == got - 1


@pytest.mark.parametrize("run", [writes_through_a_view, asks_for_the_batch])
def test_views_and_batch_sizes_do_not_keep_a_model_from_being_cut(run):
    model = Net(run).eval()
    cuttable = CuttableModel(model, pictures(2))

    check_cuts(cuttable, model, pictures(5))
    assert cuttable.cuts


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (branches, r"data-dependent.* at .*test_partition_cuts\.py:\d+: if x\.mean\(\) > 0:"),
        (fixes_its_batch, r"your code specialized it to be a constant \(2\)\.; let it take any"),
        (leaves_torch, r"numpy.* at .*test_partition_cuts\.py:\d+: return torch\.from_numpy"),
        (reads_the_picture_again, r"a single float32 tensor passes.*got 0 such points.*2 tensors"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_model_that_cannot_be_cut_is_told_where_and_what_to_do(run, message, capfd):
    with pytest.raises(ConfigError, match=message) as failure:
        divide(Net(run).eval(), pictures(), 4)

    assert "any number of" in str(failure.value) or "split_stages()" in str(failure.value)
    assert "\n" not in str(failure.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda logits: logits.softmax(1), "leave out the last softmax"),
        (lambda logits: logits[:, :2], r"logits of shape \(N, 3\).*got \(3, 2\) for 3 pictures"),
        (lambda logits: (logits, logits), "or an object with .logits; got tuple"),
        (lambda logits: logits @ logits, "mat1 and mat2.* at .*test_partition_cuts"),
    ],
)
def test_answers_that_are_no_logits_are_refused(change, message):
    model = make_residual().eval()
    model.register_forward_hook(lambda module, inputs, logits: change(logits[:, [0, 1, 2]]))

    with pytest.raises(ConfigError, match=message):
        check_logits(Logits(model), pictures(4)[:3] if "mat1" not in message else pictures(4), 3)


@torch.no_grad()
def test_a_model_may_declare_its_stages_and_exits():
    model = make_declared().eval()
    division = divide(model, pictures(), 9)
    feature = pictures()
    for stage in division.stages:
        feature = stage(feature)

    torch.testing.assert_close(division.exits[-1](feature), model(pictures()), atol=1e-4, rtol=0)
    assert [layout.map_shape for layout in division.layouts] == [
        (8, 16, 16), (16, 8, 8), (24, 4, 4),
    ]  # fmt: skip
    assert (division.exits[0], division.exits[1]) == (None, model.early)


@pytest.mark.parametrize(
    ("give", "message"),
    [
        (lambda stages, exits: (stages, exits[:2]), "got 3 stages, 2 exits"),
        (lambda stages, exits: (stages, (*exits[:2], None)), "the model's own exit at the end"),
        (lambda stages, exits: (stages[1:], exits[1:]), "stage 1 of split_stages.. must accept"),
        (
            lambda stages, exits: (stages, (*exits[:2], nn.Sequential(exits[2], nn.ReLU()))),
            f"within {CUT_PARITY}; got",
        ),
    ],
)
def test_a_declaration_that_is_not_the_model_is_refused(give, message):
    class Wrong(Declared):
        def split_stages(self):
            return give(*super().split_stages())

    torch.manual_seed(0)
    with pytest.raises(ConfigError, match=message):
        divide(Wrong().eval(), pictures(), 4)


@pytest.mark.parametrize(
    ("shape", "map_shape", "num_prefix"),
    [
        ((24,), (24, 1, 1), 0),
        ((8, 16, 16), (8, 16, 16), 0),
        ((8, 8, 64), (64, 8, 8), 0),
        ((16, 32), (32, 4, 4), 0),
        ((17, 32), (32, 17, 1), 1),
        ((61, 32), (32, 61, 1), 0),
    ],
)
def test_a_feature_becomes_a_map_and_comes_back(shape, map_shape, num_prefix):
    layout = Layout.of(shape)
    feature = torch.rand(2, *shape)
    feature_map = layout.to_map(feature)

    assert (layout.map_shape, layout.num_prefix) == (map_shape, num_prefix)
    assert feature_map.shape == (2, *map_shape)
    torch.testing.assert_close(layout.from_map(feature_map), feature, atol=0, rtol=0)
    torch.testing.assert_close(layout.join(*layout.split(feature_map)), feature_map)
