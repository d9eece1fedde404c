"""What `run` does with releases: `--store` and `--canary`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from adaptive_split.errors import AdaptiveSplitError, BundleError, ConfigError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from adaptive_split.clock import Clock
    from adaptive_split.measurement import FrameReport
    from adaptive_split.objective import Objective
    from adaptive_split.runtime.updates.canary import Deciders, Draw
    from adaptive_split.runtime.updates.trial import Make, Trial

RESTART = 75
"""Exit status that asks to be started again (EX_TEMPFAIL): another model is to run."""


def add_releases(parser: argparse.ArgumentParser) -> None:
    """Add `--store`, `--trial-frames`, `--canary` and `--canary-controller`."""
    group = parser.add_argument_group(
        "releases", "see 'adaptive-split update'; a release that stands in the store goes before "
        f"--bundle and --controller; exit status {RESTART} = start me again, with another model",
    )  # fmt: skip
    group.add_argument("--store", type=Path, metavar="DIR", help="run the current release of DIR")
    group.add_argument(
        "--trial-frames", type=int, metavar="N",
        help="frames that decide whether a release on trial stays (default: 1800)",
    )  # fmt: skip
    group.add_argument(
        "--canary", type=float, metavar="SHARE",
        help="give that share of the frames, in blocks, to --canary-controller, or to a "
        "controller on trial in the store; compare both",
    )  # fmt: skip
    group.add_argument(
        "--canary-controller", type=Path, metavar="DIR", help="a controller bundle to compare"
    )


class Updates:
    """The store and the canary of one run; enter it around everything that a release may break."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        """Check the arguments; open the store, if there is to be one.

        Raises:
            ConfigError: If they contradict one another.
        """
        from adaptive_split.runtime.updates.health import HealthLimits
        from adaptive_split.runtime.updates.store import Store

        store, share, self._canary = (
            arguments.store, arguments.canary, arguments.canary_controller
        )  # fmt: skip
        if self._canary and (store or share is None):
            raise ConfigError("--canary-controller must come with --canary and without --store")
        if share is not None and not (store or self._canary):
            raise ConfigError("--canary must come with --canary-controller or --store")
        if arguments.trial_frames is not None and not store:
            raise ConfigError("--trial-frames must come with --store")
        self._share = share
        frames = arguments.trial_frames
        self._limits = HealthLimits() if frames is None else HealthLimits(window_frames=frames)
        self._store = Store(store) if store else None
        self._trial: Trial | None = None
        self._draw: Draw | None = None

    def __enter__(self) -> Updates:
        """Ask the store what to run; a release that died too often is rolled back by now."""
        store = self._store
        self._release = store.begin_run(self._limits.most_deaths) if store else None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        """Tell the store that the run has ended, unless it was the end of a crash."""
        if self._trial is not None:
            self._trial.close()
            self._release = self._trial.release
        ended = kind is None or issubclass(kind, (AdaptiveSplitError, KeyboardInterrupt))
        if self._store and self._release and ended and kind is not BundleError:
            self._store.end_run(self._release.name)

    def bundle(self, given: str | None) -> str | None:
        """The model bundle to run: the release's, else the one given."""
        model = self._release.model if self._release else None
        return given if model is None else str(model)

    def start(self, objective: Objective, make: Make, clock: Clock) -> Deciders:
        """Build who decides, and begin to watch.

        Raises:
            BundleError: If the canary's bundle cannot be used.
        """
        from adaptive_split.runtime.updates.canary import Comparison, Deciders, Draw
        from adaptive_split.runtime.updates.trial import Trial, prepare

        if self._share is not None:
            self._draw = Draw.of(objective, self._share)
            self._comparison = Comparison(self._draw)
        store, limits = self._store, self._limits
        if store is None:
            canary = None if self._canary is None else make(self._canary)
            return Deciders(make(None), canary, self._draw)
        self._release, pair = prepare(store, self._release, make, self._draw, limits.most_deaths)
        deciders = Deciders(*pair, self._draw)
        self._trial = Trial(
            store, self._release, deciders, make, limits=limits, clock=clock, draw=self._draw
        )
        return deciders

    def counting(
        self,
        registry: CollectorRegistry,
        deciders: Deciders,
        count: Callable[[FrameReport], None],
    ) -> Callable[[FrameReport], None]:
        """Count frames by who decided as well, where there may be two."""
        from adaptive_split.runtime.updates.arm_metrics import ArmMetrics

        if self._draw is None:
            return count
        by_arm = ArmMetrics(registry, deciders.arm)

        def count_both(report: FrameReport) -> None:
            count(report)
            by_arm.count(report)

        return count_both

    def settled(self, report: FrameReport, obstacle: str) -> None:
        """Take a settled frame, and why the device sends nothing at the moment."""
        if self._draw is not None:
            self._comparison.add(report)
        if self._trial is not None:
            self._trial.put(report, obstacle)

    @property
    def restart(self) -> bool:
        """Whether the run must end because another model is to run."""
        return self._trial is not None and self._trial.restart

    def text(self) -> str:
        """How the two sides compare, for a person; empty without a canary."""
        from adaptive_split.cli.tables import table
        from adaptive_split.runtime.updates.canary import ARMS

        sides = {arm: self._comparison.means(arm) for arm in ARMS} if self._draw else {}
        if not any(sides.values()):
            return ""
        rows = [["decided by", "frames", "blocks", "utility", "on time %", "fell back %", "p95 ms",
                 "bytes/frame", "mJ/frame"]]  # fmt: skip
        for arm, one in sides.items():
            if one is not None:
                rows.append(
                    [arm, f"{one['frames']:.0f}", f"{one['blocks']:.0f}", f"{one['utility']:.4f}",
                     f"{100 * one['on_time']:.1f}", f"{100 * one['fell_back']:.1f}",
                     f"{1e3 * one['p95_latency_s']:.0f}", f"{one['payload_bytes']:.0f}",
                     f"{1e3 * one['energy_j']:.1f}"]
                )  # fmt: skip
        return "\n".join([table(rows), *map(self._difference, ("utility", "on_time"))])

    def _difference(self, column: str) -> str:
        found = self._comparison.difference(column)
        name = column.replace("_", " ")
        if found is None:
            return f"{name}, canary minus current: too few blocks to say"
        return (
            f"{name}, canary minus current: {found.value:+.4f}  "
            f"[{found.low:+.4f}, {found.high:+.4f}] (95 %, over blocks)"
        )
