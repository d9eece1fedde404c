"""A release on trial while frames are played: accepted, rolled back, or the canary of another."""

import logging

import pytest

from adaptive_split.errors import BundleError
from adaptive_split.runtime.controller_bundle import ControllerBundle
from adaptive_split.runtime.live_controller import LiveController
from adaptive_split.runtime.updates.canary import CANARY, Deciders, Draw
from adaptive_split.runtime.updates.health import HealthLimits
from adaptive_split.runtime.updates.signature import sign
from adaptive_split.runtime.updates.store import Store
from adaptive_split.runtime.updates.trial import LOOK_S, Trial, prepare
from adaptive_split.testing import ManualClock
from tests.color_bundle import write_color_bundle
from tests.releases import KEY, TRUSTED, report, signed_controller
from tests.unit.test_updates_canary import TABLE, always, decided

LIMITS = HealthLimits(window_frames=100)
SHIPPED, FIRST, SECOND = 4, 1, 2
"""Candidates that the device keeps without a release, and under each of two."""
GOOD = {"latency_s": 0.06}
BAD = {"latency_s": 0.15}


def make(folder):
    if folder is None:
        return always(SHIPPED)
    return LiveController(TABLE, ControllerBundle.load(folder).controller(TABLE))


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    place = tmp_path_factory.mktemp("bundles")
    return {kept: signed_controller(place / str(kept), kept, kept=kept) for kept in (FIRST, SECOND)}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


class Run:
    """A run of the current release without a device: frames are told, decisions asked for."""

    def __init__(self, store, draw=None):
        self.store, self.draw, self.clock, self.frames = store, draw, ManualClock(), 0
        release, pair = prepare(store, store.begin_run(3), make, draw, 3)
        self.deciders = Deciders(*pair, draw)
        self.trial = Trial(
            store, release, self.deciders, make, limits=LIMITS, clock=self.clock, draw=draw
        )

    def play(self, num_frames, **frame):
        """Settle frames; give back the run itself."""
        for _ in range(num_frames):
            arm = self.deciders.arm(self.frames)
            self.trial.put(report(self.frames, arm=arm, **frame), "")
            self.frames += 1
        return self

    def end(self):
        """End as a run does; say which candidates the last controllers choose."""
        self.trial.close()
        if self.trial.release:
            self.store.end_run(self.trial.release.name)
        return set(decided(self.deciders, range(self.frames, self.frames + 300)))


def accepted(store, bundle):
    """Install a release, and let its trial go well."""
    store.install(bundle[0], TRUSTED)
    return Run(store).play(101, **GOOD).end()


def test_the_first_release_has_nothing_to_be_compared_with_and_is_accepted(store, bundles):
    assert accepted(store, bundles[FIRST]) == {FIRST}
    assert store.standing().state == "accepted"
    assert store.standing().reason == "nothing to compare with"


def test_what_the_device_did_before_any_release_is_compared_with(store, bundles):
    Run(store).play(100, **GOOD).end()
    store.install(bundles[FIRST][0], TRUSTED)

    assert Run(store).play(101, **BAD).end() == {SHIPPED}
    assert store.standing().state == "rolled back"
    assert store.standing().current is None


def test_a_release_that_harms_is_rolled_back_and_the_next_frame_is_the_old_ones(
    store, bundles, caplog
):
    accepted(store, bundles[FIRST])
    store.install(bundles[SECOND][0], TRUSTED)

    with caplog.at_level(logging.WARNING):
        choices = Run(store).play(101, **BAD).end()

    assert choices == {FIRST}
    standing = store.standing()
    assert (standing.state, standing.current) == ("rolled back", bundles[FIRST][1])
    assert standing.reason.startswith("slower than 66 ms +1.000")
    assert standing.reason in caplog.text


def test_a_release_that_holds_is_accepted_with_what_was_found(store, bundles):
    accepted(store, bundles[FIRST])
    store.install(bundles[SECOND][0], TRUSTED)

    assert Run(store).play(101, **GOOD).end() == {SECOND}
    assert store.standing().state == "accepted"
    assert store.standing().reason.startswith("missed +0.000 [")


def test_a_trial_goes_on_in_the_next_run(store, bundles):
    accepted(store, bundles[FIRST])
    store.install(bundles[SECOND][0], TRUSTED)

    for _ in range(3):
        Run(store).play(30, **GOOD).end()
    assert store.standing().state == "on trial"
    Run(store).play(10, **GOOD).end()

    assert store.standing().state == "accepted"


def test_a_release_installed_while_frames_are_played_decides_the_next_ones(store, bundles):
    accepted(store, bundles[FIRST])
    run = Run(store).play(10, **GOOD)

    store.install(bundles[SECOND][0], TRUSTED)
    run.clock.advance(LOOK_S)

    assert run.play(1, **GOOD).end() == {SECOND}
    assert store.standing().state == "on trial"
    assert store.standing().deaths == 0


def test_a_rollback_by_hand_is_followed(store, bundles):
    accepted(store, bundles[FIRST])
    store.install(bundles[SECOND][0], TRUSTED)
    run = Run(store).play(10, **GOOD)

    store.roll_back("by hand")
    run.clock.advance(LOOK_S)

    assert run.play(1, **GOOD).end() == {FIRST}


def test_a_release_that_cannot_decide_here_is_rolled_back_before_a_frame(store, bundles, tmp_path):
    accepted(store, bundles[FIRST])
    store.install(bundles[SECOND][0], TRUSTED)

    def picky(folder):
        if folder is not None and folder.name == bundles[SECOND][1]:
            raise BundleError("the controller was trained with another model")
        return make(folder)

    release, _ = prepare(store, store.begin_run(3), picky, None, 3)

    assert release.name == bundles[FIRST][1]
    assert store.standing().reason == "the controller was trained with another model"


def test_a_share_makes_a_release_on_trial_a_canary_that_is_judged_at_the_same_time(store, bundles):
    accepted(store, bundles[FIRST])
    store.install(bundles[SECOND][0], TRUSTED)
    run = Run(store, Draw(share=0.5, block_frames=30, washout_frames=3))

    both = set(decided(run.deciders, range(300)))
    # All are slow now, which is the link's fault and not the canary's.
    choices = run.play(400, **BAD).end()

    assert both == {FIRST, SECOND}
    assert choices == {SECOND}
    assert store.standing().state == "accepted"


def test_a_canary_that_harms_is_rolled_back(store, bundles):
    accepted(store, bundles[FIRST])
    store.install(bundles[SECOND][0], TRUSTED)
    draw = Draw(share=0.5, block_frames=30, washout_frames=3)
    run = Run(store, draw)

    for index in range(400):
        run.play(1, **(BAD if draw.arm(index) == CANARY else GOOD))

    assert run.end() == {FIRST}
    assert store.standing().state == "rolled back"


@pytest.mark.parametrize("draw", [None, Draw(share=0.5, block_frames=30, washout_frames=3)])
def test_another_model_has_no_share_and_asks_for_another_process(store, tmp_path, draw):
    names = []
    for version in (1, 2):
        folder = tmp_path / str(version)
        folder.mkdir()
        write_color_bundle(folder)
        names.append(sign(folder, KEY, version).name)
        store.install(folder, TRUSTED)
        run = Run(store, draw).play(101, **(GOOD, BAD)[version - 1])
        run.end()

    assert store.standing().state == "rolled back"
    assert store.standing().current == names[0]
    assert run.trial.restart


def test_a_store_that_breaks_meanwhile_costs_no_frame(store, bundles, caplog):
    store.install(bundles[FIRST][0], TRUSTED)
    run = Run(store)
    (store.folder / "journal.jsonl").write_text("{}\n")

    run.play(101, **GOOD).trial.close()

    assert "a store must be usable" in caplog.text
    assert set(decided(run.deciders, range(10))) == {FIRST}
