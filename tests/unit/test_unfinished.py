"""An interrupted comparison goes on where it stopped, and only the same one does."""

import json

import pytest

from adaptive_split.agents.cluster import InProcess
from adaptive_split.agents.compare import CompareConfig, compare
from adaptive_split.agents.hindsight_kept import knobs_of_policy, policy_of
from adaptive_split.agents.rivals import RIVALS, lacks_knobs
from adaptive_split.agents.summary import summarize
from adaptive_split.agents.unfinished import SUFFIX, Unfinished
from adaptive_split.errors import ConfigError
from tests import support
from tests.unit.test_compare import learned

NAMES = ("sac", "two-arm-hindsight", "best-static", "oracle", "oracle-pictures")
CONFIG = CompareConfig(names=NAMES, num_seeds=2, per_family=1)


class StoppedError(Exception):
    """Stands for whatever ends a process."""


class StopsAfter:
    """Runs jobs here until so many results were taken."""

    def __init__(self, most):
        self.most, self.taken = most, 0

    def map(self, job, shared, items, count, take):
        """Run and count; stop."""

        def take_or_stop(index, result):
            take(index, result)
            self.taken += 1
            if self.taken == self.most:
                raise StoppedError

        return InProcess().map(job, shared, items, count, take_or_stop)


@pytest.fixture(scope="module")
def scenario(tmp_path_factory):
    return support.scenario(tmp_path_factory.mktemp("toy"), num_frames=10)


def played(scenario, workers, kept=None):
    traces = [support.trace(0, "a"), support.trace(1, "b")]
    return compare(scenario, traces, CONFIG, learned(), workers=workers, kept=kept)


@pytest.mark.slow
def test_what_was_done_is_not_done_again_and_changes_nothing(scenario, tmp_path):
    out, about = tmp_path / "out", {"--seeds": 2}
    whole = StopsAfter(None)
    expected = played(scenario, whole)
    with Unfinished(out, about, "compare") as kept, pytest.raises(StoppedError):
        played(scenario, StopsAfter(5), kept)  # three searches, two controllers on a seed

    rest = StopsAfter(None)
    with Unfinished(out, about, "compare") as kept:
        found = played(scenario, rest, kept)
        kept.finish()

    assert kept.resumed
    assert rest.taken == whole.taken - 5
    assert summarize(found, {}) == summarize(expected, {})
    assert list(out.iterdir()) == []
    assert not out.with_name("out" + SUFFIX).exists()


@pytest.mark.parametrize("name", [name for name in RIVALS if not lacks_knobs(name, {})])
def test_a_rival_picked_in_hindsight_comes_back_with_its_knobs(name):
    rival, table = RIVALS[name], support.table()
    knobs = rival.knobs()

    plain = json.loads(json.dumps(knobs_of_policy(rival.build(table, knobs))))

    again = policy_of(f"{name}-hindsight", plain, table, table)
    assert type(again) is type(rival.build(table, knobs))
    assert knobs_of_policy(again) == plain


def test_other_arguments_do_not_go_on_and_leave_everything_as_it_is(tmp_path):
    out = tmp_path / "out"
    about = {"--seeds": 2, "--streams": 8}
    with Unfinished(out, about, "adaptive-split compare first") as kept:
        kept.keep_knobs({"two-arm": {"below": 1}})

    with pytest.raises(ConfigError) as refused:
        Unfinished(out, about | {"--seeds": 3}, "adaptive-split compare second")

    assert "got --seeds 3, begun with 2; repeat 'adaptive-split compare first'" in str(
        refused.value
    )
    assert "--streams" not in str(refused.value)
    with Unfinished(out, about, "adaptive-split compare first") as again:
        assert again.knobs() == {"two-arm": {"below": 1}}


def test_a_folder_that_exists_is_not_taken(tmp_path):
    (tmp_path / "out").mkdir()

    with pytest.raises(ConfigError, match="--out must not exist yet"):
        Unfinished(tmp_path / "out", {}, "compare")

    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_comparison_belongs_to_one_process(tmp_path):
    with (
        Unfinished(tmp_path / "out", {}, "compare"),
        pytest.raises(ConfigError, match="must belong to one process"),
    ):
        Unfinished(tmp_path / "out", {}, "compare")


def test_a_cell_cut_short_is_played_again(tmp_path):
    with Unfinished(tmp_path / "out", {}, "compare") as kept:
        (kept.folder / "state" / "sac-0.npz").write_bytes(b"PK\x03\x04 and no more")

        assert kept.cell("sac", 0) is None
        assert kept.cell("sac", 1) is None


def test_a_kill_while_beginning_leaves_a_folder_that_is_begun_again(tmp_path):
    (tmp_path / ("out" + SUFFIX) / "state").mkdir(parents=True)

    with Unfinished(tmp_path / "out", {"--seeds": 1}, "compare") as kept:
        assert not kept.resumed
    about = json.loads((kept.folder / "state" / "about.json").read_text())
    assert about == {"about": {"--seeds": 1}, "command": "compare"}
