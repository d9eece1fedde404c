"""Profile: its sums, its scaling, and the file."""

import dataclasses
import json

import pytest

from adaptive_split.errors import BundleError, ConfigError
from adaptive_split.profile import MODELLED, P95S, SPREADS, UNAVAILABLE, Profile
from adaptive_split.runtime.profiler import NANO_COMPUTE_W, nano_class, pi_class, with_watts

PROFILE = Profile(
    bundle_hash="abc",
    machine="bench",
    provider="CPUExecutionProvider",
    power_mode="unknown",
    num_threads=1,
    scale=1.0,
    stage_s=(0.001, 0.002, 0.004),
    exit_s=(0.0001, 0.0002, 0.0005),
    encoder_s=(0.0003, 0.0004, 0.0006),
    decoder_s=(0.0007, 0.0008, 0.0009),
    stage_p95_s=(0.002, 0.003, 0.005),
    spread=0.05,
    compute_w=0.0,
    energy_provenance=UNAVAILABLE,
    energy_source="",
)


def test_the_full_model_is_all_stages_and_all_exits():
    assert PROFILE.num_stages == 3
    assert PROFILE.full_s == pytest.approx(0.0078)


@pytest.mark.parametrize(("split_point", "tail_s"), [(0, 0.0082), (1, 0.0073), (2, 0.0054)])
def test_a_tail_is_decoder_rest_and_last_exit(split_point, tail_s):
    assert PROFILE.tail_s(split_point) == pytest.approx(tail_s)


def test_a_slower_machine_takes_longer_in_everything():
    slower = PROFILE.scaled(3, "slow bench").scaled(2, "slower bench")

    assert slower.scale == 6
    assert slower.machine == "slower bench"
    assert slower.full_s == pytest.approx(6 * PROFILE.full_s)
    assert slower.encoder_s == pytest.approx([6 * value for value in PROFILE.encoder_s])
    assert slower.stage_p95_s == pytest.approx([6 * value for value in PROFILE.stage_p95_s])


def test_a_nano_takes_190_ms_and_its_watts_are_modelled():
    nano = nano_class(PROFILE)

    assert nano.full_s == pytest.approx(0.190)
    assert nano.scale == pytest.approx(0.190 / 0.0078)
    assert nano.encoder_s[0] == pytest.approx(0.0003 * nano.scale)
    assert (nano.compute_w, nano.energy_provenance) == (NANO_COMPUTE_W, MODELLED)
    assert "Jetson Nano" in nano.energy_source
    assert "image codec included, times 24.36" in nano.machine


def test_a_raspberry_pi_takes_5_times_the_time_and_7_5_times_the_energy_of_a_nano():
    nano, pi = nano_class(PROFILE, 0.046), pi_class(PROFILE, 0.230)

    assert pi.full_s == pytest.approx(0.230)
    assert pi.decoder_s == pytest.approx([5 * value for value in nano.decoder_s])
    assert pi.full_s * pi.compute_w == pytest.approx(7.5 * nano.full_s * nano.compute_w)
    assert (pi.energy_provenance, pi.power_mode) == (MODELLED, "unknown")
    assert "guess" in pi.energy_source
    assert "Raspberry Pi 4 class, modelled" in pi.machine


def test_watts_are_modelled_with_their_source():
    profile = with_watts(PROFILE, 12.5, "a data sheet")

    assert (profile.compute_w, profile.energy_source) == (12.5, "a data sheet")
    assert profile.energy_provenance == MODELLED
    with pytest.raises(ConfigError, match=r"watts must lie in \(0, 10000\); got -1"):
        with_watts(PROFILE, -1, "a guess")


def test_a_profile_without_the_later_fields_still_loads(tmp_path):
    PROFILE.save(tmp_path / "profile.json")
    older = json.loads((tmp_path / "profile.json").read_text())
    for name in (*P95S[1:], *SPREADS):
        del older[name]
    (tmp_path / "profile.json").write_text(json.dumps(older))

    assert Profile.load(tmp_path / "profile.json") == PROFILE


def test_a_profile_loads_as_it_was_saved(tmp_path):
    PROFILE.save(tmp_path / "profile.json")

    assert Profile.load(tmp_path / "profile.json") == PROFILE


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"exit_s": (0.1,)}, "exit_s must have 3 entries, one per stage; got 1"),
        ({"exit_p95_s": (0.1,)}, "exit_p95_s must have 3 entries, one per stage; got 1"),
        ({"stage_s": (0.1, -0.1, 0.1)}, r"stage_s must lie in \[0, 60\) s"),
        ({"decoder_s": (0.1, float("nan"), 0.1)}, r"decoder_s must lie in \[0, 60\) s"),
        ({"energy_provenance": "guessed"}, "got 'guessed'"),
    ],
)
def test_a_profile_that_cannot_be_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(PROFILE, **changes)


def test_a_missing_profile_says_how_to_make_it(tmp_path):
    with pytest.raises(BundleError, match="make it with 'adaptive-split profile'"):
        Profile.load(tmp_path / "profile.json")


@pytest.mark.parametrize("text", ["{}", "nonsense", '{"version": 1, "surprise": 2}'])
def test_a_damaged_profile_is_refused(tmp_path, text):
    (tmp_path / "profile.json").write_text(text)

    with pytest.raises(BundleError, match="damaged"):
        Profile.load(tmp_path / "profile.json")


def test_a_profile_of_another_version_is_refused(tmp_path):
    (tmp_path / "profile.json").write_text('{"version": 9}')

    with pytest.raises(BundleError, match="version 1; got 9"):
        Profile.load(tmp_path / "profile.json")
