"""A device, a real server process and an emulated link between them."""

import contextlib
import subprocess
import sys

import numpy as np
import pytest

from adaptive_split.clock import MonotonicClock
from adaptive_split.decision import NEVER, Decision
from adaptive_split.objective import Objective
from adaptive_split.runtime.device import Device
from adaptive_split.runtime.emulation.emulated_link import EmulatedLink
from adaptive_split.runtime.live import LiveBackend, play
from adaptive_split.runtime.records import RecordWriter, read_records
from adaptive_split.runtime.sensors.battery import ModelledBattery
from adaptive_split.runtime.source import PictureSequence
from adaptive_split.runtime.transport import GrpcTransport
from adaptive_split.testing import TinyStages, tiny_picture, tiny_setup
from adaptive_split.trace import Trace

TOLERANCE_S = 0.025
"""What a busy machine without real-time priorities may add to a deadline."""
SERVE = """
import sys
from adaptive_split.runtime.serving.server import EdgeServer, ServerConfig
from adaptive_split.testing import TinyStages, tiny_bundle, tiny_profile
config = ServerConfig(insecure=True, port=int(sys.argv[1]), slowdown=1.0)
server = EdgeServer(tiny_bundle(), TinyStages(), config, profile=tiny_profile(0.1))
print(server.port, flush=True)
server.serve_until_signal()
"""
MIX = (Decision(0, NEVER, 4), Decision(1, NEVER, 4), Decision(2, 0.99, 8), Decision(3, NEVER, 0))
OBJECTIVE = Objective(slo_s=0.15, fps=20.0)


class ServerProcess:
    """An edge server in a process of its own, which can be killed and started again."""

    def __init__(self):
        self.port = 0
        self.start()

    def start(self):
        """Start, on the port of the last time."""
        command = [sys.executable, "-c", SERVE, str(self.port)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        if not self.port:
            self.wait()

    def wait(self):
        """Wait until it listens."""
        self.port = int(self._process.stdout.readline())

    def kill(self):
        """End it as a crash would."""
        self._process.kill()
        self._process.communicate()


class Mixer:
    """Decides in turn, and calls something before a frame."""

    name = "mixer"

    def __init__(self, before_frame=lambda index: None):
        self._before_frame = before_frame
        self.situations = []

    def decide(self, situation):
        """Take the next decision of the mix."""
        self.situations.append(situation)
        self._before_frame(situation.frame_index)
        return MIX[situation.frame_index % len(MIX)]

    def reset(self):
        """Forget nothing."""


@pytest.fixture
def server():
    process = ServerProcess()
    yield process
    process.kill()


@contextlib.contextmanager
def live_backend(server, num_frames, answered):
    """A device behind 10 Mbit/s and 30 ms."""
    steady = Trace("t", "t", np.array([0.0, 1.0]), np.array([10.0] * 2), np.array([0.03] * 2))
    pictures = PictureSequence([tiny_picture(i) for i in range(4)], range(4), [2, 0, 3, 1])
    setup = tiny_setup(OBJECTIVE)
    with (
        EmulatedLink(f"127.0.0.1:{server.port}") as link,
        GrpcTransport(link.address, setup.bundle, insecure=True) as transport,
    ):
        device = Device(
            setup,
            TinyStages(),
            transport,
            MonotonicClock(),
            ModelledBattery(1e4),
            on_answer=lambda report: answered.append((device.clock.now_s(), report)),
        )

        def prepare(seed):
            link.start(steady)
            return pictures

        with LiveBackend(device, prepare, num_frames) as backend:
            yield backend


def check_promise(answered):
    """Every frame that started has an answer by its deadline, on the wall."""
    for told_s, report in answered:
        if report.decision is not None:
            assert report.answer is not None
            assert report.latency_s <= OBJECTIVE.slo_s + TOLERANCE_S
            assert told_s <= report.arrival_s + OBJECTIVE.slo_s + TOLERANCE_S


@pytest.mark.slow
def test_every_frame_in_has_one_record_out(server, tmp_path):
    answered, controller = [], Mixer()

    with live_backend(server, 60, answered) as backend:
        reports = list(play(backend, controller))

    assert sorted(report.frame_index for report in reports) == list(range(60))
    assert sorted(report.frame_index for _, report in answered) == list(range(60))
    check_promise(answered)
    with RecordWriter(tmp_path / "frames.jsonl") as writer:
        for report in reports:
            writer.write(report)
    assert [row.report for row in read_records(tmp_path / "frames.jsonl")] == reports
    by_server = [report for report in reports if report.answered_by == "server"]
    assert len(by_server) > 20
    assert all(report.correct for report in by_server if report.on_time)
    samples = controller.situations[-1].samples
    # Other processes may add to a round trip; nothing takes from it.
    assert 0.028 <= min(sample.rtt_s for sample in samples) <= 0.028 + TOLERANCE_S


@pytest.mark.slow
def test_a_killed_server_costs_no_answers_and_is_used_again_when_it_is_back(server):
    answered = []

    def break_server(index):
        if index == 20:
            server.kill()
        if index == 40:
            server.start()

    reports, again = [], 0
    with live_backend(server, 400, answered) as backend:
        for report in play(backend, Mixer(break_server)):
            reports.append(report)
            again += report.frame_index > 40 and report.answered_by == "server"
            if again == 5:
                break
    server.wait()

    check_promise(answered)
    assert len({report.frame_index for report in reports}) == len(reports)
    dark = [report for report in reports if 21 <= report.frame_index < 40]
    assert {report.answered_by for report in dark} <= {"device", ""}
    assert "breaker" in {report.fallback_reason for report in dark}
    assert again == 5
