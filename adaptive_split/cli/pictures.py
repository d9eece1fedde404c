"""Where `run` gets its pictures from: `--pictures` or `--camera`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adaptive_split.bundle import ModelBundle
    from adaptive_split.runtime.cameras.camera import Camera
    from adaptive_split.runtime.picture_folder import PictureFolder

FOLDER_FRAMES, ENDLESS = 300, 10**9


def add_pictures(parser: argparse.ArgumentParser) -> None:
    """Add `--pictures`, `--camera` and `--num-frames`."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--pictures", type=Path, metavar="DIR", help="a folder, from memory")
    source.add_argument(
        "--camera", metavar="SPEC",
        help="folder:DIR, video:FILE, v4l2:/dev/video0, rtsp://HOST/PATH, http://HOST/PATH (MJPEG) "
        "or gstreamer:PIPELINE; each frame takes the newest picture, the end of a video ends the "
        "run, a lost camera is opened again; all but folders need the extra [camera]",
    )  # fmt: skip
    parser.add_argument(
        "--num-frames", type=int, metavar="N",
        help=f"default: {FOLDER_FRAMES} of a folder, of a camera all until it ends or Ctrl-C",
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """The pictures of a run."""

    source: PictureFolder | Camera
    num_frames: int
    """Frames to capture at most."""
    labels_known: bool
    """Whether the right class of every frame's picture is known."""
    camera: Camera | None = None

    @property
    def ended(self) -> bool:
        """Whether there will be no more."""
        return self.camera is not None and self.camera.ended

    @property
    def endless(self) -> bool:
        """Whether nobody knows how many frames there will be."""
        return self.num_frames == ENDLESS


@contextmanager
def open_pictures(arguments: argparse.Namespace, bundle: ModelBundle) -> Iterator[Pictures]:
    """Read the folder, or open the camera for as long as the context lasts.

    Raises:
        ConfigError: If there are no pictures.
    """
    from adaptive_split.clock import MonotonicClock
    from adaptive_split.runtime.cameras.camera import Camera
    from adaptive_split.runtime.cameras.opencv_stream import OpenCvStream
    from adaptive_split.runtime.cameras.spec import FOLDER, parse_camera
    from adaptive_split.runtime.picture_folder import read_folder

    spec = parse_camera(arguments.camera) if arguments.camera else None
    if spec is None or spec.kind == FOLDER:
        count = arguments.num_frames or FOLDER_FRAMES
        folder = read_folder(Path(spec.target) if spec else arguments.pictures, bundle)
        known = None not in folder.labels[:count]
        yield Pictures(source=folder, num_frames=count, labels_known=known)
        return
    _, height, width = bundle.input_shape
    with Camera(
        lambda: OpenCvStream(spec), (height, width), MonotonicClock(), ends=spec.ends
    ) as camera:
        count = arguments.num_frames or ENDLESS
        yield Pictures(source=camera, num_frames=count, labels_known=False, camera=camera)


def camera_summary(camera: Camera) -> str:
    """How old pictures were, in words."""
    import numpy as np

    missed = f"; {camera.num_missed} frames had none" if camera.num_missed else ""
    if not camera.ages_s:
        return f"camera: no frame had a picture{missed}"
    median_ms, p95_ms = 1e3 * np.quantile(camera.ages_s, (0.5, 0.95))
    return (
        f"camera: pictures were {median_ms:.0f} ms old when a frame took them (95 %: "
        f"{p95_ms:.0f} ms), on top of each latency{missed}"
    )
