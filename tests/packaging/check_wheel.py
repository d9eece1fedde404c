"""Builds the wheel, installs it alone, and runs it where no learning library is at hand."""

import json
import os
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
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
WHERE_PICTURES_ARE = "from adaptive_split.cli.common import SHIPPED_PICTURES as p; print(p)"
NUM_FRAMES = 30
A_DAY_S = "1700000000"
"""What files are dated by, so that one tree gives the same bytes again."""


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Run a command out of reach of this checkout's modules; on failure show what it said."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=surroundings(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode != 0:
        sys.exit(f"{done.stdout}\n{' '.join(map(str, command))} exited with {done.returncode}")
    return done.stdout


def surroundings() -> dict[str, str]:
    """The environment, without what leads to this checkout and with a date to build at."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return {**kept, "SOURCE_DATE_EPOCH": A_DAY_S}


def build(source: Path, folder: Path) -> tuple[Path, Path]:
    """Build the sdist and, from nothing but that, the wheel."""
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, source)
    [sdist], [wheel] = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return sdist, wheel


def build_wheel(folder: Path) -> Path:
    """Build, and build again from what was built; check that it is the same, and what it holds."""
    sdist, wheel = build(ROOT, folder / "first")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    [unpacked] = (folder / "unpacked").iterdir()
    for one, again in zip((sdist, wheel), build(unpacked, folder / "second"), strict=True):
        if one.read_bytes() != again.read_bytes():
            sys.exit(f"{one.name} must be the same bytes when it is built again; got others")
    names = zipfile.ZipFile(wheel).namelist()
    for part in MUST_CONTAIN:
        if not any(name.endswith(part) for name in names):
            sys.exit(f"{wheel.name} must contain {part}")
    for part in MUST_NOT_CONTAIN:
        if any(part in name for name in names):
            sys.exit(f"{wheel.name} must not contain {part}")
    print(f"built {wheel.name}: {len(names)} files, {wheel.stat().st_size / 1e6:.1f} MB")
    return wheel


@contextmanager
def serving(command: Path, folder: Path) -> Iterator[str]:
    """An edge server in plain text; where it listens."""
    server = subprocess.Popen(
        [command, "serve", "--bundle", "garments", "--port", "0", "--insecure"],
        cwd=folder, env=surroundings(), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
    finally:
        server.terminate()
        server.communicate(timeout=30)


def play(python: Path, command: Path, folder: Path) -> None:
    """Answer frames with a server's help, then ask the doctor; both with nothing but the wheel."""
    pictures = run(python, "-c", WHERE_PICTURES_ARE, cwd=folder).strip()
    with serving(command, folder) as address:
        run(
            command, "run", "--server", address, "--insecure", "--pictures", pictures,
            "--records", "run.jsonl", "--num-frames", str(NUM_FRAMES), cwd=folder,
        )  # fmt: skip
        told = run(command, "doctor", "--server", address, "--insecure", "--json", cwd=folder)
    rows = [json.loads(line) for line in (folder / "run.jsonl").read_text().splitlines()]
    helped = sum(row["answered_by"] == "server" for row in rows)
    # On a busy machine few replies come in time, but payloads must have been sent.
    if len(rows) != NUM_FRAMES or not any(row["payload_bytes"] for row in rows):
        sys.exit(f"{NUM_FRAMES} frames must settle, some of them sent; got {rows[-1:]}")
    findings = json.loads(told[told.index('{"worst"') :])["findings"]
    if not any(one["subject"] == f"server {address}, model" for one in findings):
        sys.exit(f"the doctor must find the server and its model; got {findings}")
    memory = json.loads(run(command, "bench", "memory", "--json", cwd=folder).splitlines()[-1])
    if not memory["promise_kept"]:
        sys.exit(f"runtime and controller must stay below {memory['promised_bytes']} bytes")
    print(f"{helped} of {len(rows)} frames answered by the server; "
          f"{memory['resident_bytes'] / 1e6:.0f} MB without the model")  # fmt: skip


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
        play(python, scripts / "adaptive-split", folder)
    print("the wheel stands alone")


if __name__ == "__main__":
    main()
