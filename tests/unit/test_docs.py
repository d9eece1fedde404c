"""The pages of docs/: every command is understood, every file is there."""

import re
import shlex
from pathlib import Path

import pytest

from adaptive_split import cli
from adaptive_split.runtime.updates.health import HealthLimits
from tests.unit.test_cli import commands_of

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
TEXTS = [page.read_text(encoding="utf-8") for page in PAGES]
NOT_OURS = {"PERMISSION_DENIED", "GRPC_VERBOSITY", "RAY_USE_TLS", "RAY_AUTH_MODE"}
AS_THE_SERVICE = "sudo -u adaptive-split "


def commands(text):
    """Our commands of a page, those run as the service's user included."""
    return commands_of(text.replace(AS_THE_SERVICE, ""))


@pytest.mark.parametrize("line", [line for text in TEXTS for line in commands(text)])
def test_a_command_of_a_page_is_understood(line):
    words = shlex.split(line.partition(">")[0], comments=True)[1:]
    if words == ["--version"]:
        return
    arguments = cli.build_parser().parse_args(words)

    assert callable(arguments.run)


@pytest.mark.parametrize("text", TEXTS, ids=[page.stem for page in PAGES])
def test_what_a_page_names_is_there(text):
    named = re.findall(r"`((?:deploy|adaptive_split|docs)/[\w./-]+)`", text)
    units = re.findall(r"adaptive-split-\w+\.service|\b(?:device|server)\.env\b", text)
    settings = re.findall(r"`([A-Z]+(?:_[A-Z]+)+|MORE)\b", text)
    example = (ROOT / "deploy" / "systemd" / "device.env").read_text(encoding="utf-8")

    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []
    assert [name for name in units if not (ROOT / "deploy" / "systemd" / name).is_file()] == []
    assert [n for n in {*settings} - NOT_OURS if f"\n{n}=" not in example] == []


@pytest.mark.parametrize("text", TEXTS, ids=[page.stem for page in PAGES])
def test_no_command_of_a_page_is_left_unchecked(text):
    lines = re.findall(r"^(?:sudo (?:-u \S+ )?)?adaptive-split .*", text, re.M)

    assert len(lines) == len(commands(text)) > 10


def test_what_a_device_copies_is_in_the_package():
    text = (ROOT / "docs" / "jetson.md").read_text(encoding="utf-8")
    copied = re.findall(r"site-packages/(\S+)", text)

    assert copied
    assert [name for name in copied if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("text", TEXTS, ids=[page.stem for page in PAGES])
def test_a_page_tells_the_length_of_a_trial_as_run_has_it(text):
    assert re.search(rf"\b{HealthLimits().window_frames}\s+frames", text)
