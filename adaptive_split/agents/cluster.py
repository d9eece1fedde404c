"""Where independent jobs run: one after the other in this process, or spread over a Ray cluster."""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeVar

import psutil

from adaptive_split.errors import AdaptiveSplitError, ConfigError

Shared = TypeVar("Shared")
Item = TypeVar("Item")
Result = TypeVar("Result")
Job = Callable[[Shared, Item], Result]
"""A module-level function of what all jobs share and what one job is about; it changes neither."""
Count = Callable[[int, int], None]
"""Called with steps or jobs done, and how many there are."""
Take = Callable[[int, Any], None]
"""Called here with an item's index and its result, as soon as there is one."""

LOCAL = "local"
"""The address that means: start a cluster on this machine, and stop it in the end."""
OBJECT_STORE_BYTES = 200_000_000
"""Memory for what travels between processes of a local cluster; more than that goes to disk."""
MOST_RETRIES = 3
"""How often a job is taken up again whose worker has died."""


class Workers(Protocol):
    """Runs independent jobs; where they run changes nothing but the time it takes."""

    def map(
        self,
        job: Job[Shared, Item, Result],
        shared: Shared,
        items: Sequence[Item],
        count: Count = ...,
        take: Take = ...,
    ) -> list[Result]:
        """Run the job on every item and return the results in the items' order."""
        ...


def quiet(done: int, total: int) -> None:
    """Report nothing."""


def nobody(index: int, result: Any) -> None:
    """Take nothing."""


class InProcess:
    """Jobs one after the other, here."""

    def map(
        self,
        job: Job[Shared, Item, Result],
        shared: Shared,
        items: Sequence[Item],
        count: Count = quiet,
        take: Take = nobody,
    ) -> list[Result]:
        """Run the job on every item."""
        results = []
        for index, item in enumerate(items):
            count(index, len(items))
            results.append(job(shared, item))
            take(index, results[-1])
        return results


class RayCluster:
    """Jobs as Ray tasks; a job whose worker dies is run again on another.

    Every process of the cluster computes with one thread, so that as many jobs run as there are
    cores. On a cluster of several machines, each needs this version of adaptive_split.
    """

    def __init__(self, address: str = LOCAL, num_workers: int | None = None) -> None:
        """Start a cluster on this machine, or join a running one.

        Args:
            address: `local`, or where a cluster listens: `host:port`, `ray://host:port` or `auto`.
            num_workers: Processes of a local cluster; by default one per core.

        Raises:
            ConfigError: If Ray is not installed or no cluster is there.
        """
        if address != LOCAL:
            _show_token()
        self.ray = import_ray()
        self._folder: Path | None = None
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if self.ray.is_initialized():
            raise ConfigError("a process must be on one Ray cluster at a time; close the first")
        try:
            if address == LOCAL:
                self._start(num_workers)
            else:
                self.ray.init(address, logging_level="error")
        except Exception as error:  # Ray says with a bare one that starting took too long
            self.close()
            raise ConfigError(
                f"a Ray cluster must answer at the address; got {address!r}: {error}; leave the "
                "address out for a cluster of this machine, try again where it is busy, and set "
                "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN where it asks for a token"
            ) from error
        except BaseException:  # told to stop while Ray was starting
            self.close()
            raise

    def _start(self, num_workers: int | None) -> None:
        # Paths of sockets must be short: a deep TMPDIR would break them.
        short = "/tmp" if os.access("/tmp", os.W_OK) else None
        self._folder = Path(tempfile.mkdtemp(prefix="ray-", dir=short))
        options = {
            "num_cpus": num_workers or os.cpu_count(),
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
            "logging_level": "error",
            "_temp_dir": str(self._folder),
        }
        try:
            self.ray.init(LOCAL, **options)
        except Exception:
            # Ray gives its processes half a minute; the second time their files are in memory.
            _kill_those_of(self._folder)
            self.ray.init(LOCAL, **options)

    def map(
        self,
        job: Job[Shared, Item, Result],
        shared: Shared,
        items: Sequence[Item],
        count: Count = quiet,
        take: Take = nobody,
    ) -> list[Result]:
        """Run the job on every item, as many at a time as the cluster has cores."""
        task = self.ray.remote(num_cpus=1, max_retries=MOST_RETRIES)(_run)
        put = self.ray.put(shared)
        waiting = {task.remote(job, put, item): index for index, item in enumerate(items)}
        results: dict[int, Result] = {}
        try:
            while waiting:
                count(len(results), len(items))
                (done, *_), _ = self.ray.wait(list(waiting))
                index = waiting.pop(done)
                results[index] = fetch(done)
                take(index, results[index])
        finally:
            for reference in waiting:
                self.ray.cancel(reference, force=True)
        return [results[index] for index in range(len(items))]

    def close(self) -> None:
        """Stop a local cluster with all its processes, or leave a joined one."""
        self.ray.shutdown(wait_for_processes=True)
        if self._folder is not None:
            _kill_those_of(self._folder)
            shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> RayCluster:
        """Return the cluster itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()


def _show_token() -> None:
    """Have Ray show the token that it keeps for this user: its heads ask for it unasked."""
    if (Path.home() / ".ray" / "auth_token").exists():
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def import_ray() -> Any:
    """Import Ray, which comes with the extra `ray`.

    Raises:
        ConfigError: If it is not installed.
    """
    try:
        return importlib.import_module("ray")
    except ImportError:
        raise ConfigError(
            "Ray must be installed to spread jobs; it is not; "
            "install it with: pip install 'adaptive-split[ray]'"
        ) from None


def fetch(reference: Any) -> Any:
    """Wait for a result; an error of ours comes as it was raised, not wrapped in Ray's."""
    ray = import_ray()
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, AdaptiveSplitError):
            raise error.cause from None
        raise


def _kill_those_of(folder: Path) -> None:
    """Kill what a start that failed half-way left running: Ray itself forgets it."""
    for process in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if any(str(folder) in argument for argument in process.cmdline()):
                process.kill()
                process.wait()


def _run(job: Job[Shared, Item, Result], shared: Shared, item: Item) -> Result:
    return job(shared, item)
