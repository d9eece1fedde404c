"""Device, server and page as services: a real browser reads the page, and SIGTERM ends all three.

The processes live once for the whole module: started, looked at, told to stop one by one.
"""

import contextlib
import html
import json
import os
import queue
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from dataclasses import dataclass, field

import pytest

from adaptive_split.cli.common import DATA, SHIPPED_CONTROLLER, SHIPPED_PICTURES
from adaptive_split.runtime.records import read_records
from adaptive_split.runtime.telemetry.dash_records import MOST_FRAMES

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
PATIENCE_S = 60.0
SEEN = 30
"""Frames to wait for before anybody looks."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not BROWSER, reason=f"needs one of {', '.join(BROWSERS)}"),
]


class Service:
    """A command whose manager listens to it."""

    def __init__(self, folder, *arguments):
        name = str(folder / f"{arguments[0]}.notify")
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.manager.bind(name)
        self._heard = queue.SimpleQueue()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "adaptive_split", *map(str, arguments)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "NOTIFY_SOCKET": name, "WATCHDOG_USEC": "1000000"},
        )  # fmt: skip
        self.words = []

    def hear(self):
        """Wait for the next word to its manager."""
        self.words.append(self._heard.get(timeout=PATIENCE_S))

    def line(self):
        """Wait for the next line of its output."""
        return self.process.stdout.readline().strip()

    def stop(self):
        """Tell it to stop; give its exit status and all that its manager heard."""
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=PATIENCE_S)
        while self.words[-1] != "STOPPING=1":
            self.hear()
        return self.process.returncode, self.words

    def close(self):
        """End it at once, if it has not ended."""
        self.process.kill()
        self.process.communicate()
        self.manager.sendto(b"", self.manager.getsockname())
        self._listener.join()
        self.manager.close()

    def _listen(self):
        while word := self.manager.recv(100):
            self._heard.put(word.decode())


@dataclass
class Seen:
    """What the module's tests judge."""

    page: str = ""
    without_device: str = ""
    console: list[str] = field(default_factory=list)
    metrics: str = ""
    ends: dict[str, tuple[int, list[str]]] = field(default_factory=dict)
    state: dict = field(default_factory=dict)
    records: list = field(default_factory=list)


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """Start all three, look at the page, end the device, look again, end the others."""
    folder, seen = tmp_path_factory.mktemp("dash"), Seen()
    scenario = (DATA / "scenarios" / "default.toml").read_text(encoding="utf-8")
    (folder / "charged.toml").write_text(
        scenario + "\n[battery]\ncapacity_j = 1000.0\nidle_w = 1.0\n"
    )
    with contextlib.ExitStack() as stack:

        def start(*arguments):
            service = Service(folder, *arguments)
            stack.callback(service.close)
            return service

        server = start("serve", "--bundle", "garments", "--insecure", "--metrics-port", 0)
        server.hear()
        address, server_metrics = server.line(), server.line()
        port = free_port()
        device = start(
            "run", "--server", address, "--insecure", "--scenario", folder / "charged.toml",
            "--pictures", SHIPPED_PICTURES, "--num-frames", 10**6, "--fps", 10,
            "--records", folder / "run.jsonl", "--metrics-port", port, "--log-format", "json",
            "--canary", 0.5, "--canary-controller", SHIPPED_CONTROLLER,
        )  # fmt: skip
        dash = start(
            "dash", "--device", f"127.0.0.1:{port}", "--server", server_metrics, "--port", 0,
            "--records", folder, "--bundle", "garments",
        )  # fmt: skip
        device.hear()
        dash.hear()
        url = dash.line()
        wait_for_frames(device, folder / "run.jsonl")
        seen.page = browse(url, folder, seen.console)
        seen.metrics = read(f"http://127.0.0.1:{port}/metrics") + read(
            f"http://{server_metrics}/metrics"
        )
        seen.ends["run"] = device.stop()
        seen.without_device = browse(url, folder, seen.console)
        seen.state = json.loads(read(url + "state.json"))
        seen.ends["dash"], seen.ends["serve"] = dash.stop(), server.stop()
        seen.records = list(read_records(folder / "run.jsonl"))
    return seen


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def wait_for_frames(device, file):
    """Wait at signs of life, which come while frames settle."""
    while file.read_bytes().count(b"\n") < SEEN:
        device.hear()


def read(url):
    with urllib.request.urlopen(url, timeout=10) as reply:
        return reply.read().decode()


def browse(url, folder, console):
    """The page as a browser's scripts made it after some seconds; what it complained of."""
    done = subprocess.run(
        [
            BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--disable-dev-shm-usage", f"--user-data-dir={folder / 'profile'}",
            "--enable-logging=stderr", "--virtual-time-budget=2500", "--dump-dom", url,
        ],
        capture_output=True, text=True, timeout=PATIENCE_S,
    )  # fmt: skip
    console += [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout


def inside(page, name):
    """The text inside an element that has an id, its parts separated by blanks."""
    tag, rest = re.search(rf'<(\w+)[^>]* id="{name}"[^>]*>(.*)', page, re.S).groups()
    return html.unescape(re.sub(r"<[^>]+>", " ", rest.split(f"</{tag}>")[0])).strip()


def test_a_browser_runs_the_page_without_complaint(seen):
    assert seen.console == []
    assert inside(seen.page, "name").startswith("Device 127.0.0.1:")
    assert inside(seen.page, "what").startswith("garments, sac decides; up ")
    assert '<p id="banner" class="banner" hidden=""' in seen.page


@pytest.mark.parametrize(
    ("tile", "unit"),
    [("uplink", "Mbit/s"), ("rtt", "ms"), ("on-time", "%"), ("latency", "ms"), ("battery", "%")],
)
def test_the_page_shows_what_the_device_tells(seen, tile, unit):
    assert re.fullmatch(rf"[\d.]+ +{unit}", inside(seen.page, tile))


@pytest.mark.parametrize("name", ["uplink", "rtt", "latency", "missed"])
def test_every_curve_is_drawn(seen, name):
    assert 'class="curve' in re.search(rf'id="chart-{name}".*?</svg>', seen.page, re.S)[0]


def test_decisions_and_frames_are_shown_with_their_answers(seen):
    shares = re.findall(r"<td[^>]*>([\d.]+)</td>", seen.page.split('id="decisions"')[1])
    rows = seen.page.split('id="frames"')[1].split("</table>")[0].count("<tr>")

    assert re.search(r"[1248] bits?\b", inside(seen.page, "decisions"))
    assert float(shares[0]) <= 100
    assert rows == 1 + MOST_FRAMES
    assert re.search(r"T-Shirt|Pants|Shoes|Shirt|Dress|Longsleeve|Skirt|Outwear|Hat|Shorts",
                     inside(seen.page, "frames"))  # fmt: skip
    assert inside(seen.page, "records-note") == "run.jsonl"


def test_the_server_is_shown_beside_the_device(seen):
    assert inside(seen.page, "server-name").endswith("(garments)")
    assert "answered" in inside(seen.page, "server-facts")


def test_a_device_that_has_gone_is_called_so_and_what_it_said_last_stays(seen):
    assert inside(seen.without_device, "state") == "gone"
    assert re.match(
        "Silent for .*; below is what it said last.", inside(seen.without_device, "banner")
    )
    assert inside(seen.without_device, "on-time").endswith("%")
    assert seen.state["device"]["told"]["frames"]["total"] >= SEEN
    assert seen.state["curves"]["rtt_ms"][-1] is None


@pytest.mark.parametrize("command", ["run", "serve", "dash"])
def test_a_service_ends_well_at_sigterm_and_tells_its_manager_all_along(seen, command):
    status, words = seen.ends[command]

    assert status == 0
    assert words[0] == "READY=1"
    assert words[-1] == "STOPPING=1"
    assert set(words[1:-1]) == {"WATCHDOG=1"}


def test_a_device_that_was_stopped_has_a_record_of_every_frame(seen):
    indices = sorted(record.report.frame_index for record in seen.records)

    assert indices == list(range(len(indices)))
    assert len(indices) >= SEEN


def test_the_dashboard_of_the_fleet_asks_for_what_these_processes_tell(seen):
    board = (DATA.parents[1] / "deploy" / "fleet" / "grafana.json").read_text(encoding="utf-8")
    told = set(re.findall(r"^# TYPE (\w+)", seen.metrics, re.M))
    asked = {
        re.sub(r"_(bucket|sum|count)$", "", name)
        for name in re.findall(r"adaptive_split_\w+", board)
    }

    assert asked <= told
