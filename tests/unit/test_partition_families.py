"""The cut search on five families of classifiers, none of them changed: every cut is the model."""

import itertools

import pytest
import torch

from adaptive_split.models.attach import AttachedDecoder, AttachedEncoder, AttachedExit
from adaptive_split.models.attach import bottleneck_shape as shape_of
from adaptive_split.models.cuts import CuttableModel, check_cuts
from adaptive_split.models.layout import Layout
from adaptive_split.models.propose import propose
from adaptive_split.models.trace import Logits, check_logits
from tests.own_models import FAMILIES, make_family

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

FEWEST_CUTS = {"residual": 10, "inverted residuals": 30, "vit": 8, "swin": 12, "mobilevit": 40}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    """Name, model, and the traced model."""
    model, side = make_family(request.param)
    model = Logits(model).eval()
    return request.param, model, CuttableModel(model, torch.rand(2, 3, side, side)), side


def test_every_cut_leaves_the_answers_as_they_are(family):
    name, model, cuttable, side = family
    pictures = torch.rand(3, 3, side, side)

    check_logits(model, pictures, 3)
    check_cuts(cuttable, model, pictures)

    assert len(cuttable.cuts) >= FEWEST_CUTS[name]
    assert len({cut.name for cut in cuttable.cuts}) == len(cuttable.cuts)


@torch.no_grad()
def test_head_and_tail_are_the_model_for_any_number_of_pictures(family):
    _, model, cuttable, side = family
    for cut in cuttable.cuts[:: max(1, len(cuttable.cuts) // 4)]:
        head, tail = cuttable.between(None, cut), cuttable.between(cut, None)
        for count in (1, 4):
            pictures = torch.rand(count, 3, side, side)
            feature = head(pictures)

            assert feature.shape == (count, *cut.shape)
            torch.testing.assert_close(tail(feature), model(pictures), atol=1e-4, rtol=0)


def test_stages_divide_the_computing_and_begin_with_small_features(family):
    _, _, cuttable, side = family
    ends = propose(cuttable, 3 * side * side, 4)
    shares = [cut.share for cut in ends]

    assert len(ends) == 4
    assert shares == sorted(shares)
    assert all(later - earlier > 0.01 for earlier, later in itertools.pairwise(shares[:-1]))
    assert ends[-1] is cuttable.cuts[-1]
    assert any(cut.num_elements < 3 * side * side for cut in ends[:-1])


@torch.no_grad()
def test_exits_and_bottlenecks_fit_every_feature_proposed(family):
    _, _, cuttable, side = family
    for cut in propose(cuttable, 3 * side * side, 4)[:-1]:
        layout = Layout.of(cut.shape)
        shape = shape_of(layout)
        feature = torch.rand(2, *layout.map_shape)
        codes = AttachedEncoder(layout, shape).eval()(feature)

        assert AttachedExit(layout, 3).eval()(feature).shape == (2, 3)
        assert codes[0].numel() < feature[0].numel()
        assert AttachedDecoder(layout, shape).eval()(codes).shape == feature.shape
