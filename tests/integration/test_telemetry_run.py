"""The commands as processes: metrics that add up, logs that machines read, a picture of both."""

import json
import queue
import re
import subprocess
import sys
import threading

import pytest

from adaptive_split.cli.common import SHIPPED_PICTURES
from adaptive_split.errors import LinkError
from adaptive_split.runtime.telemetry.scrape import scrape

MANY, FEW = 250, 30
"""Frames of a run: enough to look at it meanwhile; enough to end."""
SEEN = 10
PATIENCE_S = 120.0
"""For a process to say something on a busy machine."""


class Command:
    """A command in a process of its own; its standard error is read line by line."""

    def __init__(self, *arguments):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "adaptive_split", *map(str, arguments)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.lines = queue.SimpleQueue()
        self.seen = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def metrics_address(self):
        """Wait for the endpoint's line in the log."""
        while True:
            row = json.loads(self.lines.get(timeout=PATIENCE_S))
            if row["message"].startswith("metrics at "):
                return row["address"]

    def end(self):
        """Wait for the end; give the exit status."""
        status = self.process.wait(PATIENCE_S)
        self._reader.join()
        return status

    def close(self):
        """End it at once, if it has not ended."""
        self.process.kill()
        self.end()
        self.process.stdout.close()
        self.process.stderr.close()

    def _read(self):
        for line in self.process.stderr:
            self.seen.append(line)
            self.lines.put(line)


@pytest.fixture
def server():
    command = Command("serve", "--bundle", "garments", "--port", 0, "--insecure",
                      "--metrics-port", 0, "--log-format", "json")  # fmt: skip
    yield command
    command.close()


@pytest.fixture
def run(server, tmp_path):
    """Start a device that plays some frames."""
    address, commands = server.process.stdout.readline().strip(), []

    def start(num_frames):
        commands.append(
            Command(
                "run", "--server", address, "--pictures", SHIPPED_PICTURES, "--insecure",
                "--num-frames", num_frames, "--fps", 10, "--records", tmp_path / "run.jsonl",
                "--metrics-port", 0, "--log-format", "json",
            )
        )  # fmt: skip
        return commands[-1]

    yield start
    for command in commands:
        command.close()


@pytest.mark.slow
def test_a_device_and_its_server_tell_what_they_do_until_they_end(server, run):
    device = run(MANY)
    device_address, server_address = device.metrics_address(), server.metrics_address()
    frames = []
    while not frames or frames[-1] < SEEN:
        with pytest.raises(subprocess.TimeoutExpired):
            device.process.wait(0.3)
        frames.append(scrape(device_address).total("frames_total"))
    top = subprocess.run(
        [sys.executable, "-m", "adaptive_split", "top", device_address, server_address, "--once"],
        capture_output=True, text=True,
    )  # fmt: skip
    answered = scrape(server_address)
    status = device.end()

    assert frames == sorted(frames)
    assert top.returncode == 0, top.stderr
    assert f"device {device_address} (sac, garments)" in top.stdout
    assert f"server {server_address} (garments)" in top.stdout
    assert re.search(r"split point", top.stdout)
    assert answered.total("process_threads") > 1
    assert answered.total("requests_total") == answered.total("request_compute_seconds_count")
    assert answered.total("open_devices") <= 1
    assert status == 0
    with pytest.raises(LinkError):
        scrape(device_address)


@pytest.mark.slow
def test_every_line_of_a_log_for_machines_is_one_object(server, run):
    device = run(FEW)
    assert device.end() == 0
    server.process.terminate()
    assert server.end() == 0

    rows = [json.loads(line) for line in [*device.seen, *server.seen]]
    assert {"time", "level", "logger", "message"} <= set.intersection(*map(set, rows))
    assert any(row["message"] == "draining" for row in rows)
    assert device.process.stdout.readline().startswith(f"sac: {FEW} frames")


@pytest.mark.slow
def test_metrics_are_told_on_this_machine_alone_unless_asked_otherwise(server):
    server.process.stdout.readline()

    assert server.process.stdout.readline().startswith("127.0.0.1:")
