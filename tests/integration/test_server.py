"""The edge server as any client of the Open Inference Protocol meets it."""

import itertools
import logging
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import as_completed

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from adaptive_split.bundle import ModelBundle, bundle_path
from adaptive_split.clock import MonotonicClock
from adaptive_split.codec import encode_feature, encode_picture
from adaptive_split.errors import ConfigError, LinkError, PayloadError
from adaptive_split.runtime import wire
from adaptive_split.runtime.credentials import TlsFiles
from adaptive_split.runtime.protos import open_inference as oip
from adaptive_split.runtime.serving.server import EdgeServer, ServerConfig
from adaptive_split.runtime.serving.service import TailService
from adaptive_split.runtime.stages import StageRunner
from adaptive_split.runtime.transport import GrpcTransport
from adaptive_split.runtime.wire import RefusedError, TailRequest
from adaptive_split.testing import TinyStages, tiny_bundle, tiny_picture, tiny_profile

BUNDLE = tiny_bundle()
CODE = grpc.StatusCode


@pytest.fixture
def stages():
    return TinyStages()


@pytest.fixture
def server(stages):
    with EdgeServer(BUNDLE, stages, ServerConfig(insecure=True, max_queue=2)) as server:
        yield server
        stages.gate.set()


@pytest.fixture
def channel(server):
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield channel


def call(channel, name, message, reply):
    method = channel.unary_unary(
        f"/{wire.SERVICE}/{name}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=reply.FromString,
    )
    return method(message, timeout=5.0, wait_for_ready=True)


def infer(channel, message):
    return call(channel, "ModelInfer", message, oip.ModelInferResponse)


def refused_with(channel, message):
    with pytest.raises(grpc.RpcError) as caught:
        infer(channel, message)
    return caught.value.code()


def feature_payload(split_point=1, label=2):
    stages = TinyStages()
    feature = stages.prepare(tiny_picture(label))
    for index in range(1, split_point + 1):
        feature = stages.stage(index, feature)
    return encode_feature(stages.encode(split_point, feature), 8)


def request(split_point=1, **changes):
    payload = feature_payload(split_point) if split_point else encode_picture(tiny_picture(2), 90)
    fields = {"frame_index": 9, "bits": 8, "payload": payload, "slack_s": 5.0, **changes}
    return wire.pack_request(BUNDLE, TailRequest(split_point=split_point, **fields))


@pytest.mark.parametrize("split_point", [0, 1, 2])
def test_every_stage_range_is_served(channel, split_point):
    reply = infer(channel, request(split_point))

    assert wire.unpack_reply(reply).answer == 2
    assert reply.id == "9"
    assert reply.model_version == BUNDLE.hash


def test_a_range_that_ends_early_is_answered_by_its_own_exit(channel):
    message = request(1)
    message.model_name = "tiny.2-2"

    assert wire.unpack_reply(infer(channel, message)).exit_index == 2


def test_a_call_without_a_deadline_is_answered(channel):
    method = channel.unary_unary(
        f"/{wire.SERVICE}/ModelInfer",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=oip.ModelInferResponse.FromString,
    )

    assert wire.unpack_reply(method(request(1))).answer == 2


def test_the_upload_of_a_message_counts_against_its_slack(channel):
    def slowly():
        threading.Event().wait(0.1)
        yield request(1, slack_s=0.05)

    method = channel.stream_unary(
        f"/{wire.SERVICE}/ModelInfer",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=oip.ModelInferResponse.FromString,
    )

    with pytest.raises(grpc.RpcError) as caught:
        method(slowly(), timeout=30.0)

    assert caught.value.code() == CODE.RESOURCE_EXHAUSTED


def test_metadata_tells_what_is_served(channel):
    name = "tiny.2-3"
    live = call(channel, "ServerLive", oip.ServerLiveRequest(), oip.ServerLiveResponse)
    ready = call(channel, "ServerReady", oip.ServerReadyRequest(), oip.ServerReadyResponse)
    model = call(channel, "ModelReady", oip.ModelReadyRequest(name=name), oip.ModelReadyResponse)
    told = call(
        channel, "ModelMetadata", oip.ModelMetadataRequest(name=name), oip.ModelMetadataResponse
    )
    server = call(
        channel, "ServerMetadata", oip.ServerMetadataRequest(), oip.ServerMetadataResponse
    )

    assert (live.live, ready.ready, model.ready) == (True, True, True)
    assert list(told.versions) == [BUNDLE.hash]
    assert [tensor.datatype for tensor in told.outputs] == ["INT64", "FP32"]
    assert server.name == "adaptive_split"


@pytest.mark.parametrize(("name", "version"), [("tiny.4-5", ""), ("tiny.1-3", "f00"), ("x", "")])
def test_what_is_not_served_is_not_ready(channel, name, version):
    message = oip.ModelReadyRequest(name=name, version=version)

    assert not call(channel, "ModelReady", message, oip.ModelReadyResponse).ready


def with_changes(message, **changes):
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def without_contents():
    message = request()
    del message.raw_input_contents[:]
    return message


def oversize(num_bytes):
    return request(1, payload=bytes(num_bytes))


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (oip.ModelInferRequest(), CODE.INVALID_ARGUMENT),
        (with_changes(request(), model_name="tiny.1-9"), CODE.INVALID_ARGUMENT),
        (with_changes(request(), model_name="tiny.3-3"), CODE.INVALID_ARGUMENT),
        (without_contents(), CODE.INVALID_ARGUMENT),
        (request(1, payload=b"AS-but-damaged"), CODE.INVALID_ARGUMENT),
        (request(1, payload=feature_payload(2)), CODE.INVALID_ARGUMENT),
        (request(0, payload=b"\xff\xd8 no picture"), CODE.INVALID_ARGUMENT),
        (oversize(4 * 8 * 8 + 15), CODE.INVALID_ARGUMENT),
        (oversize(200_000), CODE.RESOURCE_EXHAUSTED),
        (with_changes(request(), model_version="f00"), CODE.FAILED_PRECONDITION),
        (request(1, slack_s=-1.0), CODE.RESOURCE_EXHAUSTED),
    ],
)
def test_a_wrong_request_is_refused_and_the_server_lives_on(channel, message, code):
    assert refused_with(channel, message) == code
    assert wire.unpack_reply(infer(channel, request())).answer == 2


def test_another_bundle_is_a_failed_precondition(channel):
    message = request()
    message.parameters["bundle_hash"].string_param = "f00"

    assert refused_with(channel, message) == CODE.FAILED_PRECONDITION


def test_a_full_queue_refuses_and_tells_the_wait(server, stages):
    address = f"127.0.0.1:{server.port}"
    one = TailRequest(frame_index=0, split_point=1, bits=8, payload=feature_payload(), slack_s=60.0)
    with GrpcTransport(address, BUNDLE, insecure=True) as transport:
        transport.ping(timeout_s=5.0).result()
        stages.gate.clear()
        futures = [transport.send(one, timeout_s=60.0) for _ in range(6)]
        # The requests may reach the queue in any order, but two wait and at most one runs.
        refused = list(itertools.islice(as_completed(futures, 30.0), 3))
        stages.gate.set()
        errors = [future.exception(30.0) for future in futures]

    assert all(isinstance(future.exception(), RefusedError) for future in refused)
    told = [str(error) for error in errors if error is not None]
    assert 3 <= len(told) <= 4
    assert all("queue must be shorter than 2" in line for line in told)
    answers = [future.result().answer for future in futures if future.exception() is None]
    assert answers == [2] * (6 - len(told))


def test_health_checks_follow_the_standard(server, channel):
    stub = health_pb2_grpc.HealthStub(channel)

    reply = stub.Check(health_pb2.HealthCheckRequest(service=wire.SERVICE), timeout=5.0)

    assert reply.status == health_pb2.HealthCheckResponse.SERVING


def test_draining_finishes_what_is_under_way():
    stages = TinyStages()
    server = EdgeServer(BUNDLE, stages, ServerConfig(insecure=True))
    one = TailRequest(frame_index=0, split_point=1, bits=8, payload=feature_payload(), slack_s=60.0)
    with GrpcTransport(f"127.0.0.1:{server.port}", BUNDLE, insecure=True) as transport:
        transport.ping(timeout_s=5.0).result()
        entered = threading.Event()
        stages.gate.clear()
        wait = stages.gate.wait
        stages.gate.wait = lambda: (entered.set(), wait())
        future = transport.send(one, timeout_s=60.0)
        assert entered.wait(5.0)
        drain = threading.Thread(target=server.close)
        drain.start()
        stages.gate.set()

        assert future.result(10.0).answer == 2
        drain.join()
        with pytest.raises(LinkError):
            transport.ping(timeout_s=1.0).result()


def test_plain_text_must_be_asked_for():
    with pytest.raises(ConfigError, match="a server must have TLS files; got none"):
        ServerConfig()
    with pytest.raises(ConfigError, match="either TLS files or insecure=True"):
        GrpcTransport("127.0.0.1:1", BUNDLE)


def test_a_slowdown_stretches_the_tail(caplog):
    caplog.set_level(logging.INFO)
    config = ServerConfig(insecure=True, slowdown=1.0)
    with (
        EdgeServer(BUNDLE, TinyStages(), config, profile=tiny_profile()) as server,
        GrpcTransport(f"127.0.0.1:{server.port}", BUNDLE, insecure=True) as transport,
    ):
        one = TailRequest(
            frame_index=0, split_point=1, bits=8, payload=feature_payload(), slack_s=5.0
        )
        reply = transport.send(one, timeout_s=5.0).result()

    assert reply.compute_s > 0.02  # without it, two empty stages take well below a millisecond
    assert "serving tiny" in caplog.text


def test_background_load_makes_requests_wait():
    config = ServerConfig(insecure=True, background_utilization=0.9, max_queue=64)
    one = TailRequest(frame_index=0, split_point=1, bits=8, payload=feature_payload(), slack_s=9.0)
    with (
        EdgeServer(BUNDLE, TinyStages(), config) as server,
        GrpcTransport(f"127.0.0.1:{server.port}", BUNDLE, insecure=True) as transport,
    ):
        # Until one meets the load: how long that takes depends on the recorded arrivals.
        for _ in range(2000):
            wait_s = transport.send(one, timeout_s=9.0).result().queue_s
            if wait_s > 0.001:
                break

    assert wait_s > 0.001


@pytest.mark.slow
def test_a_server_short_of_time_answers_earlier_and_says_so():
    # Stages of 0.5 s, all else 0.1 s: a loaded machine does not change who is in time.
    profile = tiny_profile(50.0)
    config = ServerConfig(insecure=True, slowdown=1.0)
    one = TailRequest(
        frame_index=0, split_point=0, bits=8, payload=encode_picture(tiny_picture(2), 90),
        slack_s=1.45,
    )  # fmt: skip
    with (
        EdgeServer(BUNDLE, TinyStages(), config, profile=profile) as server,
        GrpcTransport(f"127.0.0.1:{server.port}", BUNDLE, insecure=True) as transport,
    ):
        reply = transport.send(one, timeout_s=9.0).result()

    assert (reply.answer, reply.exit_index) == (2, 2)


def test_pings_and_health_checks_are_answered_while_the_queue_is_full(server, stages, channel):
    one = TailRequest(frame_index=0, split_point=1, bits=8, payload=feature_payload(), slack_s=60.0)
    stub = health_pb2_grpc.HealthStub(channel)
    with GrpcTransport(f"127.0.0.1:{server.port}", BUNDLE, insecure=True) as transport:
        transport.ping(timeout_s=5.0).result()
        stages.gate.clear()
        futures = [transport.send(one, timeout_s=60.0) for _ in range(6)]
        list(itertools.islice(as_completed(futures, 30.0), 3))
        transport.ping(timeout_s=30.0).result()
        health = stub.Check(health_pb2.HealthCheckRequest(service=wire.SERVICE), timeout=30.0)
        stages.gate.set()

    assert health.status == health_pb2.HealthCheckResponse.SERVING


def test_requests_of_any_split_point_are_answered_as_one_batch():
    service = TailService(BUNDLE, TinyStages(), MonotonicClock())
    pictures = [request_of(0, encode_picture(tiny_picture(label), 90)) for label in range(4)]
    features = [request_of(2, feature_payload(2, label)) for label in range(4)]
    damaged = request_of(0, b"damaged")

    answers = service.answer_all([(one, 3) for one in (*pictures, damaged, *features)])

    assert isinstance(answers.pop(4), PayloadError)
    assert [answer.answer for answer in answers] == [0, 1, 2, 3, 0, 1, 2, 3]


@pytest.mark.slow
def test_a_batch_of_a_real_model_is_answered_as_its_members_alone():
    bundle = ModelBundle.load(bundle_path("garments-light"), verify=False)
    generator = np.random.default_rng(0)
    requests = [
        request_of(0, encode_picture(generator.integers(0, 256, (224, 224, 3), np.uint8), 60)),
        *(
            request_of(split, encode_feature(generator.random(shape, np.float32), 4))
            for split, shape in bundle.code_shapes.items()
            for _ in range(2)
        ),
    ]
    with StageRunner(bundle) as stages:
        service = TailService(bundle, stages, MonotonicClock())
        alone = [service.answer(one, bundle.num_stages) for one in requests]
        together = service.answer_all([(one, bundle.num_stages) for one in requests])

    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(other.logits, one.logits, rtol=1e-3, atol=1e-4)


def request_of(split_point, payload):
    return TailRequest(frame_index=0, split_point=split_point, bits=8, payload=payload, slack_s=9.0)


SERVE = """
from adaptive_split.runtime.serving.server import EdgeServer, ServerConfig
from adaptive_split.testing import TinyStages, tiny_bundle
server = EdgeServer(tiny_bundle(), TinyStages(), ServerConfig(insecure=True))
print(server.port, flush=True)
server.serve_until_signal()
print("drained", flush=True)
"""


@pytest.mark.slow
def test_sigterm_drains_the_server():
    command = [sys.executable, "-c", SERVE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        port = int(process.stdout.readline())
        with GrpcTransport(f"127.0.0.1:{port}", BUNDLE, insecure=True) as transport:
            transport.ping(timeout_s=5.0).result()
            process.send_signal(signal.SIGTERM)
            rest, _ = process.communicate(timeout=10)

    assert rest == "drained\n"
    assert process.returncode == 0


def make_certificates(folder):
    """One CA, a server named localhost, devices named cam-1 and cam-2."""
    if not shutil.which("openssl"):
        pytest.skip("openssl makes the certificates")

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    openssl("req", "-x509", *key, "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem")
    for name in ("localhost", "cam-1", "cam-2"):
        openssl(
            "req", "-x509", *key, "-subj", f"/CN={name}", "-CA", "ca.pem", "-CAkey", "ca.key",
            "-addext", f"subjectAltName=DNS:{name}", "-keyout", f"{name}.key",
            "-out", f"{name}.pem",
        )  # fmt: skip
    return lambda name: TlsFiles(
        ca=folder / "ca.pem", certificate=folder / f"{name}.pem", key=folder / f"{name}.key"
    )


def test_only_devices_on_the_list_are_let_in(tmp_path):
    files = make_certificates(tmp_path)
    config = ServerConfig(
        host="localhost", tls=files("localhost"), allowed_names=frozenset({"cam-1"})
    )
    with EdgeServer(BUNDLE, TinyStages(), config) as server:
        address = f"localhost:{server.port}"
        with GrpcTransport(address, BUNDLE, tls=files("cam-1")) as transport:
            assert transport.peer_hash(timeout_s=5.0).result() == BUNDLE.hash
        with (
            GrpcTransport(address, BUNDLE, tls=files("cam-2")) as transport,
            pytest.raises(LinkError, match="PERMISSION_DENIED"),
        ):
            transport.peer_hash(timeout_s=5.0).result()
        with (
            GrpcTransport(address, BUNDLE, insecure=True) as transport,
            pytest.raises(LinkError),
        ):
            transport.peer_hash(timeout_s=5.0).result()


def test_missing_tls_files_are_named(tmp_path):
    missing = TlsFiles(ca=tmp_path / "ca", certificate=tmp_path / "c", key=tmp_path / "k")

    with pytest.raises(ConfigError, match="TLS files must be readable"):
        EdgeServer(BUNDLE, TinyStages(), ServerConfig(tls=missing))
