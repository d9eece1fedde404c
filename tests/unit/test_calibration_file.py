"""A calibration is a small checked file that a scenario may name."""

import json
import math
from dataclasses import replace

import pytest

from adaptive_split.calibration import Calibration, Overheads
from adaptive_split.errors import BundleError, ConfigError
from adaptive_split.scenario import load_scenario
from tests import support

OVERHEADS = Overheads(start_s=0.001, message_s=0.003, queue_s=0.0005)
CALIBRATION = Calibration(
    bundle_hash=support.HASH, fitted_on="nothing", device_slowdown=1.02, server_slowdown=1.1,
    overheads=OVERHEADS, others_start_s=0.09,
)  # fmt: skip


def test_what_is_saved_is_loaded(tmp_path):
    CALIBRATION.save(tmp_path / "calibration.json")

    assert Calibration.load(tmp_path / "calibration.json") == CALIBRATION


def test_a_file_is_not_written_over(tmp_path):
    CALIBRATION.save(tmp_path / "calibration.json")

    with pytest.raises(
        ConfigError, match=r"a calibration must be a new file; got .*; name another"
    ):
        CALIBRATION.save(tmp_path / "calibration.json")


def change(path, **values):
    fields = json.loads(path.read_text())
    path.write_text(json.dumps({**fields, **values}))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"version": 7}, "must be of version 1; got 7"),
        ({"device_slowdown": 1.5}, "its checksum differs"),
        ({"overheads": 3}, "its checksum differs"),
    ],
)
def test_a_changed_file_is_refused(tmp_path, values, message):
    path = tmp_path / "calibration.json"
    CALIBRATION.save(path)
    change(path, **values)

    with pytest.raises(BundleError, match=message):
        Calibration.load(path)


@pytest.mark.parametrize("text", ["", "[]", "{}", "\xff", '{"version": 1, "sha256": "a"}'])
def test_a_file_that_is_none_is_refused(tmp_path, text):
    path = tmp_path / "calibration.json"
    path.write_text(text, encoding="latin-1")

    with pytest.raises(BundleError, match="calibration"):
        Calibration.load(path)


def test_a_missing_file_tells_how_to_make_it(tmp_path):
    with pytest.raises(BundleError, match="make it with 'adaptive-split calibrate'"):
        Calibration.load(tmp_path / "none.json")


@pytest.mark.parametrize("value", [-0.001, math.inf, math.nan])
def test_an_overhead_that_cannot_be_is_refused(value):
    with pytest.raises(ConfigError, match="an overhead message_s must be 0 s or more"):
        Overheads(message_s=value)
    with pytest.raises(ConfigError, match="others_start_s must be 0 s or more"):
        replace(CALIBRATION, others_start_s=value)


@pytest.mark.parametrize("value", [0.0, math.inf, math.nan])
def test_a_factor_that_cannot_be_is_refused(value):
    with pytest.raises(ConfigError, match="server_slowdown must be positive"):
        replace(CALIBRATION, server_slowdown=value)


def test_a_stream_is_calibrated_on_top_of_what_it_is():
    stream = replace(support.stream(), device_slowdown=2.0)

    calibrated = stream.calibrated(CALIBRATION)

    assert stream.calibrated(None) is stream
    assert calibrated.device_slowdown == 2.0 * 1.02
    assert calibrated.server_slowdown == 1.1
    assert calibrated.overheads == OVERHEADS
    assert calibrated.others_start_s == 0.09


def test_a_scenario_may_name_a_calibration_of_its_bundle(tmp_path):
    bundle = support.write_toy_bundle(tmp_path / "bundle")
    path = tmp_path / "toy.toml"
    path.write_text(
        'bundle = "bundle"\ncalibration = "mine.json"\n'
        "[grid]\nthresholds = [0.4, 0.7, 1.0]\nbits = [1, 8]\n"
    )
    other = tmp_path / "mine.json"
    CALIBRATION.save(other)

    with pytest.raises(BundleError, match=r"mine.json must have been fitted with bundle"):
        load_scenario(str(path))
    other.unlink()
    fitting = replace(CALIBRATION, bundle_hash=bundle.hash)
    fitting.save(other)
    assert load_scenario(str(path)).calibration == fitting
