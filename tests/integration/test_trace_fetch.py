"""Recordings come whole, safe and once, from a server on this machine."""

import hashlib
import io
import json
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from adaptive_split import trace_fetch
from adaptive_split.errors import ConfigError, LinkError, TraceError
from adaptive_split.trace import read_traces
from adaptive_split.trace_fetch import SOURCES, fetch

MAINE = "datasets/maine_starlink_trip"
RATES = "".join(f"2024-05-28T14:07:28,{row}.5,1,2,9\n" for row in range(120))
PINGS = (
    "[x] 46 bytes from 1.2.3.4: icmp_seq=1 ttl=54 time=50.3 ms\n"
    "[x] 46 bytes from 1.2.3.4: icmp_seq=3 ttl=54 time=69.6 ms\n"
    "[x] 4 packets transmitted, 2 received, 50% packet loss\n"
)
FILES = {
    "mahimahi": {
        "traces/walk.up": "0\n50\n1500\n2000\n",
        "traces/walk.down": "1\n",
        "traces/bad.up": "not a number\n",
        "traces/README": "about",
        "src/main.cc": "int main;",
    },
    "maine": {
        f"{MAINE}/att/20240528/140514969/udp_uplink_140727719.csv": "time,throughput_mbps\n"
        + RATES,
        f"{MAINE}/att/20240528/140514969/ping_140900000.out": PINGS,
        f"{MAINE}/att/20240527/140514969/udp_uplink_140727719.csv": "time,throughput_mbps\n"
        + RATES,
        f"{MAINE}/att/20240528/150514969/tcp_uplink_150727719.csv": "time,throughput_mbps\nx,1\n",
        f"{MAINE}/att/20240528/140514969/tcp_downlink_140727719.csv": "time,throughput_mbps\n"
        + RATES,
        "README.md": "about",
    },
    "5gmemu": {
        "throughput/static/5g/static_away_p1_mac_tput.list": (
            "\n###\nRun 1\n0,1.5,2\n###\nRun 2\n3,4\n"
        ),
        "throughput/walking/5g/lateral_modified.list": "Run 1\n0.1,0.2\n3,4\n0.1,0.2\n5,6\n",
        "ping/static/5g/away_p1.list": "\n###\nRun 1\n31.0,12.5\n",
    },
}


def pack(files, extra=()):
    """A tar.gz as GitHub makes them: everything below one folder."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(f"repository-commit/{name}")
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
        for info in extra:
            tar.addfile(info)
    return buffer.getvalue()


@pytest.fixture
def serve():
    """Start a server that answers every path with the bytes of `archives`, by repository."""
    archives = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = next(
                (a for key, a in archives.items() if self.path.startswith(f"/{key}/")), None
            )
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()

    def start(name, archive):
        archives[SOURCES[name].repository] = archive
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    server.shutdown()
    thread.join()
    server.server_close()


def test_mahimahi_is_converted_and_what_cannot_be_is_named(serve, tmp_path):
    archive = pack(FILES["mahimahi"])
    seen = []

    fetched = fetch(
        "mahimahi",
        tmp_path,
        serve("mahimahi", archive),
        lambda done, total: seen.append((done, total)),
    )

    (trace,) = read_traces([tmp_path / "mahimahi" / "traces"])
    assert (trace.name, trace.family, trace.source) == ("walk", "mahimahi", "recorded")
    assert trace.uplink_mbps.sum() * 0.1 == pytest.approx(3 * 0.012)
    assert fetched.left_raw == ("bad.up: line must be a whole ms; got 'not a number'",)
    assert fetched.sha256 == hashlib.sha256(archive).hexdigest()
    assert seen[-1] == (len(archive), len(archive))
    assert not (tmp_path / "mahimahi" / "raw" / "src").exists()


def test_maine_rates_and_pings_are_converted_and_joined(serve, tmp_path):
    fetched = fetch("maine", tmp_path, serve("maine", pack(FILES["maine"])))

    (trace,) = read_traces([tmp_path / "maine" / "traces"])
    np.testing.assert_allclose(trace.uplink_mbps, np.arange(120) + 0.5)
    assert trace.time_s[1] == 0.5
    assert trace.rtt_source == "recorded"
    np.testing.assert_allclose(trace.rtt_s[:2], [0.0503, 0.0696])
    assert [line.rpartition(": ")[2] for line in fetched.left_raw] == [
        "rates of the sender, not of the receiver",
        "shorter than 60 s",
    ]


def test_lists_of_5gmemu_with_two_legs_stay_raw(serve, tmp_path):
    fetched = fetch("5gmemu", tmp_path, serve("5gmemu", pack(FILES["5gmemu"])))

    traces = read_traces([tmp_path / "5gmemu" / "traces"])
    assert fetched.traces == ("static_5g_away_p1_run01.csv", "static_5g_away_p1_run02.csv")
    assert fetched.rtts == ("static_5g_away_p1_run01.csv",)
    assert [trace.rtt_source for trace in traces] == ["recorded", "recorded elsewhere"]
    assert len(fetched.left_raw) == 1
    assert (tmp_path / "5gmemu" / "raw" / "throughput/walking/5g/lateral_modified.list").is_file()


def test_what_was_fetched_is_written_beside_it(serve, tmp_path):
    fetched = fetch("mahimahi", tmp_path, serve("mahimahi", pack(FILES["mahimahi"])))

    written = json.loads((tmp_path / "mahimahi" / "fetched.json").read_text(encoding="utf-8"))
    assert written["sha256"] == fetched.sha256
    assert SOURCES["mahimahi"].commit in written["url"]


def test_a_folder_that_exists_is_not_overwritten(serve, tmp_path):
    url = serve("mahimahi", pack(FILES["mahimahi"]))
    fetch("mahimahi", tmp_path, url)

    with pytest.raises(ConfigError, match="must not exist yet"):
        fetch("mahimahi", tmp_path, url)


def link(name, target):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


@pytest.mark.parametrize(
    "name", ["../evil.up", "/etc/evil.up", "repository-commit/traces/../../evil.up"]
)
def test_a_path_out_of_the_folder_is_refused_and_nothing_is_left(serve, tmp_path, name):
    archive = pack(FILES["mahimahi"], [tarfile.TarInfo(name)])

    with pytest.raises(TraceError, match="relative paths only"):
        fetch("mahimahi", tmp_path / "out", serve("mahimahi", archive))
    assert list((tmp_path / "out").iterdir()) == []


def test_links_are_left_out(serve, tmp_path):
    archive = pack(FILES["mahimahi"], [link("repository-commit/traces/x.up", "/etc/passwd")])

    fetch("mahimahi", tmp_path, serve("mahimahi", archive))

    assert not (tmp_path / "mahimahi" / "raw" / "traces" / "x.up").is_symlink()
    assert not (tmp_path / "mahimahi" / "raw" / "traces" / "x.up").exists()


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ("MAX_ARCHIVE_BYTES", "bytes; got more"),
        ("MAX_EXTRACTED_BYTES", "archive must hold at most"),
    ],
)
def test_an_archive_over_the_limit_is_refused(serve, tmp_path, monkeypatch, limit, message):
    monkeypatch.setattr(trace_fetch, limit, 10)

    with pytest.raises(TraceError, match=message):
        fetch("mahimahi", tmp_path / "out", serve("mahimahi", pack(FILES["mahimahi"])))
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("archive", [b"not a tar", pack(FILES["mahimahi"])[:-30]])
def test_a_damaged_archive_is_refused(serve, tmp_path, archive):
    with pytest.raises(TraceError, match=r"whole tar\.gz"):
        fetch("mahimahi", tmp_path, serve("mahimahi", archive))


def test_an_archive_of_something_else_is_refused(serve, tmp_path):
    with pytest.raises(TraceError, match="archive must hold traces"):
        fetch("mahimahi", tmp_path, serve("mahimahi", pack({"src/x.cc": "x"})))


def test_a_refusing_server_is_a_link_error(serve, tmp_path):
    url = serve("mahimahi", b"")

    with pytest.raises(LinkError, match="got 404"):
        fetch("maine", tmp_path, url)


@pytest.mark.parametrize(
    ("name", "url", "message"),
    [("nowhere", None, "name must be one of"), ("maine", "file:///etc", "must be http or https")],
)
def test_arguments_out_of_range_are_refused(tmp_path, name, url, message):
    with pytest.raises(ConfigError, match=message):
        fetch(name, tmp_path, url)
