"""What `run --camera` names: a kind of picture source and where it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from adaptive_split.errors import ConfigError

FOLDER, VIDEO = "folder", "video"
URLS = ("rtsp", "rtsps", "http", "https")
"""Kinds whose target is the whole URL."""
FORMS = (
    "folder:DIR, video:FILE, v4l2:DEVICE (as v4l2:/dev/video0), rtsp://HOST/PATH, http://HOST/PATH "
    "(MJPEG), gstreamer:PIPELINE (ending in '! videoconvert ! video/x-raw,format=BGR ! appsink')"
)


@dataclass(frozen=True, slots=True)
class CameraSpec:
    """A picture source, by name."""

    kind: str
    """`folder`, `video`, `v4l2`, `gstreamer`, or the scheme of a URL."""
    target: str
    """Folder, file, device, pipeline, or the whole URL."""

    @property
    def ends(self) -> bool:
        """Whether its end is the end of the run; what else ends has failed."""
        return self.kind == VIDEO


def parse_camera(text: str) -> CameraSpec:
    """Read the text of `--camera`.

    Raises:
        ConfigError: If it is of no known form, or names a file that is not there.
    """
    kind, _, target = text.partition(":")
    if kind in URLS and target.startswith("//") and target.strip("/"):
        return CameraSpec(kind, text)
    if kind not in (FOLDER, VIDEO, "v4l2", "gstreamer") or not target.strip():
        raise ConfigError(f"a camera must be one of {FORMS}; got {text!r}")
    if kind == VIDEO and not Path(target).is_file():
        raise ConfigError(f"a video must be a file; got {target}")
    return CameraSpec(kind, target)
