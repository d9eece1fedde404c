"""`serve --ray`: the edge server's contract with tails computed by replicas on a Ray cluster."""

import dataclasses
import os
import signal
import subprocess
import sys

import grpc
import psutil
import pytest

from adaptive_split.bundle import ModelBundle
from adaptive_split.clock import MonotonicClock
from adaptive_split.codec import encode_feature, encode_picture
from adaptive_split.errors import BundleError, LinkError, PayloadError
from adaptive_split.runtime import wire
from adaptive_split.runtime.serving.server import EdgeServer, ServerConfig
from adaptive_split.runtime.stages import StageRunner
from adaptive_split.runtime.transport import GrpcTransport
from adaptive_split.runtime.wire import RefusedError, TailRequest
from tests.color_bundle import color_pictures, write_color_bundle

pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # a busy machine starts Ray slowly


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    path = tmp_path_factory.mktemp("colors")
    write_color_bundle(path)
    return ModelBundle.load(path)


def environment():
    """This one's, without what a cluster of another test has left there, its token above all."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}


@pytest.fixture(scope="module")
def process(bundle):
    """The command, and the address that it printed."""
    command = [sys.executable, "-m", "adaptive_split", "serve", "--ray", "--replicas", "2",
               "--bundle", bundle.path, "--insecure"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as process:
        process.address = process.stdout.readline().strip()
        yield process
        process.terminate()


@pytest.fixture(scope="module")
def transport(process, bundle):
    with GrpcTransport(process.address, bundle, insecure=True) as transport:
        transport.ping(timeout_s=30.0).result()
        yield transport


def payloads(bundle):
    """A payload of every color and split point: `(split_point, payload)`."""
    with StageRunner(bundle) as stages:
        for _, _, pixels in color_pictures():
            yield 0, encode_picture(pixels, 80)
            feature = stages.stage(1, stages.prepare(pixels))
            yield 1, encode_feature(stages.encode(1, feature), 8)


def request(payload=None, split_point=0, frame_index=0, slack_s=60.0):
    payload = payload or encode_picture(color_pictures()[1][2], 80)
    return TailRequest(frame_index=frame_index, split_point=split_point, bits=8,
                       payload=payload, slack_s=slack_s)  # fmt: skip


def replicas_of(process):
    """The processes of the replicas."""
    below = psutil.Process(process.pid).children(recursive=True)
    return [one for one in below if "ServeReplica" in one.name() + "".join(one.cmdline())]


def test_answers_are_those_of_the_plain_server(transport, bundle):
    requests = [request(payload, split) for split, payload in payloads(bundle)]
    there = [transport.send(one, timeout_s=60.0).result() for one in requests]
    with (
        StageRunner(bundle) as stages,
        EdgeServer(bundle, stages, ServerConfig(insecure=True)) as server,
        GrpcTransport(f"127.0.0.1:{server.port}", bundle, insecure=True) as plain,
    ):
        here = [plain.send(one, timeout_s=60.0).result() for one in requests]

    for ours, theirs in zip(here, there, strict=True):
        assert (ours.answer, ours.confidence, ours.exit_index) == (
            theirs.answer, theirs.confidence, theirs.exit_index
        )  # fmt: skip
        assert theirs.compute_s > 0
        assert theirs.queue_s > 0
        assert 0 <= theirs.server_load <= 1


def test_what_is_wrong_is_refused_as_by_the_plain_server(transport, process, bundle):
    with pytest.raises(RefusedError, match="slack must be more than"):
        transport.send(request(slack_s=-1.0), timeout_s=60.0).result()
    with pytest.raises(PayloadError):
        transport.send(request(b"no picture"), timeout_s=60.0).result()
    other = dataclasses.replace(bundle, hash="f" * 64)
    with (
        GrpcTransport(process.address, other, insecure=True) as stranger,
        pytest.raises(BundleError, match="bundle_hash must be"),
    ):
        stranger.send(request(), timeout_s=60.0).result()

    assert transport.send(request(), timeout_s=60.0).result().answer == 1


def test_a_refusal_tells_the_wait_in_its_trailer(process, bundle):
    with grpc.insecure_channel(process.address) as channel:
        method = channel.unary_unary(
            f"/{wire.SERVICE}/ModelInfer",
            request_serializer=lambda message: message.SerializeToString(),
        )
        with pytest.raises(grpc.RpcError) as caught:
            method(wire.pack_request(bundle, request(slack_s=0.0)), timeout=60.0)

    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert float(dict(caught.value.trailing_metadata())["queue-s"]) >= 0


def test_without_an_answer_in_its_slack_a_request_is_refused(transport, process):
    stalled = replicas_of(process)
    for replica in stalled:
        replica.suspend()
    try:
        with pytest.raises(RefusedError, match="a replica must answer within"):
            transport.send(request(slack_s=1.0), timeout_s=60.0).result()
    finally:
        for replica in stalled:
            replica.resume()

    assert transport.send(request(), timeout_s=60.0).result().answer == 1


def test_killed_replicas_cost_their_requests_and_no_more(transport, process):
    killed = replicas_of(process)
    assert len(killed) == 2
    for replica in killed:
        replica.suspend()
    futures = [transport.send(request(frame_index=i, slack_s=3.0), timeout_s=60.0)
               for i in range(4)]  # fmt: skip
    for replica in killed:
        replica.kill()

    # Those that another replica took up in time are answered.
    ends = [future.exception(60.0) for future in futures]
    assert all(end is None or isinstance(end, LinkError) for end in ends)
    assert answered_again(transport)


def answered_again(transport):
    """Whether a request is answered within two minutes."""
    clock = MonotonicClock()
    until_s = clock.now_s() + 120.0
    while clock.now_s() < until_s:
        future = transport.send(request(slack_s=5.0), timeout_s=60.0)
        if future.exception() is None:
            return future.result().answer == 1
    return False


def test_a_stranger_cannot_join_the_cluster(process):
    arguments = {
        part.split("=")[0]: part.partition("=")[2]
        for child in psutil.Process(process.pid).children()
        for part in child.cmdline()
    }
    code = f"import ray; ray.init({arguments['--gcs-address']!r}, logging_level='error')"

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment()
    )

    assert done.returncode != 0
    assert "token" in done.stderr.lower()


def test_sigterm_ends_server_replicas_and_cluster(process, transport):
    below = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)

    rest, _ = process.communicate(timeout=120)

    assert process.returncode == 0
    assert rest == ""
    assert psutil.wait_procs(below, timeout=60.0)[1] == []
