"""`adaptive-split record` as a process: mutual TLS, an emulated link, gpsd, a crash, a signal."""

import json
import signal
import subprocess
import sys

import numpy as np
import pytest

from adaptive_split.runtime.emulation.emulated_link import EmulatedLink
from adaptive_split.trace import read_trace
from tests.played_links import trace_of
from tests.secure_world import World, serve, until
from tests.unit.test_gpsd import Gpsd

RATE_MBPS, RTT_S = 8.0, 0.04
PATIENCE_S = 60.0


class Recording:
    """The command as a user calls it, again and again with one file."""

    def __init__(self, link, tls, path):
        self._link, self._tls, self.path = link, tls, path

    def start(self, *more):
        """Start it."""
        files = ("--ca", self._tls.ca, "--certificate", self._tls.certificate, "--key",
                 self._tls.key)  # fmt: skip
        command = ("record", "--server", self._link.address, "--out", self.path, *files, *more)
        return subprocess.Popen(
            [sys.executable, "-m", "adaptive_split", *map(str, command)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def num_rows(self):
        """Rows in the file so far."""
        text = self.path.read_text() if self.path.exists() else ""
        return sum(line[0].isdigit() for line in text.splitlines() if line)


@pytest.fixture
def recording(tmp_path):
    world = World(tmp_path)
    with serve(world) as server, EmulatedLink(f"127.0.0.1:{server.port}") as link:
        link.start(trace_of([RATE_MBPS] * 2, [RTT_S] * 2))
        yield Recording(link, world.good, tmp_path / "drive.csv")


@pytest.mark.slow
def test_a_recording_survives_a_crash_and_ends_whole_on_a_signal(recording):
    with Gpsd([52.5]) as gpsd:
        first = recording.start("--period", 0.5, "--gps", f"127.0.0.1:{gpsd.port}")
        until(lambda: recording.num_rows() >= 3)
        first.kill()
        first.communicate()
    before = recording.num_rows()
    second = recording.start("--period", 0.5)
    until(lambda: recording.num_rows() >= before + 3)
    second.send_signal(signal.SIGTERM)
    said, complaints = second.communicate(timeout=PATIENCE_S)

    assert second.returncode == 0, complaints
    assert "stopped: " in said
    assert f"1 gaps in {recording.path}" in said
    trace = read_trace(recording.path)
    assert len(trace.time_s) == recording.num_rows() >= 6
    # A busy machine adds to a round trip, and may take from a rate.
    assert 0.5 * RATE_MBPS < np.median(trace.uplink_mbps) < 1.5 * RATE_MBPS
    assert RTT_S < np.nanmedian(trace.rtt_s) < 3 * RTT_S
    sidecar = json.loads(recording.path.with_suffix(".json").read_text())
    assert [part.get("ended") for part in sidecar["parts"]] == [None, "stopped"]
    positions = recording.path.with_suffix(".positions.jsonl").read_text().splitlines()
    assert json.loads(positions[0])["latitude_deg"] == 52.5


@pytest.mark.slow
def test_a_server_that_lets_nobody_in_is_told_at_once(recording):
    recording._tls = World(recording.path.parent / "elsewhere").good
    command = recording.start("--minutes", 1)
    said, complaints = command.communicate(timeout=PATIENCE_S)

    assert command.returncode == 2
    assert said == ""
    assert "a server must answer before a recording; got " in complaints
    assert not recording.path.exists()
