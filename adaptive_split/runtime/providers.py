"""What ONNX Runtime computes with, and where engines that take minutes to build are kept."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnxruntime

from adaptive_split.bundle import ModelBundle
from adaptive_split.errors import ConfigError
from adaptive_split.runtime.sensors.power_mode import power_mode

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
PROVIDERS = {"cpu": CPU, "cuda": CUDA, "tensorrt": TENSORRT}
"""By their names on a command line."""

Provider = str | tuple[str, dict[str, str]]
"""A name, or a name with options, as ONNX Runtime takes them."""


def engine_folder(bundle_hash: str, provider: str, mode: str) -> Path:
    """Where engines of a bundle are kept for a provider in a power mode of this machine.

    TensorRT picks kernels by timing them, so engines of another power mode are not the fastest; it
    tells those of other GPUs and versions apart itself, by their file names.
    """
    given = os.environ.get("CACHE_DIRECTORY", "").split(":")[0]  # as systemd sets it for a service
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    base = Path(given) if given else Path(cache) / "adaptive-split"
    plain = re.sub(r"[^A-Za-z0-9]+", "-", mode).strip("-").lower()
    return base / "engines" / f"{bundle_hash[:16]}-{provider.lower()}-{plain}"


def with_options(providers: Sequence[str], bundle_hash: str) -> list[Provider]:
    """Providers as a session takes them: TensorRT keeps its engines, and CUDA does what it cannot.

    CUDA's own provider builds nothing that would be worth keeping.

    Raises:
        ConfigError: If there is no room for engines.
    """
    found: list[Provider] = []
    for name in providers:
        if name != TENSORRT:
            found.append(name)
            continue
        folder = engine_folder(bundle_hash, name, power_mode())
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"the folder of engines must be one that can be made; got {folder}: {error}; set "
                "XDG_CACHE_HOME"
            ) from error
        options = {
            "trt_engine_cache_enable": "1", "trt_engine_cache_path": str(folder),
            "trt_timing_cache_enable": "1", "trt_timing_cache_path": str(folder),
        }  # fmt: skip
        found += [(name, options), CUDA]
    return found


def open_first_stage(provider: str, bundle: ModelBundle) -> Any:
    """A session of stage 1 that really computes with a provider.

    ONNX Runtime leaves a provider that does not start out for the CPU, and only warns.

    Raises:
        ConfigError: If this machine's ONNX Runtime lacks the provider or it does not start.
    """
    offered = onnxruntime.get_available_providers()
    problem = f"got {provider}"
    if provider in offered:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        try:
            session = onnxruntime.InferenceSession(
                str(bundle.file("stage", 1)),
                options,
                providers=with_options([provider], bundle.hash),
            )
            if provider in session.get_providers():
                return session
        except Exception as error:  # ONNX Runtime raises bare classes of its own
            problem = f"{problem}: {error}"
    raise ConfigError(
        f"provider must be one that starts here, of {', '.join(offered)}; {problem}; "
        "install an ONNX Runtime with it, and what it needs"
    )
