"""What every transport keeps: the same tests on memory and on gRPC."""

import math
from concurrent.futures import Future, ThreadPoolExecutor

import grpc
import pytest

from adaptive_split.codec import encode_feature
from adaptive_split.errors import BundleError, LinkError, LinkTimeout, PayloadError
from adaptive_split.runtime import wire
from adaptive_split.runtime.protos import open_inference as oip
from adaptive_split.runtime.serving.server import EdgeServer, ServerConfig
from adaptive_split.runtime.serving.service import TailService
from adaptive_split.runtime.transport import GrpcTransport
from adaptive_split.runtime.wire import RefusedError, TailReply, TailRequest
from adaptive_split.testing import (
    ManualClock,
    MemoryTransport,
    TinyStages,
    tiny_bundle,
    tiny_picture,
    tiny_profile,
)
from tests.faulty_link import FaultyLink


class Memory:
    """A memory transport and its server."""

    def __init__(self, device_bundle):
        self.clock, bundle = ManualClock(), tiny_bundle()
        service = TailService(bundle, TinyStages(), self.clock, profile=tiny_profile(0.1))
        self.transport = MemoryTransport(device_bundle, service, self.clock, delay_s=0.01)

    def stall(self):
        """Let no reply come."""
        self.transport.delay_s = 5.0

    def leave(self):
        """Take the server away."""
        self.transport.reachable = False

    def wait(self, future: Future):
        """Let time pass until a future is done."""
        while not future.done():
            self.clock.advance(0.01)
        return future.result()

    def close(self):
        """End both."""
        self.transport.close()


class Grpc:
    """A gRPC transport and its server."""

    def __init__(self, device_bundle):
        self.stages = TinyStages()
        self.server = EdgeServer(
            tiny_bundle(), self.stages, ServerConfig(insecure=True), profile=tiny_profile(0.1)
        )
        address = f"127.0.0.1:{self.server.port}"
        self.transport = GrpcTransport(address, device_bundle, insecure=True)

    def stall(self):
        """Let no reply come."""
        self.stages.gate.clear()

    def leave(self):
        """Take the server away."""
        self.server.close(grace_s=0.0)

    def wait(self, future: Future):
        """Let time pass until a future is done."""
        return future.result(timeout=10)

    def close(self):
        """End both."""
        self.stages.gate.set()
        self.transport.close()
        self.server.close(grace_s=0.0)


@pytest.fixture(params=[Memory, Grpc])
def kind(request):
    return request.param


@pytest.fixture
def peer(kind):
    peer = kind(tiny_bundle())
    yield peer
    peer.close()


def tail_request(label=2, **changes):
    stages = TinyStages()
    feature = stages.stage(1, stages.prepare(tiny_picture(label, ease=0.5)))
    payload = encode_feature(stages.encode(1, feature), 8)
    fields = {"frame_index": 1, "split_point": 1, "bits": 8, "payload": payload, "slack_s": 1.0}
    return TailRequest(**{**fields, **changes})


@pytest.mark.parametrize("label", [0, 3])
def test_a_payload_is_answered(peer, label):
    reply = peer.wait(peer.transport.send(tail_request(label), timeout_s=2.0))

    assert (reply.answer, reply.exit_index) == (label, 3)
    assert reply.confidence == pytest.approx(0.53, abs=0.01)
    assert reply.queue_s >= 0
    assert reply.compute_s >= 0


def test_answers_come_to_whom_they_belong(peer):
    labels = [0, 1, 2, 3, 2, 1, 0]
    futures = [peer.transport.send(tail_request(label), timeout_s=2.0) for label in labels]

    assert [peer.wait(future).answer for future in futures] == labels


def test_empty_messages_and_probes_are_answered(peer):
    assert peer.wait(peer.transport.ping(timeout_s=2.0)) is None
    first = peer.wait(peer.transport.probe(bytes(4096), timeout_s=2.0))
    second = peer.wait(peer.transport.probe(bytes(4096), timeout_s=2.0))
    assert first <= second  # moments on the server's clock


def test_the_peer_tells_its_bundle(peer):
    assert peer.wait(peer.transport.peer_hash(timeout_s=2.0)) == "0" * 64


def test_the_peer_tells_its_bundle_on_a_new_connection_and_goes_on_answering(peer):
    peer.wait(peer.transport.ping(timeout_s=2.0))

    told = peer.wait(peer.transport.knock(timeout_s=2.0))

    assert told == "0" * 64
    assert peer.wait(peer.transport.send(tail_request(1), timeout_s=2.0)).answer == 1


def test_a_knock_that_nobody_hears_is_a_link_error(peer):
    peer.leave()

    with pytest.raises(LinkError):
        peer.wait(peer.transport.knock(timeout_s=2.0))


def test_another_bundle_is_told_apart(kind):
    peer = kind(tiny_bundle("1"))

    with pytest.raises(BundleError, match="bundle_hash must be"):
        peer.wait(peer.transport.send(tail_request(), timeout_s=2.0))
    peer.close()


def test_a_damaged_payload_is_refused(peer):
    with pytest.raises(PayloadError):
        peer.wait(peer.transport.send(tail_request(payload=b"not a payload"), timeout_s=2.0))


def test_what_cannot_make_it_is_refused_at_once(peer):
    with pytest.raises(RefusedError, match="slack must be at least"):
        peer.wait(peer.transport.send(tail_request(slack_s=0.001), timeout_s=2.0))


def test_a_reply_that_does_not_come_in_time_is_a_timeout(peer):
    peer.wait(peer.transport.ping(timeout_s=2.0))
    peer.stall()

    with pytest.raises(LinkTimeout):
        peer.wait(peer.transport.send(tail_request(), timeout_s=0.05))


def test_a_server_that_is_gone_is_a_link_error(peer):
    peer.leave()

    with pytest.raises(LinkError):
        peer.wait(peer.transport.send(tail_request(), timeout_s=2.0))


def test_closing_ends_what_is_under_way(peer):
    peer.wait(peer.transport.ping(timeout_s=2.0))
    peer.stall()
    future = peer.transport.send(tail_request(), timeout_s=2.0)

    peer.transport.close()

    with pytest.raises(LinkError, match="the transport must be open"):
        peer.wait(future)


def test_a_closed_transport_sends_no_more(peer):
    peer.transport.close()

    with pytest.raises(LinkError, match="the transport must be open"):
        peer.wait(peer.transport.send(tail_request(), timeout_s=2.0))


def replying(**changes):
    """A gRPC server whose every answer tells what `changes` say."""
    told = {"answer": 1, "confidence": 0.5, "exit_index": 3, "queue_s": 0.0, "compute_s": 0.001,
            "server_load": 0.0, **changes}  # fmt: skip

    def infer(message, context):
        return wire.pack_reply(tiny_bundle(), message, TailReply(**told)).SerializeToString()

    handlers = {
        "ModelInfer": grpc.unary_unary_rpc_method_handler(
            infer, request_deserializer=oip.ModelInferRequest.FromString
        )
    }
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(wire.SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, f"127.0.0.1:{port}"


@pytest.mark.parametrize(
    "change",
    [
        {"answer": -1},
        {"confidence": math.nan},
        {"confidence": 7.0},
        {"queue_s": math.inf},
        {"compute_s": -1.0},
    ],
    ids=str,
)
def test_a_reply_that_cannot_be_is_refused(change):
    server, address = replying(**change)

    with (
        GrpcTransport(address, tiny_bundle(), insecure=True) as transport,
        pytest.raises(PayloadError, match="a reply must hold a class"),
    ):
        transport.send(tail_request(), timeout_s=5.0).result(timeout=10)
    server.stop(None).wait()


def test_a_knock_changes_over_only_from_a_connection_that_is_silent():
    peer = Grpc(tiny_bundle())
    with FaultyLink(peer.server.port) as link:
        transport = GrpcTransport(link.address, tiny_bundle(), insecure=True)
        transport.ping(timeout_s=5.0).result(timeout=10)
        link.forget()
        lost = transport.send(tail_request(), timeout_s=60.0)

        transport.knock(timeout_s=5.0).result(timeout=10)

        assert transport.send(tail_request(2), timeout_s=5.0).result(timeout=10).answer == 2
        with pytest.raises(LinkError, match="the transport must be open"):
            lost.result(timeout=10)
        transport.close()
    peer.close()
