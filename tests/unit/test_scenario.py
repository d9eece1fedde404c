"""Scenario files: read once, refused with file, key and way out."""

from dataclasses import replace

import numpy as np
import pytest

from adaptive_split.accuracy import expected_right
from adaptive_split.decision import NEVER
from adaptive_split.errors import BundleError, ConfigError
from adaptive_split.scenario import SUBSETS, Camera, ServerLoad, load_scenario, scenario_path
from tests import support

SHIPPED = sorted(file.stem for file in scenario_path("default").parent.glob("*.toml"))


@pytest.fixture
def bundle(tmp_path):
    return support.write_toy_bundle(tmp_path / "toy")


@pytest.fixture
def read(tmp_path, bundle):
    """Read a scenario with these lines beside the toy bundle."""

    def load(text):
        path = tmp_path / "mine.toml"
        path.write_text('bundle = "toy"\n' + text, encoding="utf-8")
        return load_scenario(str(path))

    return load


def test_a_scenario_is_what_its_file_says(read, bundle):
    scenario = read(
        "[objective]\nslo_s = 0.15\nfps = 12\n[grid]\nthresholds = [0.4, 1.0]\nbits = [1, 8]\n"
        "[server]\nutilizations = [0.5]\n[camera]\nframes_per_stream = 50\n"
    )

    assert scenario.name == "mine"
    assert scenario.bundle.hash == bundle.hash
    assert (scenario.objective.slo_s, scenario.objective.fps) == (0.15, 12)
    assert scenario.grid.thresholds == (0.4, 1.0)
    assert scenario.load.utilizations == (0.5,)
    assert scenario.camera.frames_per_stream == 50
    assert scenario.table("policy").outcomes.subset == "policy"


def test_who_decides_about_other_pictures_expects_what_the_counted_ones_let_expect():
    scenario = load_scenario("default")
    counted, expecting = scenario.table("judge"), scenario.table("policy")
    outcomes, judged = scenario.outcomes("policy"), scenario.outcomes("judge")
    chance = expected_right(outcomes.server_confidence, outcomes.server_right, outcomes.picture)
    sends, grid = scenario.grid.payload_index >= 0, scenario.grid
    never = [one.exit_threshold == NEVER for one in grid.candidates]
    always = np.flatnonzero(sends & never)
    payload = grid.payload_index[always]

    np.testing.assert_allclose(expecting.server_right[always], chance.mean(0)[payload])
    np.testing.assert_allclose(counted.server_right[always], judged.server_right.mean(0)[payload])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[objektive]\nslo_s = 1\n", "unknown key 'objektive'; known are bundle, .*objective"),
        (
            "[objective]\nslo_ms = 1\n",
            r"\[objective\] has an unknown key 'slo_ms'; known are slo_s",
        ),
        ("[objective]\nslo_s = 200\n", r"\[objective\] slo_s must lie in .* seconds; got 200"),
        ("[objective]\nslo_s = '0.2 s'\n", r"\[objective\] slo_s must be a number; got '0.2 s'"),
        ("[objective]\nfps = true\n", r"\[objective\] fps must be a number; got True"),
        ("[grid]\nbits = [3]\n", r"\[grid\] bits must be chosen from"),
        ("[server]\nutilizations = [2]\n", r"\[server\] server utilizations must lie in"),
        ("[camera]\nscene_correlation = 1\n", r"\[camera\] camera scene_correlation must lie"),
        ("[radio]\nwatts = -1\n", r"\[radio\] radio watts must be 0 or more"),
        (
            "[camera]\nframes_per_stream = 99.5\n",
            r"\[camera\] frames_per_stream must be a whole number",
        ),
        ("radio = 5\n", r"\[radio\] must be a table; got 5"),
        ("[objective\n", "a scenario must be valid TOML"),
        ("[grid]\nthresholds = 0.5\n", r"\[grid\] thresholds must be a list of numbers; got 0.5"),
        ("[grid]\nbits = ['a']\n", r"\[grid\] bits must be a list of whole numbers; got \['a'\]"),
    ],
)
def test_a_wrong_key_or_value_is_named_with_its_file(read, text, message):
    with pytest.raises(ConfigError, match=f"mine.toml: {message}|{message}.*mine.toml"):
        read(text)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_scenario_that_ships_loads_with_all_that_it_names(name):
    scenario = load_scenario(name)

    assert scenario.name == name
    assert scenario.device.compute_w > 0
    for subset in SUBSETS:
        assert scenario.table(subset).outcomes.payloads == scenario.grid.payloads


@pytest.mark.parametrize(
    ("name", "full_s", "fps", "slo_s"),
    [
        ("pi-230ms-10fps-100ms", 0.230, 10, 0.1),
        ("pi-260ms-30fps-200ms", 0.260, 30, 0.2),
        ("nano-30fps", 0.190, 30, 0.2),
        ("default", 0.190, 10, 0.2),
        ("nano-light-30fps-100ms", 0.048, 30, 0.1),
        ("nano-light-10fps-100ms", 0.048, 10, 0.1),
    ],
)
def test_a_scenario_of_the_benchmark_set_is_as_slow_as_its_name_says(name, full_s, fps, slo_s):
    scenario = load_scenario(name)

    assert scenario.device.full_s == pytest.approx(full_s, rel=0.01)
    assert (scenario.objective.fps, scenario.objective.slo_s) == (fps, slo_s)


def test_an_unknown_name_lists_those_that_ship():
    with pytest.raises(ConfigError, match=r"a file or one of .*default.*; got 'defualt'"):
        scenario_path("defualt")


def test_a_profile_of_another_bundle_is_refused_with_the_way_out(read, bundle):
    replace(support.profile(), bundle_hash="b" * 64).save(bundle.path / "profile_device.json")

    with pytest.raises(BundleError, match=r"profile_device.json must .*got bbbb.*measure it again"):
        read("")


def test_outcomes_of_another_bundle_are_refused_with_the_way_out(read, bundle):
    text = "[grid]\nthresholds = [0.4, 1.0]\nbits = [1, 8]\n"
    scenario = read(text)
    other = replace(support.outcomes(), bundle_hash="b" * 64)
    other.save(bundle.path / "outcomes_judge.npz")

    with pytest.raises(BundleError, match=r"outcomes_judge.npz must .*got bbbb.*measure it again"):
        scenario.table("judge")


def test_an_unknown_half_of_the_pictures_is_refused(read):
    with pytest.raises(
        ConfigError, match=r"subset must be one of \('policy', 'judge'\); got 'all'"
    ):
        read("").outcomes("all")


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (ServerLoad, {"utilizations": ()}, "utilizations must lie in"),
        (ServerLoad, {"speedup": 0.0}, "speedup must be positive; got 0.0"),
        (Camera, {"frames_per_stream": 3}, "frames_per_stream must lie in"),
    ],
)
def test_a_part_that_cannot_be_is_refused(kind, settings, message):
    with pytest.raises(ConfigError, match=message):
        kind(**settings)


def test_both_bundles_describe_the_same_nano_and_the_same_server():
    light, full = load_scenario("nano-light-30fps-100ms"), load_scenario("nano-30fps")

    assert light.grid.num_stages == 4
    assert full.grid.num_stages == 5
    for part in ("stage_s", "exit_s", "encoder_s", "decoder_s"):
        for scenario in (light, full):
            ratio = np.array(getattr(scenario.device, part)) / getattr(scenario.server, part)
            np.testing.assert_allclose(ratio, 14.25, rtol=1e-3)
