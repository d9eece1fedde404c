"""Metrics, logs and the live view: what is counted, how it is named, and what a person reads."""

import io
import json
import logging
import re
import socket
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from rich.console import Console

from adaptive_split import cli
from adaptive_split.cli import logs
from adaptive_split.cli.top_view import panel, view
from adaptive_split.clock import MonotonicClock
from adaptive_split.decision import NEVER, Decision
from adaptive_split.errors import ConfigError, LinkError
from adaptive_split.measurement import FrameReport, LinkSample
from adaptive_split.runtime.device import Device
from adaptive_split.runtime.sensors.battery import ModelledBattery, SystemBattery
from adaptive_split.runtime.serving.scheduler import SchedulerCounts
from adaptive_split.runtime.serving.server_metrics import MOST_NAMES, ServerMetrics, ServerState
from adaptive_split.runtime.telemetry.device_metrics import DeviceMetrics, TimedController
from adaptive_split.runtime.telemetry.endpoint import MetricsEndpoint, new_registry
from adaptive_split.runtime.telemetry.scrape import Change, parse, scrape
from adaptive_split.runtime.telemetry.watched import Watched
from adaptive_split.runtime.wire import TailReply
from adaptive_split.testing import ManualClock, MemoryTransport, TinyStages, tiny_setup

SENT = FrameReport(
    frame_index=0, sample_index=0, arrival_s=0.0, decision=Decision(1, NEVER, 4), answer=2,
    answered_by="server", exit_index=3, confidence=0.9, correct=True, on_time=True,
    fallback_reason="", latency_s=0.06, payload_bytes=500, energy_j=0.2,
)  # fmt: skip
LATE = replace(SENT, answered_by="device", on_time=False, fallback_reason="late", latency_s=0.17)
LOCAL = replace(SENT, answered_by="device", decision=Decision(3, NEVER, 0), payload_bytes=0)
DROPPED = replace(
    SENT, decision=None, answer=None, answered_by="", on_time=False, latency_s=None,
    payload_bytes=0, energy_j=0.0, fallback_reason="dropped",
)  # fmt: skip
REPLY = TailReply(
    answer=1, confidence=0.9, exit_index=3, queue_s=0.004, compute_s=0.012, server_load=0.5
)
COUNTS = SchedulerCounts(
    answered=5, answered_early=2, refused={}, failed=0, cancelled=0,
    batches={1: 4, 3: 2}, waiting={2: 1, 0: 4},
)  # fmt: skip


def device_metrics(reports=(), battery=None):
    """The registry of a device that has settled some frames."""
    registry = new_registry("device", bundle="tiny", controller="jpeg")
    metrics, clock = DeviceMetrics(registry, slo_s=0.1), ManualClock()
    setup = tiny_setup()
    transport = MemoryTransport(setup.bundle, None, clock)
    battery = battery or ModelledBattery(100.0, 0.25, clock=clock)
    metrics.watch(Device(setup, TinyStages(), transport, clock, battery), battery)
    for report in reports:
        metrics.count(report)
    return registry


def server_metrics(clock=None):
    """The metrics of a server with something in its queues."""
    metrics = ServerMetrics(new_registry("server", bundle="tiny"), clock or ManualClock())
    refused = {"no-time": 3, "rate": 7}
    metrics.watch(ServerState(load=lambda: 0.5, counts=lambda: COUNTS, refused=lambda: refused))
    return metrics


def told(registry):
    return parse(generate_latest(registry).decode())


def drawn(change, **situation):
    """What a person reads."""
    console = Console(file=io.StringIO(), width=120)
    console.print(panel("host:1", change, **{"gone": False, **situation}))
    return console.file.getvalue()


@pytest.mark.parametrize("side", ["device", "server"])
def test_names_have_our_prefix_a_base_unit_and_total_for_counters_alone(side):
    registry = device_metrics() if side == "device" else server_metrics().registry
    families = list(registry.collect())

    for family in families:
        assert re.fullmatch(r"adaptive_split_[a-z_]+", family.name)
        assert not re.search(r"_(ms|milliseconds|percent|mbps|megabytes|total)(_|$)", family.name)
        assert family.documentation
        assert not [sample for sample in family.samples if sample.name.endswith("_created")]
    assert len(families) == len({family.name for family in families}) > 10


def test_every_frame_is_counted_once_by_who_answered_and_how():
    found = told(device_metrics([SENT, SENT, LATE, LOCAL, DROPPED]))

    assert found.total("frames_total") == 5
    assert found.total("frames_total", answered_by="server", outcome="on_time") == 2
    assert found.total("frames_total", answered_by="device", outcome="missed") == 1
    assert found.total("frames_total", answered_by="nobody", outcome="dropped") == 1
    assert found.by("decisions_total", "split_point", "bits") == {("1", "4"): 3, ("3", "0"): 1}
    assert found.total("fallbacks_total") == found.total("fallbacks_total", reason="late") == 1
    assert found.total("payload_bytes_total") == 1500
    assert found.total("energy_joules_total", provenance="modelled") == pytest.approx(0.8)
    assert found.total("frame_latency_seconds_count") == 4


@pytest.mark.parametrize("known", [True, False])
def test_a_charge_is_told_where_somebody_knows_it(known, monkeypatch):
    monkeypatch.setattr("psutil.sensors_battery", lambda: None, raising=False)
    battery = ModelledBattery(100.0, 0.25, clock=ManualClock()) if known else SystemBattery()
    found = told(device_metrics([SENT], battery))

    assert found.gauge("battery_charge_ratio") == (0.25 if known else None)
    assert ("charge 25.0 %" if known else "charge unknown") in drawn(Change(found))


def test_a_link_is_told_once_something_was_heard(monkeypatch):
    sample = LinkSample(
        time_s=0.0, uplink_mbps=8.0, rtt_s=0.02, server_wait_s=0.003, server_slowdown=2.0
    )
    silent = told(device_metrics())
    monkeypatch.setattr("adaptive_split.runtime.sender.Sender.samples", (sample,))
    heard = told(device_metrics())

    assert silent.gauge("round_trip_seconds") is None
    assert "nothing heard yet" in drawn(Change(silent))
    assert heard.gauge("uplink_bytes_per_second") > 0
    assert heard.gauge("server_wait_seconds") == 0.003
    assert "server wait 3.00 ms" in drawn(Change(heard))


def test_decisions_are_timed_on_the_clock():
    clock = ManualClock()
    times = []

    class Slow:
        name = "slow"

        def decide(self, situation):
            clock.advance(0.25)
            return SENT.decision

        def reset(self):
            clock.advance(9.0)

    timed = TimedController(Slow(), clock, times.append)
    timed.reset()

    assert timed.decide(None) == SENT.decision
    assert times == [0.25]


def test_a_server_tells_answers_batches_queues_and_refusals():
    metrics = server_metrics()
    metrics.replied(REPLY, "drone-1")
    found = told(metrics.registry)

    assert found.by("requests_total", "exit") == {("3",): 1}
    assert found.total("request_queue_seconds_sum") == 0.004
    assert Change(found).mean("batch_size") == pytest.approx(10 / 6)
    assert found.by("queued_requests", "stage") == {("0",): 4, ("2",): 1}
    refused = {("no_time",): 3, ("rate",): 7}
    assert found.by("refusals_total", "reason") == refused
    text = drawn(Change(found))
    assert "1 at stage 2" in text
    assert "4 of others" in text


def test_devices_are_open_for_a_while_and_only_so_many_have_names():
    clock = ManualClock()
    metrics = server_metrics(clock)
    metrics.replied(REPLY, "early")
    clock.advance(60.0)
    for index in range(2 * MOST_NAMES):
        metrics.replied(REPLY, f"device-{index}")
    found = told(metrics.registry)

    assert found.total("open_devices") == 2 * MOST_NAMES
    by_name = found.by("device_requests_total", "device")
    assert len(by_name) == MOST_NAMES + 1
    assert by_name[("others",)] == MOST_NAMES + 1
    assert sum(by_name.values()) == found.total("requests_total") == 2 * MOST_NAMES + 1


def test_a_change_is_what_came_between_two_scrapes():
    registry = new_registry("device")
    metrics = DeviceMetrics(registry, slo_s=0.1)
    metrics.count(SENT)
    before = told(registry)
    for latency_s in (0.11, 0.12, 0.16, 0.3):
        metrics.count(replace(LOCAL, latency_s=latency_s))
    change = Change(told(registry), before)

    assert change.count("frames_total") == 4
    assert change.by("decisions_total", "split_point") == {("3",): 4}
    assert change.quantile("frame_latency_seconds", 0.5) == pytest.approx(0.125)
    assert change.quantile("frame_latency_seconds", 1.0) == pytest.approx(0.3)
    assert change.mean("frame_latency_seconds") == pytest.approx(0.1725)
    assert change.quantile("decision_seconds", 0.5) is None
    assert change.mean("decision_seconds") is None


def test_what_lies_beyond_the_last_bound_is_off_the_scale():
    found = told(device_metrics([replace(LATE, latency_s=60.0)]))

    assert Change(found).quantile("frame_latency_seconds", 0.5) == float("inf")
    assert "p50 off the scale" in drawn(Change(found))


def test_an_endpoint_is_read_over_http_and_gone_when_closed():
    with MetricsEndpoint(device_metrics([SENT]), host="127.0.0.1", port=0) as endpoint:
        found = scrape(endpoint.address)

    assert found.info["side"] == "device"
    assert found.total("frames_total") == 1
    assert found.total("process_resident_memory_bytes") > 1e6
    with pytest.raises(LinkError, match=f"metrics must be served at {endpoint.address}; got .*"):
        scrape(endpoint.address)


def test_a_port_in_use_is_refused():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(ConfigError, match=rf"bind 127.0.0.1:{port}; got .*--metrics-port"):
            MetricsEndpoint(CollectorRegistry(), host="127.0.0.1", port=port)


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:99999", "127.0.0.1:http", ""])
def test_an_address_that_is_none_is_refused_by_name(address):
    with pytest.raises(ConfigError, match=f"must be HOST:PORT, .*; got '{address}'"):
        scrape(address)
    with pytest.raises(ConfigError, match=f"got '{address}'"):
        Watched(address, MonotonicClock())


def test_metrics_of_something_else_are_refused():
    with (
        MetricsEndpoint(CollectorRegistry(), host="127.0.0.1", port=0) as other,
        pytest.raises(LinkError, match="got no metrics of adaptive_split"),
    ):
        scrape(other.address)


def nobodys_address():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        return f"127.0.0.1:{closed.getsockname()[1]}"


def test_top_draws_a_device_and_a_server_once(capsys):
    with (
        MetricsEndpoint(device_metrics([SENT, LATE]), host="127.0.0.1", port=0) as device,
        MetricsEndpoint(server_metrics().registry, host="127.0.0.1", port=0) as server,
    ):
        status = cli.main(["top", device.address, server.address, "--once"])

    out = capsys.readouterr().out
    assert status == 0
    assert f"device {device.address} (jpeg, tiny): since its start" in out
    assert "on time 50.0 %, late 50.0 %" in out
    assert re.search(r"split point +4 bits", out)
    assert f"server {server.address} (tiny)" in out
    assert "rate" in out


def test_top_says_so_where_nobody_listens(capsys):
    address = nobodys_address()

    assert cli.main(["top", address, "--once"]) == cli.FAILED
    assert f"metrics must be served at {address}" in capsys.readouterr().err


def test_top_goes_on_without_an_endpoint_that_vanished_and_with_one_that_began_anew():
    def text():
        console.print(view(watched))
        return console.file.getvalue()

    console = Console(file=io.StringIO(), width=150)
    with MetricsEndpoint(device_metrics([SENT]), host="127.0.0.1", port=0) as endpoint:
        watched = Watched(endpoint.address, MonotonicClock())
        watched.look()
        watched.look()
    port = int(endpoint.address.split(":")[1])
    watched.look()
    gone = text()
    with MetricsEndpoint(device_metrics([SENT]), host="127.0.0.1", port=port):
        watched.look()
    back = text()[len(gone) :]

    assert "since its start" not in gone
    assert "gone, waiting for it" in gone
    assert "gone" not in back
    assert "since its start" in back


def test_an_endpoint_that_never_answered_is_drawn_with_the_reason():
    watched = Watched(nobodys_address(), MonotonicClock())
    watched.look()
    console = Console(file=io.StringIO(), width=150)
    console.print(view(watched))

    assert not watched.answers
    assert f"metrics must be served at {watched.address}" in console.file.getvalue()


def test_a_log_for_machines_has_one_object_per_line_with_its_fields(capsys):
    log = logging.getLogger("adaptive_split.test")
    with logs.on_standard_error("json", "info"):
        log.debug("not told")
        log.info("two\nlines", extra={"frame_index": 7, "address": MonotonicClock})
        try:
            raise ValueError("told")
        except ValueError:
            log.exception("failed")

    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert first["message"] == "two\nlines"
    assert (first["level"], first["logger"]) == ("info", "adaptive_split.test")
    assert first["frame_index"] == 7
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", first["time"])
    assert second["exception"].endswith("ValueError: told")


def test_a_log_for_people_tells_level_and_message(capsys):
    with logs.on_standard_error("text", "warning"):
        logging.getLogger("adaptive_split.test").info("not told")
        logging.getLogger("adaptive_split.test").warning("%d left", 3)

    assert capsys.readouterr().err == "adaptive-split: warning: 3 left\n"


def test_logging_is_afterwards_as_it_was():
    root, ours = logging.getLogger(), logging.getLogger("adaptive_split")
    before = list(root.handlers), ours.level
    with logs.on_standard_error("json", "debug"):
        assert ours.isEnabledFor(logging.DEBUG)

    assert (list(root.handlers), ours.level) == before


def test_a_crash_is_an_object_as_well_where_machines_read(capsys, monkeypatch):
    def crash(name):
        raise ZeroDivisionError("nobody expected this")

    monkeypatch.setattr("adaptive_split.bundle.bundle_path", crash)
    command = ["serve", "--bundle", "garments", "--insecure"]
    status = cli.main([*command, "--log-format", "json"])

    error = json.loads(capsys.readouterr().err)
    assert status == cli.CRASHED
    assert error["exception"].endswith("ZeroDivisionError: nobody expected this")
    with pytest.raises(ZeroDivisionError):
        cli.main(command)


def test_an_error_is_an_object_as_well_where_machines_read(capsys, tmp_path):
    status = cli.main(
        ["serve", "--bundle", str(tmp_path / "none"), "--insecure", "--log-format", "json"]
    )

    error = json.loads(capsys.readouterr().err)
    assert status == cli.FAILED
    assert error["level"] == "error"
    assert "none" in error["message"]
