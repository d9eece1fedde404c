"""The store: one whole release is current, whatever happened, and nothing unproven stays."""

import os
import subprocess
import sys
from datetime import datetime, timezone

import pytest

from adaptive_split.cli import main
from adaptive_split.errors import BundleError, ConfigError
from adaptive_split.runtime.updates import journal
from adaptive_split.runtime.updates.keys import trusted_line
from adaptive_split.runtime.updates.signature import sign, verify
from adaptive_split.runtime.updates.store import Store
from tests.color_bundle import write_color_bundle
from tests.releases import KEY, TRUSTED, signed_controller, write_controller

NOW = datetime(2030, 5, 1, tzinfo=timezone.utc)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """Signed controllers by version: `(folder, name)`."""
    place = tmp_path_factory.mktemp("bundles")
    return {version: signed_controller(place / str(version), version) for version in (1, 2, 3)}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store", now=lambda: NOW)


def install(store, bundles, *versions, accept=True):
    """Install releases one after the other, accepting each."""
    for version in versions:
        store.install(bundles[version][0], TRUSTED)
        if accept:
            store.accept("by hand")


def links(store):
    """Where the links point to."""
    names = ("current", "previous")
    return [os.readlink(store.folder / one).split("/")[-1] if (store.folder / one).is_symlink()
            else None for one in names]  # fmt: skip


def states(store):
    return [entry.state for entry in store.entries()]


def test_a_release_is_staged_verified_and_on_trial(store, bundles):
    entry = store.install(bundles[1][0], TRUSTED)

    assert states(store) == ["staged", "verified", "on trial"]
    assert links(store) == [bundles[1][1], None]
    assert (entry.current, entry.previous) == (bundles[1][1], None)
    assert verify(store.folder / "current", TRUSTED).version == 1
    assert store.entries()[-1].time == "2030-05-01T00:00:00+00:00"


def test_the_next_release_has_the_accepted_one_behind_it(store, bundles):
    install(store, bundles, 1, 2)

    assert links(store) == [bundles[2][1], bundles[1][1]]
    assert states(store)[-1] == "accepted"


def test_what_nothing_points_to_is_removed(store, bundles):
    install(store, bundles, 1, 2, 3)

    kept = {path.name for path in (store.folder / "releases").iterdir()}
    assert kept == {bundles[2][1], bundles[3][1]}


def test_a_release_on_trial_is_never_what_to_go_back_to(store, bundles):
    install(store, bundles, 1)
    install(store, bundles, 2, 3, accept=False)

    assert links(store) == [bundles[3][1], bundles[1][1]]


def test_a_rollback_goes_back_once_and_then_to_none(store, bundles):
    install(store, bundles, 1, 2)

    store.roll_back("by hand")
    assert links(store) == [bundles[1][1], None]
    store.roll_back("by hand")
    assert links(store) == [None, None]
    with pytest.raises(ConfigError, match="a release must be current; got none"):
        store.roll_back("by hand")


@pytest.mark.parametrize(("version", "message"), [(1, r"must be above 2, .*got 1; .*--force"),
                                                  (2, "is current already")])  # fmt: skip
def test_a_version_that_is_not_above_the_current_one_is_refused(store, bundles, version, message):
    install(store, bundles, 1, 2)

    with pytest.raises(ConfigError, match=message):
        store.install(bundles[version][0], TRUSTED)
    assert links(store) == [bundles[2][1], bundles[1][1]]
    assert not (store.folder / "incoming").exists()


def test_a_downgrade_may_be_forced(store, bundles):
    install(store, bundles, 1, 2)

    store.install(bundles[1][0], TRUSTED, force=True)

    assert links(store) == [bundles[1][1], bundles[2][1]]


def test_what_was_rolled_back_does_not_return_unless_forced(store, bundles):
    install(store, bundles, 1, 2)
    store.roll_back("slow")

    with pytest.raises(ConfigError, match="must not have been rolled back here"):
        store.install(bundles[2][0], TRUSTED)
    assert store.install(bundles[2][0], TRUSTED, force=True).state == "on trial"


def test_an_unsigned_or_foreign_bundle_changes_nothing(store, bundles, tmp_path):
    install(store, bundles, 1)
    foreign, _ = signed_controller(tmp_path / "foreign", 9)

    with pytest.raises(BundleError, match="signed by a trusted key"):
        store.install(foreign, {"0" * 16: KEY.public_key()})
    with pytest.raises(BundleError, match="must be signed; got no"):
        store.install(write_controller(tmp_path / "unsigned"), TRUSTED)
    (foreign / "controller.npz").write_bytes(b"changed")
    with pytest.raises(BundleError, match=r"got changed controller\.npz"):
        store.install(foreign, TRUSTED)
    assert links(store) == [bundles[1][1], None]


def test_a_link_in_a_bundle_is_not_followed(store, tmp_path):
    foreign, _ = signed_controller(tmp_path / "foreign", 9)
    (foreign / "controller.npz").rename(tmp_path / "elsewhere")
    (foreign / "controller.npz").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(ConfigError, match="every file of a release must be copied"):
        store.install(foreign, TRUSTED)


def test_a_pipe_in_a_bundle_holds_nothing_up(store, tmp_path):
    foreign, _ = signed_controller(tmp_path / "foreign", 9)
    (foreign / "controller.npz").unlink()
    os.mkfifo(foreign / "controller.npz")

    with pytest.raises(BundleError, match=r"got changed controller\.npz"):
        store.install(foreign, TRUSTED)


@pytest.mark.parametrize("act", [Store.standing, Store.entries, lambda store: store.begin_run(3),
                                 lambda store: store.roll_back("by hand")])  # fmt: skip
def test_a_folder_of_other_things_is_no_store_and_stays_as_it_is(tmp_path, act):
    (tmp_path / "incoming").mkdir()
    (tmp_path / "incoming" / "mail.txt").write_text("read me")

    with pytest.raises(ConfigError, match="a store must be a folder"):
        act(Store(tmp_path))
    assert [path.name for path in tmp_path.rglob("*")] == ["incoming", "mail.txt"]


def test_a_store_that_cannot_be_read_is_named(store, bundles):
    install(store, bundles, 1)
    (store.folder / "journal.jsonl").unlink()
    (store.folder / "journal.jsonl").mkdir()

    with pytest.raises(ConfigError, match="all of a store must be readable and writable"):
        store.standing()


def test_a_store_keeps_to_one_kind(store, bundles, tmp_path):
    install(store, bundles, 1)
    model = tmp_path / "model"
    model.mkdir()
    write_color_bundle(model)
    sign(model, KEY, 9)

    with pytest.raises(ConfigError, match="of one kind, controller; got model; sign a pair"):
        store.install(model, TRUSTED, force=True)


def test_a_trial_that_died_too_often_is_over(store, bundles):
    install(store, bundles, 1)
    install(store, bundles, 2, accept=False)

    runs = [store.begin_run(3).name for _ in range(4)]

    assert runs == [bundles[2][1]] * 3 + [bundles[1][1]]
    assert store.entries()[-1].reason == "the process died 3 times on trial"


def test_a_run_that_ended_is_no_death(store, bundles):
    install(store, bundles, 1, accept=False)

    for _ in range(5):
        store.end_run(store.begin_run(3).name)

    assert store.standing().state == "on trial"
    assert store.standing().deaths == 0


def test_a_damaged_release_is_rolled_back_when_it_is_to_run(store, bundles):
    install(store, bundles, 1, 2)
    file = store.folder / "current" / "controller.npz"
    file.write_bytes(file.read_bytes()[:-1])

    assert store.begin_run(3).name == bundles[1][1]
    assert "got changed controller.npz" in store.entries()[-1].reason


def test_a_store_without_releases_runs_none(store):
    assert store.begin_run(3) is None


def test_a_damaged_journal_is_named_with_the_line(store, bundles):
    install(store, bundles, 1)
    file = store.folder / "journal.jsonl"
    file.write_text('{"state": 1}\n' + file.read_text())

    with pytest.raises(ConfigError, match=r"journal\.jsonl, line 1: a journal must be whole"):
        store.standing()


def test_a_line_cut_short_was_never_begun(store, bundles):
    install(store, bundles, 1)
    with (store.folder / "journal.jsonl").open("a") as file:
        file.write('{"state": "rolled ba')

    install(store, bundles, 2)

    assert links(store) == [bundles[2][1], bundles[1][1]]
    assert "rolled back" not in states(store)


CHILDREN = """
import os, shutil, signal, sys
from pathlib import Path
from adaptive_split.runtime.updates.keys import load_trusted
from adaptive_split.runtime.updates.store import Store

place, bundle = map(Path, sys.argv[1:])
trusted = load_trusted(place / "trusted.txt")
ACTIONS = {
    "install": lambda store: store.install(bundle, trusted),
    "roll back": lambda store: store.roll_back("slow"),
    "accept": lambda store: store.accept("well"),
}

def die_at(step):
    left = [step]
    def reached(name):
        left[0] -= 1
        if left[0] < 0:
            print(action, name, sep=",", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
    return reached

for action, act in ACTIONS.items():
    died, step = True, 0
    while died:
        folder = place / f"{action} {step}"
        shutil.copytree(place / f"before {action}", folder, symlinks=True)
        child = os.fork()
        if not child:
            act(Store(folder, reached=die_at(step)))
            os._exit(0)
        died, step = os.waitpid(child, 0)[1] != 0, step + 1
"""
"""Does things again and again from the same start, killed one step later each time."""
STEPS = {
    "install": ["copied", "staged", "verified", "placed", "on trial", "previous", "current",
                "pruned"],
    "roll back": ["rolled back", "previous", "current"],
    "accept": ["accepted", "pruned"],
}  # fmt: skip


@pytest.fixture(scope="module")
def killed(bundles, tmp_path_factory):
    """A folder with the stores that killed processes left, and the steps they were killed at."""
    place = tmp_path_factory.mktemp("killed")
    (place / "trusted.txt").write_text(trusted_line(KEY.public_key()))
    for action in STEPS:
        start = Store(place / f"before {action}")
        install(start, bundles, 1)
        install(start, bundles, 2, accept=action != "accept")
    done = subprocess.run(
        [sys.executable, "-c", CHILDREN, place, bundles[3][0]], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return place, [line.split(",") for line in done.stdout.splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("action", "ends"), [("install", (3, 2)), ("roll back", (1, None)), ("accept", (2, 1))]
)
def test_killed_at_any_step_a_device_runs_the_old_release_or_the_new_one(
    killed, bundles, action, ends
):
    place, steps = killed
    assert [step for name, step in steps if name == action] == STEPS[action]
    before, after = [bundles[2][1], bundles[1][1]], [end and bundles[end][1] for end in ends]

    for number in range(len(STEPS[action])):
        left = Store(place / f"{action} {number}")
        # Whoever follows the link finds a whole release, before anything is repaired.
        assert verify(left.folder / "current", TRUSTED).name in {before[0], after[0]}
        assert verify(left.begin_run(3).path, TRUSTED).name == links(left)[0]
        assert links(left) in (before, after)
        assert not (left.folder / "incoming").exists()


@pytest.mark.slow
def test_an_interrupted_install_is_undone_or_finished_by_the_next_call(killed, bundles):
    place, _ = killed
    line = STEPS["install"].index("on trial")

    for number in range(len(STEPS["install"])):
        left = Store(place / f"install {number}")
        assert left.standing().current == bundles[2 if number < line else 3][1]
        if number < line:
            left.install(bundles[3][0], TRUSTED)
        assert left.standing().state == journal.ON_TRIAL
        assert links(left) == [bundles[3][1], bundles[2][1]]


def test_the_commands_install_accept_and_roll_back(bundles, tmp_path, capsys):
    trusted, store = tmp_path / "trusted.txt", str(tmp_path / "store")
    trusted.write_text(trusted_line(KEY.public_key()))
    folder, name = bundles[1]

    assert main(["update", "status", "--store", store]) == 2
    assert "that 'adaptive-split update install' made" in capsys.readouterr().err
    given = ["update", "install", str(folder), "--store", store, "--trusted", str(trusted)]
    assert main(given) == 0
    assert f"current {name}, previous none: {name} on trial" in capsys.readouterr().out
    assert main(["update", "accept", "--store", store]) == 0
    assert main(["update", "accept", "--store", store]) == 2
    assert main(["update", "rollback", "--store", store]) == 0
    capsys.readouterr()
    assert main(["update", "status", "--store", store]) == 0
    assert "rolled back  by hand" in capsys.readouterr().out
