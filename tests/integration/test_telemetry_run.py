"""The commands as processes: metrics that add up, logs that machines read, a picture of both."""

import contextlib
import json
import queue
import re
import subprocess
import sys
import threading
from dataclasses import dataclass

import pytest

from adaptive_split.cli.common import SHIPPED_PICTURES
from adaptive_split.errors import LinkError
from adaptive_split.runtime.telemetry.scrape import Scrape, scrape

FRAMES = 10
"""To wait for before anybody looks."""
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

    def stop(self):
        """Tell it to stop; give the exit status."""
        self.process.terminate()
        return self.end()

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


@dataclass
class Seen:
    """What the module's tests judge."""

    addresses: tuple[str, str]
    frames: list[float]
    top: subprocess.CompletedProcess
    answered: Scrape
    statuses: tuple[int, int]
    summary: str
    log: list[str]


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """A device and its server, looked at, then told to stop."""
    with contextlib.ExitStack() as stack:

        def start(*arguments):
            command = Command(*arguments, "--insecure", "--metrics-port", 0, "--log-format", "json")
            stack.callback(command.close)
            return command

        server = start("serve", "--bundle", "garments", "--port", 0)
        address, told = (server.process.stdout.readline().strip() for _ in range(2))
        device = start(
            "run", "--server", address, "--pictures", SHIPPED_PICTURES, "--num-frames", 10_000,
            "--fps", 10, "--records", tmp_path_factory.mktemp("run") / "run.jsonl",
        )  # fmt: skip
        addresses, frames = (device.metrics_address(), told), []
        while not frames or frames[-1] < FRAMES:
            with pytest.raises(subprocess.TimeoutExpired):
                device.process.wait(0.3)
            frames.append(scrape(addresses[0]).total("frames_total"))
        top = subprocess.run(
            [sys.executable, "-m", "adaptive_split", "top", *addresses, "--once"],
            capture_output=True, text=True,
        )  # fmt: skip
        answered = scrape(addresses[1])
        statuses = tuple(command.stop() for command in (device, server))
        log = [*device.seen, *server.seen]
        return Seen(addresses, frames, top, answered, statuses, device.process.stdout.read(), log)


@pytest.mark.slow
def test_a_device_and_its_server_tell_what_they_do(seen):
    assert seen.frames == sorted(seen.frames)
    assert seen.answered.total("process_threads") > 1
    assert seen.answered.total("requests_total") == seen.answered.total(
        "request_compute_seconds_count"
    )
    assert seen.answered.total("open_devices") <= 1


@pytest.mark.slow
def test_top_draws_both(seen):
    device, server = seen.addresses
    assert seen.top.returncode == 0, seen.top.stderr
    assert f"device {device} (sac, garments)" in seen.top.stdout
    assert f"server {server} (garments)" in seen.top.stdout
    assert re.search(r"split point", seen.top.stdout)


@pytest.mark.slow
def test_both_end_well_when_told_to_and_tell_no_more(seen):
    assert seen.statuses == (0, 0)
    assert re.match(r"sac: \d+ frames", seen.summary)
    for address in seen.addresses:
        with pytest.raises(LinkError):
            scrape(address)


@pytest.mark.slow
def test_every_line_of_a_log_for_machines_is_one_object(seen):
    rows = [json.loads(line) for line in seen.log]
    assert {"time", "level", "logger", "message"} <= set.intersection(*map(set, rows))
    assert any(row["message"] == "draining" for row in rows)


@pytest.mark.slow
def test_metrics_are_told_on_this_machine_alone_unless_asked_otherwise(seen):
    assert {address.split(":")[0] for address in seen.addresses} == {"127.0.0.1"}
