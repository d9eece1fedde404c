"""Whether a server answers, how soon, and whether it holds the same model."""

from __future__ import annotations

import time
from collections.abc import Iterator

import grpc
import numpy as np
from grpc_health.v1 import health_pb2

from adaptive_split.bundle import ModelBundle
from adaptive_split.errors import BundleError, ConfigError, LinkError, LinkTimeout
from adaptive_split.runtime.credentials import TlsFiles
from adaptive_split.runtime.doctor.finding import Finding, green, red, yellow
from adaptive_split.runtime.transport import GrpcTransport
from adaptive_split.runtime.wire import RefusedError

PATIENCE_S = 5.0
NUM_PINGS = 20


def examine_link(
    address: str, bundle: ModelBundle, tls: TlsFiles | None, slo_s: float
) -> Iterator[Finding]:
    """Health, model and round trip of one server.

    Args:
        address: `host:port`.
        bundle: What this device holds.
        tls: Files for mutual TLS; none = plain text.
        slo_s: The latency promised.
    """
    subject = f"server {address}"
    try:
        with GrpcTransport(address, bundle, tls=tls, insecure=tls is None) as transport:
            peer_hash = transport.peer_hash(timeout_s=PATIENCE_S).result()
            yield _model(subject, bundle, peer_hash)
            yield _round_trip(subject, transport, slo_s)
        yield _health(subject, address, tls)
    except (LinkError, LinkTimeout, RefusedError, ConfigError) as error:
        yield red(
            subject, str(error), "put this certificate's name on the server's --allow-file"
            if "PERMISSION_DENIED" in str(error) else
            "start 'adaptive-split serve' there, open its port, and give both sides TLS files or "
            "--insecure",
        )  # fmt: skip
    except BundleError as error:
        yield red(
            f"{subject}, model", str(error), "serve and run the same bundle: copy the directory "
            "from one side to the other"
        )  # fmt: skip
    if tls is None:
        yield yellow(
            f"{subject}, TLS", "plain text: whoever listens sees pictures and features",
            "on a link that is not yours alone: 'adaptive-split certs', then --ca, --certificate "
            "and --key",
        )  # fmt: skip


def _model(subject: str, bundle: ModelBundle, peer_hash: str) -> Finding:
    if peer_hash == bundle.hash:
        return green(f"{subject}, model", f"{bundle.name} {peer_hash[:12]}, the same as here")
    return red(
        f"{subject}, model", f"{bundle.name} {peer_hash[:12]}, here {bundle.hash[:12]}",
        "copy one side's bundle to the other: until then the device stays local",
    )  # fmt: skip


def _round_trip(subject: str, transport: GrpcTransport, slo_s: float) -> Finding:
    times_s = []
    for _ in range(NUM_PINGS):
        begin_s = time.monotonic()
        transport.ping(timeout_s=PATIENCE_S).result()
        times_s.append(time.monotonic() - begin_s)
    middle_s, late_s = (float(value) for value in np.percentile(times_s, (50, 95)))
    found = f"median {1e3 * middle_s:.1f} ms, p95 {1e3 * late_s:.1f} ms of {NUM_PINGS}"
    if middle_s < slo_s / 2:
        return green(f"{subject}, round trip", found)
    return yellow(
        f"{subject}, round trip", found,
        f"of {1e3 * slo_s:.0f} ms promised this leaves little: use a nearer server",
    )  # fmt: skip


def _health(subject: str, address: str, tls: TlsFiles | None) -> Finding:
    channel = (
        grpc.insecure_channel(address)
        if tls is None
        else grpc.secure_channel(address, tls.for_device())
    )
    with channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            status = check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S).status
        except grpc.RpcError as error:
            return yellow(
                f"{subject}, health", f"no answer: {error.code().name}",
                "frames work; let its health service through for load balancers",
            )  # fmt: skip
    name = health_pb2.HealthCheckResponse.ServingStatus.Name(status)
    if status == health_pb2.HealthCheckResponse.SERVING:
        return green(f"{subject}, health", name)
    return red(f"{subject}, health", name, "it drains or has just begun: try again, or start it")
