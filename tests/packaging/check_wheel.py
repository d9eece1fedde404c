"""Builds the wheel, installs it alone, and runs it where no learning library is at hand."""

import os
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONSTRAINTS = ROOT / "constraints.txt"
MUST_CONTAIN = ["adaptive_split/py.typed", "licenses/LICENSE", "licenses/NOTICE"]
MUST_NOT_CONTAIN = ["__pycache__", "tests/", "experiments/"]

ON_THE_DEVICE = """
import importlib, importlib.util, pkgutil, adaptive_split.runtime as runtime

for name in ("torch", "ray", "stable_baselines3", "gymnasium", "onnx"):
    assert importlib.util.find_spec(name) is None, f"a base install must not bring {name}"
names = [found.name for found in pkgutil.walk_packages(runtime.__path__, "adaptive_split.runtime.")]
for name in names:
    importlib.import_module(name)
print(f"imported {len(names)} modules of the runtime; no learning library came along")
"""


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Run a command out of reach of this checkout's modules; on failure show what it said."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode != 0:
        sys.exit(f"{done.stdout}\n{' '.join(map(str, command))} exited with {done.returncode}")
    return done.stdout


def build_wheel(folder: Path) -> Path:
    """Build the sdist and, from nothing but that, the wheel; check what the wheel holds."""
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT)
    [wheel] = folder.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for part in MUST_CONTAIN:
        if not any(name.endswith(part) for name in names):
            sys.exit(f"{wheel.name} must contain {part}")
    for part in MUST_NOT_CONTAIN:
        if any(part in name for name in names):
            sys.exit(f"{wheel.name} must not contain {part}")
    print(f"built {wheel.name}: {len(names)} files, {wheel.stat().st_size / 1e6:.1f} MB")
    return wheel


def main() -> None:
    """Do as a device does: a bare environment, the wheel, no extras, any working folder."""
    with tempfile.TemporaryDirectory(prefix="a bare device ") as name:
        folder = Path(name)
        wheel = build_wheel(folder)
        venv.create(folder / "venv", with_pip=True)
        scripts = folder / "venv" / "bin"
        python = scripts / "python"
        pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        run(*pip, "-c", CONSTRAINTS, wheel)
        print(run(python, "-c", ON_THE_DEVICE, cwd=folder).strip())
        for command in ([scripts / "adaptive-split"], [python, "-m", "adaptive_split"]):
            if "usage" not in run(*command, "--help", cwd=folder).lower():
                sys.exit(f"{' '.join(map(str, command))} --help must print its usage")
    print("the wheel stands alone")


if __name__ == "__main__":
    main()
