"""On-time goodput of the server's scheduler against simpler ones; the results are in `SERVER.md`.

    python experiments/server_goodput.py batches    what a batch costs here, per picture
    python experiments/server_goodput.py sweep      every policy and load on a virtual clock
    python experiments/server_goodput.py live       the same, computing for real, policies in turns

1, 8 and 32 devices over gRPC: `server_devices.py`.

The load is recorded arrivals (`adaptive_split.server_load`), brought to a multiple of the capacity:
the rate at which whole tails of the mix (every split point alike) fill the server one by one. Every
request has between 50 and 150 ms, as the uplink leaves of 200 ms.
"""

from __future__ import annotations

import argparse
import itertools
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

import adaptive_split
from adaptive_split.bundle import ModelBundle, bundle_path
from adaptive_split.cli.common import say
from adaptive_split.cli.tables import table
from adaptive_split.clock import Clock, MonotonicClock
from adaptive_split.codec import encode_feature, encode_picture
from adaptive_split.errors import AdaptiveSplitError
from adaptive_split.outcomes import Outcomes
from adaptive_split.profile import Profile
from adaptive_split.runtime.picture_folder import read_folder
from adaptive_split.runtime.serving.batch_cost import (
    BatchCosts,
    Line,
    measured_costs,
    profiled_costs,
)
from adaptive_split.runtime.serving.scheduler import Scheduler, Steps, WorkerThread
from adaptive_split.runtime.serving.stage_queues import Finished
from adaptive_split.runtime.serving.tail_steps import TailSteps
from adaptive_split.runtime.stages import ExitAnswer, StageRunner
from adaptive_split.runtime.wire import TailRequest
from adaptive_split.server_load import SERVICES, arrivals
from adaptive_split.testing import ManualClock
from experiments.server_rivals import Fifo

SLACK_S = (0.05, 0.15)
LOADS = (0.5, 1.0, 1.5, 2.0, 3.0)
"""Multiples of the capacity."""
SIZES = (1, 2, 4, 8)
RECORD_S = 440.0
PICTURES = Path(adaptive_split.__file__).parent / "data" / "pictures"


class Server(Protocol):
    """What every policy is."""

    def submit(self, request: TailRequest, last: int, *, slack_s: float) -> Future[Finished]:
        """Queue a request."""
        ...

    def step(self) -> None:
        """Do the next piece of work."""
        ...

    def wait(self) -> bool:
        """Block until there is some."""
        ...

    def close(self) -> None:
        """End."""
        ...


POLICIES: dict[str, Callable[[Steps, BatchCosts, Clock], Server]] = {
    "fcfs": lambda steps, costs, clock: Fifo(steps, clock),
    "batching": lambda steps, costs, clock: Fifo(steps, clock, max_batch=8, window_s=0.005),
    "batching+drop": lambda steps, costs, clock: Fifo(
        steps, clock, max_batch=8, window_s=0.005, drops=True
    ),
    "ours": Scheduler,
    "ours, batch 1": lambda steps, costs, clock: Scheduler(steps, costs, clock, max_batch=1),
    "ours, no sure exits": lambda steps, costs, clock: Scheduler(
        steps, costs, clock, exit_threshold=1.0
    ),
}
LIVE = ("fcfs", "batching", "batching+drop", "ours")


class OutcomeSteps:
    """Takes the time that costs say and answers as the outcomes do; a feature is a row of them."""

    def __init__(self, outcomes: Outcomes, costs: BatchCosts, clock: Clock) -> None:
        self._outcomes, self._costs, self._clock = outcomes, costs, clock

    def enter(self, split_point: int, payloads: Sequence[bytes]) -> list[Any]:
        """Read the rows."""
        self._take(self._costs.decoder[split_point], len(payloads))
        return [np.array([int(payload)], np.float32) for payload in payloads]

    def advance(self, stage: int, features: Sequence[Any]) -> list[Any]:
        """Take time."""
        self._take(self._costs.stage[stage - 1], len(features))
        return list(features)

    def ask(self, exit_index: int, features: Sequence[Any]) -> list[ExitAnswer]:
        """Look the answers up."""
        self._take(self._costs.exit[exit_index - 1], len(features))
        answers, sure = self._outcomes.exit_answer, self._outcomes.exit_confidence
        cells = [(int(row[0]), exit_index - 1) for row in features]
        return [ExitAnswer(int(answers[at]), float(sure[at]), np.empty(0)) for at in cells]

    def _take(self, line: Line, count: int) -> None:
        self._clock.sleep_until(self._clock.now_s() + line.batch_s(count))


@dataclass(frozen=True, slots=True, eq=False)
class Load:
    """Requests to come: when, of what split point, of which picture, and how long each has."""

    time_s: NDArray[np.float64]
    split_point: NDArray[np.int64]
    row: NDArray[np.int64]
    slack_s: NDArray[np.float64]


def draw_load(
    seed: int, service: str, rate: float, duration_s: float, num_splits: int, num_rows: int
) -> Load:
    """Take recorded arrivals and stretch them to a mean rate; the mix is drawn."""
    count = max(round(rate * duration_s), 2)
    time_s = arrivals(seed, RECORD_S, 0.5, service=service)[0][:count]
    time_s = (time_s - time_s[0]) * duration_s / (time_s[-1] - time_s[0])
    generator, count = np.random.default_rng(seed), len(time_s)
    return Load(
        time_s, generator.integers(0, num_splits, count), generator.integers(0, num_rows, count),
        generator.uniform(*SLACK_S, count),
    )  # fmt: skip


@dataclass(slots=True)
class Tally:
    """What came of the requests of one run."""

    sent: int = 0
    on_time: int = 0
    right: int = 0
    early: int = 0
    answered: int = 0
    latency_s: float = 0.0
    """Of all answers together."""
    duration_s: float = 0.0

    def note(self, latency_s: float, slack_s: float, right: bool, early: bool) -> None:
        """Count an answer."""
        self.answered += 1
        self.latency_s += latency_s
        if latency_s <= slack_s:
            self.on_time += 1
            self.right += right
            self.early += early

    def add(self, other: Tally) -> None:
        """Count a run more."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def cells(self) -> list[str]:
        """Columns of the tables."""
        on_time = max(self.on_time, 1)
        return [
            f"{self.sent / self.duration_s:.1f}",
            f"{self.on_time / self.duration_s:.1f}",
            f"{100 * self.on_time / max(self.sent, 1):.1f}",
            f"{100 * self.right / on_time:.1f}",
            f"{100 * self.early / on_time:.1f}",
            f"{100 * self.answered / max(self.sent, 1):.1f}",
            f"{1e3 * self.latency_s / max(self.answered, 1):.1f}",
        ]


HEAD = ["sent/s", "on time/s", "on time %", "right %", "early %", "answered %", "mean ms"]


def request_of(load: Load, index: int, payload: bytes) -> TailRequest:
    """Write the request of one arrival."""
    return TailRequest(
        frame_index=index, split_point=int(load.split_point[index]), bits=4, payload=payload,
        slack_s=float(load.slack_s[index]),
    )  # fmt: skip


def simulate(policy: str, costs: BatchCosts, outcomes: Outcomes, load: Load) -> Tally:
    """Play a load on a virtual clock."""
    clock, last = ManualClock(), len(costs.stage)
    server = POLICIES[policy](OutcomeSteps(outcomes, costs, clock), costs, clock)
    tally = Tally(sent=len(load.time_s), duration_s=float(load.time_s[-1]))
    left = len(load.time_s)

    def arrive(index: int) -> None:
        nonlocal left
        request, row = request_of(load, index, b"%d" % load.row[index]), load.row[index]

        def end(future: Future[Finished]) -> None:
            nonlocal left
            left -= 1
            if future.exception() is None:
                done, latency_s = future.result(), clock.now_s() - load.time_s[index]
                right = done.answer.answer == outcomes.label[row]
                tally.note(latency_s, request.slack_s, bool(right), done.exit_index < last)

        try:
            server.submit(request, last, slack_s=request.slack_s).add_done_callback(end)
        except AdaptiveSplitError:
            left -= 1

    moments = iter(load.time_s.tolist())
    for index, time_s in enumerate(load.time_s):
        clock.call_at(float(time_s), partial(arrive, index))
    while left:
        before_s = clock.now_s()
        server.step()
        if clock.now_s() == before_s:  # nothing to do: on to the next arrival
            clock.sleep_until(next((moment for moment in moments if moment > before_s), before_s))
    return tally


@dataclass(frozen=True, slots=True, eq=False)
class Bank:
    """Payloads of labelled pictures, made as a device makes them."""

    payloads: tuple[tuple[bytes, ...], ...]
    """By split point and picture."""
    labels: tuple[int, ...]

    @classmethod
    def fill(cls, stages: StageRunner, pictures: Path, most: int = 40) -> Bank:
        """Encode some pictures at every split point."""
        folder = read_folder(pictures, stages.bundle)
        rows = range(0, len(folder.files), max(len(folder.files) // most, 1))
        payloads = [_payloads(stages, folder.pixels[row]) for row in rows]
        labels = tuple(int(folder.labels[row] or 0) for row in rows)
        return cls(tuple(zip(*payloads, strict=True)), labels)


def _payloads(stages: StageRunner, pixels: NDArray[np.uint8]) -> list[bytes]:
    bundle, feature = stages.bundle, stages.prepare(pixels)
    found = [encode_picture(pixels, bundle.picture_qualities[4])]
    for stage in range(1, bundle.num_stages):
        feature = stages.stage(stage, feature)
        found.append(encode_feature(stages.encode(stage, feature), 4))
    return found


def play(policy: str, costs: BatchCosts, steps: Steps, bank: Bank, load: Load) -> Tally:
    """Play a load in real time; what is unanswered at its end was not on time."""
    clock, last = MonotonicClock(), len(costs.stage)
    server = POLICIES[policy](steps, costs, clock)
    tally = Tally(sent=len(load.time_s), duration_s=float(load.time_s[-1]))
    worker, lock, begin_s = WorkerThread(server), threading.Lock(), clock.now_s()  # type: ignore[arg-type]

    def end(index: int, sent_s: float, future: Future[Finished]) -> None:
        if future.cancelled() or future.exception() is not None:
            return
        done, row = future.result(), load.row[index]
        right = done.answer.answer == bank.labels[row]
        latency_s = clock.now_s() - sent_s
        with lock:
            tally.note(latency_s, load.slack_s[index], right, done.exit_index < last)

    for index, time_s in enumerate(load.time_s.tolist()):
        clock.sleep_until(begin_s + time_s)
        request = request_of(load, index, bank.payloads[load.split_point[index]][load.row[index]])
        try:
            future = server.submit(request, last, slack_s=request.slack_s)
        except AdaptiveSplitError:
            continue
        future.add_done_callback(partial(end, index, clock.now_s()))
    clock.sleep_until(clock.now_s() + max(SLACK_S))
    worker.close()
    return tally


def capacity_of(costs: BatchCosts) -> float:
    """Whole tails per second, one by one, every split point alike."""
    last = len(costs.stage)
    rests_s = [costs.rest_s(first, last, entering=True) for first in range(1, last + 1)]
    return 1 / float(np.mean(rests_s))


def shipped_costs(bundle: ModelBundle, more: float) -> BatchCosts:
    """Take the server profile that comes with the bundle; one more costs a share of one alone."""
    alone = profiled_costs(Profile.load(bundle.path / "profile_server.json"))

    def lines(part: tuple[Line, ...]) -> tuple[Line, ...]:
        return tuple(Line(line.one_s, more * line.one_s) for line in part)

    return BatchCosts(
        stage=lines(alone.stage), exit=lines(alone.exit),
        decoder=(alone.decoder[0], *lines(alone.decoder[1:])),
    )  # fmt: skip


def measured_capacity(steps: Steps, bank: Bank, num_stages: int, seconds: float = 2.0) -> float:
    """Whole tails per second that this machine does now, one by one, every split point alike."""
    begin_s, count = time.perf_counter(), 0
    while (took_s := time.perf_counter() - begin_s) < seconds:
        split = count % num_stages
        features: Any = steps.enter(split, [bank.payloads[split][count % len(bank.labels)]])
        for stage in range(split + 1, num_stages + 1):
            features = steps.advance(stage, features)
        steps.ask(num_stages, features)
        count += 1
    return count / took_s


def sweep(
    bundle: ModelBundle, loads: Sequence[float], seeds: int, seconds: float, more: float
) -> None:
    """Print every policy at every load, on a virtual clock."""
    outcomes = Outcomes.load(bundle.path / "outcomes_judge.npz").plain()
    costs = shipped_costs(bundle, more)
    capacity = capacity_of(costs)
    say(f"capacity {capacity:.1f} tails/s")
    rows = [["service, load, policy", *HEAD]]
    for service, load, policy in itertools.product(SERVICES, loads, POLICIES):
        tally = Tally()
        for seed in range(seeds):
            drawn = draw_load(
                seed, service, load * capacity, seconds, bundle.num_stages, len(outcomes.label)
            )
            tally.add(simulate(policy, costs, outcomes, drawn))
        rows.append([f"{service} {load:g}x {policy}", *tally.cells()])
    print(table(rows))


def live(
    bundle: ModelBundle, pictures: Path, loads: Sequence[float], rounds: int, seconds: float
) -> None:
    """Print the policies at every load, computing for real; they take turns in every round."""
    rows = [["service, load, policy", *HEAD]]
    clock = MonotonicClock()
    with StageRunner(bundle, parts=bundle.parts) as stages:
        bank = Bank.fill(stages, pictures)
        for service, load in itertools.product(SERVICES, loads):
            tallies = {policy: Tally() for policy in LIVE}
            for seed in range(rounds):
                costs = measured_costs(bundle, stages, clock)
                steps = TailSteps(bundle, stages, clock, costs, paced=False)
                rate = load * measured_capacity(steps, bank, bundle.num_stages)
                mix = (bundle.num_stages, len(bank.labels))
                drawn = draw_load(seed, service, rate, seconds, *mix)
                for policy, tally in tallies.items():
                    tally.add(play(policy, costs, steps, bank, drawn))
            for policy, tally in tallies.items():
                rows.append([f"{service} {load:g}x {policy}", *tally.cells()])
                say("  ".join(rows[-1]))
    print(table(rows))


def batches(bundle: ModelBundle, repeats: int = 30) -> None:
    """Print the median time per picture of every part by batch size; the sizes take turns."""
    generator, rows = np.random.default_rng(0), [["part", *(f"{size} ms" for size in SIZES)]]
    shapes = (bundle.input_shape, *bundle.feature_shapes)
    with StageRunner(bundle, parts=bundle.parts) as stages:
        parts: list[tuple[str, Callable[[Any], Any], tuple[int, int, int]]] = []
        for index in range(1, bundle.num_stages + 1):
            parts.append((f"stage {index}", partial(stages.stage, index), shapes[index - 1]))
            parts.append((f"exit {index}", partial(stages.exit_all, index), shapes[index]))
        for index, shape in bundle.code_shapes.items():
            parts.append((f"decoder {index}", partial(stages.decode_all, index), shape))
        for name, run, shape in parts:
            inputs = {size: generator.random((size, *shape), np.float32) for size in SIZES}
            times_s: dict[int, list[float]] = {size: [] for size in SIZES}
            for size, _ in itertools.product(SIZES, range(repeats)):
                begin_s = time.perf_counter()
                run(inputs[size])
                times_s[size].append((time.perf_counter() - begin_s) / size)
            rows.append([name, *(f"{1e3 * np.median(times_s[size]):.3f}" for size in SIZES)])
    print(table(rows))


def main() -> None:
    """Run one of the parts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("part", choices=("batches", "sweep", "live"))
    parser.add_argument("--bundle", default="garments")
    parser.add_argument("--pictures", type=Path, default=PICTURES)
    parser.add_argument("--loads", type=float, nargs="+", default=LOADS, help="x the capacity")
    parser.add_argument("--rounds", type=int, default=3, help="seeds; default: 3")
    parser.add_argument("--seconds", type=float, default=10.0, help="of a run; default: 10")
    parser.add_argument(
        "--more", type=float, default=0.9, metavar="SHARE",
        help="sweep: what one more in a batch costs of one alone; default: 0.9, as on a CPU",
    )  # fmt: skip
    arguments = parser.parse_args()
    bundle = ModelBundle.load(bundle_path(arguments.bundle))
    if arguments.part == "batches":
        batches(bundle)
    elif arguments.part == "sweep":
        sweep(bundle, arguments.loads, arguments.rounds, arguments.seconds, arguments.more)
    else:
        live(bundle, arguments.pictures, arguments.loads, arguments.rounds, arguments.seconds)


if __name__ == "__main__":
    main()
