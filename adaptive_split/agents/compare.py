"""Play controllers over the same streams in the simulator; no printing.

Controllers decide with the table of the `policy` half of the pictures while the simulator plays
the `judge` half, so none knows the pictures it is judged on; the oracle and what is picked in
hindsight do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np

from adaptive_split.agents.baselines import Oracle, TwoArm
from adaptive_split.agents.evaluate import play
from adaptive_split.agents.frames import Frames, frames_of
from adaptive_split.agents.hindsight import best_oracle, best_static, best_two_arm
from adaptive_split.agents.roster import (
    BEST_STATIC,
    DEFAULT_NAMES,
    HINDSIGHT,
    ORACLE,
    TWO_ARM,
    check_names,
    describe,
    make_policy,
)
from adaptive_split.errors import ConfigError
from adaptive_split.planner import CandidateTable, Floats
from adaptive_split.runtime.controller import Policy
from adaptive_split.runtime.controller_bundle import ControllerBundle
from adaptive_split.runtime.streams import Stream, StreamSource
from adaptive_split.scenario import Scenario
from adaptive_split.trace import Trace

Progress = Callable[[str, int, int], None]
"""Called with what is going on, the steps done and the steps in all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CompareConfig:
    """One comparison."""

    names: tuple[str, ...] = DEFAULT_NAMES
    num_seeds: int = 5
    """Independent draws of streams; every controller plays the same."""
    per_family: int = 8
    """Streams of each link family, per seed."""

    def __post_init__(self) -> None:
        """Refuse what could not be run."""
        check_names(list(self.names))
        if self.num_seeds < 1 or self.per_family < 1:
            raise ConfigError(
                f"seeds and streams per family must be at least 1; got {self.num_seeds!r} and "
                f"{self.per_family!r}"
            )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Comparison:
    """What every controller did on every stream."""

    scenario: Scenario
    config: CompareConfig
    streams: tuple[Stream, ...]
    """All seeds' streams, one seed after the other."""
    seeds: tuple[int, ...]
    """Seed of every stream."""
    traces: tuple[Trace, ...]
    frames: Mapping[str, Frames]
    """By controller, in the order of `config.names`."""
    probe_bytes: Mapping[str, Floats]
    """Bytes that measured an idle link, per stream."""
    policies: Mapping[str, Policy]
    hindsight: Mapping[str, str]
    """What was picked in hindsight, in words."""
    used_defaults: bool
    """Whether the planners ran with untuned knobs, for want of a controller bundle."""


def compare(
    scenario: Scenario,
    traces: Sequence[Trace],
    config: CompareConfig,
    learned: ControllerBundle | None,
    progress: Progress = lambda *_: None,
) -> Comparison:
    """Play all controllers over the same streams.

    Args:
        scenario: What is decided and promised.
        traces: Never trained on, for a fair comparison.
        config: Who plays, and how much.
        learned: The `sac` controller and the planners' knobs.
        progress: Told how far it is.

    Raises:
        ConfigError: If `sac` is named without a controller bundle.
        BundleError: If the controller belongs to another model bundle.
    """
    if learned is not None:
        learned.check_model(scenario.bundle)
    deciding, judging = scenario.table("policy"), scenario.table("judge")
    # What needs no hindsight is built first, so that a wrong argument fails at once.
    policies = {
        name: make_policy(name, deciding, learned) for name in config.names if name not in HINDSIGHT
    }
    source = StreamSource(scenario, judging.outcomes, traces)
    streams: list[Stream] = []
    seeds: list[int] = []
    for seed in range(config.num_seeds):
        progress("drawing streams", seed, config.num_seeds)
        drawn = source.draw_evenly(config.per_family, seed)
        streams += drawn
        seeds += [seed] * len(drawn)
    policies |= pick_in_hindsight(config.names, judging, streams, progress)
    frames, probes = {}, {}
    for name in config.names:
        episodes = play(policies[name], judging, streams, partial(progress, f"playing {name}"))
        frames[name] = frames_of(episodes, judging, np.stack([s.samples for s in streams]))
        probes[name] = episodes.probe_bytes
    return Comparison(
        scenario=scenario, config=config, streams=tuple(streams), seeds=tuple(seeds),
        traces=tuple(traces), frames=frames, probe_bytes=probes,
        policies={name: policies[name] for name in config.names},
        hindsight=_in_words(policies, judging), used_defaults=learned is None,
    )  # fmt: skip


def pick_in_hindsight(
    names: Sequence[str],
    table: CandidateTable,
    streams: Sequence[Stream],
    progress: Progress = lambda *_: None,
) -> dict[str, Policy]:
    """Search those of the named controllers that are picked on the streams themselves."""
    picked: dict[str, Policy] = {}
    if BEST_STATIC in names or TWO_ARM in names:
        static, values = best_static(table, streams, partial(progress, "searching best-static"))
        if BEST_STATIC in names:
            picked[BEST_STATIC] = static
        if TWO_ARM in names:
            count = partial(progress, "searching two-arm")
            picked[TWO_ARM] = best_two_arm(table, streams, values, count)
    if ORACLE in names:
        picked[ORACLE] = best_oracle(table, streams, partial(progress, "searching oracle"))
    return picked


def _in_words(policies: Mapping[str, Policy], table: CandidateTable) -> dict[str, str]:
    candidates, words = table.grid.candidates, {}
    for name in HINDSIGHT:
        policy = policies.get(name)
        if isinstance(policy, TwoArm):
            local, picture = candidates[int(policy.local)], candidates[int(policy.picture)]
            words[name] = (
                f"from {policy.threshold_mbps:g} Mbit/s on {describe(picture)}; "
                f"below, {describe(local)}"
            )
        elif isinstance(policy, Oracle):
            prices = asdict(policy.prices)
            words[name] = "backlog prices " + ", ".join(f"{k} {v:g}" for k, v in prices.items())
        elif policy is not None:
            words[name] = describe(candidates[int(getattr(policy, "candidate", 0))])
    return words
