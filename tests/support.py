"""A toy world for tests: three stages, sixty pictures, links from a generator; no files."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from adaptive_split.bundle import ModelBundle, file_name, write_bundle
from adaptive_split.candidates import CandidateTable, Radio
from adaptive_split.decision import NEVER, DecisionGrid
from adaptive_split.objective import Objective
from adaptive_split.observation import CANDIDATE_COLUMNS, CONTEXT, PAYLOAD_COLUMNS
from adaptive_split.outcomes import Outcomes
from adaptive_split.planner import Moment, combine, link_pairs, read_link
from adaptive_split.profile import Profile
from adaptive_split.runtime.controller import ForecastWeights
from adaptive_split.runtime.simulated.streams import PERIOD_S, WAIT_PERIOD_S, Stream
from adaptive_split.scenario import Camera, Scenario
from adaptive_split.trace import Trace

GRID = DecisionGrid(3, thresholds=(0.4, 0.7, NEVER), bits=(1, 8))
HASH = "a" * 64
NUM_PAYLOAD_COLUMNS = len(PAYLOAD_COLUMNS)


def profile(scale=1.0, compute_w=4.0):
    """Stages of 20, 30 and 60 ms, times `scale`; no two sums of times agree."""

    def times(*milliseconds):
        return tuple(value * 1e-3 * scale for value in milliseconds)

    return Profile(
        bundle_hash=HASH, machine="toy", provider="none", power_mode="", num_threads=1,
        scale=scale, stage_s=times(20.03, 30.11, 60.17), exit_s=times(2.19, 3.23, 4.29),
        encoder_s=times(6.31, 3.37, 2.41), decoder_s=times(5, 4, 3), stage_p95_s=times(21, 31, 61),
        spread=0.0, compute_w=compute_w, energy_provenance="modelled", energy_source="made up",
    )  # fmt: skip


def outcomes(num_samples=60, seed=0, grid=GRID):
    """Answers that get better with depth, bits and the server; sizes that grow with both."""
    generator = np.random.default_rng(seed)
    num_stages, num_payloads = grid.num_stages, len(grid.payloads)
    label = generator.integers(0, 4, num_samples)

    def answers(accuracy):
        right = generator.random((num_samples, len(accuracy))) < accuracy
        return np.where(right, label[:, None], (label[:, None] + 1) % 4)

    depth = np.linspace(0.5, 0.9, num_stages)
    by_payload = np.array([0.8 + 0.015 * bits for _, bits in grid.payloads])
    size = np.array([400.0 * (1 + bits) / (1 + split) for split, bits in grid.payloads])
    return Outcomes(
        bundle_hash=HASH, subset="policy", files=tuple(f"{i}.jpg" for i in range(num_samples)),
        label=label, exit_answer=answers(depth),
        exit_confidence=generator.random((num_samples, num_stages)).round(3),
        payloads=grid.payloads, server_answer=answers(by_payload),
        server_confidence=generator.random((num_samples, num_payloads)),
        payload_bytes=(size * generator.uniform(0.5, 1.5, (num_samples, num_payloads))).astype(int),
    )  # fmt: skip


def table(objective=None, grid=GRID, device=None, seed=0):
    """The candidates of the toy: 17 decisions, 6 payloads; 120 ms in full on the device."""
    return CandidateTable(
        grid, device or profile(), profile(0.1), outcomes(seed=seed, grid=grid),
        objective or Objective(slo_s=0.2, fps=20.0, byte_price=0.5), Radio(),
    )  # fmt: skip


def stream(num_frames=60, seed=0, *, outages=True, fps=20.0, num_samples=60):
    """A link that jumps between rates every half second or so, with outages and a busy server."""
    generator = np.random.default_rng(seed)
    duration_s = num_frames / fps + 2.0
    slots = int(np.ceil(duration_s / PERIOD_S))
    levels = [0.0, 0.05, 0.3, 1.0, 5.0, 40.0] if outages else [0.3, 1.0, 5.0, 40.0]
    rate = np.repeat(generator.choice(levels, slots // 5 + 1), 5)[:slots]
    rtt = np.repeat(generator.choice([0.01, 0.04, 0.12, 1.5], slots // 4 + 1), 4)[:slots]
    wait = generator.exponential(0.01, int(duration_s / WAIT_PERIOD_S))
    samples = generator.integers(0, num_samples, num_frames)
    return Stream("toy", "toy", rate * generator.uniform(0.5, 1.5, slots), rtt, wait, samples,
                  "synthetic")  # fmt: skip


def trace(seed=0, family="toy", duration_s=20.0):
    """A trace like the link of `stream`."""
    generator = np.random.default_rng(seed)
    time_s = np.arange(0, duration_s, 0.5)
    rate = generator.choice([0.0, 0.3, 2.0, 20.0], len(time_s))
    rtt = generator.choice([0.02, 0.08], len(time_s))
    return Trace(f"toy-{seed}", family, time_s, rate, rtt, source="synthetic",
                 rtt_source="synthetic")  # fmt: skip


def toy_bundle(path=Path("toy")):
    """A bundle without graphs."""
    return ModelBundle(
        path=path, name="toy", hash=HASH, classes=("a", "b", "c", "d"), input_shape=(3, 16, 16),
        feature_shapes=((8, 8, 8), (8, 4, 4), (8, 2, 2)),
        code_shapes={1: (4, 8, 8), 2: (4, 4, 4)}, picture_qualities={1: 10, 8: 90},
        temperatures=(1.0, 1.0, 1.0), files={}, provenance={},
    )  # fmt: skip


def scenario(tmp_path, objective=None, num_frames=40):
    """A scenario on the toy, its outcomes saved below `tmp_path`."""
    for index, subset in enumerate(("policy", "judge")):
        outcomes(seed=index).save(tmp_path / f"outcomes_{subset}.npz")
    return Scenario(
        name="toy", bundle=toy_bundle(tmp_path), grid=GRID, device=profile(), server=profile(0.1),
        objective=objective or Objective(slo_s=0.2, fps=20.0, byte_price=0.5),
        camera=Camera(frames_per_stream=num_frames),
    )  # fmt: skip


def moment(lanes=1, seed=0, samples=16, **changes):
    """A plausible moment of some lanes; entries may be replaced by arrays or numbers."""
    generator = np.random.default_rng(seed)
    shape = (lanes, 16)
    known = np.arange(16) < samples

    def window(values):
        return np.where(known, values, np.nan)

    values = {
        "slack_s": generator.uniform(0.03, 0.2, lanes),
        "gap_s": generator.uniform(-0.01, 0.05, lanes),
        "waiting": np.zeros(lanes),
        "sample_mbps": window(np.exp(generator.uniform(-2, 4, shape))),
        "sample_rtt_s": window(generator.uniform(0.005, 0.15, shape)),
        "sample_wait_s": window(generator.exponential(0.01, shape)),
        "sample_slowdown": window(np.ones(shape)),
        "sample_age_s": window(np.cumsum(generator.uniform(0.02, 0.1, shape), 1)),
        "uplink_busy_s": np.zeros(lanes),
        "unanswered_s": np.zeros(lanes),
        "unanswered_bytes": np.zeros(lanes),
        "timeouts": np.zeros(lanes),
        "confidences": generator.random((lanes, 8)),
        "device_slowdown": np.ones(lanes),
        "soc": np.ones(lanes),
        "mission_ratio": np.ones(lanes),
        "energy_price": np.full(lanes, 0.05),
        "server_usable": np.ones(lanes, bool),
    }
    for name, value in changes.items():
        values[name] = np.broadcast_to(value, np.shape(values[name])).copy()
    return Moment(**values)


def write_toy_bundle(path):
    """The toy as files: a bundle whose graphs are empty, its profiles and outcomes."""
    path.mkdir()
    for part, index in toy_bundle().parts:
        (path / file_name(part, index)).write_bytes(b"")
    bundle = write_bundle(
        path, name="toy", classes=("a", "b", "c", "d"), input_shape=(3, 16, 16),
        feature_shapes=toy_bundle().feature_shapes, code_shapes=toy_bundle().code_shapes,
        picture_qualities={1: 10, 8: 90}, temperatures=(1.0, 1.0, 1.0), provenance={},
    )  # fmt: skip
    for side, scale in (("device", 1.0), ("server", 0.1)):
        replace(profile(scale), bundle_hash=bundle.hash).save(path / f"profile_{side}.json")
    for index, subset in enumerate(("policy", "judge")):
        found = replace(outcomes(seed=index), bundle_hash=bundle.hash, subset=subset)
        found.save(path / f"outcomes_{subset}.npz")
    return bundle


def weights(seed=None, payload_columns=NUM_PAYLOAD_COLUMNS, width=8):
    """Networks of a forecast controller: untrained, or with a seed full of noise."""
    generator = np.random.default_rng(seed)
    context, own = len(CONTEXT), len(CANDIDATE_COLUMNS)

    def net(*sizes):
        layers = []
        for before, after in pairwise(sizes):
            layers += [generator.normal(0, 0.2, (before, after)), generator.normal(0, 0.2, after)]
        if seed is None:
            layers[-2:] = [0 * layers[-2], 0 * layers[-1]]
        return [layer.astype(np.float32) for layer in layers]

    first = net(context, width, width) if seed is not None else net(context, width, width, 1)[:4]
    return ForecastWeights(
        context_mean=np.zeros(context, np.float32), context_scale=np.ones(context, np.float32),
        payload_mean=np.zeros(payload_columns, np.float32),
        payload_scale=np.ones(payload_columns, np.float32),
        forecast=(*first, *net(width + payload_columns, width, width, 1)),
        residual=tuple(net(context + payload_columns + own + 1, width, width, 1)),
    )  # fmt: skip


def on_time(table, view):
    """The distribution planner's chance of every payload, shape `(L, P)`."""
    return read_link(table, view.moment, *link_pairs(view.moment)).share()


def planned_utility(table, view):
    """What the distribution planner expects of every candidate, shape `(L, N)`."""
    return combine(table, view.base, view.gain, on_time(table, view))
