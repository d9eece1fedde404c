"""What ONNX Runtime really computes with here, and where engines are kept."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime

from adaptive_split.bundle import GRAPH_INPUT, GRAPH_OUTPUT, ModelBundle
from adaptive_split.errors import ConfigError
from adaptive_split.runtime.doctor.finding import Finding, green, red, yellow
from adaptive_split.runtime.providers import (
    CPU,
    CUDA,
    PROVIDERS,
    TENSORRT,
    engine_folder,
    open_first_stage,
)
from adaptive_split.runtime.sensors.power_mode import power_mode
from adaptive_split.runtime.stages import Tensor

_TOLERANCE = 0.05
"""Of the largest value: providers may compute in half precision."""


def examine_providers(bundle: ModelBundle, is_jetson: bool) -> Iterator[Finding]:
    """Stage 1 on every provider that this ONNX Runtime offers, compared with the CPU.

    Args:
        bundle: The model.
        is_jetson: Whether a GPU is there to be used.
    """
    offered = onnxruntime.get_available_providers()
    version = f"ONNX Runtime {onnxruntime.__version__}"
    picture = np.random.default_rng(0).random((1, *bundle.input_shape), np.float32)
    try:
        _, expected = _run(CPU, bundle, picture)
    except ConfigError as error:
        yield red("provider cpu", str(error), "install onnxruntime again: no model runs without it")
        return
    for name, full_name in PROVIDERS.items():
        if full_name in offered:
            yield _provider(name, full_name, bundle, picture, expected)
    if is_jetson and not {CUDA, TENSORRT} & set(offered):
        yield yellow(
            "provider cuda", f"{version} has none: the GPU stays idle",
            "install NVIDIA's ONNX Runtime for this JetPack, then adaptive-split with --no-deps",
        )  # fmt: skip
    if TENSORRT in offered:
        yield from _engines(bundle)


def _provider(
    name: str, full_name: str, bundle: ModelBundle, picture: Tensor, expected: Tensor
) -> Finding:
    subject = f"provider {name}"
    try:
        took_s, got = _run(full_name, bundle, picture)
    except ConfigError as error:
        return yellow(
            subject, str(error), "look at what is missing: often CUDA, cuDNN or TensorRT libraries "
            "of another version; --provider cpu works"
        )  # fmt: skip
    off = float(np.abs(got - expected).max() / max(float(np.abs(expected).max()), 1e-9))
    found = f"ONNX Runtime {onnxruntime.__version__}: stage 1 in {1e3 * took_s:.1f} ms"
    if off > _TOLERANCE:
        return red(
            subject, f"{found}, off the CPU by {off:.0%}", "do not use it: answers would be wrong"
        )
    return green(subject, found)


def _run(provider: str, bundle: ModelBundle, picture: Tensor) -> tuple[float, Tensor]:
    """The second run's seconds and output; the first may compile.

    Raises:
        ConfigError: If it does not start or fails.
    """
    session = open_first_stage(provider, bundle)
    try:
        session.run([GRAPH_OUTPUT], {GRAPH_INPUT: picture})
        begin_s = time.perf_counter()
        output = session.run([GRAPH_OUTPUT], {GRAPH_INPUT: picture})[0]
    except Exception as error:  # ONNX Runtime raises bare classes of its own
        raise ConfigError(f"{provider} must run stage 1; got {error}") from error
    return time.perf_counter() - begin_s, output


def _engines(bundle: ModelBundle) -> Iterator[Finding]:
    folder = engine_folder(bundle.hash, TENSORRT, power_mode())
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(existing, os.W_OK):
        yield red(
            "engine cache", f"{folder} cannot be written",
            "let the service write it, or set XDG_CACHE_HOME: engines take minutes to build",
        )  # fmt: skip
        return
    count = sum(1 for _ in Path(folder).glob("*.engine"))
    if count:
        yield green("engine cache", f"{count} engines in {folder}")
    else:
        yield yellow(
            "engine cache", f"none yet in {folder}",
            "run 'adaptive-split profile --provider tensorrt' once, or the first start takes "
            "minutes",
        )  # fmt: skip
