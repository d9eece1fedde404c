"""A controller goes on from deployed weights, and only a safe one is shipped."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium import spaces

from adaptive_split import cli
from adaptive_split.agents.continued import MixedBuffer, load_weights, networks_of
from adaptive_split.agents.from_logs import Learned, Verdict, check_controller
from adaptive_split.agents.intervals import Estimate
from adaptive_split.agents.networks import Forecast, Residual, export_weights
from adaptive_split.agents.off_policy import Judged
from adaptive_split.agents.sac import UNKNOWN
from adaptive_split.cli.train_from_logs import found
from adaptive_split.decision import NEVER, DecisionGrid
from adaptive_split.errors import BundleError
from adaptive_split.observation import CONTEXT
from adaptive_split.planner import BacklogPrices
from adaptive_split.runtime.controller import forecast, value_residual
from adaptive_split.runtime.controller_bundle import ControllerBundle
from tests import support


def some_weights():
    """Exported networks full of noise."""
    generator = torch.Generator().manual_seed(0)
    nets = (Forecast(), Residual())
    with torch.no_grad():
        for net in nets:
            for values in (*net.parameters(), *net.buffers()):
                values.copy_(torch.rand(values.shape, generator=generator) + 0.1)
    return export_weights(*nets)


def arrays(weights):
    names = ("context_mean", "context_scale", "payload_mean", "payload_scale")
    return [*(getattr(weights, name) for name in names), *weights.forecast, *weights.residual]


def test_exported_weights_come_back_as_they_were():
    weights, nets = some_weights(), (Forecast(), Residual())

    load_weights(*nets, weights)

    for ours, theirs in zip(arrays(export_weights(*nets)), arrays(weights), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_weights_of_fewer_context_columns_give_the_same_chances_and_values():
    weights, nets, known = some_weights(), (Forecast(), Residual()), len(CONTEXT) - 2
    first, inner = weights.forecast[0][:known], weights.residual[0]
    older = replace(
        weights, context_mean=weights.context_mean[:known],
        context_scale=weights.context_scale[:known], forecast=(first, *weights.forecast[1:]),
        residual=(np.delete(inner, [known, known + 1], axis=0), *weights.residual[1:]),
    )  # fmt: skip
    generator = np.random.default_rng(0)
    context = generator.normal(size=(5, len(CONTEXT)))
    payloads = generator.normal(size=(5, 4, support.NUM_PAYLOAD_COLUMNS))
    own, chance = generator.normal(size=(5, 6, 5)), generator.random((5, 4))
    index = np.array([0, 1, 2, 3, -1, -1])

    load_weights(*nets, older)

    now = export_weights(*nets)
    np.testing.assert_allclose(
        forecast(now, context, payloads), forecast(older, context, payloads), rtol=1e-5
    )
    np.testing.assert_allclose(
        value_residual(now, context, payloads, own, chance, index),
        value_residual(older, context, payloads, own, chance, index), rtol=1e-4,
    )  # fmt: skip


def test_weights_of_another_size_are_refused():
    with pytest.raises(BundleError, match="a layer of the controller must have the shape"):
        load_weights(Forecast(), Residual(), support.weights(seed=0, width=8))


def test_networks_are_taken_with_full_trust_and_in_todays_shape():
    weights, known = some_weights(), len(CONTEXT) - 2
    older = replace(
        weights, context_mean=weights.context_mean[:known],
        context_scale=weights.context_scale[:known],
        forecast=(weights.forecast[0][:known], *weights.forecast[1:]),
        residual=(np.delete(weights.residual[0], [known, known + 1], 0), *weights.residual[1:]),
    )  # fmt: skip

    taken = networks_of(bundle(weights=older, provenance={"trust": 0.5}))

    assert taken.context_mean.size == len(CONTEXT)
    np.testing.assert_allclose(taken.forecast[-2], 2 * weights.forecast[-2], rtol=1e-6)
    np.testing.assert_allclose(taken.forecast[2], weights.forecast[2])


@pytest.mark.parametrize("trust", [0, None, "full"])
def test_networks_that_were_scaled_by_nobody_knows_what_are_refused(trust):
    with pytest.raises(BundleError, match="must hold a positive trust; got"):
        networks_of(bundle(provenance={"trust": trust}))


def test_half_of_a_batch_is_recorded():
    box = spaces.Box(-9, 9, (3,), np.float32)
    buffer = MixedBuffer(
        4, box, spaces.Discrete(2), "cpu", num_payloads=2,
        recorded=np.full((7, 3), 5, np.float32), labels=np.array([[1, UNKNOWN]] * 7, np.int8),
    )  # fmt: skip
    ones = np.ones((1, 3), np.float32)
    for _ in range(4):
        infos = [{"payload_on_time": [0, 0]}]
        buffer.add(ones, ones, np.zeros((1, 1)), np.ones(1), np.zeros(1), infos)

    batch = buffer.draw(8)

    assert {len(values) for values in batch.values()} == {8}
    assert (batch["observation"] == 5).all(1).sum() == 4
    assert batch["on_time"].tolist() == [[0, 0]] * 4 + [[1, UNKNOWN]] * 4


def verdict(validation_gain=0.0, gain=0.0, half=0.01):
    level = Estimate(0.7, 0.69, 0.71)
    judged = Judged(level, level, Estimate(gain, gain - half, gain + half), 0.9)
    return Verdict(0.8, 0.8 + validation_gain, judged)


@pytest.mark.parametrize("found", [verdict(), verdict(0.01, 0.02), verdict(gain=-0.0015)])
def test_a_controller_that_loses_nothing_passes(found):
    assert found.passes


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (verdict(-0.0004), "validation utility must not fall; it fell by 0.0004"),
        (verdict(gain=-0.003), "held-out frames must fall by at most 0.0020; it fell by 0.0030"),
        (verdict(gain=-0.001, half=0.0004), "must fall by at most 0.0004; it fell by 0.0010"),
    ],
)
def test_a_controller_that_loses_is_refused_with_the_reason(found, reason):
    assert not found.passes
    assert any(reason in each for each in found.reasons)


def bundle(**changes):
    usual = ControllerBundle(
        weights=some_weights(), prices=BacklogPrices(), guard_candidate=2, guard_margin=None,
        model_hash=support.HASH, grid=support.GRID, tuned={}, provenance={},
    )  # fmt: skip
    return replace(usual, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_hash": "b" * 64}, "the controller was trained with model bundle bbbbbbbbbbbb"),
        ({"grid": DecisionGrid(3, (0.5, NEVER), (1, 8))}, "scenario's decision grid"),
        ({"adapts": False}, "must be one that adapts; it keeps one decision"),
    ],
)
def test_a_controller_that_cannot_go_on_is_refused(tmp_path, changes, message):
    with pytest.raises(BundleError, match=message):
        check_controller(bundle(**changes), support.scenario(tmp_path))


def test_the_table_tells_both_scores_and_the_verdict():
    shown = " ".join(found(Learned(bundle(), verdict(0.002, 0.003), 400, 200)).split())

    assert "validation, simulated 0.8000 0.8020 +0.0020" in shown
    assert "+0.0030 [-0.0070, +0.0130]" in shown
    assert "trained on 400 recorded frames, judged on 200, of which 90 % are decided alike" in shown
    assert shown.endswith("verdict: passes")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--from-logs", "a.jsonl"], "--from-logs and --controller-bundle must be given together"),
        (["--controller-bundle", "dir"], "must be given together"),
        (
            ["nano-30fps", "--from-logs", "a.jsonl", "--controller-bundle", "dir"],
            "--from-logs must come with one scenario",
        ),
        (
            ["--force-export", "--from-logs", "a.jsonl", "--controller-bundle", "dir"],
            "its gate is not forced",
        ),
        (["--from-logs", "none.jsonl", "--controller-bundle", "none"], "must hold"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(arguments, message, tmp_path, capsys):
    out = str(tmp_path / "out")

    assert cli.main(["train", "default", *arguments, "--out", out]) == cli.FAILED
    assert message in capsys.readouterr().err
