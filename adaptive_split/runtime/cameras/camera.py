"""A camera: a thread that reads it and keeps the newest picture, and reopens it when it is lost."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adaptive_split.clock import Clock
from adaptive_split.errors import LinkError
from adaptive_split.runtime.picture_folder import squeeze
from adaptive_split.runtime.source import Picture

_log = logging.getLogger(__name__)

FIRST_PICTURE_S = 15.0
"""A camera must have sent a picture by then, or the run does not begin."""
FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 0.25, 8.0
NUM_AGES = 10_000
STALE_S = 1.0
"""A picture older than this is not what the camera sees; a frame without a younger one is dropped.
Slow cameras send two pictures per second."""


class PictureStream(Protocol):
    """An open camera."""

    def pictures(self) -> Iterator[tuple[Image.Image, float | None]]:
        """Read until it ends or is lost: RGB, and in a file the seconds from its start."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class _Shot:
    index: int
    pixels: NDArray[np.uint8]
    captured_s: float


class Camera:
    """The newest picture of a stream, as the source of a run; each is squeezed as a folder's are.

    A video file plays at its own speed from the moment the first frame asks; its end ends the run.
    Any other stream that ends is opened again, after 1/4, 1/2, 1, .. 8 s; meanwhile, once the last
    picture is a second old, frames have none and are dropped.

    Attributes:
        ages_s: How old the pictures of the last frames were when the frames asked for them. They
            are stamped when they have been read, so this lacks the camera's own delay.
        num_missed: How often there was no picture young enough.
    """

    def __init__(
        self,
        open_stream: Callable[[], PictureStream],
        size: tuple[int, int],
        clock: Clock,
        *,
        ends: bool,
    ) -> None:
        """Open the stream and wait for its first picture.

        Args:
            open_stream: Opens it, and again when it was lost.
            size: Height and width that the bundle expects.
            clock: That of the run.
            ends: Whether the end of the stream is the end of the pictures.

        Raises:
            ConfigError: If it can never be opened here.
            LinkError: If it does not open, or sends nothing.
        """
        self._open_stream, self._size, self._clock, self._ends = open_stream, size, clock, ends
        self.ages_s: deque[float] = deque(maxlen=NUM_AGES)
        self.num_missed = 0
        self._newest: _Shot | None = None
        self._num_shots = 0
        self._first, self._asked, self._stop, self._over = (threading.Event() for _ in range(4))
        self._begin_s = 0.0
        stream = open_stream()
        self._thread = threading.Thread(
            target=self._read, args=(stream,), name="camera", daemon=True
        )
        self._thread.start()
        if not self._first.wait(FIRST_PICTURE_S) or self._newest is None:
            self.close()
            raise LinkError("a camera must send a picture before a run begins; got none")

    def __enter__(self) -> Camera:
        """Return the camera itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    @property
    def ended(self) -> bool:
        """Whether the last picture of a file has been shown for as long as it lasts."""
        return self._over.is_set()

    def picture(self, frame_index: int) -> Picture | None:
        """Fetch the newest picture, whatever the frame; `None` if the camera is lost."""
        now_s = self._clock.now_s()
        if not self._asked.is_set():
            self._begin_s = now_s
            self._asked.set()
        shot = self._newest
        if shot is None or (not self._ends and now_s - shot.captured_s > STALE_S):
            self.num_missed += 1
            return None
        self.ages_s.append(max(now_s - max(shot.captured_s, self._begin_s), 0.0))
        return Picture(shot.index, shot.pixels, None)

    def close(self) -> None:
        """Stop reading."""
        self._stop.set()
        self._asked.set()
        self._thread.join()

    def _read(self, stream: PictureStream | None) -> None:
        backoff_s = FIRST_BACKOFF_S
        while not self._stop.is_set():
            before, problem = self._num_shots, ""
            try:
                self._show(stream or self._open_stream())
            except Exception as error:  # OpenCV may say anything of a broken stream
                problem = str(error)
            if self._ends:
                if problem:
                    _log.error("a video must be readable to its end; got %s", problem)
                self._over.set()
                self._first.set()
                return
            stream = None
            if self._num_shots > before and not self._stop.is_set():
                backoff_s = FIRST_BACKOFF_S
                _log.warning("the camera is lost (%s); opening it again", problem or "its end")
            self._stop.wait(backoff_s)
            backoff_s = min(2 * backoff_s, LONGEST_BACKOFF_S)

    def _show(self, stream: PictureStream) -> None:
        """Keep the newest picture until the stream ends; a file's are kept when they are due."""
        due_s = gap_s = 0.0
        try:
            for picture, position_s in stream.pictures():
                if position_s is not None:
                    due_s, gap_s = position_s, max(position_s - due_s, 0.0)
                    # Early by half a picture, so that a frame which is late finds its own.
                    self._wait_until(due_s - gap_s / 2)
                if self._stop.is_set():
                    return
                self._newest = _Shot(
                    self._num_shots, squeeze(picture, self._size), self._clock.now_s()
                )
                self._num_shots += 1
                self._first.set()
            if self._ends:
                self._wait_until(due_s + gap_s / 2)
        finally:
            stream.close()

    def _wait_until(self, position_s: float) -> None:
        """Wait for a moment of a file; it begins when a frame asks for the first picture."""
        if position_s <= 0 and not self._asked.is_set():
            return
        self._asked.wait()
        self._stop.wait(max(self._begin_s + position_s - self._clock.now_s(), 0.0))
