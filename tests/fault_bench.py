"""A tiny device, a server process and a link that breaks between them: frames in, answers out."""

import contextlib
import subprocess
import sys
from dataclasses import dataclass, field

from adaptive_split.clock import MonotonicClock
from adaptive_split.decision import NEVER, Decision
from adaptive_split.measurement import FrameReport
from adaptive_split.objective import Objective
from adaptive_split.runtime.device import Device
from adaptive_split.runtime.live import LiveBackend, play
from adaptive_split.runtime.sensors.battery import ModelledBattery
from adaptive_split.runtime.source import PictureSequence
from adaptive_split.runtime.transport import GrpcTransport
from adaptive_split.testing import TinyStages, tiny_bundle, tiny_picture, tiny_setup

OBJECTIVE = Objective(slo_s=0.15, fps=20.0)
TOLERANCE_S = 0.5
"""What a busy machine may add to a deadline; an answer that hangs takes seconds."""
RECOVERY_S = 6.0
"""Tests wait this long for the server to be used again; three seconds are promised."""
MIX = (Decision(0, NEVER, 4), Decision(1, NEVER, 4), Decision(2, NEVER, 8), Decision(3, NEVER, 0))
SERVE = """
import sys
from adaptive_split.runtime.serving.server import EdgeServer, ServerConfig
from adaptive_split.testing import TinyStages, tiny_bundle, tiny_profile
config = ServerConfig(insecure=True, slowdown=1.0)
bundle = tiny_bundle(sys.argv[1])
server = EdgeServer(bundle, TinyStages(), config, profile=tiny_profile(0.1))
print(server.port, flush=True)
server.serve_until_signal()
"""


class TinyServer:
    """An edge server in a process of its own, which can be stalled and killed."""

    def __init__(self, bundle="0"):
        """Start on a free port, with the bundle of a digit, and wait until it listens."""
        command = [sys.executable, "-c", SERVE, bundle]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.port = int(self._process.stdout.readline())

    def signal(self, number):
        """Send the process a signal."""
        self._process.send_signal(number)

    def kill(self):
        """End it as a crash would."""
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()


class Script:
    """Decides in turn, and does something when a moment of the run has come."""

    name = "script"

    def __init__(self, *events):
        """Take pairs of a moment in seconds and what to call then; it must not block."""
        self._events = list(events)
        self.situations = []

    def decide(self, situation):
        """Take the next decision of the mix."""
        while self._events and self._events[0][0] <= situation.now_s:
            self._events.pop(0)[1]()
        self.situations.append(situation)
        return MIX[situation.frame_index % len(MIX)]

    def reset(self):
        """Forget nothing."""


@dataclass
class Run:
    """What became of the frames."""

    num_frames: int
    reports: list[FrameReport] = field(default_factory=list)
    told: list[tuple[float, FrameReport]] = field(default_factory=list)
    """Every report and the moment it was told."""

    def check(self):
        """As many answers out as frames in, each told once and in time."""
        indices = list(range(self.num_frames))
        assert sorted(report.frame_index for report in self.reports) == indices
        assert sorted(report.frame_index for _, report in self.told) == indices
        for told_s, report in self.told:
            if report.decision is not None:
                assert report.answer is not None
                assert told_s <= report.arrival_s + OBJECTIVE.slo_s + TOLERANCE_S

    def between(self, begin_s, end_s=float("inf")):
        """Frames captured in a span of the run."""
        return [report for report in self.reports if begin_s <= report.arrival_s < end_s]

    def back_after_s(self, moment_s):
        """From a moment to the server's next answer; infinite if there is none."""
        moments = [told_s for told_s, report in self.told if report.answered_by == "server"]
        later = (told_s for told_s in moments if told_s > moment_s)
        return min(later, default=float("inf")) - moment_s


class Tampering(GrpcTransport):
    """A transport whose requests are changed on their way."""

    def __init__(self, address, change):
        """Take what makes of a request the one that is sent."""
        super().__init__(address, tiny_bundle(), insecure=True)
        self._change = change

    def send(self, request, *, timeout_s):
        """Send what has become of the request."""
        return super().send(self._change(request), timeout_s=timeout_s)


@contextlib.contextmanager
def tiny_server(bundle="0"):
    """A server that is killed in the end."""
    server = TinyServer(bundle)
    try:
        yield server
    finally:
        server.kill()


def run_device(address, controller, duration_s, *, clock=None, battery=None, transport=None):
    """Play a run against a server at an address, to its last frame."""
    setup, stages = tiny_setup(OBJECTIVE), TinyStages()
    run = Run(round(duration_s * OBJECTIVE.fps))
    pictures = PictureSequence([tiny_picture(i) for i in range(4)], range(4), [2, 0, 3, 1])
    with transport or GrpcTransport(address, setup.bundle, insecure=True) as transport:
        device = Device(
            setup, stages, transport, clock or MonotonicClock(),
            battery or ModelledBattery(1e4),
            on_answer=lambda report: run.told.append((device.clock.now_s(), report)),
        )  # fmt: skip
        with LiveBackend(device, lambda seed: pictures, run.num_frames) as backend:
            run.reports += play(backend, controller)
    return run
