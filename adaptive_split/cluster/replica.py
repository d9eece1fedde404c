"""One replica of a server on a cluster: a scheduler with its worker, asked by a front door."""

from __future__ import annotations

import asyncio
import tempfile
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from adaptive_split.bundle import MANIFEST, ModelBundle
from adaptive_split.clock import MonotonicClock
from adaptive_split.errors import BundleError, ConfigError, PayloadError
from adaptive_split.runtime.serving.batch_cost import measured_costs
from adaptive_split.runtime.serving.scheduler import Scheduler, WorkerThread
from adaptive_split.runtime.serving.service import TailService
from adaptive_split.runtime.serving.stage_queues import Finished
from adaptive_split.runtime.stages import StageRunner
from adaptive_split.runtime.wire import RefusedError, TailRequest

Files = Mapping[str, bytes]
"""A bundle as what is in it, by file name: replicas may run where its folder is not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaConfig:
    """How many replicas compute tails, and how each does."""

    num_replicas: int = 1
    num_threads: int = 1
    """Of one inference; also the CPUs that a replica reserves of the cluster."""
    max_queue: int = 64
    """Requests that may wait at a replica; one more is refused."""
    exit_threshold: float = 0.8
    """With many waiting, an exit on the way answers from this confidence on."""

    def __post_init__(self) -> None:
        """Refuse what could not be started."""
        for name in ("num_replicas", "num_threads", "max_queue"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1; got {getattr(self, name)!r}")


@dataclass(frozen=True, slots=True)
class Told:
    """What a replica says to one request."""

    outcome: Finished | RefusedError | PayloadError
    """Failures are values: raised, they would be logged as broken replicas."""
    spent_s: float
    """From the request's arrival at the replica to this."""
    replica: str
    """Which replica, by a name drawn at its start."""
    load: float
    """Busy share of its last second, in [0, 1]."""


class TailReplica:
    """Computes tails of one bundle: least slack first, in batches formed anew at every stage."""

    def __init__(
        self, fetch_files: Callable[[], Files], bundle_hash: str, config: ReplicaConfig
    ) -> None:
        """Open every graph and time it.

        Args:
            fetch_files: Gives the bundle.
            bundle_hash: What it must be.
            config: How to compute.

        Raises:
            BundleError: If the files are damaged or another bundle's.
        """
        stages = _open(fetch_files(), bundle_hash, config.num_threads)
        self._clock, self._name = MonotonicClock(), uuid.uuid4().hex
        costs = measured_costs(stages.bundle, stages, self._clock)
        service = TailService(stages.bundle, stages, self._clock, costs=costs)
        self._scheduler = Scheduler(
            service.steps, costs, self._clock, max_queue=config.max_queue,
            exit_threshold=config.exit_threshold,
        )  # fmt: skip
        self._worker = WorkerThread(self._scheduler)

    async def ready(self) -> bool:
        """Whether it computes, which it does from its start on."""
        return True

    async def answer(self, request: TailRequest, last: int, slack_s: float) -> Told:
        """Run the stages up to `last` for a request, if that can be done within the slack."""
        begin_s = self._clock.now_s()
        outcome: Finished | RefusedError | PayloadError
        try:
            outcome = await self._finished(self._scheduler.submit(request, last, slack_s=slack_s))
        except (RefusedError, PayloadError) as error:
            outcome = error
        spent_s = self._clock.now_s() - begin_s
        return Told(outcome, spent_s, self._name, self._scheduler.load)

    def close(self) -> None:
        """Finish what is queued and stop."""
        self._worker.close()

    async def _finished(self, future: Future[Finished]) -> Finished:
        # Cancelled with the call: what nobody waits for any more is taken out of the queue.
        return await asyncio.wrap_future(future)


def files_of(bundle: ModelBundle) -> Files:
    """Read what a replica needs of a bundle."""
    return {name: (bundle.path / name).read_bytes() for name in (MANIFEST, *bundle.files)}


def _open(files: Files, bundle_hash: str, num_threads: int) -> StageRunner:
    with tempfile.TemporaryDirectory(prefix="adaptive-split-") as name:
        folder = Path(name)
        for file, content in files.items():
            (folder / file).write_bytes(content)
        bundle = ModelBundle.load(folder)
        if bundle.hash != bundle_hash:
            raise BundleError(f"a replica's bundle must be {bundle_hash}; got {bundle.hash}")
        # All graphs are opened, and thus in memory, before the folder goes.
        return StageRunner(bundle, num_threads=num_threads, parts=bundle.parts)
