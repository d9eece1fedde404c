"""`build`: from a stranger's classifier and pictures to a bundle that every other command takes."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from adaptive_split import cli
from adaptive_split.bundle import ModelBundle
from adaptive_split.decision import DecisionGrid
from adaptive_split.errors import BundleError, ConfigError
from adaptive_split.models import export
from adaptive_split.models.build import BuildConfig, build, divide_for
from adaptive_split.models.division import SplitNet
from adaptive_split.models.export import export_bundle
from adaptive_split.models.own_pictures import labelled, read_own_pictures
from adaptive_split.models.teach import FEWEST_STEPS, TeachConfig, teach
from adaptive_split.outcomes import useful_thresholds
from adaptive_split.runtime.measure import measure
from adaptive_split.runtime.stages import StageRunner
from adaptive_split.scenario import load_scenario
from adaptive_split.trace import write_trace
from tests import support
from tests.color_bundle import COLORS
from tests.own_models import SIDE, make_declared, make_family, make_residual

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

PLAIN = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


def write_pictures(folder, count=16):
    """Noisy pictures of one color a class, 40x48 pixels each."""
    generator = np.random.default_rng(0)
    for name, color in COLORS.items():
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = np.array(color) + generator.normal(0, 50, (48, 40, 3))
            picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
            picture.save(folder / name / f"{index:02}.jpg")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def pictures(folder):
    return read_own_pictures(folder, SIDE)


@pytest.fixture(scope="module")
def weights(pictures, tmp_path_factory):
    """What a user comes with: a trained network."""
    net, train = make_residual(), pictures.train
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    batch = (train.pixels[0].float() / 255 - 0.5) / 0.5
    for _ in range(30):
        loss = torch.nn.functional.cross_entropy(net(batch), train.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    file = tmp_path_factory.mktemp("weights") / "residual.pt"
    torch.save({"state_dict": net.state_dict()}, file)
    return file


@pytest.fixture(scope="module")
def out(folder, weights, tmp_path_factory):
    """What the command leaves behind, with a profile of the device added by its own command."""
    out = tmp_path_factory.mktemp("build") / "colors"
    arguments = f"--stages 2 --size {SIDE} --epochs 10 --mean .5 .5 .5 --std .5 .5 .5 --views 2"
    files = ["--weights", str(weights), "--data", str(folder), "--out", str(out)]

    command = ["build", "--model", "tests.own_models:make_residual", *files, *arguments.split()]
    assert cli.main(command) == 0
    device = ["--out", str(out / "profile_device.json"), "--nano", "--repeats", "3"]
    assert cli.main(["profile", str(out), *device]) == 0
    return out


@torch.no_grad()
def test_the_stages_and_the_last_exit_are_the_users_model(out, weights, pictures):
    net = make_residual().eval()
    net.load_state_dict(torch.load(weights)["state_dict"])
    batch = pictures.judge.pixels[0].float() / 255
    bundle = ModelBundle.load(out)
    with StageRunner(bundle) as runner:
        tensor = batch.numpy()
        for index in range(1, bundle.num_stages + 1):
            tensor = runner.stage(index, tensor)
            assert tensor.shape[1:] == bundle.feature_shapes[index - 1]
        logits = np.stack([answer.logits for answer in runner.exit_all(bundle.num_stages, tensor)])

    expected = net((batch - 0.5) / 0.5).numpy() / bundle.temperatures[-1]
    np.testing.assert_allclose(logits, expected, atol=1e-3)
    assert bundle.classes == tuple(sorted(COLORS))


def test_exits_and_bottlenecks_have_learned_the_colors(out):
    scenario = load_scenario(str(out / "colors.toml"))
    outcomes = scenario.outcomes("judge")

    assert outcomes.exit_right.mean(0).min() > 0.7
    assert outcomes.server_right[:, outcomes.payloads.index((1, 8))].mean() > 0.7
    assert outcomes.payload_bytes[:, outcomes.payloads.index((1, 4))].max() < 600
    assert not set(outcomes.files) & set(scenario.outcomes("policy").files)


def test_the_thresholds_written_share_the_pictures_and_calibration_is_told(out):
    scenario = load_scenario(str(out / "colors.toml"))
    held_out = scenario.bundle.provenance["calibration_held_out"]

    assert scenario.grid.thresholds == useful_thresholds(scenario.outcomes("policy"))
    assert held_out["pictures"] == len(scenario.outcomes("judge").label) / 2  # views
    assert len(held_out["error_before"]) == len(held_out["error_after"]) == 2


def test_the_scenario_written_can_be_compared(out, tmp_path, capsys):
    (tmp_path / "traces" / "toy").mkdir(parents=True)
    write_trace(support.trace(), tmp_path / "traces" / "toy" / "toy-0.csv")
    status = cli.main(
        ["compare", str(out / "colors.toml"), "--controllers", "local,jpeg,planner", "--seeds", "1",
         "--traces", str(tmp_path / "traces"), "--out", str(tmp_path / "compared")]
    )  # fmt: skip

    assert status == 0
    assert "planner" in capsys.readouterr().out
    assert (tmp_path / "compared" / "summary.json").is_file()


def test_measuring_again_with_the_command_gives_the_same_answers(out, folder, tmp_path):
    judged = load_scenario(str(out / "colors.toml")).outcomes("judge")
    for file in judged.plain().files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes((folder / file).read_bytes())
    where = ["--subset", "judge", "--views", "2", "--out", str(tmp_path / "again.npz")]

    assert cli.main(["measure", str(out), "--data", str(tmp_path), *where]) == 0
    again = type(judged).load(tmp_path / "again.npz")
    assert again.files == judged.files
    np.testing.assert_array_equal(again.exit_answer, judged.exit_answer)
    np.testing.assert_array_equal(again.payload_bytes, judged.payload_bytes)


def test_the_bundle_tells_what_it_was_made_from_and_no_place(out):
    manifest = json.loads((out / "manifest.json").read_text())

    assert manifest["provenance"]["stages"][-1] == "mean"
    assert manifest["provenance"]["training"]["epochs"] == 10
    assert str(Path.cwd()) not in (out / "manifest.json").read_text()
    assert not list(out.parent.glob("*unfinished*"))
    assert not list(out.parent.glob(".*"))


@pytest.mark.parametrize("fine_tune", [False, True])
def test_an_interrupted_training_goes_on_to_the_same_weights(pictures, tmp_path, fine_tune):
    def train(checkpoint, stop_at=10**9):
        config = BuildConfig(
            num_stages=2, teach=TeachConfig(epochs=2, fine_tune=fine_tune), **PLAIN
        )

        def progress(done, total):
            if done == stop_at:
                raise KeyboardInterrupt

        torch.manual_seed(0)
        model = make_residual().eval()
        before = model.stem[0].weight.detach().clone()
        net = SplitNet(divide_for(model, pictures, config), 3, **PLAIN)
        teach(net, config.teach, pictures.train, checkpoint, "mine", progress)
        assert torch.equal(before, model.stem[0].weight) is not fine_tune
        return net.state_dict()

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "part", stop_at=60)
    expected, resumed = train(tmp_path / "whole"), train(tmp_path / "part")

    for name, value in expected.items():
        assert torch.equal(value, resumed[name]), name


@pytest.fixture
def hears_ctrl_c():
    """Whoever spreads tests over processes may have had them ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("hears_ctrl_c")
def test_a_build_interrupted_while_measuring_goes_on_there(folder, tmp_path):
    pictures = read_own_pictures(folder, SIDE, 24)
    config = BuildConfig(num_stages=2, picture_format="webp", teach=TeachConfig(epochs=0), **PLAIN)
    told = []

    def run(stop_at):
        def progress(phase, done, total):
            told.append((phase, done))
            if (phase, done) == stop_at:
                signal.raise_signal(signal.SIGINT)

        division = divide_for(make_residual().eval(), pictures, config)
        return build(division, pictures, tmp_path / "colors", config, progress)

    with pytest.raises(KeyboardInterrupt):
        run(("measuring judge", 2))
    assert [path.name for path in tmp_path.iterdir()] == ["colors.unfinished"]
    told.clear()
    built = run(None)

    count = len(pictures.judge.files)
    assert [one for one in told if one[0] not in ("training", "timing")] == [
        ("measuring judge", index) for index in range(3, count + 1)
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["colors"]
    assert built.bundle.input_shape == (3, SIDE, 24)
    assert built.bundle.picture_format == "webp"
    whole = measure(built.bundle, labelled(pictures.judge), DecisionGrid(2), subset="judge")
    np.testing.assert_array_equal(built.judge.payload_bytes, whole.payload_bytes)
    np.testing.assert_array_equal(built.judge.server_answer, whole.server_answer)


def test_few_pictures_are_seen_until_every_bottleneck_has_had_its_steps(pictures, tmp_path):
    config = BuildConfig(num_stages=2, teach=TeachConfig(epochs=3), **PLAIN)
    net = SplitNet(divide_for(make_residual().eval(), pictures, config), 3, **PLAIN)
    told = []

    teach(net, config.teach, pictures.train, tmp_path / "at", "mine", lambda *one: told.append(one))

    assert FEWEST_STEPS <= len(told) == told[-1][1] < FEWEST_STEPS + 3


@pytest.mark.parametrize("epochs", [0, 1])
def test_a_checkpoint_of_another_training_is_refused(pictures, tmp_path, epochs):
    config = BuildConfig(num_stages=2, teach=TeachConfig(epochs=epochs), **PLAIN)
    division = divide_for(make_residual().eval(), pictures, config)
    net = SplitNet(division, 3, **PLAIN)
    teach(net, config.teach, pictures.train, tmp_path / "at", "mine")

    with pytest.raises(ConfigError, match=r"at must belong to this model.*remove it"):
        teach(net, config.teach, pictures.train, tmp_path / "at", "yours")


@pytest.mark.parametrize("name", ["vit", "swin", "mobilevit"])  # `out` is of convolutions
def test_a_transformer_becomes_a_bundle_that_answers_as_torch_does(name, folder, tmp_path):
    model, side = make_family(name)
    pictures = read_own_pictures(folder, side)
    config = BuildConfig(num_stages=2, **PLAIN)
    division = divide_for(model.eval(), pictures, config)
    net = SplitNet(division, 3, **PLAIN)

    bundle = export_bundle(
        net, pictures.train.classes, tmp_path / "own", name="own", picture_qualities={4: 45},
        provenance={}, calibration=pictures.policy,
    )  # fmt: skip

    assert bundle.num_stages == 2
    assert np.prod(bundle.code_shapes[1]) < np.prod(bundle.feature_shapes[0])


@torch.no_grad()
def test_what_a_declared_exit_answers_is_kept(pictures):
    config = BuildConfig(**PLAIN)
    model = make_declared().eval()
    net = SplitNet(divide_for(model, pictures, config), 3, **PLAIN).eval()
    batch = pictures.judge.pixels[0].float() / 255
    features = net.features(batch)

    assert [feature.shape[1:] for feature in features] == [(8, 16, 16), (16, 8, 8), (24, 4, 4)]
    torch.testing.assert_close(net.exits[1](features[1]), model.early(features[1]))
    torch.testing.assert_close(net.exits[2](features[2]), model((batch - 0.5) / 0.5))
    assert len(net.attached) == 1 + 2 + 2


def test_a_number_of_views_that_there_is_not_is_refused_before_training():
    with pytest.raises(ConfigError, match="views of a picture must be 1 to 10; got 11"):
        BuildConfig(views=11)


def test_what_exists_is_not_replaced(pictures, tmp_path):
    config = BuildConfig(num_stages=2, **PLAIN)
    division = divide_for(make_residual().eval(), pictures, config)

    with pytest.raises(ConfigError, match="--out must not exist yet"):
        build(division, pictures, tmp_path, config)


def test_an_operator_that_onnx_lacks_is_named(tmp_path):
    class Bessel(torch.nn.Module):
        """An operator that nobody exports."""

        def forward(self, feature):
            """Map a feature to another."""
            return torch.special.bessel_j0(feature)

    with pytest.raises(BundleError, match=r"stage 1 must consist of operators.*bessel_j0"):
        export._export("stage", 1, Bessel(), torch.rand(2, 3, 4, 4), tmp_path)
