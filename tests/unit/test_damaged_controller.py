"""A controller bundle with any byte changed is refused or the same, never a crash."""

import logging

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adaptive_split.errors import BundleError
from adaptive_split.planner import BacklogPrices
from adaptive_split.runtime.controller_bundle import MANIFEST, WEIGHTS, ControllerBundle
from tests import support


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    bundle = ControllerBundle(
        weights=support.weights(seed=1), prices=BacklogPrices(device=0.2, uplink=0.1),
        guard_candidate=3, guard_margin=0.01, model_hash=support.HASH, grid=support.GRID,
        tuned={"static": 3}, provenance={"seed": 0},
    )  # fmt: skip
    place = tmp_path_factory.mktemp("controllers") / "controller"
    bundle.save(place)
    return place


@pytest.mark.parametrize("name", [MANIFEST, WEIGHTS])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 0.999), byte=st.integers(0, 255))
def test_a_changed_byte_is_refused_or_harmless(folder, name, where, byte):
    whole = (folder / name).read_bytes()
    position = int(where * len(whole))
    (folder / name).write_bytes(whole[:position] + bytes([byte]) + whole[position + 1 :])

    try:
        loaded = ControllerBundle.load(folder)
        loaded.controller(support.table()).choose(support.moment())
    except BundleError as error:
        logging.debug("%s", error)
    finally:
        (folder / name).write_bytes(whole)


@pytest.mark.parametrize("name", [MANIFEST, WEIGHTS])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_file_cut_short_is_refused(folder, name, share):
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: int(share * len(whole))])

    with pytest.raises(BundleError):
        ControllerBundle.load(folder)
    (folder / name).write_bytes(whole)


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    weights = support.weights(seed=1)
    spoilt = support.replace(weights, context_mean=weights.context_mean * np.nan)
    bundle = ControllerBundle(
        weights=spoilt, prices=BacklogPrices(), guard_candidate=3, guard_margin=None,
        model_hash=support.HASH, grid=support.GRID, tuned={}, provenance={},
    )  # fmt: skip
    bundle.save(tmp_path / "controller")

    with pytest.raises(BundleError, match="must hold finite numbers"):
        ControllerBundle.load(tmp_path / "controller")
