"""What a device must not need: importing the runtime loads no learning library."""

import subprocess
import sys

import pytest

IMPORT_ALL_AND_LIST_FORBIDDEN = """
import importlib, pkgutil, sys

names = {"adaptive_split"}
for package_name in sys.argv[1:]:
    package = importlib.import_module(package_name)
    names |= {found.name for found in pkgutil.walk_packages(package.__path__, package_name + ".")}
for name in sorted(names):
    importlib.import_module(name)
print(*sorted({"torch", "ray", "stable_baselines3", "gymnasium"} & set(sys.modules)))
"""


@pytest.mark.parametrize("packages", [[], ["adaptive_split.runtime"]], ids=["root", "runtime"])
def test_importing_what_a_device_runs_loads_no_learning_library(packages):
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL_AND_LIST_FORBIDDEN, *packages],
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
