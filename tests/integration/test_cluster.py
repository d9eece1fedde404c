"""The same results on a Ray cluster as in one process, also when workers die."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest

from adaptive_split.agents.cluster import InProcess, RayCluster, import_ray
from adaptive_split.agents.compare import CompareConfig, compare
from adaptive_split.agents.matrix import Arena, play_matrix
from adaptive_split.agents.roster import make_policy
from adaptive_split.agents.shards import LocalShards, RayShards
from adaptive_split.envs.vector_env import TraceVectorEnv
from adaptive_split.errors import ConfigError
from adaptive_split.trace import write_trace
from tests import support
from tests.small_cluster import open_small_cluster
from tests.unit.test_cli import SCENARIO, failure
from tests.unit.test_compare import learned

pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # a busy machine starts Ray slowly

NAMES = ("sac", "two-window-planner", "two-arm-hindsight", "best-static", "oracle")


@pytest.fixture(scope="module")
def cluster():
    with open_small_cluster() as opened:
        yield opened


@pytest.fixture
def place(tmp_path):
    """A toy bundle, its scenario and a trace."""
    support.write_toy_bundle(tmp_path / "bundle")
    (tmp_path / "toy.toml").write_text(SCENARIO)
    (tmp_path / "traces").mkdir()
    write_trace(support.trace(), tmp_path / "traces" / "toy-0.csv")
    return tmp_path


def double(shared, item):
    return shared["by"] * item


def refuse(shared, item):
    raise ConfigError(f"{shared} must not be {item}")


class Mortal:
    """A planner whose process is killed in the middle of its first run."""

    name = "mortal"
    probes = True

    def __init__(self, table, grave):
        self.inner, self.grave, self.frames = make_policy("planner", table, None), grave, 0

    def choose(self, moment):
        """Decide as the planner; die once."""
        self.frames += 1
        if self.frames == 20 and not self.grave.exists():
            self.grave.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.inner.choose(moment)


@pytest.mark.parametrize("items", [[], [3], [1, 2, 3, 4, 5]])
def test_results_come_in_the_order_of_the_items(cluster, items):
    told = []

    found = cluster.map(double, {"by": 2}, items, lambda done, total: told.append((done, total)))

    assert found == InProcess().map(double, {"by": 2}, items) == [2 * item for item in items]
    assert told == [(done, len(items)) for done in range(len(items))]


@pytest.mark.parametrize("where", ["cluster", "process"])
def test_an_error_of_ours_comes_as_it_was_raised(cluster, where):
    workers = cluster if where == "cluster" else InProcess()

    with pytest.raises(ConfigError, match=r"^a must not be b$"):
        workers.map(refuse, "a", ["b"])


def test_a_second_cluster_in_one_process_is_refused(cluster):
    with pytest.raises(ConfigError, match="one Ray cluster at a time"):
        RayCluster(num_workers=1)

    assert cluster.map(double, {"by": 1}, [1]) == [1]


def test_a_comparison_on_a_cluster_is_equal_to_the_last_bit(cluster, tmp_path):
    scenario = support.scenario(tmp_path)
    traces = [support.trace(seed, family) for seed, family in enumerate("aabb")]
    config = CompareConfig(names=NAMES, num_seeds=2, per_family=2)

    here = compare(scenario, traces, config, learned())
    there = compare(scenario, traces, config, learned(), workers=cluster)

    assert here.hindsight == there.hindsight
    assert here.seeds == there.seeds
    for name in NAMES:
        for column in ("utility", "latency_s", "payload_bytes", "split_point"):
            ours, theirs = getattr(here.frames[name], column), getattr(there.frames[name], column)
            np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_array_equal(here.probe_bytes[name], there.probe_bytes[name])


def test_a_killed_worker_costs_no_result(cluster, tmp_path):
    table, grave = support.table(), tmp_path / "grave"
    streams = tuple((support.stream(seed=seed),) for seed in range(3))
    arena = Arena({"mortal": Mortal(table, grave)}, table, streams)

    there, _ = play_matrix(arena, cluster)

    assert grave.exists()
    here, _ = play_matrix(arena, InProcess())
    np.testing.assert_array_equal(there["mortal"].utility, here["mortal"].utility)


class MortalEnv(TraceVectorEnv):
    """Kills its process at the seventh step after a reset, once."""

    def __init__(self, scenario, num_envs, grave):
        super().__init__(scenario, [support.trace()], num_envs)
        self.grave, self.steps = grave, 0

    def reset(self, **options):
        """Start to count."""
        self.steps = 0
        return super().reset(**options)

    def step(self, actions):
        """Step; die once."""
        self.steps += 1
        if self.steps == 7 and not self.grave.exists():
            self.grave.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(actions)


def rollout(shards, num_steps):
    """What a learner sees that starts anew half-way; lists of arrays."""
    generator = np.random.default_rng(0)
    seen = [*shards.reset([5, 6, 7])]
    for index in range(num_steps):
        if index == num_steps // 2:
            seen += shards.reset([8, 9, 10])
        for found in shards.step([generator.integers(0, 17, size) for size in (2, 3, 2)]):
            seen += [*found[:4], *found[4].values()]
    shards.close()
    return seen


@pytest.mark.parametrize("num_workers", [1, 2])
def test_shards_on_a_cluster_roll_out_the_same_also_when_one_is_killed(
    cluster, tmp_path, num_workers
):
    scenario = support.scenario(tmp_path)
    grave = tmp_path / "grave"
    makers = [partial(MortalEnv, scenario, size, grave) for size in (2, 3, 2)]

    there = rollout(RayShards(makers, num_workers), 60)

    assert grave.exists()
    here = rollout(LocalShards([make() for make in makers]), 60)
    assert len(here) == len(there) > 3 * 60 * 5
    for ours, theirs in zip(here, there, strict=True):
        np.testing.assert_array_equal(ours, theirs)


class Doomed:
    """Kills its process whatever it is asked."""

    def reset(self, **_):
        """Die."""
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_shard_that_always_dies_is_given_up(cluster):
    with pytest.raises(ConfigError, match="their process died 3 times"):
        RayShards([Doomed], 1).reset([0])


def raylet_line(process):
    """The command line of a raylet that still runs; processes may end while one looks."""
    try:
        return " ".join(process.cmdline()) if process.name() == "raylet" else ""
    except psutil.Error:
        return ""


def test_the_command_leaves_no_process_and_no_file_behind(place, tmp_path):
    command = [sys.executable, "-m", "adaptive_split", "compare", place / "toy.toml",
               "--controllers", "planner,static:0:1:8", "--traces", place / "traces",
               "--seeds", "2", "--streams", "1", "--out", tmp_path / "out"]  # fmt: skip

    subprocess.run(command, check=True)
    done = subprocess.Popen([*command[:-1], tmp_path / "ray", "--ray", "--workers", "1"])

    assert done.wait() == 0
    here, there = (json.loads((tmp_path / name / "summary.json").read_text())
                   for name in ("out", "ray"))  # fmt: skip
    assert here["controllers"] == there["controllers"]
    # Ray names its session after the process that began it.
    session = f"_{done.pid}"
    assert not [path for path in Path("/tmp").glob("ray-*/*") if path.name.endswith(session)]
    lines = [raylet_line(one) for one in psutil.process_iter()]
    assert not [line for line in lines if f"{session}/" in line]


@contextlib.contextmanager
def cluster_of_another_process():
    """Address and user's home of a cluster that asks for a token; it is told to stop in the end."""
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:  # socket paths are short
        token = Path(folder) / "home" / ".ray" / "auth_token"
        token.parent.mkdir(parents=True)
        token.write_text("0123456789abcdef" * 4)
        usual = {k: v for k, v in os.environ.items() if not k.startswith("RAY_AUTH")}
        home = usual | {"HOME": str(token.parents[1])}
        options = ["--head", "--port=0", "--num-cpus=1", "--include-dashboard=false",
                   "--object-store-memory=80000000", f"--temp-dir={folder}", "--block"]  # fmt: skip
        head = subprocess.Popen(
            [sys.executable, "-m", "ray.scripts.scripts", "start", *options],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=home | {"RAY_AUTH_MODE": "token"},
        )  # fmt: skip
        try:
            found = (re.search(r"--address='(.+?)'", line) for line in head.stdout)
            yield next(match[1] for match in found if match), home
        finally:
            head.terminate()
            head.communicate()


def test_a_cluster_that_runs_already_is_joined_and_left_running(place, tmp_path):
    command = [sys.executable, "-m", "adaptive_split", "compare", place / "toy.toml",
               "--controllers", "planner", "--traces", place / "traces",
               "--seeds", "2", "--streams", "1"]  # fmt: skip
    subprocess.run([*command, "--out", tmp_path / "here"], check=True)

    with cluster_of_another_process() as (address, home):
        for name in ("there", "again"):
            there = [*command, "--out", tmp_path / name, "--ray", address]
            subprocess.run(there, check=True, env=home)

    here, there, again = (
        json.loads((tmp_path / name / "summary.json").read_text())["controllers"]
        for name in ("here", "there", "again")
    )
    assert here == there == again


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers", "2"], "come with --ray"),
        (["--ray", "--workers", "0"], "at least 1"),
        (["--ray", "somewhere:1", "--workers", "2"], "without an address"),
    ],
)
def test_workers_belong_to_a_cluster_of_this_machine(place, capsys, arguments, message):
    line = failure(capsys, "compare", place / "toy.toml", "--controllers", "planner",
                   "--traces", place / "traces", "--out", place / "out", *arguments)  # fmt: skip

    assert message in line


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)

    with pytest.raises(ConfigError, match=r"pip install 'adaptive-split\[ray\]'"):
        import_ray()
