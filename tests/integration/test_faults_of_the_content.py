"""Wrong bytes, wrong versions and wrong bundles cost no answers, and the server goes on serving."""

from concurrent import futures
from dataclasses import replace

import grpc
import pytest

from tests.fault_bench import RECOVERY_S, Script, Tampering, run_device, tiny_server
from tests.faulty_link import FaultyLink

pytestmark = pytest.mark.slow
BREAK_S = 1.0


@pytest.fixture
def server():
    with tiny_server() as server:
        yield server


def inverted(payload):
    return bytes(255 - byte for byte in payload)


def of_a_later_version(payload):
    return payload[:2] + bytes([9]) + payload[3:]


@pytest.mark.parametrize(
    "change",
    [
        inverted,
        of_a_later_version,
        lambda payload: payload[: len(payload) // 2],
        lambda payload: payload + bytes(6_000),
        lambda payload: payload + bytes(300_000),
    ],
    ids=["corrupted", "of a later version", "cut short", "oversized", "beyond what gRPC takes"],
)
def test_payloads_spoilt_for_a_while_cost_no_answers(server, change):
    # Features only: pictures have no checksum of their own.
    spoilt = range(20, 50)

    def tamper(request):
        if request.frame_index not in spoilt or request.split_point == 0:
            return request
        return replace(request, payload=change(request.payload))

    address = f"127.0.0.1:{server.port}"

    run = run_device(address, Script(), 2.5 + RECOVERY_S, transport=Tampering(address, tamper))

    run.check()
    hit = [r for r in run.reports if r.frame_index in spoilt and r.decision.split_point in (1, 2)]
    assert {report.answered_by for report in hit} == {"device"}
    assert "refused" in {report.fallback_reason for report in hit}
    assert run.back_after_s(2.5) < RECOVERY_S


def test_a_server_that_refuses_every_payload_is_asked_ever_less(server, caplog):
    sent = []

    def tamper(request):
        sent.append(request.frame_index)
        return replace(request, payload=inverted(request.payload))

    address = f"127.0.0.1:{server.port}"

    run = run_device(address, Script(), 6.0, transport=Tampering(address, tamper))

    run.check()
    assert {report.answered_by for report in run.reports} <= {"device", ""}
    assert 5 <= len(sent) <= 30
    assert caplog.text.count("staying local") == 1


def test_a_peer_that_is_no_edge_server_keeps_the_device_local(caplog):
    peer = grpc.server(futures.ThreadPoolExecutor(2))
    port = peer.add_insecure_port("127.0.0.1:0")
    peer.start()

    run = run_device(f"127.0.0.1:{port}", Script(), 3.0)

    peer.stop(None).wait()
    run.check()
    assert {report.answered_by for report in run.reports} <= {"device", ""}
    assert caplog.text.count("staying local") == 1


def test_a_server_that_swaps_its_bundle_while_running_is_left_and_used_again(server, caplog):
    with tiny_server("1") as other, FaultyLink(server.port) as link:

        def swap(port):
            link.lead_to(port)
            link.cut()
            link.heal()

        end_s = BREAK_S + 4.0
        controller = Script((BREAK_S, lambda: swap(other.port)), (end_s, lambda: swap(server.port)))
        run = run_device(link.address, controller, end_s + RECOVERY_S)

    run.check()
    wrong = run.between(BREAK_S + 0.3, end_s - 0.2)
    assert {report.answered_by for report in wrong} <= {"device", ""}
    assert "bundle" in {report.fallback_reason for report in wrong}
    assert caplog.text.count("both sides must hold") == 1
    assert run.back_after_s(end_s) < RECOVERY_S
