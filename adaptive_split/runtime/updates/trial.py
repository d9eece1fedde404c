"""Follows a store while frames are played: judges a release on trial, and switches on the way.

All of it, reading and writing of the store included, happens on a thread that no frame waits for.
Where only the controller differs the next frame is decided by the other one; another model needs a
new process, for which the run is asked to end.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from adaptive_split.clock import Clock
from adaptive_split.errors import BundleError
from adaptive_split.measurement import FrameReport
from adaptive_split.runtime.live_controller import LiveController
from adaptive_split.runtime.updates import journal
from adaptive_split.runtime.updates.blocks import FEWEST_BLOCKS
from adaptive_split.runtime.updates.canary import CANARY, Deciders, Draw
from adaptive_split.runtime.updates.health import HealthLimits, HealthWindow, judge
from adaptive_split.runtime.updates.signature import CONTROLLER
from adaptive_split.runtime.updates.store import Release, Store

_log = logging.getLogger(__name__)

LOOK_S = 1.0
"""Between two looks whether another release was installed."""

Make = Callable[[Path | None], LiveController]
"""Builds the controller of a controller bundle, or for none what the device runs without one.

Raises `BundleError` where the bundle cannot be used.
"""


def prepare(
    store: Store, release: Release | None, make: Make, draw: Draw | None, most_deaths: int
) -> tuple[Release | None, tuple[LiveController, LiveController | None]]:
    """Build who decides: a release alone or, on trial and with a share, as a canary.

    A release on trial whose controller cannot be used here is rolled back.

    Returns:
        The release that runs in the end, and its controllers: of most frames, and of the canary.
    """
    standing = store.standing()
    on_trial = standing is not None and standing.state == journal.ON_TRIAL
    try:
        own = make(release.controller if release else None)
        if standing is None or not on_trial or draw is None or not _is_controller(release):
            return release, (own, None)
        before = None if standing.previous is None else store.release(standing.previous)
        return release, (make(before.controller if before else None), own)
    except BundleError as error:
        if not on_trial:
            _log.warning("%s; the device decides as without a store", error)
            return release, (make(None), None)
        store.roll_back(str(error))
    return prepare(store, store.begin_run(most_deaths), make, draw, most_deaths)


def _is_controller(release: Release | None) -> bool:
    """Whether a release can be switched to, or tried on a share, while another one runs."""
    return release is not None and release.kind == CONTROLLER


class Trial:
    """Watches the frames of a run under the current release of a store."""

    def __init__(
        self,
        store: Store,
        release: Release | None,
        deciders: Deciders,
        make: Make,
        *,
        limits: HealthLimits,
        clock: Clock,
        draw: Draw | None = None,
    ) -> None:
        """Start watching.

        Args:
            store: Whose releases run.
            release: The one that `Store.begin_run` gave.
            deciders: Decide the frames; told to switch.
            make: Builds controllers.
            limits: What a release on trial is allowed.
            clock: Times the looks at the store.
            draw: Gives a release on trial a share of the frames; none: all.
        """
        self.restart = False
        """Whether the run must end because another model is to run."""
        self._store, self._release, self._deciders = store, release, deciders
        self._make, self._limits, self._clock, self._draw = make, limits, clock, draw
        self._queue: queue.SimpleQueue[tuple[FrameReport, str] | None] = queue.SimpleQueue()
        self._look_at_s = clock.now_s() + LOOK_S
        self._begin()
        self._thread = threading.Thread(target=self._watch, name="trial", daemon=True)
        self._thread.start()

    @property
    def release(self) -> Release | None:
        """The release that runs now."""
        return self._release

    def put(self, report: FrameReport, obstacle: str) -> None:
        """Take a settled frame, and why the device sends nothing at that moment."""
        self._queue.put((report, obstacle))

    def close(self) -> None:
        """Keep how the frames fared, for the rest of a trial or to compare the next one with."""
        self._queue.put(None)
        self._thread.join()

    def _watch(self) -> None:
        while (item := self._queue.get()) is not None:
            self._dare(partial(self._take, *item))
        self._dare(self._keep)

    def _dare(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception:  # whatever the store cannot do, the frames go on
            _log.exception("a store must be usable; got trouble with %s", self._store.folder)
            self._empty()

    def _take(self, report: FrameReport, obstacle: str) -> None:
        """Count a frame; then judge, keep or look, if it is time to."""
        if self.restart:
            return
        if not report.arm:
            self._window.add(report, obstacle)
        elif self._draw is not None and self._draw.counts(report.frame_index):
            window = self._window if report.arm == CANARY else self._beside
            window.add(report, obstacle)
        if self._window.full and self._on_trial:
            self._judge()
        elif self._window.full and not self._kept:
            self._keep()
        if self._clock.now_s() >= self._look_at_s:
            self._look_at_s = self._clock.now_s() + LOOK_S
            if self._store.pointed() != self._name or self._ended_by_hand():
                self._follow()

    def _judge(self) -> None:
        """Accept or roll back the release on trial."""
        if self._ended_by_hand():
            return self._follow()
        before = self._beside
        if not self._has_canary:
            before = HealthWindow.load(
                self._store.health_file(self._previous), self._limits.window_frames
            )
        elif len(before) < FEWEST_BLOCKS * self._limits.block_frames:
            return None
        findings = judge(self._window, before, self._limits)
        failing = [finding for finding in findings if finding.fails]
        if failing:
            self._store.roll_back("; ".join(map(str, failing)))
            return self._follow()
        self._keep()
        known = any(finding.rise for finding in findings)
        found = "; ".join(map(str, findings)) if known else "nothing to compare with"
        self._store.accept(found)
        _log.info("accepted release %s: %s", self._name, found)
        return self._follow() if self._has_canary else self._begin()

    def _follow(self) -> None:
        """Run what the store says now."""
        store, most_deaths = self._store, self._limits.most_deaths
        release = store.begin_run(most_deaths)
        if any(one and not _is_controller(one) for one in (release, self._release)):
            self.restart = True
            if release:
                store.end_run(release.name)
            return
        self._release, pair = prepare(store, release, self._make, self._draw, most_deaths)
        self._deciders.switch(*pair)
        self._begin()

    def _ended_by_hand(self) -> bool:
        """Whether somebody accepted or rolled back the release that is on trial here."""
        if not self._on_trial:
            return False
        standing = self._store.standing()
        return standing is None or standing.state != journal.ON_TRIAL

    def _begin(self) -> None:
        """Take what the store says now, and the last frames under it, of earlier runs as well."""
        standing = self._store.standing()
        self._name = standing.current if standing else None
        self._previous = standing.previous if standing else None
        self._on_trial = standing is not None and standing.state == journal.ON_TRIAL
        has_share = self._draw is not None and _is_controller(self._release)
        self._has_canary = self._on_trial and has_share
        self._empty()
        frames = self._limits.window_frames
        if not self._has_canary:
            self._window = HealthWindow.load(self._store.health_file(self._name), frames)
        if self._on_trial:
            _log.info("release %s is on trial for %d frames", self._name, frames)

    def _empty(self) -> None:
        frames = self._limits.window_frames
        self._window, self._beside, self._kept = HealthWindow(frames), HealthWindow(frames), False

    def _keep(self) -> None:
        if len(self._window) and not self.restart:
            self._window.save(self._store.health_file(self._name))
            self._kept = True
