"""Pictures one after the other, read by OpenCV; the only place that knows it.

OpenCV is the extra `camera`, and no device without a camera needs it. Its wheel reads video files,
RTSP and MJPEG over HTTP by FFmpeg, and V4L2; it has no GStreamer, which JetPack's own OpenCV has.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from itertools import count
from typing import Any

from PIL import Image

from adaptive_split.errors import ConfigError, LinkError
from adaptive_split.runtime.cameras.spec import VIDEO, CameraSpec

PATIENCE_MS = 5000
"""For a network camera to answer, or to send a picture; then it counts as lost."""
USUAL_FPS = 30.0
GSTREAMER, V4L2 = "gstreamer", "v4l2"


def load_opencv() -> Any:
    """Import OpenCV, and keep it from writing to standard error, which is for our log.

    Raises:
        ConfigError: If it is missing.
    """
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    try:
        cv2 = importlib.import_module("cv2")
    except ImportError as error:
        raise ConfigError(
            f"a camera must be read by OpenCV; got {error}; install adaptive-split[camera], or on "
            "a Jetson use JetPack's python3-opencv, which has GStreamer"
        ) from error
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2


class OpenCvStream:
    """An open camera or video."""

    def __init__(self, spec: CameraSpec) -> None:
        """Open it.

        Raises:
            ConfigError: If OpenCV is missing, or was built without what the camera needs.
            LinkError: If the camera does not open; it may later.
        """
        self._cv2 = load_opencv()
        self._is_file = spec.kind == VIDEO
        if spec.kind == GSTREAMER and not _has_gstreamer(self._cv2):
            raise ConfigError(
                "gstreamer must be read by an OpenCV that was built with it; got one without; on a "
                "Jetson use JetPack's python3-opencv"
            )
        self._capture = self._open(spec)
        if not self._capture.isOpened():
            self._capture.release()
            raise LinkError(
                f"a camera must open; got nothing from {spec.kind} {spec.target}; look that it is "
                "there, that this user may read it, and that nobody else has it open"
            )

    def pictures(self) -> Iterator[tuple[Image.Image, float | None]]:
        """Read until the end, or until the camera is lost.

        Yields:
            The picture, RGB, and when in a video file it is due, in seconds from the start of the
            file; `None` for a camera, whose pictures are due when they come.
        """
        cv2, capture = self._cv2, self._capture
        fps = capture.get(cv2.CAP_PROP_FPS)
        for index in count():
            if not capture.grab():
                return
            position_s = None
            if self._is_file:  # some kinds of file tell no moments
                position_s = capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3 or index / (fps or USUAL_FPS)
            got, pixels = capture.retrieve()
            if not got:
                return
            code = cv2.COLOR_GRAY2RGB if pixels.ndim == 2 else cv2.COLOR_BGR2RGB
            yield Image.fromarray(cv2.cvtColor(pixels, code)), position_s

    def close(self) -> None:
        """Let go of the camera."""
        self._capture.release()

    def _open(self, spec: CameraSpec) -> Any:
        cv2 = self._cv2
        if spec.kind == GSTREAMER:
            return cv2.VideoCapture(spec.target, cv2.CAP_GSTREAMER)
        if spec.kind == V4L2:
            capture = cv2.VideoCapture(spec.target, cv2.CAP_V4L2)
            capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # older pictures are of no use
            return capture
        limits = [
            cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, PATIENCE_MS,
            cv2.CAP_PROP_READ_TIMEOUT_MSEC, PATIENCE_MS,
        ]  # fmt: skip
        return cv2.VideoCapture(spec.target, cv2.CAP_FFMPEG, limits)


def _has_gstreamer(cv2: Any) -> bool:
    lines = cv2.getBuildInformation().splitlines()
    return any("GStreamer:" in line and "YES" in line for line in lines)
