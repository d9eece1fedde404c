"""Measures how long every part of a bundle takes on this machine."""

from __future__ import annotations

import platform
import re
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptive_split.bundle import PARTS, ModelBundle
from adaptive_split.codec import decode_feature, decode_picture, encode_feature, encode_picture
from adaptive_split.errors import ConfigError
from adaptive_split.profile import (
    MEASURED,
    MEDIANS,
    MODELLED,
    P95S,
    SPREADS,
    UNAVAILABLE,
    Profile,
)
from adaptive_split.runtime.providers import CPU, open_first_stage
from adaptive_split.runtime.sensors.boards import board_name
from adaptive_split.runtime.sensors.energy import EnergyMeter
from adaptive_split.runtime.sensors.power_mode import power_mode
from adaptive_split.runtime.stages import StageRunner

PROFILED_BITS = 4
"""Width (and rung of the image codec) that encoders and decoders are timed at."""
NANO_FULL_S = 0.190
NANO_COMPUTE_W = 2.58
NANO_SOURCE = "MAHPPO env/data.py: Jetson Nano, 5 W mode, VGG11 full: 0.488 J in 0.189 s"
PI_COMPUTE_W = 1.5 * NANO_COMPUTE_W
"""7.5 times the Nano's energy in 5 times its time."""
PI_SOURCE = (
    "Raspberry Pi 4 as 5x the Nano's time and 7.5x its energy: reference sweep's scaling guess"
)

IDLE_S = 2.0
"""How long a machine that counts joules rests first, to know what resting takes."""

_Times = dict[tuple[str, int], float]
"""Seconds of one run of every part, by `(part, index)`."""


def profile_bundle(
    bundle: ModelBundle,
    *,
    num_threads: int = 1,
    provider: str = CPU,
    repeats: int = 100,
    warmup: int = 10,
    meter: EnergyMeter | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> Profile:
    """Time every part of one bundle; see `profile_bundles`."""
    [profile] = profile_bundles(
        (bundle,), num_threads=num_threads, provider=provider, repeats=repeats, warmup=warmup,
        meter=meter, progress=progress,
    )  # fmt: skip
    return profile


def profile_bundles(
    bundles: Sequence[ModelBundle],
    *,
    num_threads: int = 1,
    provider: str = CPU,
    repeats: int = 100,
    warmup: int = 10,
    meter: EnergyMeter | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> tuple[Profile, ...]:
    """Time every part of every bundle at batch size 1, all in turn in every repeat.

    So what slows the machine for a while slows all alike, and their ratios hold. An encoder's
    time holds graph, quantizer, packing and compression; a decoder's the way back. Entry 0 is the
    image codec: JPEG on the device; on the server JPEG and `prepare`. A picture is drawn that
    compresses like a photo.

    Args:
        bundles: The models.
        num_threads: Threads of ONNX Runtime.
        provider: Execution provider of ONNX Runtime, by its full name.
        repeats: Timed rounds.
        warmup: Rounds before those, not timed.
        meter: Counts joules meanwhile; without one, energy is `unavailable`. What is kept is the
            mean power of the timed rounds above that of `IDLE_S` of rest before them.
        progress: Called with the number of rounds done after each.

    Raises:
        ConfigError: If this machine's ONNX Runtime lacks the provider.
    """
    if repeats < 1 or warmup < 0:
        raise ConfigError(f"repeats must be positive, warmup not negative; got {repeats}, {warmup}")
    open_first_stage(provider, bundles[0])
    rounds: list[list[_Times]] = []
    with ExitStack() as stack:
        runners = [
            stack.enter_context(
                StageRunner(
                    bundle, num_threads=num_threads, providers=(provider,), parts=bundle.parts
                )
            )
            for bundle in bundles
        ]
        pictures = [_typical_picture(*bundle.input_shape[1:]) for bundle in bundles]
        gauge = None if meter is None else _Gauge(meter)
        for index in range(warmup + repeats):
            if index == warmup and gauge is not None:
                gauge.begin()
            rounds.append([_time_round(*pair) for pair in zip(runners, pictures, strict=True)])
            progress(index + 1)
        energy = {} if gauge is None else gauge.finish()
    timed = zip(*rounds[warmup:], strict=True)
    return tuple(
        replace(_summarize(bundle, times, num_threads, provider), **energy)
        for bundle, times in zip(bundles, timed, strict=True)
    )


class _Gauge:
    """Mean power of what runs between `begin` and `finish`, above that of a rest before."""

    def __init__(self, meter: EnergyMeter) -> None:
        self._meter = meter
        before_j, before_s = meter.energy_j(), time.perf_counter()
        time.sleep(IDLE_S)
        self._idle_w = (meter.energy_j() - before_j) / (time.perf_counter() - before_s)
        self.begin()

    def begin(self) -> None:
        """Count from here."""
        self._began_j, self._began_s = self._meter.energy_j(), time.perf_counter()

    def finish(self) -> dict[str, Any]:
        """What a profile tells of its energy."""
        spent_j = self._meter.energy_j() - self._began_j
        busy_w = spent_j / (time.perf_counter() - self._began_s)
        return {
            "compute_w": max(busy_w - self._idle_w, 0.0),
            "energy_provenance": MEASURED,
            "energy_source": f"{self._meter.source}; above {self._idle_w:.2f} W at rest",
        }


def with_watts(profile: Profile, watts: float, source: str) -> Profile:
    """Model the energy of a profile: so many watts while computing, as `source` has it."""
    if not 0 < watts < 10_000:
        raise ConfigError(f"watts must lie in (0, 10000); got {watts!r}")
    return replace(
        profile, compute_w=watts, energy_provenance=MODELLED, energy_source=source
    )  # fmt: skip


def nano_class(profile: Profile, full_s: float = NANO_FULL_S) -> Profile:
    """Model a Jetson Nano in 5 W mode: every time scaled so that the full model takes `full_s`.

    The image codec is scaled by the same factor, though a real Nano has hardware for it; the
    power is a published measurement of another network.
    """
    return replace(
        _scaled_to(profile, full_s, "Jetson Nano 5 W class"),
        power_mode="5 W",
        compute_w=NANO_COMPUTE_W,
        energy_provenance=MODELLED,
        energy_source=NANO_SOURCE,
    )


def pi_class(profile: Profile, full_s: float) -> Profile:
    """Model a Raspberry Pi 4: every time scaled so that the full model takes `full_s`.

    The power is a guess from the Nano's; the image codec is scaled by the same factor.
    """
    return replace(
        _scaled_to(profile, full_s, "Raspberry Pi 4 class"),
        compute_w=PI_COMPUTE_W,
        energy_provenance=MODELLED,
        energy_source=PI_SOURCE,
    )


def _scaled_to(profile: Profile, full_s: float, device: str) -> Profile:
    """Scale every time by one factor and say so in `machine`."""
    factor = full_s / profile.full_s
    machine = (
        f"{device}, modelled: every time of [{profile.machine}], image codec "
        f"included, times {factor:.2f}, so that all stages and exits take {1e3 * full_s:.0f} ms"
    )
    return profile.scaled(factor, machine)


def _summarize(
    bundle: ModelBundle, rounds: Sequence[_Times], num_threads: int, provider: str
) -> Profile:
    """Take medians, 95th percentiles and spreads of every part over the rounds."""
    found: dict[str, tuple[float, ...]] = {}
    for part, *names in zip(PARTS, MEDIANS, P95S, SPREADS, strict=True):
        indices = sorted(index for name, index in rounds[0] if name == part)
        times = np.array([[one[part, index] for index in indices] for one in rounds])
        low, middle, high, late = np.percentile(times, (25, 50, 75, 95), axis=0)
        for name, values in zip(names, (middle, late, (high - low) / middle), strict=True):
            found[name] = tuple(map(float, values))
    return Profile(
        bundle_hash=bundle.hash,
        machine=machine_name(),
        provider=provider,
        power_mode=power_mode(),
        num_threads=num_threads,
        scale=1.0,
        spread=float(np.median(np.concatenate([found[name] for name in SPREADS]))),
        compute_w=0.0,
        energy_provenance=UNAVAILABLE,
        energy_source="",
        **found,
    )


def _time_round(runner: StageRunner, pixels: NDArray[np.uint8]) -> _Times:
    """Run every part once."""
    bundle = runner.bundle
    times: _Times = {}
    now = time.perf_counter
    quality = bundle.picture_qualities[PROFILED_BITS]

    start = now()
    payload = encode_picture(pixels, quality, bundle.picture_format)
    sent = now()
    shown = decode_picture(payload, bundle.input_shape[1:], bundle.picture_format)
    tensor = runner.prepare(shown)
    times["encoder", 0], times["decoder", 0] = sent - start, now() - sent
    for index in range(1, bundle.num_stages + 1):
        start = now()
        tensor = runner.stage(index, tensor)
        staged = now()
        runner.exit(index, tensor)
        times["stage", index], times["exit", index] = staged - start, now() - staged
        if index < bundle.num_stages:
            start = now()
            payload = encode_feature(runner.encode(index, tensor), PROFILED_BITS)
            sent = now()
            runner.decode(index, decode_feature(payload, bundle.code_shapes[index]))
            times["encoder", index], times["decoder", index] = sent - start, now() - sent
    return times


def _typical_picture(height: int, width: int) -> NDArray[np.uint8]:
    """Draw smooth shapes with a little noise, which cost a JPEG encoder what a photo costs."""
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[0:height, 0:width] / max(height, width)
    field = generator.normal(128, 8, size=(height, width, 3))
    for a, b, c in generator.normal(size=(12, 3)):
        wave = np.cos(20 * (a * rows + b * columns) + c)
        field += 18 * wave[..., None] * generator.normal(size=3)
    pixels: NDArray[np.uint8] = np.clip(field, 0, 255).astype(np.uint8)
    return pixels


def machine_name() -> str:
    """Name the board or the processor, and the system."""
    name = board_name()
    cpuinfo = Path("/proc/cpuinfo")
    if not name and cpuinfo.is_file():
        found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(encoding="utf-8"), re.M)
        name = found[1].strip() if found else ""
    name = name or platform.processor() or platform.machine()
    return f"{name}, {platform.system()} {platform.machine()}"
