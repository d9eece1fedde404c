"""What fails on the device itself costs no answers: clocks, disk, controller, sensors, numbers."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from adaptive_split.candidates import CandidateTable, Radio
from adaptive_split.clock import MonotonicClock
from adaptive_split.runtime.controller import DistributionPlanner, PlannerSettings
from adaptive_split.runtime.live_controller import LiveController
from adaptive_split.runtime.price_loop import PriceLoop
from adaptive_split.runtime.records import read_records
from adaptive_split.runtime.sensors.battery import SystemBattery
from adaptive_split.testing import tiny_profile
from tests import support
from tests.fault_bench import OBJECTIVE, Script, run_device, tiny_server
from tests.integration.test_compare_run import place  # noqa: F401 - a fixture

pytestmark = pytest.mark.slow


@pytest.fixture
def address():
    with tiny_server() as server:
        yield f"127.0.0.1:{server.port}"


def planned(policy=None, mission_s=None):
    """A controller whose stand-in is the distribution planner."""
    table = CandidateTable(
        support.GRID, tiny_profile(), tiny_profile(0.1), support.outcomes(), OBJECTIVE, Radio()
    )
    planner = DistributionPlanner(table, PlannerSettings())
    loop = None if mission_s is None else PriceLoop(mission_s, OBJECTIVE.energy_price)
    return LiveController(table, policy or planner, planner, loop)


class Gapped(MonotonicClock):
    """A clock that can be made to have stood still, as a stopped or suspended machine's."""

    def __init__(self):
        self._gap_s = 0.0

    def jump(self, gap_s):
        """Let some seconds have passed."""
        self._gap_s += gap_s

    def now_s(self):
        """The machine's clock and all gaps."""
        return super().now_s() + self._gap_s

    def sleep_until(self, moment_s):
        """Sleep until a moment, gaps not slept."""
        super().sleep_until(moment_s - self._gap_s)


def test_a_gap_of_half_a_minute_is_told_and_survived(address):
    clock = Gapped()

    run = run_device(address, Script((1.0, lambda: clock.jump(30.0))), 35.0, clock=clock)

    assert sorted(report.frame_index for report in run.reports) == list(range(run.num_frames))
    lost = run.between(1.2, 30.8)
    assert {report.fallback_reason for report in lost} == {"dropped"}
    for told_s, report in run.told:
        late = told_s > report.arrival_s + OBJECTIVE.slo_s + 0.001
        assert not (late and report.on_time)
    assert run.back_after_s(31.5) < 3.0


SHIM = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/time.h>
#include <time.h>
static long jump(void) {
    static int (*real)(clockid_t, struct timespec *);
    static time_t begin;
    struct timespec now;
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    real(CLOCK_MONOTONIC, &now);
    if (!begin) begin = now.tv_sec;
    return (now.tv_sec - begin) / 2 % 2 ? 86400 : -3600;
}
int clock_gettime(clockid_t id, struct timespec *out) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(id, out);
    if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE) out->tv_sec += jump();
    return failed;
}
int gettimeofday(struct timeval *restrict out, void *restrict zone) {
    struct timespec now;
    int failed = clock_gettime(CLOCK_REALTIME, &now);
    out->tv_sec = now.tv_sec;
    out->tv_usec = now.tv_nsec / 1000;
    return failed;
}
time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
"""
RUN = """
import json, sys, time
from tests.fault_bench import Script, run_device, tiny_server
walls = []
with tiny_server() as server:
    events = [(0.5 * step, lambda: walls.append(time.time())) for step in range(16)]
    run = run_device(f"127.0.0.1:{server.port}", Script(*events), 8.0)
run.check()
by_server = [int(2 * r.arrival_s) for r in run.reports if r.answered_by == "server"]
steps = [after - before for before, after in zip(walls, walls[1:])]
print(json.dumps([max(steps), min(steps), sorted(set(by_server))]))
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler to fake the wall clock")
def test_a_wall_clock_that_jumps_by_a_day_and_back_changes_nothing(tmp_path):
    (tmp_path / "shim.c").write_text(SHIM)
    library = tmp_path / "shim.so"
    build = ["cc", "-shared", "-fPIC", "-o", library, tmp_path / "shim.c", "-ldl"]
    subprocess.run(build, check=True)

    done = subprocess.run(
        [sys.executable, "-c", RUN],
        env={"LD_PRELOAD": str(library), "PATH": "/usr/bin", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip

    forward_s, back_s, served = json.loads(done.stdout)
    assert forward_s > 80_000
    assert back_s < -80_000
    # The server answered in every half second of the run: in none the clock's jump was felt.
    assert served == list(range(16))


FULL = """
import resource, sys
from adaptive_split.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, -1))
sys.exit(main(sys.argv[1:]))
"""


def test_a_full_disk_costs_records_only_and_is_told_at_once_and_at_the_end(place):  # noqa: F811
    records = place / "cut off.jsonl"

    done = subprocess.run(
        [
            sys.executable, "-c", FULL, "run", "--server", "127.0.0.1:9", "--scenario",
            place / "colors.toml", "--controller", "local", "--pictures", place / "pictures",
            "--num-frames", "20", "--fps", "5", "--records", records, "--insecure",
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    kept = list(read_records(records))
    assert done.returncode == 2
    assert "20 frames" in done.stdout
    assert done.stderr.count("records must be writable") == 1
    assert f"every frame must have a record; got none for {20 - len(kept)} of 20" in done.stderr
    assert 0 < len(kept) < 20


class Failing:
    """A policy that fails from some frame on, in one of the ways that a damaged one may."""

    name, probes = "failing", True

    def __init__(self, failure):
        self.failure, self.count = failure, 0

    def choose(self, moment):
        """Choose the first candidate, for a second; then fail."""
        self.count += 1
        return np.array([0]) if self.count <= 20 else self.failure()


def broken():
    raise RuntimeError("a network that cannot be computed")


@pytest.mark.parametrize(
    "failure",
    [broken, lambda: None, lambda: np.array([999]), lambda: np.array([np.nan])],
    ids=["raises", "gives nothing", "gives no candidate", "gives no number"],
)
def test_a_controller_that_fails_during_a_run_is_replaced_and_the_log_says_so_once(
    address, failure, caplog
):
    run = run_device(address, planned(Failing(failure)), 3.0)

    run.check()
    assert caplog.text.count("the failing failed") == 1
    assert "the distribution-planner decides instead" in caplog.text


def test_a_battery_that_vanishes_in_the_middle_is_unknown_from_then_on(
    address, monkeypatch, tmp_path, caplog
):
    supply = tmp_path / "BAT0"
    supply.mkdir()
    (supply / "capacity").write_text("50")
    (supply / "status").write_text("Discharging")
    monkeypatch.setattr(psutil._pslinux, "POWER_SUPPLY_PATH", str(tmp_path))
    seen = []

    class Watching(Script):
        def decide(self, situation):
            super().decide(situation)
            seen.append(situation.soc)
            return planner.decide(situation)

    planner = planned(mission_s=60.0)
    controller = Watching((1.5, lambda: shutil.rmtree(supply)))

    run = run_device(address, controller, 3.0, battery=SystemBattery())

    run.check()
    assert (seen[0], seen[-1]) == (0.5, None)
    assert caplog.text.count("the battery must tell its charge") == 1


def test_measurements_that_cannot_be_change_no_answer_and_are_told_once(address, caplog):
    wrong = SimpleNamespace(values=[np.nan, np.inf, -np.inf, -1.0, 1e300])

    class Confused(Script):
        def decide(self, situation):
            super().decide(situation)
            value = wrong.values[situation.frame_index % 5]
            samples = [
                replace(sample, uplink_mbps=value, rtt_s=-value) for sample in situation.samples
            ]
            wrongly = replace(
                situation, samples=(*samples, *situation.samples[:1]), soc=value,
                device_slowdown=value, uplink_free_s=value, recent_confidences=(value, 0.5),
            )  # fmt: skip
            return planner.decide(wrongly)

    planner = planned(mission_s=60.0)

    run = run_device(address, Confused(), 3.0)

    run.check()
    assert caplog.text.count("measurements must be possible") == 1
    assert "failed" not in caplog.text
