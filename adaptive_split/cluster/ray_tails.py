"""Tails computed by the replicas of a Ray Serve application, for an edge server in front."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import secrets
import threading
from concurrent.futures import CancelledError, Future
from functools import partial
from typing import Any

from adaptive_split.agents.cluster import LOCAL, RayCluster, fetch, import_ray
from adaptive_split.bundle import ModelBundle
from adaptive_split.clock import Clock, MonotonicClock
from adaptive_split.cluster.accounts import Accounts
from adaptive_split.cluster.replica import Files, ReplicaConfig, TailReplica, Told, files_of
from adaptive_split.errors import ConfigError
from adaptive_split.runtime.serving.scheduler import SchedulerCounts
from adaptive_split.runtime.serving.stage_queues import Finished
from adaptive_split.runtime.wire import RefusedError, TailRequest

_log = logging.getLogger(__name__)

READY_WITHIN_S, LOOK_EVERY_S = 180.0, 0.2
QUIET = {"log_level": "ERROR", "enable_access_log": False}
"""The server in front logs and counts the requests."""
LOCAL_SETTINGS = {
    "RAY_enable_metrics_collection": "0",
    # Ray listens on every interface, and who speaks with it runs code: without the token, nobody.
    "RAY_AUTH_MODE": "token",
}


def open_cluster(address: str, config: ReplicaConfig) -> RayCluster:
    """Join a Ray cluster, or start one on this machine with room for the replicas.

    Raises:
        ConfigError: If Ray is not installed or no cluster is there.
    """
    os.environ.setdefault("RAY_LOG_TO_DRIVER", "0")
    if address != LOCAL:
        return RayCluster(address)
    if "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    for name, value in LOCAL_SETTINGS.items():
        os.environ.setdefault(name, value)
    return RayCluster(LOCAL, config.num_replicas * config.num_threads)


class RayTails:
    """Hands every request to one replica, which queues, batches and refuses as a server does.

    A replica gets the slack less what the way there and back takes; what a device sees as time in
    the queue includes that way. Whatever has no answer within its slack is withdrawn. A replica
    that dies fails its requests, which are refused; Ray Serve starts another.
    """

    def __init__(
        self, bundle: ModelBundle, config: ReplicaConfig, clock: Clock | None = None
    ) -> None:
        """Deploy on the cluster that this process is on; replaces what an earlier process left.

        Raises:
            ConfigError: If the replicas do not come up.
        """
        self._clock = clock or MonotonicClock()
        most_open = config.max_queue * config.num_replicas
        self._accounts = Accounts(self._clock, config.num_replicas, most_open=most_open)
        self._ray, self._serve = import_ray(), importlib.import_module("ray.serve")
        self._name = f"adaptive-split-{bundle.name}"
        self._handle = self._deploy(bundle, config)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="ray", daemon=True)
        self._thread.start()
        # The first call opens the way, which takes a while.
        asyncio.run_coroutine_threadsafe(self._greet(), self._loop).result()

    def __enter__(self) -> RayTails:
        """Return the tails themselves."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the replicas."""
        self.close()

    def close(self) -> None:
        """Stop the replicas; call it when nothing is under way."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._serve.delete(self._name)

    @property
    def load(self) -> float:
        """Mean busy share of the replicas over the last second."""
        return self._accounts.load

    @property
    def counts(self) -> SchedulerCounts:
        """Totals so far."""
        return self._accounts.counts

    def submit(self, request: TailRequest, last: int, *, slack_s: float) -> Future[Finished]:
        """Have a replica run the stages up to `last`.

        Raises:
            RefusedError: If too many are under way, or the way to a replica takes too long.
        """
        stage = request.split_point + 1
        left_s = self._accounts.open(stage, slack_s)
        asked = self._ask(request, last, slack_s, left_s)
        future = asyncio.run_coroutine_threadsafe(asked, self._loop)
        future.add_done_callback(lambda done: self._accounts.shut(stage, _what(done, last)))
        return future

    async def _greet(self) -> None:
        await self._handle.ready.remote()

    async def _ask(
        self, request: TailRequest, last: int, slack_s: float, left_s: float
    ) -> Finished:
        begin_s = self._clock.now_s()
        call = self._handle.answer.remote(request, last, left_s)
        try:
            told = await asyncio.wait_for(_reply(call), slack_s)
        except asyncio.TimeoutError:
            raise RefusedError(
                f"a replica must answer within {slack_s:.4f} s; got no answer", reason="late"
            ) from None
        except (self._ray.exceptions.RayActorError, self._serve.exceptions.RayServeException) as e:
            _log.warning("a replica was lost: %s", type(e).__name__)
            raise RefusedError("a replica must live; got a lost one", reason="lost") from e
        took_s = self._clock.now_s() - begin_s
        self._accounts.hear(told.replica, told.load, took_s - told.spent_s)
        if not isinstance(told.outcome, Finished):
            raise told.outcome
        answer, exit_index = told.outcome.answer, told.outcome.exit_index
        compute_s = told.outcome.compute_s
        return Finished(answer, exit_index, max(took_s - compute_s, 0.0), compute_s)

    def _deploy(self, bundle: ModelBundle, config: ReplicaConfig) -> Any:
        """Start the application and wait until it runs; return its handle."""
        serve = self._serve
        files: Files = files_of(bundle)
        fetch_files = partial(fetch, self._ray.put(files))
        # Ray's own queue stays empty: it knows no slack, the replica's scheduler does.
        deployment = serve.deployment(TailReplica).options(
            name="tails", num_replicas=config.num_replicas, logging_config=QUIET,
            max_ongoing_requests=2 * config.num_replicas * config.max_queue,
            health_check_period_s=1.0, health_check_timeout_s=5.0,
            graceful_shutdown_wait_loop_s=0.1, graceful_shutdown_timeout_s=2.0,
            ray_actor_options={"num_cpus": config.num_threads},
        )  # fmt: skip
        application = deployment.bind(fetch_files, bundle.hash, config)
        serve.start(proxy_location="Disabled", logging_config=QUIET)
        (handle,) = serve.run_many(
            [serve.RunTarget(application, self._name, None, QUIET)],
            wait_for_applications_running=False,
        )
        # From now on only what an operator must act on; the server in front tells of requests.
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        self._wait_until_running()
        return handle

    def _wait_until_running(self) -> None:
        until_s = self._clock.now_s() + READY_WITHIN_S
        while (told := self._serve.status().applications[self._name]).status != "RUNNING":
            failed = told.status == "DEPLOY_FAILED"
            if failed or self._clock.now_s() > until_s:
                self._serve.delete(self._name)
                raise ConfigError(
                    f"replicas must run within {READY_WITHIN_S:g} s; got {told.status}: "
                    f"{told.message or 'has the cluster enough free CPUs?'}"
                )
            self._clock.sleep_until(self._clock.now_s() + LOOK_EVERY_S)


async def _reply(call: Any) -> Told:
    try:
        told: Told = await call
    except asyncio.CancelledError:
        call.cancel()
        raise
    return told


def _what(done: Future[Finished], last: int) -> str:
    """In a word, what became of a request."""
    try:
        return "answered" if done.result().exit_index >= last else "early"
    except CancelledError:
        return "cancelled"
    except RefusedError as error:
        return error.reason
    except Exception:  # whatever it is, whoever waits for the answer gets it
        return "failed"
