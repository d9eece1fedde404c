"""1, 8 and 32 devices at one server over gRPC: `python experiments/server_devices.py`.

The server is a process of its own, the devices are another: each has its own connection and sends
one payload every 100 ms, of a split point drawn anew, which must be answered within 100 ms. The
policies of `server_goodput.py` take turns; all run in the same gRPC server. Results: `SERVER.md`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from server_goodput import HEAD, LIVE, PICTURES, POLICIES, Bank, Tally

from adaptive_split.bundle import ModelBundle, bundle_path
from adaptive_split.cli.common import say
from adaptive_split.cli.tables import table
from adaptive_split.clock import MonotonicClock
from adaptive_split.runtime.serving.guard import UNLIMITED
from adaptive_split.runtime.serving.scheduler import WorkerThread
from adaptive_split.runtime.serving.server import EdgeServer, ServerConfig
from adaptive_split.runtime.stages import StageRunner
from adaptive_split.runtime.transport import GrpcTransport
from adaptive_split.runtime.wire import TailReply, TailRequest

NUM_DEVICES = (1, 8, 32)
PERIOD_S, SLO_S, LINK_S = 0.1, 0.1, 0.005
"""A device leaves `LINK_S` of what it promises to gRPC and to its own threads."""


def serve(bundle: ModelBundle, policy: str) -> None:
    """Serve with a policy until told to stop; the first line printed is the port."""
    with StageRunner(bundle, parts=bundle.parts) as stages:
        server = EdgeServer(bundle, stages, ServerConfig(insecure=True, limits=UNLIMITED))
        if policy != "ours":
            service = server._service
            rival = POLICIES[policy](service.steps, service.costs, MonotonicClock())
            server._scheduler = rival  # type: ignore[assignment]
            WorkerThread(rival)  # type: ignore[arg-type]
        print(server.port, flush=True)
        server.serve_until_signal()


@contextmanager
def server_of(policy: str, bundle: str) -> Iterator[str]:
    """Start a server with a policy; the value is its address."""
    command = [sys.executable, __file__, "--bundle", bundle, "--serve", policy]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield f"127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.kill()


def beats(
    devices: Sequence[GrpcTransport], bundle: ModelBundle, bank: Bank, seconds: float
) -> Iterator[tuple[GrpcTransport, int, int]]:
    """Wait for the moments at which devices send; tell who, at what split point, which picture."""
    clock, generator = MonotonicClock(), np.random.default_rng(len(devices))
    phases_s = np.sort(generator.uniform(0, PERIOD_S, len(devices)))
    begin_s = clock.now_s()
    for beat in range(round(seconds / PERIOD_S)):
        for device, phase_s in zip(devices, phases_s.tolist(), strict=True):
            clock.sleep_until(begin_s + beat * PERIOD_S + phase_s)
            split, row = generator.integers((bundle.num_stages, len(bank.labels))).tolist()
            yield device, split, row


def play(address: str, bundle: ModelBundle, bank: Bank, count: int, seconds: float) -> Tally:
    """Let some devices send for a while."""
    clock, lock = MonotonicClock(), threading.Lock()
    tally = Tally(duration_s=seconds)

    def end(row: int, sent_s: float, future: Future[TailReply]) -> None:
        latency_s = clock.now_s() - sent_s
        if future.exception() is None:
            reply, label = future.result(), bank.labels[row]
            early = reply.exit_index < bundle.num_stages
            with lock:
                tally.note(latency_s, SLO_S, reply.answer == label, early)

    with ExitStack() as stack:
        devices = [
            stack.enter_context(GrpcTransport(address, bundle, insecure=True)) for _ in range(count)
        ]
        for greeted in [device.ping(timeout_s=10.0) for device in devices]:
            greeted.result()
        futures = []
        for device, split, row in beats(devices, bundle, bank, seconds):
            request = TailRequest(
                frame_index=len(futures), split_point=split, bits=4,
                payload=bank.payloads[split][row], slack_s=SLO_S - LINK_S,
            )  # fmt: skip
            sent_s = clock.now_s()
            futures.append(device.send(request, timeout_s=SLO_S + 2.0))
            futures[-1].add_done_callback(partial(end, row, sent_s))
        for future in futures:
            future.exception(timeout=10.0)
    tally.sent = len(futures)
    return tally


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", default="garments")
    parser.add_argument("--pictures", type=Path, default=PICTURES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--serve", choices=tuple(POLICIES), help="be the server")
    arguments = parser.parse_args()
    bundle = ModelBundle.load(bundle_path(arguments.bundle))
    if arguments.serve:
        serve(bundle, arguments.serve)
        return
    with StageRunner(bundle, parts=bundle.parts) as stages:
        bank = Bank.fill(stages, arguments.pictures)
    tallies = {(count, policy): Tally() for count in NUM_DEVICES for policy in LIVE}
    for _ in range(arguments.rounds):
        for (count, policy), tally in tallies.items():
            with server_of(policy, arguments.bundle) as address:
                tally.add(play(address, bundle, bank, count, arguments.seconds))
            say(f"{count} {policy} " + "  ".join(tally.cells()))
    rows = [["devices, policy", *HEAD]]
    rows += [[f"{count}, {policy}", *tally.cells()] for (count, policy), tally in tallies.items()]
    print(table(rows))


if __name__ == "__main__":
    main()
