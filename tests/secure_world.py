"""A private CA, a server with mutual TLS, and good and bad devices, for the security tests."""

import threading
import time
from datetime import datetime, timedelta, timezone

import grpc

from adaptive_split.codec import encode_feature
from adaptive_split.runtime import wire
from adaptive_split.runtime.certificates import Authority
from adaptive_split.runtime.credentials import TlsFiles
from adaptive_split.runtime.serving.server import EdgeServer, ServerConfig
from adaptive_split.runtime.transport import GrpcTransport
from adaptive_split.runtime.wire import TailRequest
from adaptive_split.testing import TinyStages, tiny_bundle, tiny_picture

BUNDLE = tiny_bundle()
NOW = datetime.now(timezone.utc)
LONG_S = 30.0


class World:
    """A CA with a server, good devices and an expired one; another CA with a `cam-1` of its own."""

    def __init__(self, folder):
        ours, others = (Authority.create(folder / name, NOW) for name in ("ours", "others"))
        self.server = ours.issue("server", ["localhost", "127.0.0.1"], NOW, 30)
        self.good = ours.issue("device", ["cam-1"], NOW, 30)
        self.second = ours.issue("device", ["cam-2"], NOW, 30)
        self.expired = ours.issue("device", ["old"], NOW - timedelta(days=60), 30)
        alien = others.issue("device", ["cam-1"], NOW, 30)
        self.alien = TlsFiles(ca=self.server.ca, certificate=alien.certificate, key=alien.key)
        self.others, self.other_device = others, alien


def serve(world, stages=None, **settings):
    config = ServerConfig(host="localhost", tls=world.server, **settings)
    return EdgeServer(BUNDLE, stages or TinyStages(), config)


def connect(server, tls):
    return GrpcTransport(f"localhost:{server.port}", BUNDLE, tls=tls, insecure=tls is None)


def payload():
    stages = TinyStages()
    feature = stages.stage(1, stages.prepare(tiny_picture(2)))
    return encode_feature(stages.encode(1, feature), 8)


def frame(index=0, run_id="", slack_s=LONG_S):
    return TailRequest(
        frame_index=index, split_point=1, bits=8, payload=payload(), slack_s=slack_s, run_id=run_id
    )


def serves(server, tls):
    """Whether a device gets its answer."""
    with connect(server, tls) as transport:
        return transport.send(frame(), timeout_s=LONG_S).result().answer == 2


def refused(server):
    """What the server counted, without the zeros."""
    return {reason: count for reason, count in server.refused().items() if count}


def until(done):
    """Wait for another thread or process to get there."""
    end_s = time.monotonic() + LONG_S
    while not done():
        assert time.monotonic() < end_s, "it should have happened by now"
        threading.Event().wait(0.01)


def channel_of(server, tls):
    return grpc.secure_channel(f"localhost:{server.port}", tls.for_device())


def raw_call(channel, content, name="ModelInfer", **options):
    """Send bytes as a message; return the reply's bytes."""
    return channel.unary_unary(f"/{wire.SERVICE}/{name}")(content, timeout=LONG_S, **options)
