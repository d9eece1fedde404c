"""Fleet view: the dashboard asks for metrics that exist, and no process has too many of them."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from adaptive_split.decision import Decision
from adaptive_split.measurement import LinkSample
from adaptive_split.runtime.telemetry.device_metrics import REASONS
from adaptive_split.runtime.updates.arm_metrics import ArmMetrics
from adaptive_split.runtime.updates.canary import ARMS
from adaptive_split.scenario import load_scenario
from tests.unit.test_telemetry import DROPPED, LATE, LOCAL, REPLY, SENT, device_metrics
from tests.unit.test_telemetry import server_metrics as some_server

FLEET = Path(__file__).parents[2] / "deploy" / "fleet"
OF_PROMETHEUS = {"instance", "job"}
"""Labels that Prometheus itself adds."""
WIDTHS, PROVENANCES = range(9), ("measured", "modelled", "unavailable")


@pytest.fixture(scope="module")
def device():
    """What a device tells that decided everything it can, for every reason."""
    sample = LinkSample(
        time_s=0.0, uplink_mbps=8.0, rtt_s=0.02, server_wait_s=0.003, server_slowdown=2.0
    )
    splits = range(load_scenario("default", None).bundle.num_stages + 1)
    reports = [
        *(replace(SENT, decision=Decision(k, 1.0, bits)) for k in splits for bits in WIDTHS),
        *(replace(LATE, fallback_reason=reason) for reason in REASONS),
        *(replace(LOCAL, energy_provenance=provenance) for provenance in PROVENANCES), DROPPED,
    ]  # fmt: skip
    registry = device_metrics(reports)
    by_arm = ArmMetrics(registry, lambda index: ARMS[index % len(ARMS)])
    for index in range(len(ARMS)):
        by_arm.count(replace(SENT, frame_index=index))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("adaptive_split.runtime.sender.Sender.samples", (sample,))
        return families_of(registry)


@pytest.fixture(scope="module")
def server():
    """What a server tells that has met a thousand devices."""
    metrics = some_server()
    for index in range(1000):
        metrics.replied(replace(REPLY, exit_index=1 + index % 8), f"cam-{index}")
    return families_of(metrics.registry)


def families_of(registry):
    """What a scrape reads."""
    return list(text_string_to_metric_families(generate_latest(registry).decode()))


def labels_by_name(families):
    """The labels of every series name that an endpoint tells."""
    found = {}
    for family in families:
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def expressions():
    """Every query of the dashboard, its variables' included."""
    board = json.loads((FLEET / "grafana.json").read_text(encoding="utf-8"))
    targets = [one["expr"] for panel in board["panels"] for one in panel.get("targets", ())]
    lists = [one["definition"] for one in board["templating"]["list"] if one["type"] == "query"]
    return [*targets, *lists]


def asked(expression):
    """`(metric, label)` for every selector, and `("", label)` for every grouping."""
    pairs = []
    for name, matchers in re.findall(r"(\w+)\{([^}]*)\}", expression):
        pairs += [(name, label) for label in re.findall(r"(\w+)=", matchers)]
    for labels in re.findall(r"by \(([^)]*)\)", expression):
        pairs += [("", label.strip()) for label in labels.split(",")]
    return pairs


@pytest.mark.parametrize("expression", expressions())
def test_the_dashboard_asks_for_metrics_and_labels_that_exist(expression, device, server):
    known = labels_by_name([*device, *server])
    pairs = asked(expression)
    names = {name for name, _ in pairs if name}

    assert names
    assert sorted(set(re.findall(r"adaptive_split_\w+", expression))) == sorted(names)
    assert names <= known.keys()
    reachable = set().union(*(known[name] for name in names)) | OF_PROMETHEUS
    assert {label for _, label in pairs} <= reachable


def test_the_dashboard_has_panels_apart_from_one_another():
    board = json.loads((FLEET / "grafana.json").read_text(encoding="utf-8"))
    cells = [
        (x, y) for panel in board["panels"] for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]  # fmt: skip

    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_the_number_of_series_is_bounded(device, server):
    limits = {job["sample_limit"] for job in scrape_jobs()}
    counts = [sum(len(family.samples) for family in side) for side in (device, server)]

    assert max(counts) <= 250
    assert min(limits) >= 2 * max(counts)


def scrape_jobs():
    config = yaml.safe_load((FLEET / "prometheus.yml").read_text(encoding="utf-8"))
    return config["scrape_configs"]


def test_prometheus_asks_devices_and_servers_in_time():
    config = yaml.safe_load((FLEET / "prometheus.yml").read_text(encoding="utf-8"))
    targets = [one for job in scrape_jobs() for group in job["static_configs"]
               for one in group["targets"]]  # fmt: skip

    assert set(config) == {"global", "scrape_configs"}
    assert [job["job_name"] for job in scrape_jobs()] == [
        "adaptive-split-device", "adaptive-split-server",
    ]  # fmt: skip
    assert {target.rpartition(":")[2] for target in targets} == {"9464", "9465"}
