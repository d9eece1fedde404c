"""The one-line files in which the kernel tells things."""

from __future__ import annotations

from pathlib import Path


def line_of(file: Path) -> str:
    """What a file tells; empty where it is missing, unreadable or no text."""
    try:
        return file.read_text(encoding="utf-8").strip("\0 \n")
    except (OSError, ValueError):
        return ""
