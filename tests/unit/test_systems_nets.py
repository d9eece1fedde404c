"""The experiments on BranchyNet, DDNN and SAC-d: their rules, their arithmetic, their files."""

from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from adaptive_split.agents.sb3_env import TraceVecEnv
from adaptive_split.bundle import ModelBundle, bundle_path
from adaptive_split.envs.vector_env import TraceVectorEnv
from adaptive_split.errors import ConfigError
from adaptive_split.models.pictures import LabelledPictures
from adaptive_split.outcomes import Outcomes
from adaptive_split.profile import Profile
from adaptive_split.scenario import load_scenario
from adaptive_split.trace_sets import shipped
from experiments.systems import alexnet, branchynet, common, ddnn, discrete_sac

FINDING = common.Finding(
    system="S", paper="P, arXiv 1", claim="C | 2", command="python -m x", measured="M",
    verdict="partly", sentence="it does",
)  # fmt: skip
GARMENTS = ModelBundle.load(bundle_path("garments"))


@pytest.fixture(scope="module")
def outcomes():
    return Outcomes.load(GARMENTS.path / "outcomes_policy.npz").plain()


@pytest.fixture(scope="module")
def profile():
    return Profile.load(GARMENTS.path / "profile_server.json")


@pytest.fixture(scope="module")
def pictures():
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (1, 16, 3, 64, 64), generator=generator, dtype=torch.uint8)
    labels = torch.arange(16) % alexnet.NUM_CLASSES
    return LabelledPictures(pixels, labels, tuple(map(str, range(16))), tuple("abcdefghij"))


def test_a_finding_comes_back_from_its_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    figure = common.chart("T", [common.Series(name="a", x=[1], y=[2])], x_title="x", y_title="y")

    common.publish("toy", FINDING, ddnn.DdnnConfig(), {"n": 1}, figure)

    assert common.load_finding("toy") == FINDING
    assert common.figure_path("toy").is_file()
    assert "C \\| 2" in capsys.readouterr().out


def test_a_finding_that_was_not_measured_names_its_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ConfigError, match=r"python -m experiments\.systems\.toy"):
        common.load_finding("toy")


@pytest.mark.parametrize(
    ("change", "message"),
    [({"verdict": "maybe"}, "verdict must be one of"), ({"measured": " "}, "must have a measured")],
)
def test_a_finding_without_verdict_or_number_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        replace(FINDING, **change)


@pytest.mark.parametrize("name", ["branchynet", "ddnn", "sac_d"])
def test_a_published_system_has_a_finding_and_a_figure_that_stands_alone(name):
    finding = common.load_finding(name)
    figure = common.figure_path(name).read_text(encoding="utf-8")

    assert finding.command == f"python -m experiments.systems.{name}"
    assert ElementTree.fromstring(figure).tag == "{http://www.w3.org/2000/svg}svg"
    assert "prefers-color-scheme: dark" in figure


def test_a_chart_writes_its_titles_legend_and_levels():
    series = [common.Series(name="a < b", x=[1, 10, 100], y=[0.1, 0.2, 0.3])]

    svg = common.chart("T", series, x_title="X", y_title="Y", log_x=True, marks={"bar": 0.5})

    words = {text.text for text in ElementTree.fromstring(svg).iter() if text.text}
    assert {"T", "X", "Y", "a < b", "bar", "1", "10", "100"} <= words


def test_communication_is_as_in_the_papers_table():
    shape = (4, 16, 16)  # 4 filters of 256 elements, 3 classes

    found = [float(ddnn.communication_bytes(3, share, shape)) for share in (0.0, 0.6082, 1.0)]

    np.testing.assert_allclose(found, [140, 62, 12], atol=0.2)


def test_a_higher_threshold_lets_more_pictures_leave_and_sends_less(outcomes):
    played = [ddnn.play(GARMENTS, outcomes, 3, t, 1) for t in (0.1, 0.5, 0.9, 1.0)]

    assert (np.diff([one.local.mean() for one in played]) >= 0).all()
    assert (np.diff([one.sent_bytes.mean() for one in played]) <= 0).all()
    assert played[-1].local.all()
    assert played[-1].formula_bytes.mean() == 4 * len(GARMENTS.classes)


def test_at_threshold_one_ddnn_is_its_exit(outcomes):
    played = ddnn.play(GARMENTS, outcomes, 2, 1.0, 1)

    np.testing.assert_array_equal(played.right, outcomes.exit_right[:, 1])


def test_what_is_picked_on_one_half_is_judged_on_the_other(outcomes):
    config = ddnn.DdnnConfig(thresholds=(0.3, 1.0))
    wrong = replace(outcomes, label=(outcomes.label + 1) % len(GARMENTS.classes))

    found = ddnn.judge(GARMENTS, [outcomes, wrong], [4], config)

    assert found["picks"][0] == ddnn.pick(GARMENTS, outcomes, [4], config)
    assert found["picks"][1] == ddnn.pick(GARMENTS, wrong, [4], config)


def test_a_picture_that_leaves_early_costs_the_stages_and_exits_before_it(outcomes, profile):
    thresholds = np.array([[0.0, 0.0, 0.0, 0.0], [2.0, 0.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0]])

    right, seconds = branchynet.play(outcomes, profile, thresholds)

    first, second = profile.stage_s[:2]
    expected = [
        sum(profile.stage_s) + profile.exit_s[-1], first + profile.exit_s[0],
        first + second + profile.exit_s[1],
    ]  # fmt: skip
    np.testing.assert_allclose(seconds, np.repeat([expected], seconds.shape[1], 0).T)
    np.testing.assert_array_equal(right, outcomes.exit_right[:, [-1, 0, 1]].T)


def test_thresholds_are_picked_for_speed_among_those_that_lose_nothing(outcomes, profile):
    settings = np.array([[0.0] * 4, [0.0, 0.0, 0.0, 1e-3], [0.9] * 4])

    chosen = branchynet.pick(outcomes, profile, settings, tolerance=0.01)
    careless = branchynet.pick(outcomes, profile, settings, tolerance=1.0)

    _, seconds = branchynet.play(outcomes, profile, settings)
    assert seconds[chosen].mean() == min(seconds[0].mean(), seconds[1].mean())
    assert careless == 2


def test_the_stages_and_the_last_exit_are_the_network():
    net = alexnet.AlexNet().eval()
    batch = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))

    stages, exits = net.split_stages()
    feature = batch
    for stage in stages:
        feature = stage(feature)

    assert torch.equal(exits[-1](feature), net(batch))
    assert torch.equal(net.all_logits(batch)[-1], net(batch))


@pytest.mark.slow
def test_an_interrupted_training_of_the_network_ends_the_same(tmp_path, pictures):
    config = alexnet.AlexNetConfig(epochs=6, batch_size=16)
    whole = alexnet.train(config, pictures, tmp_path / "whole.pt", print)

    def stop(line):
        raise KeyboardInterrupt(line)

    with pytest.raises(KeyboardInterrupt, match="epoch 5/6"):
        alexnet.train(config, pictures, tmp_path / "parts.pt", stop)
    parts = alexnet.train(config, pictures, tmp_path / "parts.pt", print)

    ours, theirs = whole.state_dict(), parts.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_checkpoint_of_another_training_is_refused(tmp_path, pictures):
    config = alexnet.AlexNetConfig(epochs=1, batch_size=8)
    alexnet.train(config, pictures, tmp_path / "net.pt", print)

    with pytest.raises(ConfigError, match="must belong to"):
        alexnet.train(replace(config, seed=1), pictures, tmp_path / "net.pt", print)


def test_without_exits_the_side_exits_learn_nothing(tmp_path, pictures):
    config = alexnet.AlexNetConfig(epochs=1, batch_size=8, exit_weights=(0.0, 0.0, 0.0, 1.0))
    torch.manual_seed(config.seed)
    fresh = alexnet.AlexNet()

    net = alexnet.train(config, pictures, tmp_path / "net.pt", print)

    assert torch.equal(net.exits[0][3].weight, fresh.exits[0][3].weight)
    assert not torch.equal(net.exits[-1][2].weight, fresh.exits[-1][2].weight)


def test_discrete_sac_finds_the_action_that_pays():
    torch.manual_seed(0)
    config = discrete_sac.DiscreteSacConfig(target_entropy=0.1, gamma=0.0, width=16)
    net = discrete_sac.DiscreteSac(4, config)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    context = torch.randn(64, discrete_sac.NUM_INPUTS)

    for _ in range(60):
        action = torch.randint(4, (64,))
        reward = (action == 2).float()
        batch = {"context": context, "next": context, "action": action, "reward": reward}
        optimizer.zero_grad()
        torch.stack(net.losses(batch)).sum().backward()
        optimizer.step()
        net.move_targets()

    assert (net.choose(context.numpy(), greedy=True) == 2).all()


@pytest.mark.slow
def test_a_training_keeps_the_best_of_its_checkpoints():
    config = discrete_sac.DiscreteSacConfig(
        num_frames=256, num_envs=16, warmup_frames=64, checkpoints=4, width=16, batch_size=32
    )
    env = TraceVecEnv(TraceVectorEnv(load_scenario("default"), shipped("train")[:2], 16))
    values, seen = iter([0.1, 0.4, 0.2, 0.3]), []

    def judge(net):
        seen.append(net.actor[0].weight.detach().clone())
        return next(values)

    net, curve = discrete_sac.train(env, config, judge)

    assert curve == [(64, 0.1), (128, 0.4), (192, 0.2), (256, 0.3)]
    assert torch.equal(net.actor[0].weight, seen[1])
    assert not torch.equal(seen[0], seen[3])
    assert (net.spread != 1).any()
