"""Does a device find out its link? `python experiments/link_estimator.py`.

A real server, a real device and a link that plays known rates and round trips between them, with
the default scenario's own traffic. At every decision the newest sample and the estimate of the
link are held against what the link plays; the first `WARM_S` of a run do not count. Where a link
changes, the time counts until the estimate has come within `NEAR` of the new rate, or until a
request got through after an outage.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np
import psutil
from numpy.typing import NDArray

from adaptive_split.agents.roster import make_policy
from adaptive_split.cli.common import SHIPPED_PICTURES, say
from adaptive_split.cli.policies import choose_policy
from adaptive_split.cli.tables import table
from adaptive_split.clock import MonotonicClock
from adaptive_split.decision import Decision
from adaptive_split.runtime.backend import Situation
from adaptive_split.runtime.controller import Policy
from adaptive_split.runtime.device import Device
from adaptive_split.runtime.emulation.namespace_link import LINKS, NamespaceLink, open_link
from adaptive_split.runtime.emulation.priority import run_first
from adaptive_split.runtime.live import LiveBackend, play
from adaptive_split.runtime.live_controller import LiveController
from adaptive_split.runtime.picture_folder import read_folder
from adaptive_split.runtime.sensors.battery import ModelledBattery
from adaptive_split.runtime.serving.server_process import ServerProcess
from adaptive_split.runtime.setup import Setup
from adaptive_split.runtime.stages import StageRunner
from adaptive_split.runtime.transport import GrpcTransport
from adaptive_split.scenario import Scenario, load_scenario
from adaptive_split.trace import SYNTHETIC, Trace

WARM_S = 2.0
RATES_MBPS = (5.0, 20.0, 100.0)
RTTS_S = (0.005, 0.030, 0.080)
LOSS, LOSS_MBPS, LOSS_RTT_S = 0.01, 5.0, 0.030
NEAR = 0.3
LARGEST_BYTES = 10_409
"""Largest payload of the default scenario, with framing."""
CHANGES = ((5.0, 20.0), (20.0, 2.0), (2.0, 10.0), (5.0, 0.0, 5.0))
CHANGE_S = 6.0


@dataclass(frozen=True, slots=True)
class Case:
    """What a link plays, and who decides meanwhile."""

    trace: Trace
    controller: str
    loss: float = 0.0


@dataclass(slots=True)
class Log:
    """What was believed at every decision of a run; moments on `MonotonicClock`."""

    now_s: list[float] = field(default_factory=list)
    estimate_mbps: list[float] = field(default_factory=list)
    estimate_rtt_s: list[float] = field(default_factory=list)
    sample_mbps: list[float] = field(default_factory=list)
    sample_rtt_s: list[float] = field(default_factory=list)
    sample_s: list[float] = field(default_factory=list)
    usable: list[bool] = field(default_factory=list)
    probe_bytes: int = 0
    num_sent: int = 0
    sent_bytes: int = 0


class Watcher:
    """A controller that notes what is believed of the link before it decides."""

    def __init__(self, inner: LiveController, clock: MonotonicClock) -> None:
        self.name, self._inner, self._clock, self.log = inner.name, inner, clock, Log()
        self.device: Device

    def decide(self, situation: Situation) -> Decision:
        """Note, then choose as the inner one does."""
        log, sender = self.log, self.device.sender
        if situation.samples:
            last, now_s = situation.samples[-1], self._clock.now_s()
            log.now_s.append(now_s)
            log.estimate_mbps.append(sender.estimate.uplink_mbps)
            log.estimate_rtt_s.append(sender.estimate.rtt_s)
            log.sample_mbps.append(last.uplink_mbps)
            log.sample_rtt_s.append(last.rtt_s)
            log.sample_s.append(now_s - situation.now_s + last.time_s)
            log.usable.append(situation.server_usable)
            log.probe_bytes = sender.probe_bytes
        return self._inner.decide(situation)

    def reset(self) -> None:
        """Forget nothing."""
        self._inner.reset()


class Bench:
    """What all runs share."""

    def __init__(self, stack: ExitStack) -> None:
        self.scenario: Scenario = load_scenario("default")
        bundle = self.scenario.bundle
        self.server = stack.enter_context(ServerProcess(bundle.path))
        self.stages = stack.enter_context(StageRunner(bundle, parts=bundle.parts))
        self._candidates = self.scenario.table("policy")
        self._folder = read_folder(SHIPPED_PICTURES, bundle)

    def run(self, kind: str, case: Case, seconds: float) -> tuple[Log, float]:
        """Play a case; return what was believed and when the link began with it."""
        scenario, clock = self.scenario, MonotonicClock()
        watcher = Watcher(LiveController(self._candidates, self._policy(case.controller)), clock)
        setup = Setup(
            bundle=scenario.bundle, device_profile=scenario.device, server_profile=scenario.server,
            objective=scenario.objective, radio=scenario.radio,
        )  # fmt: skip
        with open_link(kind, self.server.address) as link:
            extra = {"loss": case.loss} if isinstance(link, NamespaceLink) else {}
            begin_s = link.start(case.trace, **extra)
            with GrpcTransport(link.address, scenario.bundle, insecure=True) as transport:
                device = Device(setup, self.stages, transport, clock, ModelledBattery(1e6))
                watcher.device = device
                num_frames = round(seconds * scenario.objective.fps)
                with LiveBackend(device, lambda seed: self._folder, num_frames) as backend:
                    for report in play(backend, watcher):
                        watcher.log.num_sent += report.payload_bytes > 0
                        watcher.log.sent_bytes += report.payload_bytes
        return watcher.log, begin_s

    def _policy(self, name: str) -> Policy:
        if name == "sac":
            return choose_policy(name, self.scenario, self._candidates)
        return make_policy(name, self._candidates, None, {})


def synthetic(name: str, rates: Sequence[float], rtt_s: float, period_s: float = 1.0) -> Trace:
    """Lay rates out as a trace, `period_s` each."""
    time_s = np.arange(len(rates)) * period_s
    rtts_s = np.full(len(rates), rtt_s)
    return Trace(name, "", time_s, np.array(rates, float), rtts_s, SYNTHETIC)


def steady(controllers: Sequence[str]) -> Iterator[Case]:
    """Every known rate with every known round trip."""
    for mbps in RATES_MBPS:
        for rtt_s in RTTS_S:
            for controller in controllers:
                name = f"{mbps:g} Mbit/s, {rtt_s * 1e3:g} ms"
                yield Case(synthetic(name, [mbps] * 2, rtt_s), controller)


def changing(controllers: Sequence[str]) -> Iterator[Case]:
    """Steps and an outage, `CHANGE_S` each."""
    for rates in CHANGES:
        for controller in controllers:
            name = " to ".join(f"{mbps:g}" for mbps in rates) + " Mbit/s"
            yield Case(synthetic(name, [*rates, rates[-1]], 0.03, CHANGE_S), controller)


def noticed_s(case: Case, log: Log, begin_s: float) -> float:
    """How long after its last change the link was known; nan if never."""
    rates = case.trace.uplink_mbps
    change_s = begin_s + CHANGE_S * (len(rates) - 2)
    for now_s, mbps, sample_s, usable in zip(
        log.now_s, log.estimate_mbps, log.sample_s, log.usable, strict=True
    ):
        through = usable and sample_s > change_s
        near = through if rates[-3] == 0 else abs(mbps / rates[-1] - 1) < NEAR
        if now_s > change_s and near:
            return now_s - change_s
    return float("nan")


def row_of(kind: str, case: Case, log: Log, seconds: float) -> list[str]:
    """One line of the table."""
    now_s = np.array(log.now_s)
    warm = now_s >= now_s[0] + WARM_S
    mbps, rtt_s = case.trace.uplink_mbps[0], case.trace.rtt_s[0]
    rate = np.array(log.estimate_mbps)[warm] / mbps - 1
    _, first = np.unique(np.array(log.sample_s)[warm].round(4), return_index=True)
    sample = np.array(log.sample_mbps)[warm][first] / mbps - 1
    delay_ms = (np.array(log.estimate_rtt_s)[warm] - rtt_s) * 1e3
    sample_ms = (np.array(log.sample_rtt_s)[warm][first] - rtt_s) * 1e3
    late_ms = 8e-3 * LARGEST_BYTES / mbps * (1 / (1 + rate) - 1)
    payload = log.sent_bytes / max(log.num_sent, 1)
    return [
        kind, case.trace.name, case.controller, f"{payload:.0f} B x {log.num_sent}",
        *signed(rate, ".0%"), *signed(sample, ".0%"),
        f"{np.median(np.abs(late_ms)):.1f}",
        *signed(delay_ms, ".1f"), *signed(sample_ms, ".1f"), f"{log.probe_bytes / seconds:.0f}",
    ]  # fmt: skip


def signed(errors: NDArray[np.float64], form: str) -> tuple[str, str, str]:
    """Median, and median and 90 % quantile of the sizes."""
    sizes = np.abs(errors)
    return (
        f"{np.median(errors):+{form}}",
        f"{np.median(sizes):{form}}",
        f"{np.quantile(sizes, 0.9):{form}}",
    )


def main() -> None:
    """Run the experiment."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--links", nargs="+", choices=tuple(LINKS), default=list(LINKS))
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--controllers", nargs="+", default=["sac", "local"])
    arguments = parser.parse_args()
    run_first()
    rows = []
    with ExitStack() as stack:
        bench = Bench(stack)
        cases = list(steady(arguments.controllers))
        if "namespaces" in arguments.links:
            trace = synthetic("5 Mbit/s, 30 ms, 1 % lost", [LOSS_MBPS] * 2, LOSS_RTT_S)
            cases += [Case(trace, name, LOSS) for name in arguments.controllers]
        changes = [["link", "trace", "controller", "known after s"]]
        for case in changing(arguments.controllers):
            for kind in arguments.links:
                seconds = CHANGE_S * len(case.trace.uplink_mbps)
                log, begin_s = bench.run(kind, case, seconds - 1.0)
                known_s = noticed_s(case, log, begin_s)
                changes.append([kind, case.trace.name, case.controller, f"{known_s:.1f}"])
                say("  ".join(changes[-1]))
        print(table(changes), end="\n\n")
        for case in cases:
            for kind in arguments.links:
                log, _ = bench.run(kind, case, arguments.seconds)
                rows.append(row_of(kind, case, log, arguments.seconds))
                say("  ".join(rows[-1]) + f"  (machine busy: {psutil.getloadavg()[0]:.1f})")
    header = ["link", "trace", "controller", "payloads", "estimate: bias", "error", "p90",
              "sample: bias", "error", "p90", "10 KB: ms", "RTT ms: bias", "error", "p90",
              "sample RTT ms: bias", "error", "p90", "probe bytes/s"]  # fmt: skip
    print(table([header, *rows]))


if __name__ == "__main__":
    main()
