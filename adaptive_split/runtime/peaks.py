"""What this machine can compute and copy at most, measured; run alone so that BLAS obeys."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from adaptive_split.errors import ConfigError

SIDE = 768
"""Of the square matrices multiplied: 7 MB in all, 0.9 GFLOP."""
COPIED_BYTES = 1 << 26
"""Far more than caches hold."""
_PATIENCE_S = 120.0


@dataclass(frozen=True, slots=True)
class Peaks:
    """The two roofs of a machine (Williams et al., 2009)."""

    gflops: float
    """10^9 float32 operations per second; a multiply-add counts as two."""
    memory_gbps: float
    """10^9 bytes per second, reads and writes together."""

    def __post_init__(self) -> None:
        """Refuse machines that never finish."""
        if not (0 < self.gflops < 1e9 and 0 < self.memory_gbps < 1e9):
            raise ConfigError(
                "a roofline must be given as GFLOP/s and GB/s, both positive; "
                f"got {self.gflops!r} and {self.memory_gbps!r}"
            )


def measure_peaks(num_threads: int = 1) -> Peaks:
    """Multiply and copy in a process of its own, as BLAS libraries read their threads at start."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    threads = dict.fromkeys(names, str(num_threads))
    told = subprocess.run(
        [sys.executable, "-m", "adaptive_split.runtime.peaks"],
        env={**os.environ, **threads}, capture_output=True, text=True, timeout=_PATIENCE_S,
        check=True,
    ).stdout  # fmt: skip
    return Peaks(*json.loads(told))


def _main() -> None:
    left = np.random.default_rng(0).random((SIDE, SIDE), np.float32)
    product = np.empty_like(left)
    source = np.ones(COPIED_BYTES // 4, np.float32)
    target = np.empty_like(source)
    product_s = _least_s(lambda: np.matmul(left, left, product), 100)
    copy_s = _least_s(lambda: np.copyto(target, source), 30)
    print(json.dumps([2 * SIDE**3 / product_s / 1e9, 2 * COPIED_BYTES / copy_s / 1e9]))


def _least_s(work: Callable[[], object], repeats: int) -> float:
    """The shortest of several runs: what nobody disturbed."""
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return min(times)


if __name__ == "__main__":
    _main()
