"""The report: whole, self-contained, honest about what is synthetic, and drawn by a browser."""

import json
import re
import shutil
import subprocess

import pytest
from PIL import Image

from adaptive_split.agents import report_figures, report_svg
from adaptive_split.agents.compare import CompareConfig, compare
from adaptive_split.agents.report import write_report
from adaptive_split.agents.roster import NAMES as EVERYONE
from adaptive_split.agents.static_sweep import static_sweep
from adaptive_split.agents.summary import provenance_of, summarize
from adaptive_split.agents.timeline import timeline_of
from tests import support

pytestmark = pytest.mark.slow

NAMES = ("distribution-planner", "best-static", "oracle", "oracle-pictures")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    scenario = support.scenario(folder)
    traces = [support.trace(seed, family) for seed, family in enumerate("aabb")]
    config = CompareConfig(names=NAMES, num_seeds=1, per_family=2)
    comparison = compare(scenario, traces, config, None)
    summary = summarize(comparison, provenance_of(comparison, None, "a <command> & more"))
    summary["sweep"] = static_sweep(scenario, comparison.policies, 0.04)
    return summary, timeline_of(comparison)


@pytest.fixture
def page(made, tmp_path):
    write_report(*made, tmp_path / "report.html")
    return tmp_path / "report.html"


def with_live(summary):
    """A summary with a live part, measured by copying."""
    live = {name: summary[name] for name in ("controllers", "families", "paired_difference")}
    window = {"family": "a", "name": "toy-0", "source": "synthetic", "rtt_source": "synthetic",
              "offset_s": 3.0, "seconds": 7.0}  # fmt: skip
    settings = {"order": "in turn", "other_load": 0.6}
    return summary | {
        "live": {**live, "simulated": live, "windows": [window], "settings": settings}
    }


def test_the_page_fetches_nothing(page):
    text = page.read_text()

    assert not re.search(r"https?://|<link|<script|src=|@import|url\(", text)
    assert text.count("<svg") == text.count("</svg>") > 5


def test_every_controller_and_family_is_shown(page):
    text = page.read_text()

    for name in (*NAMES, "By link family", "Where each controller loses", "frame by frame"):
        assert name in text


def test_synthetic_links_and_modelled_energy_are_called_so(page):
    text = page.read_text()

    assert '<span class="badge">synthetic</span>' in text
    assert "mJ/frame (modelled)" in text
    assert "made up" in text  # the source of the watts


def test_every_split_point_is_drawn_against_the_uplink_with_what_a_fixed_rule_wins(made, page):
    text, sweep = page.read_text(), made[0]["sweep"]

    for words in (*(curve["words"] for curve in sweep["curves"].values()), *sweep["words"]):
        assert words in text
    for title in ("utility per frame", "on-time accuracy", "latency, ms", "energy, mJ per frame"):
        assert f">{title}</text>" in text
    assert "Where a fixed rule is ahead" in text


def test_every_number_of_a_table_has_an_interval_and_the_best_stands_out(made, page):
    text, utility = page.read_text(), made[0]["controllers"]["oracle-pictures"]["utility"]

    interval = f"{utility['low']:.4f}-{utility['high']:.4f}"
    assert f"<td><b>{utility['value']:.4f}</b><small>{interval}</small></td>" in text
    assert text.count("<td>unknown</td>") == len(NAMES)
    assert "so nobody knows how long a charge lasts" in text


def test_a_known_battery_is_told(made, tmp_path):
    summary = json.loads(json.dumps(made[0]))
    summary["settings"]["battery"] = {"capacity_j": 72000.0, "idle_w": 1.25, "start_soc": 1.0}
    for one in summary["controllers"].values():
        one["battery_life_h"] = {"value": 6.25, "low": 6.0, "high": 6.5}

    write_report(summary, made[1], tmp_path / "charged.html")

    text = (tmp_path / "charged.html").read_text()
    assert "a full charge of 72000 J at the mean power of the frames and 1.25 W" in text
    assert "6.2<small>6.0-6.5</small>" in text


def test_a_comparison_in_which_nobody_answers_is_drawn(made, tmp_path):
    summary = json.loads(json.dumps(made[0]))
    silent = summary["controllers"]["best-static"]
    silent["latency_s"], silent["latency_percentiles_s"] = dict.fromkeys(("p50", "p95", "p99")), []

    write_report(summary, made[1], tmp_path / "silent.html")

    assert "<td>-</td>" in (tmp_path / "silent.html").read_text()


def test_what_each_oracle_knows_is_told(page):
    text = page.read_text()

    assert "expects of the pictures what every controller expects" in text
    assert "also knows how accurate every exit and payload is on the judged pictures" in text
    assert "<h3>Against oracle</h3>" in text


def test_the_longest_name_has_room(made, tmp_path):
    summary, timeline = made
    name, copied = "learned-transfer-planner-hindsight", json.loads(json.dumps(summary))
    for place in (copied, *copied["families"].values()):
        place["controllers"][name] = place["controllers"]["best-static"]

    write_report(copied, timeline, tmp_path / "long.html")

    assert report_figures.label_width([name]) > 6 * len(name)
    text = (tmp_path / "long.html").read_text()
    assert text.count(f">{name}</text>") == 2 + len(summary["families"])
    assert 'class="two"' not in text


def test_controllers_that_share_a_color_are_counted_in_the_legend():
    assert "spinn" in report_figures.controller_legend(["sac", "spinn"])
    assert "2 others" in report_figures.controller_legend(["sac", "spinn", "dyno"])
    colors = [report_figures.color_of(name) for name in EVERYONE]
    assert len(set(colors)) == 10


def test_words_of_users_are_escaped(page):
    text = page.read_text()

    assert "a &lt;command&gt; &amp; more" in text
    assert "<command>" not in text


def test_a_live_part_is_shown_beside_the_simulated_and_a_busy_machine_is_named(made, tmp_path):
    summary, timeline = made

    write_report(with_live(summary), timeline, tmp_path / "live.html")

    text = (tmp_path / "live.html").read_text()
    assert "best-static, live" in text
    assert "best-static, simulated" in text
    assert "kept 60% of this machine busy" in text


def test_a_report_without_a_live_part_or_timeline_says_so(made, tmp_path):
    write_report(made[0], None, tmp_path / "bare.html")

    assert "simulated only" in (tmp_path / "bare.html").read_text()


def test_a_summary_survives_its_file(made, tmp_path):
    summary, timeline = made
    again = json.loads(json.dumps(summary))

    write_report(again, json.loads(json.dumps(timeline)), tmp_path / "a.html")
    write_report(summary, timeline, tmp_path / "b.html")

    assert (tmp_path / "a.html").read_text() == (tmp_path / "b.html").read_text()


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0.49, 0.61, [0.5, 0.55, 0.6]),
        (-3, 9, [0, 5]),
    ],
)
def test_ticks_are_round_and_inside(low, high, ticks):
    assert report_svg.nice_ticks(low, high, 5) == pytest.approx(ticks)


def test_a_step_holds_its_value_until_the_next():
    drawing = report_svg.Drawing(100, 50, x_range=(0, 2), y_range=(0, 1), margins=(0, 0, 0, 0))

    drawing.step([0, 1], [0, 1], "edge", fill=False)

    assert 'd="M0.0,50.0L50.0,50.0L50.0,0.0L100.0,0.0"' in drawing.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_draws_the_page(page, tmp_path, scheme):
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"needs one of {', '.join(BROWSERS)}")
    picture = tmp_path / "page.png"
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--disable-dev-shm-usage", f"--user-data-dir={tmp_path / 'profile'}",
        f"--blink-settings=preferredColorScheme={int(scheme == 'light')}",
        "--window-size=1040,2400", f"--screenshot={picture}", page.as_uri(),
    ]  # fmt: skip

    done = subprocess.run(command, capture_output=True, text=True, timeout=120)

    assert picture.is_file(), done.stderr
    with Image.open(picture) as shot:
        found = shot.convert("RGB").getcolors(1 << 24)
    _, page_color = max(found)
    assert (sum(page_color) > 600) == (scheme == "light")
    assert len(found) > 50
