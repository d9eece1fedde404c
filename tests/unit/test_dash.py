"""The page of `adaptive-split dash` without a browser: what it knows, and how it is served."""

import http.client
import json
import os
import re
from dataclasses import replace

import pytest
from prometheus_client import generate_latest

from adaptive_split.errors import ConfigError
from adaptive_split.runtime.records import RecordWriter
from adaptive_split.runtime.telemetry.dash_feed import HISTORY_S, Feed
from adaptive_split.runtime.telemetry.dash_page import FILES, PAGE, DashPage
from adaptive_split.runtime.telemetry.dash_records import MOST_FRAMES, LastFrames
from adaptive_split.runtime.telemetry.dash_views import BEYOND, device_view, server_view
from adaptive_split.runtime.telemetry.endpoint import MetricsEndpoint
from adaptive_split.runtime.telemetry.scrape import Change, parse
from adaptive_split.testing import ManualClock
from tests.unit.test_telemetry import (
    DROPPED,
    LATE,
    LOCAL,
    REPLY,
    SENT,
    device_metrics,
    server_metrics,
    told,
)


@pytest.fixture(scope="module")
def page():
    with DashPage(lambda: b'{"a":1}', host="127.0.0.1", port=0) as page:
        yield page


def ask(page, path="/", method="GET", **headers):
    """One request; give status, headers and body."""
    connection = http.client.HTTPConnection(page.address, timeout=10)
    try:
        connection.request(method, path, headers=headers)
        reply = connection.getresponse()
        return reply.status, reply.headers, reply.read()
    finally:
        connection.close()


def state_of(feed):
    feed.look()
    return json.loads(feed.text())


def write(path, *reports):
    with RecordWriter(path) as writer:
        for report in reports:
            writer.write(report, [0.5] * 100)


def test_a_device_is_told_in_shares_milliseconds_and_megabits():
    view = device_view(Change(told(device_metrics([SENT, SENT, LATE, LOCAL, DROPPED]))))

    assert view["frames"]["on_time"] == 0.6
    assert view["frames"]["dropped"] == 0.2
    assert view["frames"]["answered_by"] == {"device": 0.4, "server": 0.4, "nobody": 0.2}
    assert view["latency"]["promised_ms"] == 100
    assert [one["split_point"] for one in view["decisions"]] == [1, 3]
    assert view["decisions"][0] == {"split_point": 1, "bits": 4, "share": 0.75}
    assert [one["reason"] for one in view["fallbacks"]] == ["late"]
    assert view["battery"]["soc"] == 0.25


def test_what_nobody_knows_is_none_and_what_is_off_the_scale_says_so():
    silent = device_view(Change(told(device_metrics())))
    slow = device_view(Change(told(device_metrics([replace(LATE, latency_s=60.0)]))))

    assert silent["link"]["uplink_mbps"] is None
    assert silent["link"]["heard_s"] is None
    assert silent["frames"]["on_time"] is None
    assert silent["latency"]["p95_ms"] is None
    assert slow["latency"]["p95_ms"] == BEYOND


def test_a_server_is_told_with_its_refusals_and_queues():
    metrics = server_metrics()
    metrics.replied(REPLY, "drone-1")
    view = server_view(Change(told(metrics.registry)))

    assert view["load"] == 0.5
    assert view["waiting"] == 5
    assert [one["reason"] for one in view["refusals"]] == ["rate", "no_time"]
    assert view["devices"] == 1


@pytest.mark.parametrize("strange", ["NaN", "+Inf"])
def test_a_number_that_is_none_is_unknown(strange):
    text = generate_latest(device_metrics([SENT])).decode()
    found = re.sub(r"(_battery_charge_ratio|_open_frames) [\d.]+", rf"\1 {strange}", text)
    view = device_view(Change(parse(found)))

    assert view["battery"]["soc"] is view["frames"]["open"] is None
    assert view["frames"]["total"] == 1


def test_a_feed_keeps_curves_and_what_a_device_said_last_when_it_falls_silent():
    clock = ManualClock()
    with MetricsEndpoint(device_metrics([SENT]), host="127.0.0.1", port=0) as endpoint:
        feed = Feed(endpoint.address, clock)
        first = json.loads(feed.text())
        heard = [state_of(feed), state_of(feed)][-1]
    clock.advance(4.0)
    gone = state_of(feed)
    clock.advance(HISTORY_S)
    much_later = state_of(feed)

    assert first["device"]["told"] is None
    assert first["device"]["problem"] == "not asked yet"
    assert heard["device"]["problem"] == ""
    assert heard["server"] is heard["records"] is None
    assert "metrics must be served" in gone["device"]["problem"]
    assert gone["device"]["silent_s"] == 4
    assert gone["device"]["told"]["frames"]["total"] == 1
    assert gone["curves"]["age_s"] == [4, 4, 0]
    assert gone["curves"]["p95_ms"][-1] is None
    assert much_later["curves"]["age_s"] == [HISTORY_S, 0]


def test_the_last_frames_are_told_newest_first_with_the_names_of_classes(tmp_path):
    write(tmp_path / "run.jsonl", *[SENT, LOCAL, LATE] * 40, DROPPED)
    view = LastFrames(tmp_path / "run.jsonl", ("a", "b", "c")).view()

    assert len(view["frames"]) == MOST_FRAMES
    assert view["frames"][0]["answer"] is view["frames"][0]["latency_ms"] is None
    assert view["frames"][1]["answer"] == "c"
    assert view["frames"][1]["fallback_reason"] == "late"
    assert view["frames"][3]["split_point"] == 1
    assert LastFrames(tmp_path / "run.jsonl").view()["frames"][1]["answer"] == "class 2"


def test_of_a_folder_the_newest_record_file_is_told(tmp_path):
    assert LastFrames(tmp_path).view()["problem"] == "no record file yet"
    for index, name in enumerate(("b", "a")):
        write(tmp_path / f"{name}.jsonl", SENT)
        os.utime(tmp_path / f"{name}.jsonl", (index, index))

    assert LastFrames(tmp_path).view()["file"] == "a.jsonl"


def test_a_line_that_is_cut_damaged_or_foreign_is_passed_over(tmp_path):
    file = tmp_path / "run.jsonl"
    write(file, SENT)
    whole = file.read_bytes()
    endless = whole.replace(b'"confidence": 0.9', b'"confidence": Infinity')
    file.write_bytes(b'[]\n{"frame_index":1}\nx\n' + whole + endless + whole[:40])

    assert len(LastFrames(file).view()["frames"]) == 1
    assert LastFrames(tmp_path / "none").view()["problem"] == "No such file or directory"


@pytest.mark.parametrize("path", [*FILES, "/state.json", "/none", "/../secret"])
def test_every_reply_forbids_what_the_page_does_not_need(page, path):
    status, headers, body = ask(page, path)

    assert status == (200 if path in {*FILES, "/state.json"} else 404)
    assert headers["Content-Security-Policy"].startswith("default-src 'none';")
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_can_be_written(page, method):
    assert ask(page, "/state.json", method)[0] == 501


def test_a_head_has_no_body(page):
    status, headers, body = ask(page, "/state.json?x", "HEAD")

    assert (status, headers["Content-Length"], body) == (200, "7", b"")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:1", 200), ("127.0.0.1", 200), ("[::1]:80", 200),
        ("evil.example:1", 421), ("", 421), ("127.0.0.1.evil.example", 421),
    ],
)  # fmt: skip
def test_a_name_that_is_not_this_machine_is_refused_on_its_own_address(page, host, status):
    assert ask(page, "/state.json", Host=host)[0] == status


def test_an_address_that_cannot_be_bound_is_refused(page):
    port = page.address.rpartition(":")[2]

    with pytest.raises(ConfigError, match=rf"bind 127.0.0.1:{port}; got .*; give another --port"):
        DashPage(bytes, host="127.0.0.1", port=int(port))


def test_the_page_fetches_nothing_from_elsewhere_and_sets_no_markup():
    text = "".join((PAGE / name).read_text(encoding="utf-8") for name, _ in FILES.values())

    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|@import|url\(", text)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", text)
    assert not re.search(r'<[^>]+ (style|on\w+)="', text)
