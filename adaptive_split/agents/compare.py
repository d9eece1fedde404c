"""Play controllers over the same streams in the simulator; no printing.

Controllers decide with the table of the `policy` half of the pictures while the simulator plays
the `judge` half, so none knows the pictures it is judged on. What is picked in hindsight is picked
by what it brings there, and `oracle-pictures` knows them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from typing import Any

from adaptive_split.agents.baselines import BusyKnobs, Oracle, PairKnobs, Static
from adaptive_split.agents.cluster import InProcess, Workers
from adaptive_split.agents.frames import Frames
from adaptive_split.agents.hindsight import best_oracle, best_rival, best_static
from adaptive_split.agents.hindsight_kept import knobs_of_policy, policy_of
from adaptive_split.agents.matrix import Arena, play_matrix
from adaptive_split.agents.rivals import RIVALS
from adaptive_split.agents.roster import (
    BEST_STATIC,
    DEFAULT_NAMES,
    FROM_STATICS,
    HINDSIGHT,
    ORACLE,
    ORACLE_PICTURES,
    check_names,
    describe,
    hindsight_rival,
    make_policy,
)
from adaptive_split.agents.trial import Venue
from adaptive_split.agents.unfinished import Unfinished
from adaptive_split.candidates import CandidateTable, Floats
from adaptive_split.errors import ConfigError
from adaptive_split.runtime.controller import Policy
from adaptive_split.runtime.controller_bundle import ControllerBundle
from adaptive_split.runtime.simulated.streams import Stream, StreamSource
from adaptive_split.scenario import SUBSETS, Scenario
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
    searched: tuple[str, ...]
    """Rivals whose knobs were searched for this comparison, for want of them in the bundle."""


def check_comparison(
    scenario: Scenario, config: CompareConfig, learned: ControllerBundle | None
) -> None:
    """Refuse what could not be played, before anything is written.

    Raises:
        ConfigError: If `sac` is named without a controller bundle, or a decision off the grid.
        BundleError: If controller, profiles, outcomes and model bundle do not belong together.
    """
    if learned is not None:
        learned.check_model(scenario.bundle)
    deciding, _ = (scenario.table(subset) for subset in SUBSETS)
    for name in config.names:
        if name not in HINDSIGHT and name not in RIVALS:
            make_policy(name, deciding, learned)


def compare(
    scenario: Scenario,
    traces: Sequence[Trace],
    config: CompareConfig,
    learned: ControllerBundle | None,
    progress: Progress = lambda *_: None,
    workers: Workers | None = None,
    *,
    found: Mapping[str, Any] | None = None,
    kept: Unfinished | None = None,
) -> Comparison:
    """Play all controllers over the same streams.

    Args:
        scenario: What is decided and promised.
        traces: Never trained on, for a fair comparison.
        config: Who plays, and how much.
        learned: The `sac` controller and the planners' knobs.
        progress: Told how far it is.
        workers: Where searches and controllers are played; by default in this process. The
            result is the same wherever.
        found: Knobs of rivals that the controller bundle has none for, picked on training traces.
        kept: What an interrupted call of the same comparison has done, and where this one keeps
            what it does; by default nothing is kept.

    Raises:
        ConfigError: If `sac` is named without a controller bundle, or a rival without knobs.
        BundleError: If the controller belongs to another model bundle.
    """
    if learned is not None:
        learned.check_model(scenario.bundle)
    deciding, judging = scenario.table("policy"), scenario.table("judge")
    # What needs no hindsight is built first, so that a wrong argument fails at once.
    policies = {
        name: make_policy(name, deciding, learned, found)
        for name in config.names
        if name not in HINDSIGHT
    }
    source = StreamSource(scenario, judging.outcomes, traces)
    drawn = []
    for seed in range(config.num_seeds):
        progress("drawing streams", seed, config.num_seeds)
        drawn.append(tuple(source.draw_evenly(config.per_family, seed)))
    streams = tuple(stream for part in drawn for stream in part)
    tuned = {} if learned is None else learned.tuned
    searched = _Searched(judging, deciding, streams, tuned)
    policies |= _search(config.names, searched, progress, workers, kept)
    policies = {name: policies[name] for name in config.names}
    arena = Arena(policies, judging, tuple(drawn))
    frames, probes = play_matrix(arena, workers or InProcess(), partial(progress, "playing"), kept)
    return Comparison(
        scenario=scenario, config=config, streams=streams,
        seeds=tuple(seed for seed, part in enumerate(drawn) for _ in part),
        traces=tuple(traces), frames=frames, probe_bytes=probes, policies=policies,
        hindsight=_in_words(policies, judging), used_defaults=learned is None,
        searched=tuple(found or {}),
    )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class _Searched:
    """What all searches in hindsight share."""

    playing: CandidateTable
    deciding: CandidateTable
    streams: tuple[Stream, ...]
    tuned: Mapping[str, Any]

    def pick(
        self,
        names: Sequence[str],
        progress: Progress = lambda *_: None,
        take: Callable[[str, Policy], None] = lambda *_: None,
    ) -> dict[str, Policy]:
        return pick_in_hindsight(
            names, self.playing, self.streams, progress,
            deciding=self.deciding, tuned=self.tuned, take=take,
        )  # fmt: skip


def _search(
    names: Sequence[str],
    shared: _Searched,
    progress: Progress,
    workers: Workers | None,
    kept: Unfinished | None,
) -> dict[str, Policy]:
    """Search what is picked in hindsight, on the workers if there are any; not what is kept."""
    plain = {} if kept is None else kept.picked()
    picked = {
        name: policy_of(name, knobs, shared.playing, shared.deciding)
        for name, knobs in plain.items()
    }
    wanted = [name for name in names if name in HINDSIGHT and name not in picked]

    def take(found: Mapping[str, Policy]) -> None:
        picked.update(found)
        if kept is not None:
            kept.keep_picked({name: knobs_of_policy(policy) for name, policy in picked.items()})

    if workers is None:
        shared.pick(wanted, progress, lambda name, policy: take({name: policy}))
        return picked
    # These share one long search for the best static decisions.
    rules = tuple(name for name in wanted if name in FROM_STATICS)
    groups = [rules] * bool(rules) + [(name,) for name in wanted if name not in rules]
    count = partial(progress, "searching")
    workers.map(_search_group, shared, groups, count, lambda _, found: take(found))
    return picked


def _search_group(shared: _Searched, names: Sequence[str]) -> dict[str, Policy]:
    return shared.pick(names)


def pick_in_hindsight(
    names: Sequence[str],
    table: CandidateTable,
    streams: Sequence[Stream],
    progress: Progress = lambda *_: None,
    *,
    deciding: CandidateTable | None = None,
    tuned: Mapping[str, Any] | None = None,
    take: Callable[[str, Policy], None] = lambda *_: None,
) -> dict[str, Policy]:
    """Search those of the named controllers that are picked on the streams themselves.

    Args:
        names: Controllers; those that need no hindsight are passed over.
        table: What is played; `oracle-pictures` knows it.
        streams: The streams.
        progress: Told how far it is.
        deciding: What rivals and `oracle` decide with; `table` by default.
        tuned: Knobs picked on the training traces, for what a rival learned there.
        take: Called with every controller as soon as it is picked.
    """
    venue = Venue(deciding or table, table, tuple(streams))
    picked: dict[str, Policy] = {}

    @cache
    def statics() -> tuple[Static, Floats]:
        return best_static(venue, partial(progress, "searching best-static"))

    for name in names:
        count = partial(progress, f"searching {name}")
        if rival := hindsight_rival(name):
            picked[name] = best_rival(rival, venue, lambda: statics()[1], tuned or {}, count)
        elif name == BEST_STATIC:
            picked[name] = statics()[0]
        elif name == ORACLE:
            picked[name] = best_oracle(venue, count)
        elif name == ORACLE_PICTURES:
            picked[name] = best_oracle(venue, count, name=name, knows_pictures=True)
        if name in picked:
            take(name, picked[name])
    return picked


def _in_words(policies: Mapping[str, Policy], table: CandidateTable) -> dict[str, str]:
    candidates, words = table.grid.candidates, {}
    for name in HINDSIGHT:
        policy = policies.get(name)
        if isinstance(policy, Oracle):
            prices = asdict(policy.prices)
            words[name] = "backlog prices " + _listed(prices)
        elif isinstance(policy, Static):
            words[name] = describe(candidates[policy.candidate])
        elif policy is not None:
            words[name] = _knobs_in_words(policy, table)
    return words


def _knobs_in_words(policy: Policy, table: CandidateTable) -> str:
    candidates = table.grid.candidates
    knobs: Any = getattr(policy, "knobs", None)
    if isinstance(knobs, PairKnobs):
        below, above = candidates[int(knobs.below)], candidates[int(knobs.above)]
        return (
            f"from {knobs.threshold_mbps:g} Mbit/s on {describe(above)}; below, {describe(below)}"
        )
    if isinstance(knobs, BusyKnobs):
        local, picture = candidates[int(knobs.local)], candidates[int(knobs.picture)]
        return (
            f"from {knobs.threshold_mbps:g} Mbit/s on {describe(picture)}; "
            f"nothing waiting, {describe(local)}"
        )
    plain = asdict(getattr(policy, "settings", knobs))
    plain.pop("network", None)
    return _listed(plain)


def _listed(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in values.items())
