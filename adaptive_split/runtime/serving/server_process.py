"""An edge server in a process of its own, for runs that compare on one machine."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import adaptive_split
from adaptive_split.errors import LinkError


class ServerProcess:
    """`adaptive-split serve` and its metrics on free ports of this machine; no TLS, no limits."""

    def __init__(self, bundle: Path, *, background: float = 0.0, seed: int = 0) -> None:
        """Start it and wait until it listens.

        Args:
            bundle: Directory of the model bundle.
            background: Share of the server that other users' recorded requests take.
            seed: Of that load.

        Raises:
            LinkError: If it ends before it listens; the message ends with what it said.
        """
        home = str(Path(adaptive_split.__file__).parents[1])
        search = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - see close
        self._process = subprocess.Popen(
            [
                sys.executable, "-m", "adaptive_split", "serve", "--bundle", str(bundle),
                "--port", "0", "--insecure", "--background", str(background), "--seed", str(seed),
                "--metrics-port", "0", "--device-requests", "0", "--device-mbps", "0",
                "--device-open", "0",
            ],
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, "PYTHONPATH": search},
            text=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().strip()
        """`host:port`."""
        self.metrics_address = self._process.stdout.readline().strip()
        """The same of its metrics."""
        if not self.metrics_address:
            self._process.wait()
            self._errors.seek(0)
            said = self._errors.read().strip().splitlines()[-1:]
            self.close()
            raise LinkError(f"the server must start; got {' '.join(said) or 'its end'}")

    def __enter__(self) -> ServerProcess:
        """Return the server itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        self.close()

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Let it drain and end."""
        self._process.terminate()
        try:
            self._process.wait(timeout=5.0)
        except subprocess.TimeoutExpired:
            self.kill()
        if self._process.stdout:
            self._process.stdout.close()
        self._errors.close()
