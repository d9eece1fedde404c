"""Reads a metrics endpoint, and what changed between two readings."""

from __future__ import annotations

import http.client
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

from adaptive_split.errors import LinkError
from adaptive_split.runtime.addresses import host_and_port
from adaptive_split.runtime.telemetry.endpoint import PREFIX

TIMEOUT_S = 2.0
MOST_BYTES = 1 << 22
INFO, UPTIME = "build_info", "process_uptime_seconds"
START_TIME = "process_start_time_seconds"
Labels = tuple[tuple[str, str], ...]
"""Sorted by name."""


@dataclass(frozen=True, slots=True)
class Scrape:
    """What an endpoint told at one moment; names are without the common prefix."""

    values: Mapping[str, Mapping[Labels, float]]

    @property
    def info(self) -> dict[str, str]:
        """What the process is: `side`, `version`, `bundle`."""
        return dict(next(iter(self.values[INFO])))

    @property
    def uptime_s(self) -> float:
        """How long the process had been counting, on its own clock."""
        return self.values[UPTIME][()]

    def continues(self, before: Scrape) -> bool:
        """Whether the counters went on from those of an earlier scrape: it is the same process."""
        return self.gauge(START_TIME) == before.gauge(START_TIME)

    def total(self, name: str, **labels: str) -> float:
        """Sum of a metric over all label values but the given ones; 0 where there is none."""
        wanted = set(labels.items())
        return sum(v for key, v in self.values.get(name, {}).items() if wanted <= set(key))

    def gauge(self, name: str) -> float | None:
        """A metric without labels; `None` where it was not told."""
        return self.values.get(name, {}).get(())

    def by(self, name: str, *labels: str) -> dict[tuple[str, ...], float]:
        """Sums of a metric for each value of some labels."""
        found: dict[tuple[str, ...], float] = defaultdict(float)
        for key, value in self.values.get(name, {}).items():
            named = dict(key)
            found[tuple(named.get(label, "") for label in labels)] += value
        return dict(found)


@dataclass(frozen=True, slots=True)
class Change:
    """What was counted between two scrapes of one process."""

    after: Scrape
    before: Scrape = field(default_factory=lambda: Scrape({}))
    """Left out: since the process began to count."""

    @property
    def seconds(self) -> float:
        """Time between the two, on the clock of the process; positive."""
        before_s = self.before.uptime_s if self.before.values else 0.0
        return max(self.after.uptime_s - before_s, 1e-3)

    def count(self, name: str, **labels: str) -> float:
        """How far a counter went."""
        return self.after.total(name, **labels) - self.before.total(name, **labels)

    def rate(self, name: str, **labels: str) -> float:
        """How far a counter went per second."""
        return self.count(name, **labels) / self.seconds

    def by(self, name: str, *labels: str) -> dict[tuple[str, ...], float]:
        """How far a counter went for each value of some labels; only what moved."""
        before = self.before.by(name, *labels)
        moved = {k: v - before.get(k, 0.0) for k, v in self.after.by(name, *labels).items()}
        return {key: value for key, value in moved.items() if value}

    def mean(self, name: str) -> float | None:
        """Mean of what a histogram saw; `None` if nothing."""
        count = self.count(name + "_count")
        return self.count(name + "_sum") / count if count else None

    def quantile(self, name: str, share: float) -> float | None:
        """A quantile of what a histogram saw, evenly spread inside a bucket; `None` if nothing.

        What lies beyond the last bound is told as infinity.
        """
        before = self.before.by(name + "_bucket", "le")
        after = self.after.by(name + "_bucket", "le")
        buckets = sorted((float(le), n - before.get((le,), 0.0)) for (le,), n in after.items())
        total = buckets[-1][1] if buckets else 0.0
        low_s, below = 0.0, 0.0
        for high_s, count in buckets:
            if total and count >= share * total:
                inside = (share * total - below) / (count - below)
                return high_s if math.isinf(high_s) else low_s + inside * (high_s - low_s)
            low_s, below = high_s, count
        return None


def parse(text: str) -> Scrape:
    """Read an endpoint's text.

    Raises:
        ValueError: If it is no text of a device or server.
    """
    values: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith(PREFIX):
                row = values.setdefault(sample.name[len(PREFIX) :], {})
                row[tuple(sorted(sample.labels.items()))] = sample.value
    if not values.get(INFO) or () not in values.get(UPTIME, {}):
        raise ValueError("no metrics of adaptive_split")
    return Scrape(values)


def scrape(address: str) -> Scrape:
    """Ask the endpoint at `host:port`.

    Raises:
        ConfigError: If it is no address.
        LinkError: If nobody answers there, or somebody else.
    """
    host, port = host_and_port(address, "a metrics endpoint")
    try:
        connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
        try:
            connection.request("GET", "/metrics")
            return parse(connection.getresponse().read(MOST_BYTES).decode("utf-8"))
        finally:
            connection.close()
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise LinkError(
            f"metrics must be served at {address}; got {error}; start 'run' or 'serve' with "
            "--metrics-port"
        ) from error
