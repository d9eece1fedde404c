"""Over a link of namespaces TCP feels loss, full queues and delay; nothing of it is left behind."""

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from ipaddress import IPv4Address

import psutil
import pytest

from adaptive_split.errors import ConfigError
from adaptive_split.runtime.emulation.namespace_link import NamespaceLink, check_link
from adaptive_split.runtime.emulation.packet_queue import QUEUE_BYTES
from adaptive_split.runtime.emulation.tun_forwarder import FIRST_ADDRESS
from adaptive_split.runtime.serving.server import EdgeServer, ServerConfig
from adaptive_split.runtime.transport import GrpcTransport
from adaptive_split.testing import TinyStages, tiny_bundle, tiny_profile
from tests.played_links import WAIT_S, Sink, connect, link_or_skip, round_trip_s, trace_of

pytestmark = pytest.mark.slow

HOLD_A_LINK = """
import sys
from adaptive_split.runtime.emulation.namespace_link import NamespaceLink
link = NamespaceLink("127.0.0.1:9")
print(link.address, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def sink():
    sink = Sink()
    yield sink
    sink.close()


@pytest.fixture
def link(sink):
    with link_or_skip("namespaces", sink.address) as link:
        yield link


def tcp_info(peer, offset):
    """A 32-bit number of the kernel's `tcp_info`."""
    return struct.unpack_from(
        "I", peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256), offset
    )[0]


def smoothed_rtt_s(peer):
    return tcp_info(peer, 68) * 1e-6


def num_sent_again(peer):
    return tcp_info(peer, 100)


def check_or_skip():
    """Skip the test where this machine cannot have such a link."""
    try:
        check_link("namespaces")
    except ConfigError as error:
        pytest.skip(str(error))


def device_of(address):
    """Name of the device of the link at an address."""
    host = IPv4Address(address.rsplit(":", 1)[0])
    return f"split{(int(host) - int(FIRST_ADDRESS)) // 4}"


def devices():
    return {name for _, name in socket.if_nameindex()}


def test_a_lossless_link_loses_nothing_and_one_with_loss_its_share(link, sink):
    sent_again = []
    for index, loss in enumerate((0.0, 0.02)):
        link.start(trace_of([20.0, 20.0], [0.01, 0.01]), loss=loss)
        with connect(link) as peer:
            for request in range(300):  # too few at once to fill the queue
                peer.sendall(bytes(5 * 1400))
                sink.wait_for((300 * index + request + 1) * 5 * 1400)
            sent_again.append(num_sent_again(peer))

    assert sent_again[0] == 0
    assert 0.005 < sent_again[1] / 1500 < 0.05


def test_a_sender_that_fills_the_queue_waits_behind_itself(link, sink):
    mbps, rtt_s = 8.0, 0.02
    link.start(trace_of([mbps, mbps], [rtt_s, rtt_s]))
    with connect(link) as peer:
        idle_s = min(round_trip_s(peer) for _ in range(5))
        threading.Thread(target=peer.sendall, args=(bytes(3_000_000),), daemon=True).start()
        sink.wait_for(1_500_000)
        loaded_s = smoothed_rtt_s(peer)
        sink.wait_for(3_000_000)

    full_s = QUEUE_BYTES * 8 / (mbps * 1e6)
    assert idle_s < 0.05
    assert 0.07 < loaded_s < 1.5 * (rtt_s + full_s)


def test_requests_reach_the_server_at_a_plain_address():
    bundle = tiny_bundle()
    config = ServerConfig(insecure=True)
    server = EdgeServer(bundle, TinyStages(), config, profile=tiny_profile(0.1))
    try:
        with (
            link_or_skip("namespaces", f"127.0.0.1:{server.port}") as link,
            GrpcTransport(link.address, bundle, insecure=True) as transport,
        ):
            link.start(trace_of([20.0, 20.0], [0.03, 0.03]))

            assert transport.peer_hash(timeout_s=WAIT_S).result(WAIT_S) == bundle.hash
    finally:
        server.close(grace_s=0.0)


def test_links_stand_side_by_side_and_leave_nothing(sink):
    with (
        link_or_skip("namespaces", sink.address) as one,
        NamespaceLink(sink.address) as other,
        connect(one) as peer,
        connect(other) as other_peer,
    ):
        names = {device_of(one.address), device_of(other.address)}
        assert len(names) == 2
        assert names <= devices()
        round_trip_s(peer)
        round_trip_s(other_peer)

    assert not names & devices()


@pytest.mark.parametrize("victim", ["owner", "forwarder"])
def test_a_killed_process_leaves_nothing(victim):
    check_or_skip()
    command = [sys.executable, "-c", HOLD_A_LINK]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        name = device_of(owner.stdout.readline().decode())
        assert name in devices()
        helpers = psutil.Process(owner.pid).children(recursive=True)
        os.kill(owner.pid if victim == "owner" else helpers[0].pid, signal.SIGKILL)
        owner.stdin.close()
    _, alive = psutil.wait_procs(helpers, timeout=WAIT_S)

    assert len(helpers) == 2  # forwarder and relay
    assert alive == []
    assert name not in devices()


def test_a_share_that_is_none_is_refused(link):
    with pytest.raises(ConfigError, match=r"loss must be a share in \[0, 1\]; got 1.5"):
        link.start(trace_of([1.0, 1.0], [0.0, 0.0]), loss=1.5)


def test_a_machine_without_the_right_to_make_one_says_so():
    code = (
        "import os\n"
        "from adaptive_split.runtime.emulation.namespace_link import check_link\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "check_link('namespaces')\n"
    )
    if os.geteuid() != 0:
        code = code.replace("os.setgid(65534); os.setuid(65534)\n", "")
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert ended.returncode == 1
    said = ended.stderr.splitlines()[-1]
    assert "must be allowed to make TUN devices and network namespaces; got" in said
    assert "run as root, or use the link 'proxy'" in said
