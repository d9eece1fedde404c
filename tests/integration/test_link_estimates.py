"""A device finds out emulated links, spends little on that, and never blames them for a server."""

import contextlib
import socket
import threading
from statistics import median

import pytest

from adaptive_split.clock import MonotonicClock
from adaptive_split.decision import NEVER, Decision
from adaptive_split.objective import Objective
from adaptive_split.runtime.device import Device
from adaptive_split.runtime.emulation.emulated_link import EmulatedLink
from adaptive_split.runtime.live import LiveBackend, play
from adaptive_split.runtime.probes import PING_EVERY_S, PING_FRAMING_BYTES, ProbeBudget
from adaptive_split.runtime.sensors.battery import ModelledBattery
from adaptive_split.runtime.serving.server import EdgeServer, ServerConfig
from adaptive_split.runtime.source import PictureSequence
from adaptive_split.runtime.transport import GrpcTransport
from adaptive_split.testing import TinyStages, tiny_bundle, tiny_picture, tiny_profile, tiny_setup
from tests.played_links import link_or_skip, trace_of

pytestmark = pytest.mark.slow
LOCAL, PICTURE = Decision(3, NEVER, 0), Decision(0, NEVER, 4)
NOTICE_S = 6.0
"""Tests wait this long for a recovered link to be seen; two seconds are promised."""
SETTLED_S = 2.0


class Watcher:
    """Decides alike for every frame and keeps what was known."""

    name = "watcher"

    def __init__(self, decision):
        self._decision, self.seen = decision, []

    def decide(self, situation):
        """Keep the situation and what is believed of the link."""
        self.seen.append((situation, self.device.sender.estimate))
        return self._decision

    def reset(self):
        """Forget nothing."""

    def settled(self):
        """The estimates after the first seconds."""
        return [found for situation, found in self.seen if situation.now_s >= SETTLED_S]


class Counter:
    """Passes one connection on and counts what the device sends."""

    def __init__(self, port):
        self.num_bytes, self._port = 0, port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._relay)
        self._thread.start()

    def close(self):
        """Wait for the end of the connection."""
        self._thread.join()
        self._listener.close()

    def _relay(self):
        device, _ = self._listener.accept()
        with device, socket.create_connection(("127.0.0.1", self._port)) as server:
            back = threading.Thread(target=self._pump, args=(server, device))
            back.start()
            for data in iter(lambda: device.recv(65_536), b""):
                self.num_bytes += len(data)
                server.sendall(data)
            server.shutdown(socket.SHUT_RDWR)
            back.join()

    @staticmethod
    def _pump(source, sink):
        with contextlib.suppress(OSError):
            for data in iter(lambda: source.recv(65_536), b""):
                sink.sendall(data)


@contextlib.contextmanager
def serve(profile, slowdown=0.0):
    """A server on tiny stages; its port."""
    config = ServerConfig(insecure=True, slowdown=slowdown)
    with contextlib.closing(EdgeServer(tiny_bundle(), TinyStages(), config, profile=profile)) as s:
        yield s.port


def watch(address, decision, duration_s, *, slo_s=0.2, fps=10.0, begin=lambda: None):
    """Play a run with one decision; return what was seen and the bytes spent on probes."""
    setup = tiny_setup(Objective(slo_s=slo_s, fps=fps))
    pictures = PictureSequence([tiny_picture(i) for i in range(4)], range(4), [2, 0, 3, 1])
    watcher = Watcher(decision)
    with GrpcTransport(address, setup.bundle, insecure=True) as transport:
        device = Device(setup, TinyStages(), transport, MonotonicClock(), ModelledBattery(1e4))
        watcher.device = device

        def prepare(seed):
            begin()
            return pictures

        with LiveBackend(device, prepare, round(duration_s * fps)) as backend:
            assert len(list(play(backend, watcher))) == round(duration_s * fps)
        return watcher, device.sender.probe_bytes


@pytest.mark.parametrize("kind", ["proxy", "namespaces"])
@pytest.mark.parametrize("mbps", [1.0, 4.0])
def test_probes_alone_find_out_a_link(kind, mbps):
    # Eight small probes a run: one that a busy machine holds up is an eighth of what is known.
    found = []
    for _ in range(3):
        with serve(tiny_profile(0.1)) as port, link_or_skip(kind, f"127.0.0.1:{port}") as link:
            link.start(trace_of([mbps] * 2, [0.03] * 2))
            watcher, _ = watch(link.address, LOCAL, 8.0)
        found += watcher.settled()

    assert median(reading.uplink_mbps for reading in found) == pytest.approx(mbps, rel=0.5)
    assert 0.025 < median(reading.rtt_s for reading in found) < 0.1


def test_a_link_that_comes_back_is_seen_while_everything_stays_local():
    trace = trace_of([4, 4, 0, 0, 0, 0, *[4] * 30], [0.03] * 36)
    with serve(tiny_profile(0.1)) as port, EmulatedLink(f"127.0.0.1:{port}") as link:
        watcher, _ = watch(link.address, LOCAL, 6.0 + NOTICE_S, begin=lambda: link.start(trace))

    usable = [(situation.now_s, situation.server_usable) for situation, _ in watcher.seen]
    assert False in [flag for now_s, flag in usable if now_s < 6.0]
    assert usable[-1][1]
    times_s = [sample.time_s for situation, _ in watcher.seen for sample in situation.samples]
    # The greeting comes after the trace has begun, so the run ends up to that much later in it.
    assert any(5.0 < time_s < 6.0 + NOTICE_S for time_s in times_s)


def test_a_server_that_stalls_for_a_fifth_of_a_second_is_not_taken_for_the_link():
    # Stages 1 to 3 of a picture take 3 x 67 ms, which the server tells; its way takes 7.6 ms, more
    # than a busy machine adds.
    slow = tiny_profile(6.7)
    with serve(slow, slowdown=1.0) as port, EmulatedLink(f"127.0.0.1:{port}") as link:
        link.start(trace_of([1.0] * 2, [0.03] * 2))
        watcher, _ = watch(link.address, PICTURE, 8.0, slo_s=1.5, fps=2.5)

    found = watcher.settled()
    slowdowns = [sample.server_slowdown for sample in watcher.seen[-1][0].samples]
    assert max(slowdowns) > 50
    assert median(reading.rtt_s for reading in found) < 0.1
    assert median(reading.uplink_mbps for reading in found) == pytest.approx(1.0, rel=0.5)


@pytest.mark.parametrize("decision", [LOCAL, PICTURE], ids=["local", "sending"])
def test_probes_keep_to_their_budget_on_the_wire(decision):
    seconds, most = 5.0, ProbeBudget().most_bytes_per_s
    with serve(tiny_profile(0.1)) as port, contextlib.closing(Counter(port)) as counter:
        _, probe_bytes = watch(counter.address, decision, seconds)

    pings_bytes = PING_FRAMING_BYTES * seconds / PING_EVERY_S
    assert probe_bytes <= (seconds + 1) * most + pings_bytes
    if decision is LOCAL:
        # Beside probes: the connection's first bytes, who is there, acknowledgments.
        assert probe_bytes <= counter.num_bytes <= 1.1 * probe_bytes + 2000
