"""The controller bundle: whole, checked, and of one model."""

import json
from dataclasses import replace

import numpy as np
import pytest

from adaptive_split.errors import BundleError, ConfigError
from adaptive_split.planner import BacklogPrices
from adaptive_split.runtime.controller_bundle import MANIFEST, WEIGHTS, ControllerBundle
from tests import support


@pytest.fixture
def bundle():
    return ControllerBundle(
        weights=support.weights(seed=1), prices=BacklogPrices(device=0.2, uplink=0.1),
        guard_candidate=3, guard_margin=0.01, model_hash=support.HASH, grid=support.GRID,
        tuned={"static": 3}, provenance={"seed": 0},
    )  # fmt: skip


@pytest.fixture
def folder(bundle, tmp_path):
    bundle.save(tmp_path / "controller")
    return tmp_path / "controller"


def edit(folder, **changes):
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(manifest | changes))


def test_a_bundle_decides_the_same_after_it_was_saved(bundle, folder):
    table, moment = support.table(), support.moment(lanes=50)

    loaded = ControllerBundle.load(folder)

    for name in ("prices", "guard_candidate", "guard_margin", "model_hash", "grid", "tuned"):
        assert getattr(loaded, name) == getattr(bundle, name)
    assert loaded.provenance == bundle.provenance
    ours, theirs = bundle.controller(table), loaded.controller(table)
    np.testing.assert_array_equal(ours.choose(moment), theirs.choose(moment))
    assert theirs.guard_candidate == 3


def test_the_guard_stays_behind_on_another_grid(bundle):
    grid = support.DecisionGrid(3, thresholds=(0.5,), bits=(8,))

    assert bundle.controller(support.table(grid=grid)).guard_candidate is None


def test_a_controller_that_does_not_adapt_keeps_its_decision_after_it_was_saved(bundle, tmp_path):
    replace(bundle, adapts=False).save(tmp_path / "still")

    loaded = ControllerBundle.load(tmp_path / "still")

    controller = loaded.controller(support.table())
    assert not loaded.adapts
    assert (controller.kept, controller.probes) == (3, False)
    assert set(controller.choose(support.moment(lanes=50))) == {3}


def test_a_controller_that_adapts_keeps_nothing(bundle, folder):
    controller = ControllerBundle.load(folder).controller(support.table())

    assert (controller.kept, controller.probes) == (None, True)


def test_the_kept_decision_stays_behind_on_another_grid(bundle):
    grid = support.DecisionGrid(3, thresholds=(0.5,), bits=(8,))

    controller = replace(bundle, adapts=False).controller(support.table(grid=grid))

    assert (controller.kept, controller.probes) == (None, True)


def test_a_controller_of_an_earlier_version_adapts(folder):
    manifest = json.loads((folder / MANIFEST).read_text())
    del manifest["adapts"]
    (folder / MANIFEST).write_text(json.dumps(manifest))

    assert ControllerBundle.load(folder).adapts


def test_a_folder_that_exists_is_not_overwritten(bundle, folder):
    with pytest.raises(ConfigError, match="must not exist yet"):
        bundle.save(folder)


def test_damaged_weights_are_refused(folder):
    blob = bytearray((folder / WEIGHTS).read_bytes())
    blob[len(blob) // 2] ^= 1
    (folder / WEIGHTS).write_bytes(bytes(blob))

    with pytest.raises(BundleError, match=r"controller.npz must match its checksum; it is damaged"):
        ControllerBundle.load(folder)


@pytest.mark.parametrize("name", [MANIFEST, WEIGHTS])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()

    with pytest.raises(BundleError, match=f"a controller bundle must hold .*{name}"):
        ControllerBundle.load(folder)


def test_a_damaged_manifest_is_refused(folder):
    (folder / MANIFEST).write_text("{")

    with pytest.raises(BundleError, match=r"controller.json must be readable"):
        ControllerBundle.load(folder)


def test_an_unknown_version_is_refused(folder):
    edit(folder, version=99)

    with pytest.raises(BundleError, match="must be of version 1; got 99"):
        ControllerBundle.load(folder)


def test_another_observation_is_refused_with_the_way_out(folder):
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["observation"]["context"][0]["name"] = "rate_first"
    edit(folder, observation=manifest["observation"])

    with pytest.raises(BundleError, match="train it again with 'adaptive-split train'"):
        ControllerBundle.load(folder)


def test_a_manifest_with_a_gap_is_refused(folder):
    manifest = json.loads((folder / MANIFEST).read_text())
    del manifest["guard_margin"]
    (folder / MANIFEST).write_text(json.dumps(manifest))

    with pytest.raises(BundleError, match=r"must be a whole controller bundle.*guard_margin"):
        ControllerBundle.load(folder)


def test_another_model_is_refused_with_the_way_out(bundle, tmp_path):
    bundle.check_model(support.toy_bundle())

    with pytest.raises(BundleError, match="train one for this bundle with 'adaptive-split train'"):
        bundle.check_model(support.write_toy_bundle(tmp_path / "toy"))
