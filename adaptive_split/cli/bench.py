"""`adaptive-split bench`: how fast the parts are on this machine."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from adaptive_split.cli.bench_memory import bench_memory
from adaptive_split.cli.common import Bars, Commands, add_command, load_controller
from adaptive_split.errors import ConfigError

if TYPE_CHECKING:
    from adaptive_split.candidates import CandidateTable
    from adaptive_split.envs.vector_env import TraceVectorEnv
    from adaptive_split.runtime.backend import Situation
    from adaptive_split.runtime.live_controller import LiveController
    from adaptive_split.runtime.simulated.simulator import Simulator
    from adaptive_split.runtime.transport import GrpcTransport
    from adaptive_split.scenario import Scenario

Numbers = dict[str, Any]
SIMULATED_LANES = (1, 128, 512)
ENV_LANES = 128
"""As many as training has."""


CODED_BITS = 4
CODED_SHAPES = ((4, 8, 8), (16, 8, 8), (16, 16, 16), (64, 16, 16), (64, 32, 32), (64, 64, 64))
"""Codes of 1 KB to 1 MB in float32."""


def add_parser(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands, "bench", "decisions, simulator, codec, transport and memory here",
        "decision: one frame's decision with every controller that can run live. simulator: "
        "frames per second. codec: encoding and decoding every payload. transport: a payload to a "
        "server process on this machine and back. memory: what the device runtime and its "
        "controller hold resident, without and with the model.",
        "adaptive-split bench decision --json",
    )  # fmt: skip
    parser.add_argument("what", choices=tuple(BENCHES))
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--repeats", type=int, default=200, metavar="N", help="default: 200")
    parser.add_argument("--scenario", default="default", help="default: default")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Time one part; print its numbers."""
    from adaptive_split.cli.tables import table
    from adaptive_split.scenario import load_scenario

    if arguments.repeats < 2:
        raise ConfigError(f"--repeats must be at least 2; got {arguments.repeats}")
    scenario = load_scenario(arguments.scenario)
    with Bars("round") as bars:
        numbers = BENCHES[arguments.what](scenario, arguments.repeats, bars)
    if arguments.json:
        print(json.dumps({"what": arguments.what, **numbers}))
        return 0
    rows = [[arguments.what, "value"]]
    for name, value in numbers.items():
        if isinstance(value, dict):
            rows += [[f"{name}, {key}", _short(inner)] for key, inner in value.items()]
        else:
            rows.append([name, _short(value)])
    print(table(rows))
    return 0


def bench_decision(scenario: Scenario, repeats: int, bars: Bars) -> Numbers:
    """Decide one frame at a time in the situations of a simulated run, with all that can run live.

    A frame's decision begins with its situation: what is known is laid out, which `observation_`
    times, and handed to the policy, which `decision_` times; `cpu_` counts this thread alone.
    """
    from adaptive_split.agents.roster import HINDSIGHT, NAMES, SIMULATED_ONLY, make_policy
    from adaptive_split.runtime.live_controller import LiveController

    learned, _ = load_controller(None, scenario)
    table = scenario.table("policy")
    situations = _situations(scenario, table, repeats)
    found: Numbers = {}
    for index, name in enumerate(NAMES):
        bars("deciding", index + 1, len(NAMES))
        if name not in HINDSIGHT and name not in SIMULATED_ONLY:
            with suppress(ConfigError):  # it has no knobs, or no network, here
                controller = LiveController(table, make_policy(name, table, learned))
                found[name] = _decision_times(controller, situations, repeats)
    first = next(iter(found))
    return {
        "controller": first, **found[first], "decisions_per_s": 1 / found[first]["mean_s"],
        "candidates": len(table.grid), **{n: one for n, one in found.items() if n != first},
    }  # fmt: skip


def _situations(scenario: Scenario, table: CandidateTable, count: int) -> list[Situation]:
    """Situations of a run that the distribution planner decides, at most `count`."""
    from adaptive_split.agents.roster import make_policy
    from adaptive_split.runtime.live_controller import LiveController
    from adaptive_split.runtime.simulated.backend import SimulatorBackend
    from adaptive_split.runtime.simulated.streams import StreamSource
    from adaptive_split.trace_sets import shipped

    source = StreamSource(scenario, table.outcomes, shipped("train"))
    stream = source.draw_evenly(1, seed=0)[0]
    backend = SimulatorBackend(table, lambda seed: stream)
    driver = LiveController(table, make_policy("distribution-planner", table, None))
    situations, done = [backend.reset(0)], False
    while not done and len(situations) < count:
        following, _, done = backend.step(driver.decide(situations[-1]))
        situations.append(following)
    return situations


def _decision_times(
    controller: LiveController, situations: list[Situation], repeats: int
) -> dict[str, float]:
    times: dict[str, list[float]] = {"": [], "cpu_": [], "observation_": [], "decision_": []}
    controller.decide(situations[0])
    for index in range(repeats):
        situation = situations[index % len(situations)]
        begin_s = time.thread_time()
        times[""].append(_timed(partial(controller.decide, situation)))
        times["cpu_"].append(time.thread_time() - begin_s)
        times["observation_"].append(_timed(partial(controller.now, situation)))
        now = controller.now(situation)
        times["decision_"].append(_timed(partial(controller.ask, controller.policy, now)))
    spreads = {prefix: _spread(values) for prefix, values in times.items()}
    parts = {
        f"{prefix}{key}": spread[key]
        for prefix, spread in spreads.items()
        for key in ("p50_s", "p99_s")
    }
    return spreads[""] | parts


def bench_simulator(scenario: Scenario, repeats: int, bars: Bars) -> Numbers:
    """Step lanes with fixed decisions, all candidates scored, a planner, and as an environment."""
    import numpy as np

    from adaptive_split.agents.roster import make_policy
    from adaptive_split.envs.vector_env import TraceVectorEnv
    from adaptive_split.planner import BacklogPrices
    from adaptive_split.runtime.simulated.simulator import Simulator
    from adaptive_split.runtime.simulated.streams import StreamSource
    from adaptive_split.trace_sets import shipped

    table, traces = scenario.table("policy"), shipped("train")
    planner, prices = make_policy("distribution-planner", table, None), BacklogPrices()
    deciders: dict[str, Callable[[Simulator], Any]] = {
        "fixed": lambda simulator: np.zeros(simulator.lanes, np.int64),
        "all_scored": lambda one: one.true_utility(one.moment(), prices).argmax(1),
        "planner": lambda simulator: planner.choose(simulator.moment()),
    }
    source = StreamSource(scenario, table.outcomes, traces)
    drawn = source.draw_evenly(-(-SIMULATED_LANES[-1] // len(source.families)), seed=0)
    numbers: Numbers = {}
    for lanes in SIMULATED_LANES:
        # Families follow one another: take from each.
        streams = drawn[:: len(drawn) // lanes][:lanes]
        for name, decide in deciders.items():
            step = partial(_step_lanes, Simulator(table, streams), decide)
            speed = _frames_per_s(step, repeats, bars, f"{lanes} lanes, {name}")
            numbers[f"lanes_{lanes}_{name}"] = {"frames_per_s": speed}
    env, generator = TraceVectorEnv(scenario, traces, ENV_LANES), np.random.default_rng(0)
    env.reset(seed=0)
    step = partial(_step_env, env, lambda: generator.integers(0, len(table.grid), ENV_LANES))
    speed = _frames_per_s(step, repeats, bars, f"{ENV_LANES} lanes, environment")
    numbers[f"lanes_{ENV_LANES}_environment"] = {"frames_per_s": speed}
    return {"frames_per_s": numbers["lanes_512_fixed"]["frames_per_s"], **numbers}


def _step_lanes(simulator: Simulator, decide: Callable[[Simulator], Any]) -> int:
    """Step all lanes once, from the start again where all are done; how many frames started."""
    if simulator.done.all():
        simulator.reset()
    return int(simulator.step(decide(simulator)).active.sum())


def _step_env(env: TraceVectorEnv, choose: Callable[[], Any]) -> int:
    """Step an environment with random decisions: observation and counterfactuals of all lanes."""
    env.step(choose())
    return env.num_envs


def _frames_per_s(step: Callable[[], int], repeats: int, bars: Bars, label: str) -> float:
    frames, begin = 0, time.perf_counter()
    for index in range(repeats):
        frames += step()
        bars(label, index + 1, repeats)
    return frames / (time.perf_counter() - begin)


def bench_codec(scenario: Scenario, repeats: int, bars: Bars) -> Numbers:
    """Encode and decode codes of every shape and width, pictures, and codes of other sizes."""
    import numpy as np

    from adaptive_split.codec import decode_feature, decode_picture, encode_feature, encode_picture

    bundle, generator = scenario.bundle, np.random.default_rng(0)
    size, form = bundle.input_shape[1:], bundle.picture_format
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]] / max(size)
    waves = 127 * (1 + np.sin(9 * rows) * np.cos(7 * columns))
    noise = generator.normal(0, 6, (*size, 3))
    pixels = np.clip(waves[:, :, None] + noise, 0, 255).astype(np.uint8)
    payloads = scenario.grid.payloads
    numbers: Numbers = {}
    every: dict[str, list[float]] = {"encode": [], "decode": []}
    for index, (split, bits) in enumerate(payloads):
        bars("coding", index + 1, len(payloads))
        encode: Callable[[], bytes]
        decode: Callable[[bytes], object]
        if split == 0:
            encode = partial(encode_picture, pixels, bundle.picture_qualities[bits], form)
            decode = partial(decode_picture, size=size, picture_format=form)
        else:
            shape = bundle.code_shapes[split]
            encode = partial(encode_feature, generator.beta(1, 3, shape).astype(np.float32), bits)
            decode = partial(decode_feature, shape=shape)
        payload = encode()
        out = [_timed(encode) for _ in range(repeats)]
        back = [_timed(partial(decode, payload)) for _ in range(repeats)]
        every["encode"] += out
        every["decode"] += back
        numbers[f"split_{split}_bits_{bits}"] = {
            "encode_p50_s": _spread(out)["p50_s"], "decode_p50_s": _spread(back)["p50_s"],
            "payload_bytes": len(payload),
        }  # fmt: skip
    both = [a + b for a, b in zip(every["encode"], every["decode"], strict=True)]
    return {
        **_spread(both), "encode": _spread(every["encode"]), "decode": _spread(every["decode"]),
        **numbers, **_codec_speeds(repeats),
    }  # fmt: skip


def _codec_speeds(repeats: int) -> Numbers:
    """Megabytes of float32 per second for codes of several sizes."""
    import numpy as np

    from adaptive_split.codec import decode_feature, encode_feature

    generator = np.random.default_rng(0)
    numbers: Numbers = {}
    for shape in CODED_SHAPES:
        codes = generator.beta(1, 3, shape).astype(np.float32)
        payload = encode_feature(codes, CODED_BITS)
        runs: dict[str, Callable[[], object]] = {
            "encode": partial(encode_feature, codes, CODED_BITS),
            "decode": partial(decode_feature, payload, shape),
        }
        numbers[f"fp32_{codes.nbytes}_bytes_bits_{CODED_BITS}"] = {
            f"{name}_mb_per_s": codes.nbytes / 1e6 / _median_s(run, repeats)
            for name, run in runs.items()
        }
    return numbers


def bench_transport(scenario: Scenario, repeats: int, bars: Bars) -> Numbers:
    """Send probes of several sizes to a server process and wait for each answer."""
    from adaptive_split.runtime.serving.server_process import ServerProcess
    from adaptive_split.runtime.transport import GrpcTransport

    bars("starting a server", 0, 1)
    numbers: Numbers = {}
    with (
        ServerProcess(scenario.bundle.path) as server,
        GrpcTransport(server.address, scenario.bundle, insecure=True) as transport,
    ):
        transport.ping(timeout_s=10.0).result()
        pings = []
        for index in range(repeats):
            pings.append(_timed(lambda: transport.ping(timeout_s=10.0).result()))
            bars("empty messages", index + 1, repeats)
        for size in (400, 4_000, 16_384, 32_000):
            times, send = [], partial(_send, transport, b"\0" * size)
            for index in range(repeats):
                times.append(_timed(send))
                bars(f"{size} bytes", index + 1, repeats)
            numbers[f"payload_{size}_bytes"] = _spread(times)
    empty = _spread(pings)
    return {**empty, "requests_per_s": 1 / empty["mean_s"], **numbers}


BENCHES: dict[str, Callable[[Any, int, Bars], Numbers]] = {
    "decision": bench_decision,
    "simulator": bench_simulator,
    "codec": bench_codec,
    "transport": bench_transport,
    "memory": bench_memory,
}


def _send(transport: GrpcTransport, payload: bytes) -> None:
    transport.probe(payload, timeout_s=10.0).result()


def _timed(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def _median_s(run: Callable[[], object], repeats: int) -> float:
    return _spread([_timed(run) for _ in range(repeats)])["p50_s"]


def _spread(times_s: list[float]) -> dict[str, float]:
    import numpy as np

    p50, p95, p99 = np.percentile(times_s, (50, 95, 99))
    return {
        "p50_s": float(p50), "p95_s": float(p95), "p99_s": float(p99),
        "mean_s": float(np.mean(times_s)), "count": len(times_s),
    }  # fmt: skip


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
