"""What a Ray cluster adds to a request: `python experiments/ray_serve.py`.

A plain server and one with replicas on a local Ray cluster, each a process of its own, answer the
same payloads in turns, one at a time, over plain text on loopback. Printed are milliseconds.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np

from adaptive_split.bundle import ModelBundle, bundle_path
from adaptive_split.cli.tables import table
from adaptive_split.clock import MonotonicClock
from adaptive_split.codec import encode_feature, encode_picture
from adaptive_split.runtime.stages import StageRunner
from adaptive_split.runtime.transport import GrpcTransport
from adaptive_split.runtime.wire import TailRequest

SERVERS = {"plain": [], "ray": ["--ray"]}
WARM_UP, TIMEOUT_S = 20, 10.0
PERCENTILES = (50, 99)


@contextmanager
def serving(bundle: str, options: list[str]) -> Iterator[str]:
    """Start a server; the value is its address."""
    command = [sys.executable, "-m", "adaptive_split", "serve", "--bundle", bundle, "--insecure",
               "--device-requests", "0", "--device-mbps", "0", *options]  # fmt: skip
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def payloads_of(bundle: ModelBundle, bits: int = 4) -> list[bytes]:
    """One payload of every split point, of a picture of noise: the largest that may come."""
    pixels = np.random.default_rng(0).integers(0, 256, (*bundle.input_shape[1:], 3), np.uint8)
    payloads = [encode_picture(pixels, bundle.picture_qualities[bits])]
    with StageRunner(bundle) as stages:
        feature = stages.prepare(pixels)
        for split in range(1, bundle.num_stages):
            feature = stages.stage(split, feature)
            payloads.append(encode_feature(stages.encode(split, feature), bits))
    return payloads


def measure(
    devices: dict[str, GrpcTransport], payloads: list[bytes], rounds: int
) -> dict[tuple[int, str], list[tuple[float, float]]]:
    """Send in turns; `(round trip, of which computing)` in seconds by split point and server."""
    clock, found = MonotonicClock(), defaultdict(list)
    for index in range(WARM_UP + rounds):
        for split, payload in enumerate(payloads):
            for name, device in devices.items():
                request = TailRequest(
                    frame_index=index, split_point=split, bits=4, payload=payload, slack_s=TIMEOUT_S
                )
                begin_s = clock.now_s()
                reply = device.send(request, timeout_s=TIMEOUT_S).result()
                if index >= WARM_UP:
                    found[split, name].append((clock.now_s() - begin_s, reply.compute_s))
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", default="garments-light")
    parser.add_argument("--rounds", type=int, default=300)
    arguments = parser.parse_args()
    bundle = ModelBundle.load(bundle_path(arguments.bundle))
    payloads = payloads_of(bundle)
    with ExitStack() as stack:
        devices = {}
        for name, options in SERVERS.items():
            address = stack.enter_context(serving(arguments.bundle, options))
            transport = GrpcTransport(address, bundle, insecure=True)
            devices[name] = stack.enter_context(transport)
        found = measure(devices, payloads, arguments.rounds)
    rows = [
        ["split point", "bytes", "server", "round trip p50", "p99", "beside compute p50", "p99"]
    ]
    for (split, name), pairs in found.items():
        round_trip_s, compute_s = np.transpose(pairs)
        times_s = (round_trip_s, round_trip_s - compute_s)
        cells = [f"{1e3 * ms:.2f}" for part in times_s for ms in np.percentile(part, PERCENTILES)]
        rows.append([str(split), str(len(payloads[split])), name, *cells])
    print(table(rows))


if __name__ == "__main__":
    main()
