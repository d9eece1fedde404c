"""A controller that was trained on fewer context columns reads the first ones."""

import json
from dataclasses import replace

import numpy as np
import pytest

from adaptive_split import observation
from adaptive_split.cli.common import SHIPPED_CONTROLLERS, shipped_controller
from adaptive_split.errors import BundleError
from adaptive_split.observation import CONTEXT
from adaptive_split.planner import BacklogPrices
from adaptive_split.runtime.controller import ForecastController
from adaptive_split.runtime.controller_bundle import MANIFEST, ControllerBundle
from adaptive_split.scenario import load_scenario
from tests import support


def older(weights, columns):
    """The same networks without weights for the last columns."""
    size = len(CONTEXT)
    w1, *rest = weights.forecast
    r1, *others = weights.residual
    kept = np.concatenate([r1[:columns], r1[size:]])
    return replace(
        weights, context_mean=weights.context_mean[:columns],
        context_scale=weights.context_scale[:columns], forecast=(w1[:columns], *rest),
        residual=(kept, *others),
    )  # fmt: skip


def blind(weights, columns):
    """The same networks with weights of zero for the last columns."""
    first, residual = weights.forecast[0].copy(), weights.residual[0].copy()
    first[columns:] = 0.0
    residual[columns : len(CONTEXT)] = 0.0
    return replace(
        weights, forecast=(first, *weights.forecast[1:]), residual=(residual, *weights.residual[1:])
    )


def test_columns_it_was_not_trained_on_do_not_count():
    table, weights = support.table(), support.weights(seed=3)
    moment = support.moment(lanes=100, mission_ratio=np.linspace(0.1, 3, 100))
    view = observation.observe(table, moment, BacklogPrices())
    few, zero = (
        ForecastController(table, make(weights, 37), BacklogPrices()) for make in (older, blind)
    )

    np.testing.assert_allclose(few.values(view), zero.values(view), atol=1e-6)


def save(folder, version, columns):
    weights = older(support.weights(seed=1), columns)
    bundle = ControllerBundle(
        weights=weights, prices=BacklogPrices(), guard_candidate=0, guard_margin=None,
        model_hash=support.HASH, grid=support.GRID, tuned={}, provenance={},
    )  # fmt: skip
    bundle.save(folder)
    manifest = json.loads((folder / MANIFEST).read_text())
    seen = manifest["observation"]
    seen["version"], seen["context"] = version, seen["context"][:columns]
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return folder


def test_a_bundle_of_the_first_version_is_loaded(tmp_path):
    bundle = ControllerBundle.load(save(tmp_path / "controller", 1, 37))

    choice = bundle.controller(support.table()).choose(support.moment(lanes=20))

    assert bundle.weights.context_mean.shape == (37,)
    assert choice.shape == (20,)


def test_a_bundle_of_a_later_version_is_refused(tmp_path):
    folder = save(tmp_path / "controller", observation.VERSION + 1, 37)

    with pytest.raises(BundleError, match="trained on this version's observation"):
        ControllerBundle.load(folder)


@pytest.mark.parametrize("folder", sorted(SHIPPED_CONTROLLERS.iterdir()), ids=lambda f: f.name)
def test_every_shipped_controller_is_of_a_shipped_scenario(folder):
    bundle, scenario = ControllerBundle.load(folder), load_scenario(folder.name)

    bundle.check_model(scenario.bundle)

    assert bundle.grid == scenario.grid
    assert shipped_controller(scenario) == folder
