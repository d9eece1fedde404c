"""Predicts a profile from counted work and the two roofs of a machine that one does not have."""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime

from adaptive_split.bundle import GRAPH_INPUT, PARTS, ModelBundle
from adaptive_split.codec import decode_feature, encode_feature
from adaptive_split.profile import MEDIANS, P95S, SPREADS, UNAVAILABLE, Profile
from adaptive_split.runtime.peaks import Peaks
from adaptive_split.runtime.profiler import PROFILED_BITS
from adaptive_split.runtime.sensors.power_mode import UNKNOWN

TIMED_RUNS = 50
LEAST_GRAPH_SHARE = 0.1
"""Of an encoder's or decoder's time, as the codec was timed apart: noise must not eat the graph."""
ROOFLINE = "roofline"
"""What stands as the provider of a predicted profile."""


@dataclass(frozen=True, slots=True)
class Work:
    """What one operator does for one picture."""

    operator: str
    flops: float
    """Operations; a multiply-add counts as two."""
    moved_bytes: float
    """Inputs read, weights included, and outputs written once each."""

    def seconds(self, peaks: Peaks) -> float:
        """The roofline: whichever of computing and moving takes longer."""
        return max(self.flops / peaks.gflops, self.moved_bytes / peaks.memory_gbps) / 1e9


Shares = Mapping[str, float]
AT_ROOFS: Shares = dict.fromkeys(PARTS, 1.0)
BundleWork = dict[tuple[str, int], tuple[Work, ...]]
"""Operators of every `(part, index)`."""


def count_work(bundle: ModelBundle) -> BundleWork:
    """Count the operators of every part by running each once under ONNX Runtime's own tracer.

    It tells the shapes that really occur, after constant folding and fusion, so neither the onnx
    package nor anything in the manifest is needed.
    """
    shapes: dict[tuple[str, int], tuple[int, int, int]] = {("stage", 1): bundle.input_shape}
    for index, shape in enumerate(bundle.feature_shapes, start=1):
        shapes |= {(part, index): shape for part in ("exit", "encoder")}
        shapes["stage", index + 1] = shape
    shapes |= {("decoder", index): shape for index, shape in bundle.code_shapes.items()}
    return {
        (part, index): _trace(bundle.file(part, index), shapes[part, index])
        for part, index in bundle.parts
    }


@dataclass(frozen=True, slots=True)
class Coding:
    """What is no graph on one machine: image codec, quantizer, packing and compression."""

    encoder_s: tuple[float, ...]
    """By split point 0..S-1."""
    decoder_s: tuple[float, ...]

    def scaled(self, factor: float) -> Coding:
        """The coding of a machine so many times slower."""
        return Coding(
            tuple(value * factor for value in self.encoder_s),
            tuple(value * factor for value in self.decoder_s),
        )


def time_coding(bundle: ModelBundle, measured: Profile) -> Coding:
    """Time the codec alone here on codes of every shape; the image codec is in the profile."""
    generator = np.random.default_rng(0)
    encoder, decoder = [measured.encoder_s[0]], [measured.decoder_s[0]]
    for _, shape in sorted(bundle.code_shapes.items()):
        codes = generator.beta(1, 3, shape).astype(np.float32)
        payload = encode_feature(codes, PROFILED_BITS)
        encoder.append(_median_s(partial(encode_feature, codes, PROFILED_BITS)))
        decoder.append(_median_s(partial(decode_feature, payload, shape)))
    return Coding(tuple(encoder), tuple(decoder))


def predict(
    bundle: ModelBundle, work: BundleWork, peaks: Peaks, coding: Coding, shares: Shares = AT_ROOFS
) -> Profile:
    """Predict the profile of a machine with these peaks; without spread, and without energy.

    A graph takes the sum of its operators' rooflines, which is the least it can take, over the
    share of the roofline that graphs of its kind reach.

    Args:
        bundle: The model.
        work: What `count_work` found.
        peaks: Of that machine.
        coding: What its codecs take.
        shares: In (0, 1], by kind of part.
    """

    def graph_s(part: str, index: int) -> float:
        return least_s(work.get((part, index), ()), peaks) / shares[part]

    stages, splits = range(1, bundle.num_stages + 1), range(bundle.num_stages)
    medians = (
        tuple(graph_s("stage", index) for index in stages),
        tuple(graph_s("exit", index) for index in stages),
        tuple(coding.encoder_s[split] + graph_s("encoder", split) for split in splits),
        tuple(coding.decoder_s[split] + graph_s("decoder", split) for split in splits),
    )
    fields: dict[str, tuple[float, ...]] = {
        **dict(zip(MEDIANS, medians, strict=True)),
        **dict(zip(P95S, medians, strict=True)),
        **dict.fromkeys(SPREADS, (0.0,) * bundle.num_stages),
    }
    told = ", ".join(f"{part} {share:.2f}" for part, share in shares.items())
    return Profile(
        bundle_hash=bundle.hash,
        machine=f"a machine of {peaks.gflops:g} GFLOP/s and {peaks.memory_gbps:g} GB/s, "
        f"predicted: operators at these shares of their roofline: {told}",
        provider=ROOFLINE,
        power_mode=UNKNOWN,
        num_threads=0,
        scale=1.0,
        spread=0.0,
        compute_w=0.0,
        energy_provenance=UNAVAILABLE,
        energy_source="",
        **fields,
    )


def predict_elsewhere(
    bundle: ModelBundle, work: BundleWork, measured: Profile, here: Peaks, there: Peaks
) -> Profile:
    """Predict another machine's profile from this one's.

    Graphs reach the shares of their roofline that they reach here. Codecs are timed here and taken
    as slower by the ratio of the memory bandwidths, a guess.
    """
    coding = time_coding(bundle, measured)
    slower = here.memory_gbps / there.memory_gbps
    shares = typical_shares(reached(work, measured, here, coding))
    profile = predict(bundle, work, there, coding.scaled(slower), shares)
    told = f"as on [{measured.machine}]; image codec and quantizer {slower:.2f} times its, a guess"
    return replace(profile, machine=f"{profile.machine}, {told}")


def least_s(operators: Iterable[Work], peaks: Peaks) -> float:
    """The time of a graph whose operators all run at their roofline."""
    return sum(one.seconds(peaks) for one in operators)


def reached(
    work: BundleWork, measured: Profile, peaks: Peaks, coding: Coding
) -> dict[tuple[str, int], float]:
    """The share of its roofline that each graph of a measured profile reaches."""
    codecs = {"encoder": coding.encoder_s, "decoder": coding.decoder_s}
    took = times(measured)
    found = {}
    for (part, index), operators in work.items():
        coded_s = codecs[part][index] if part in codecs else 0.0
        graph_s = max(took[part, index] - coded_s, LEAST_GRAPH_SHARE * took[part, index])
        found[part, index] = least_s(operators, peaks) / graph_s
    return found


def typical_shares(shares: Mapping[tuple[str, int], float]) -> dict[str, float]:
    """The median share of each kind of part."""
    return {
        part: median(share for (kind, _), share in shares.items() if kind == part) for part in PARTS
    }


def left_out(shares: Mapping[tuple[str, int], float]) -> dict[tuple[str, int], float]:
    """Predicted over measured time of each graph, its share taken from all others of its kind.

    So the error of `predict_elsewhere` that does not come from the other machine is known. Where a
    kind has one part only, all other parts stand in.
    """
    ratios = {}
    for key, share in shares.items():
        rest = {other: value for other, value in shares.items() if other != key}
        alike = [value for (kind, _), value in rest.items() if kind == key[0]]
        ratios[key] = share / median(alike or rest.values())
    return ratios


def times(profile: Profile) -> dict[tuple[str, int], float]:
    """Median of every `(part, index)`; encoder and decoder 0 are the image codec."""
    return {
        (part, position + (part in ("stage", "exit"))): value
        for part, name in zip(PARTS, MEDIANS, strict=True)
        for position, value in enumerate(getattr(profile, name))
    }


def _trace(file: Path, shape: tuple[int, int, int]) -> tuple[Work, ...]:
    """Run one graph once; give its operators."""
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    # Weights that were packed for a kernel are missing in the trace.
    options.add_session_config_entry("session.disable_prepacking", "1")
    # One level below what is run: the last reorders memory for one processor only.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    with tempfile.TemporaryDirectory() as scratch:
        options.profile_file_prefix = str(Path(scratch) / "trace")
        session = onnxruntime.InferenceSession(
            str(file), options, providers=["CPUExecutionProvider"]
        )
        session.run(None, {GRAPH_INPUT: np.full((1, *shape), 0.5, np.float32)})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return tuple(
        _work(event["args"])
        for event in events
        if event.get("cat") == "Node" and event["name"].endswith("kernel_time")
    )


def _work(told: dict[str, Any]) -> Work:
    """Count one operator from what the tracer told of it."""
    operator = told["op_name"]
    inputs, [output, *_] = (
        [next(iter(shape.values())) for shape in told[f"{side}_type_shape"]]
        for side in ("input", "output")
    )
    elements = math.prod(output)
    if "ConvTranspose" in operator:  # weights (C_in, C_out / groups, h, w)
        flops = 2 * math.prod(inputs[0]) * math.prod(inputs[1][1:])
    elif "Conv" in operator:  # weights (C_out, C_in / groups, h, w)
        flops = 2 * elements * math.prod(inputs[1][1:])
    elif "Gemm" in operator or "MatMul" in operator:  # (..., M, K) x (..., K, N) = (..., M, N)
        flops = 2 * elements * math.prod(inputs[0]) // max(math.prod(output[:-1]), 1)
    else:
        flops = elements
    sizes = ("activation_size", "parameter_size", "output_size")
    return Work(operator, float(flops), float(sum(int(told[size]) for size in sizes)))


def _median_s(run: Callable[[], object]) -> float:
    times = []
    for _ in range(TIMED_RUNS):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return float(np.median(times))
