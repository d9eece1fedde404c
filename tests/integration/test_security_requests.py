"""What an edge server refuses of devices that are let in; it goes on serving the others."""

import random
import socket
import threading

import grpc
import pytest

from adaptive_split.errors import PayloadError
from adaptive_split.runtime import wire
from adaptive_split.runtime.serving.guard import Limits
from adaptive_split.runtime.serving.server import EdgeServer, ServerConfig
from adaptive_split.runtime.transport import GrpcTransport
from adaptive_split.runtime.wire import RefusedError
from adaptive_split.testing import TinyStages
from tests.secure_world import (
    BUNDLE,
    LONG_S,
    channel_of,
    connect,
    frame,
    raw_call,
    refused,
    serve,
    serves,
    until,
)

CODE = grpc.StatusCode


def test_a_frame_that_was_answered_is_not_answered_again(world, caplog):
    with serve(world) as server, connect(server, world.good) as device:
        for index in (0, 2, 1):
            device.send(frame(index, "run-a"), timeout_s=LONG_S).result()
        for _ in range(3):
            with pytest.raises(PayloadError, match="a frame must be sent once"):
                device.send(frame(1, "run-a"), timeout_s=LONG_S).result()

        assert refused(server) == {"replayed": 3}
        assert device.send(frame(1, "run-b"), timeout_s=LONG_S).result().answer == 2
        assert device.send(frame(3, "run-a"), timeout_s=LONG_S).result().answer == 2
        assert serves(server, world.second)
    assert caplog.text.count("refused a request of cam-1 (replayed") == 1


def test_a_frame_that_was_refused_may_come_again(world):
    with serve(world) as server, connect(server, world.good) as device:
        with pytest.raises(RefusedError):
            device.send(frame(1, "run-a", slack_s=-1.0), timeout_s=LONG_S).result()

        assert device.send(frame(1, "run-a"), timeout_s=LONG_S).result().answer == 2


def changed(change):
    message = wire.pack_request(BUNDLE, frame())
    change(message)
    return message.SerializeToString()


GARBAGE = random.Random(0).randbytes(3000)
MALFORMED = {
    "garbage": GARBAGE,
    "no protobuf": b"\xff" * 100,
    "a length beyond the end": b"\x3a\xff\xff\xff\xff\x0f" + b"x" * 50,
    "empty": b"",
    "a negative shape": changed(lambda m: m.inputs[0].shape.__setitem__(1, -5)),
    "a huge shape": changed(lambda m: m.inputs[0].shape.__setitem__(1, 2**62)),
    "another type": changed(lambda m: setattr(m.inputs[0], "datatype", "FP32")),
    "two inputs": changed(lambda m: m.inputs.add()),
    "no content": changed(lambda m: m.ClearField("raw_input_contents")),
    "a run without end": changed(
        lambda m: setattr(m.parameters["run_id"], "string_param", "x" * 1000)
    ),
    "a payload of another split": changed(lambda m: setattr(m, "model_name", "tiny.3-3")),
    "cut short": changed(lambda m: None)[:-20],
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_a_malformed_message_is_refused(world, caplog, kind):
    with serve(world) as server:
        with channel_of(server, world.good) as channel, pytest.raises(grpc.RpcError) as caught:
            raw_call(channel, MALFORMED[kind])

        assert caught.value.code() == CODE.INVALID_ARGUMENT
        assert refused(server) == {"malformed": 1}
        assert serves(server, world.good)
    assert caplog.text.count("refused a request of cam-1 (malformed") == 1
    assert "Traceback" not in caplog.text


def test_a_call_without_a_message_is_refused(world, caplog):
    with serve(world) as server:
        with channel_of(server, world.good) as channel, pytest.raises(grpc.RpcError) as caught:
            channel.stream_unary(f"/{wire.SERVICE}/ModelInfer")(iter(()), timeout=LONG_S)

        assert caught.value.code() == CODE.INVALID_ARGUMENT
        assert serves(server, world.good)
    assert "Traceback" not in caplog.text


def test_a_device_that_gives_up_while_it_sends_is_nothing_to_tell(world, caplog):
    with serve(world, limits=Limits(max_concurrent=5)) as server:
        with channel_of(server, world.good) as channel:
            calls, hold = calls_without_message(channel, 5)
            until(lambda: refused_now(server, world.good))
            for call in calls:
                call.cancel()
            until(lambda: not refused_now(server, world.good))
            hold.set()

        assert set(refused(server)) == {"concurrent"}
    assert "Traceback" not in caplog.text


def refused_now(server, tls):
    with connect(server, tls) as transport:
        return transport.ping(timeout_s=LONG_S).exception() is not None


def test_a_message_too_large_is_refused_and_counted_if_it_is_read_at_all(world):
    with serve(world) as server, channel_of(server, world.good) as channel:
        for num_bytes, code in (
            (wire.MOST_PROBE_BYTES + 5000, CODE.INVALID_ARGUMENT),
            (20_000_000, CODE.RESOURCE_EXHAUSTED),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                raw_call(channel, bytes(num_bytes))
            assert caught.value.code() == code

        assert refused(server) == {"size": 1}
        assert serves(server, world.good)


def test_a_message_compressed_by_grpc_is_not_unpacked(world):
    with serve(world) as server:
        with channel_of(server, world.good) as channel, pytest.raises(grpc.RpcError) as caught:
            raw_call(channel, bytes(10_000_000), compression=grpc.Compression.Gzip)

        assert caught.value.code() == CODE.UNIMPLEMENTED
        assert serves(server, world.good)


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HUGE_FRAME = b"\xff\xff\xff\x00\x00\x00\x00\x00\x01"


@pytest.mark.parametrize("is_tls", [True, False])
@pytest.mark.parametrize(
    "content",
    [GARBAGE, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", PREFACE + GARBAGE, PREFACE + HUGE_FRAME],
)
def test_bytes_that_are_no_call_are_hung_up_on(world, is_tls, content):
    config = {"tls": world.server} if is_tls else {"insecure": True}
    with EdgeServer(BUNDLE, TinyStages(), ServerConfig(host="localhost", **config)) as server:
        with socket.create_connection(("localhost", server.port), timeout=LONG_S) as peer:
            peer.sendall(content)
            try:
                while peer.recv(4096):
                    pass
            except ConnectionResetError:
                pass

        assert serves(server, world.good if is_tls else None)


def test_connections_that_say_nothing_keep_nobody_out(world):
    with serve(world, max_queue=2) as server:
        silent = [socket.create_connection(("localhost", server.port)) for _ in range(50)]
        for peer in silent[:25]:
            peer.sendall(b"\x16\x03\x01")  # the first bytes of a TLS greeting

        assert serves(server, world.good)
        for peer in silent:
            peer.close()


def calls_without_message(channel, count, name=f"/{wire.SERVICE}/ModelInfer"):
    """Begin calls whose message never comes."""
    hold = threading.Event()

    def never():
        hold.wait()
        yield from ()

    method = channel.stream_unary(name)
    return [method.future(never(), timeout=LONG_S) for _ in range(count)], hold


@pytest.mark.slow
@pytest.mark.parametrize("name", [f"/{wire.SERVICE}/ModelInfer", "/grpc.health.v1.Health/Check"])
def test_calls_whose_message_trickles_in_keep_nobody_out(world, caplog, name):
    limits = Limits(message_s=1.0, max_concurrent=16)
    with serve(world, limits=limits) as server, channel_of(server, world.good) as channel:
        calls, hold = calls_without_message(channel, 40, name)

        assert serves(server, world.second)
        codes = [call.code() for call in calls]
        hold.set()

        assert set(codes) <= {CODE.RESOURCE_EXHAUSTED, CODE.CANCELLED}
        until(lambda: sum(refused(server).values()) == 40)
        assert refused(server)["slow"] >= 16
        assert set(refused(server)) == {"slow", "concurrent"}
        assert serves(server, world.good)
    assert "refused a request of cam-1 (slow" in caplog.text


def test_a_device_that_asks_too_often_is_told_to_wait_and_others_are_served(world, caplog):
    limits = Limits(requests_per_s=0.01, burst_s=500.0)
    with serve(world, limits=limits) as server, connect(server, world.good) as device:
        for _ in range(6):
            device.ping(timeout_s=LONG_S).result()
        with pytest.raises(RefusedError, match=r"at most 0\.01 requests per second") as caught:
            device.send(frame(), timeout_s=LONG_S).result()

        assert 0 < caught.value.wait_s <= 100
        assert refused(server) == {"rate": 1}
        assert serves(server, world.second)
    assert "refused a request of cam-1 (rate" in caplog.text


def test_a_device_that_sends_too_much_is_told_to_wait_and_others_are_served(world):
    limits = Limits(bytes_per_s=1000.0, burst_s=50.0)
    with serve(world, limits=limits) as server, connect(server, world.good) as device:
        device.probe(bytes(60_000), timeout_s=LONG_S).result()
        with pytest.raises(RefusedError, match="at most 1000 bytes per second") as caught:
            device.send(frame(), timeout_s=LONG_S).result()

        assert 0 < caught.value.wait_s <= 15
        assert refused(server) == {"bytes": 1}
        assert serves(server, world.second)


def test_a_device_may_have_only_so_many_requests_open(world):
    stages = TinyStages()
    with serve(world, stages, limits=Limits(max_concurrent=2)) as server:
        stages.gate.clear()
        with connect(server, world.good) as device:
            futures = [device.send(frame(i), timeout_s=LONG_S) for i in range(5)]
            until(lambda: sum(future.done() for future in futures) == 3)
            stages.gate.set()
            errors = [future.exception() for future in futures]

        told = [str(error) for error in errors if error is not None]
        assert len(told) == 3
        assert all("at most 2 requests open" in line for line in told)
        assert refused(server) == {"concurrent": 3}
        assert serves(server, world.second)


def test_limits_hold_in_plain_text_too_by_connection():
    config = ServerConfig(insecure=True, limits=Limits(requests_per_s=0.01, burst_s=500.0))
    with EdgeServer(BUNDLE, TinyStages(), config) as server:
        address = f"127.0.0.1:{server.port}"
        with GrpcTransport(address, BUNDLE, insecure=True) as device:
            for _ in range(6):
                device.ping(timeout_s=LONG_S).result()
            with pytest.raises(RefusedError):
                device.ping(timeout_s=LONG_S).result()
        with GrpcTransport(address, BUNDLE, insecure=True) as device:
            device.ping(timeout_s=LONG_S).result()


def test_the_health_service_may_be_watched(world):
    with serve(world) as server, channel_of(server, world.good) as channel:
        watch = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"", timeout=LONG_S)

        assert next(watch) == b"\x08\x01"  # SERVING
        assert serves(server, world.good)
        watch.cancel()
