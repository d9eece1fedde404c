"""The metrics endpoint of a device or a server, and what both kinds of process tell of themselves.

Names follow Prometheus: base units, `_total` for counters. Every process has a registry of its own.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

import psutil
from prometheus_client import CollectorRegistry, Info, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from adaptive_split import __version__
from adaptive_split.clock import Clock, MonotonicClock
from adaptive_split.errors import ConfigError

_log = logging.getLogger(__name__)

PREFIX = "adaptive_split_"


def new_registry(side: str, **labels: str) -> CollectorRegistry:
    """A registry that tells what the process is and how it fares.

    Args:
        side: `device` or `server`.
        labels: What else identifies it, such as the bundle; few and constant.
    """
    registry = _Registry()
    info = Info(PREFIX + "build", "What this process is.", registry=registry)
    info.info({"version": __version__, "side": side, **labels})
    registry.register(_ProcessMetrics(MonotonicClock()))
    return registry


class _Registry(CollectorRegistry):
    """Leaves out when each series was made: as many numbers again, of no use to us."""

    def collect(self) -> Iterator[Metric]:
        """Read every metric."""
        for metric in super().collect():
            metric.samples = [one for one in metric.samples if not one.name.endswith("_created")]
            yield metric


class _ProcessMetrics(Collector):
    """Age, memory, processor time, threads and open files, read at every scrape."""

    def __init__(self, clock: Clock) -> None:
        self._process = psutil.Process()
        self._clock, self._began_s = clock, clock.now_s()
        self._start_time_s = time.time()

    def collect(self) -> Iterator[Metric]:
        """Read them; about 0.3 ms."""
        name = PREFIX + "process_"
        with self._process.oneshot():
            memory_bytes = self._process.memory_info().rss
            times = self._process.cpu_times()
            num_threads = self._process.num_threads()
        yield GaugeMetricFamily(
            name + "start_time_seconds", "When counting began, since 1970.",
            value=self._start_time_s,
        )  # fmt: skip
        uptime_s = self._clock.now_s() - self._began_s
        yield GaugeMetricFamily(name + "uptime_seconds", "Since counting began.", value=uptime_s)
        yield GaugeMetricFamily(name + "resident_memory_bytes", "Memory held.", value=memory_bytes)
        yield CounterMetricFamily(
            name + "cpu_seconds", "Processor time taken.", value=times.user + times.system
        )
        yield GaugeMetricFamily(name + "threads", "Threads alive.", value=num_threads)
        if psutil.POSIX:
            yield GaugeMetricFamily(
                name + "open_files", "File descriptors held.", value=self._process.num_fds()
            )


class MetricsEndpoint:
    """Serves a registry as text over HTTP, on threads of its own; listens once constructed.

    A scrape takes no lock for longer than reading a number; it costs one or two milliseconds of
    processor time, on a thread that frames do not wait for.
    """

    def __init__(self, registry: CollectorRegistry, *, host: str, port: int) -> None:
        """Listen.

        Args:
            registry: What to serve.
            host: Interface to bind; the text tells bundle and link, so keep it on trusted ones.
            port: 0 = one that is free.

        Raises:
            ConfigError: If the address cannot be bound.
        """
        try:
            self._server, self._thread = start_http_server(port, host, registry)
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"the metrics endpoint must be able to bind {host}:{port}; got {error}; "
                "give another --metrics-port"
            ) from error
        self.address = f"{host}:{self._server.server_port}"
        """`host:port`."""
        _log.info("metrics at http://%s/metrics", self.address, extra={"address": self.address})

    def __enter__(self) -> MetricsEndpoint:
        """Return the endpoint itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
