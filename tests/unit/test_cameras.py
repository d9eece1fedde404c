"""Cameras: real video files and a real stream that dies, read by OpenCV."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from adaptive_split.bundle import ModelBundle, bundle_path
from adaptive_split.cli.common import SHIPPED_PICTURES
from adaptive_split.clock import MonotonicClock
from adaptive_split.decision import NEVER, Decision
from adaptive_split.errors import ConfigError, LinkError
from adaptive_split.measurement import NO_PICTURE
from adaptive_split.runtime.cameras.camera import STALE_S, Camera
from adaptive_split.runtime.cameras.opencv_stream import OpenCvStream
from adaptive_split.runtime.cameras.spec import CameraSpec, parse_camera
from adaptive_split.runtime.device import Device
from adaptive_split.runtime.live import LiveBackend, play
from adaptive_split.runtime.picture_folder import read_folder
from adaptive_split.runtime.sensors.battery import ModelledBattery
from adaptive_split.runtime.serving.service import TailService
from adaptive_split.runtime.source import Picture
from adaptive_split.testing import (
    ManualClock,
    MemoryTransport,
    TinyStages,
    tiny_bundle,
    tiny_picture,
    tiny_profile,
    tiny_setup,
)
from tests.one_thread_server import OneThreadServer
from tests.secure_world import until

cv2 = pytest.importorskip("cv2", reason="OpenCV is the extra [camera]")

BUNDLE = ModelBundle.load(bundle_path("garments"), verify=False)
HEIGHT, WIDTH = BUNDLE.input_shape[1:]
SIZE = (48, 64)
LOSSLESS = cv2.VideoWriter_fourcc(*"FFV1")


def write_video(path, pictures, fps):
    """Write RGB pictures of one size as a lossless video."""
    height, width = pictures[0].shape[:2]
    writer = cv2.VideoWriter(str(path), LOSSLESS, fps, (width, height))
    assert writer.isOpened()
    for pixels in pictures:
        writer.write(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    writer.release()
    return CameraSpec("video", str(path))


def noise(seed, size=SIZE):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)


def open_camera(spec, size=SIZE, clock=None):
    return Camera(lambda: OpenCvStream(spec), size, clock or MonotonicClock(), ends=spec.ends)


def shows(camera, sample_index):
    """Whether a picture, counted from 0, is the newest."""
    newest = camera.picture(0)
    return newest is not None and newest.sample_index == sample_index


class MjpegCamera(OneThreadServer):
    """A camera that sends JPEGs over HTTP: two per connection, then it hangs up."""

    def __init__(self, num_connections):
        super().__init__(self._show, num_connections)
        self.spec = parse_camera(f"http://127.0.0.1:{self.port}/video")

    def _show(self, peer):
        peer.recv(4096)
        head = "Content-Type: multipart/x-mixed-replace; boundary=next"
        peer.sendall(f"HTTP/1.0 200 OK\r\n{head}\r\n\r\n".encode())
        for seed in (1, 2):
            self._send(peer, noise(seed))

    def _send(self, peer, pixels):
        jpeg = io.BytesIO()
        Image.fromarray(pixels).save(jpeg, "JPEG")
        body = jpeg.getvalue()
        head = f"--next\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}\r\n\r\n"
        peer.sendall(head.encode() + body + b"\r\n")


def test_a_video_gives_the_pictures_that_a_folder_gives(tmp_path):
    files = sorted(SHIPPED_PICTURES.rglob("*.jpg"))[:3]
    full = [np.asarray(Image.open(file).convert("RGB").resize((300, 260))) for file in files]
    for index, pixels in enumerate(full):
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    folder = read_folder(tmp_path, BUNDLE)

    stream = OpenCvStream(write_video(tmp_path / "video.avi", full, 10.0))
    with Camera(lambda: stream, (HEIGHT, WIDTH), MonotonicClock(), ends=True) as camera:
        seen = {}
        until(lambda: seen.update({(p := camera.picture(0)).sample_index: p}) or camera.ended)

    assert camera.ended
    for sample, picture in seen.items():
        np.testing.assert_array_equal(picture.pixels, folder.pixels[sample])
    assert set(seen) == {0, 1, 2}


def test_a_video_begins_with_the_first_frame_that_asks(tmp_path):
    spec = write_video(tmp_path / "video.avi", [noise(seed) for seed in range(3)], 1000.0)

    with open_camera(spec) as camera:
        assert not camera.ended
        first = camera.picture(0)
        until(lambda: camera.ended)

    assert first.sample_index == 0
    assert first.label is None
    assert camera.picture(1).sample_index == 2


def test_a_stream_that_dies_is_opened_again():
    with MjpegCamera(2) as server, open_camera(server.spec) as camera:
        until(lambda: shows(camera, 3))

        assert not camera.ended
        assert camera.picture(0).pixels.shape == (*SIZE, 3)


def test_a_lost_camera_has_no_pictures_once_the_last_one_is_old():
    clock = ManualClock()
    with MjpegCamera(1) as server, open_camera(server.spec, clock=clock) as camera:
        until(lambda: shows(camera, 1))
        clock.advance(STALE_S + 0.1)

        assert camera.picture(1) is None
        assert camera.num_missed == 1
        assert set(camera.ages_s) == {0.0}


class Flaky:
    """A source whose camera is lost between two frames."""

    def picture(self, frame_index):
        """Have none for frames 3 to 5."""
        if 3 <= frame_index <= 5:
            return None
        return Picture(frame_index, tiny_picture(1), 1)


class Local:
    """Decides for the device alone; ends the run at a frame."""

    name = "local"

    def __init__(self, device, last):
        self._device, self._last = device, last

    def decide(self, situation):
        """Decide; end the run if it is time."""
        if situation.frame_index == self._last:
            self._device.finish()
        return Decision(3, NEVER, 0)

    def reset(self):
        """Forget nothing."""


def test_a_frame_without_a_picture_is_dropped_and_a_finished_run_answers_what_it_has():
    clock, setup, stages = ManualClock(), tiny_setup(), TinyStages()
    service = TailService(tiny_bundle(), stages, clock, profile=tiny_profile(0.1))
    transport = MemoryTransport(setup.bundle, service, clock)
    device = Device(setup, stages, transport, clock, ModelledBattery(1e4))

    with LiveBackend(device, lambda seed: Flaky(), 10**9) as backend:
        reports = list(play(backend, Local(device, 8)))

    assert [report.frame_index for report in reports] == list(range(9))
    lost = [report for report in reports if report.fallback_reason == "dropped"]
    assert [report.frame_index for report in lost] == [3, 4, 5]
    assert {(report.sample_index, report.answer) for report in lost} == {(NO_PICTURE, None)}
    assert sum(report.correct for report in reports) == 6


@pytest.mark.parametrize(
    ("text", "kind", "target"),
    [
        ("folder:pictures", "folder", "pictures"),
        ("v4l2:/dev/video0", "v4l2", "/dev/video0"),
        ("rtsp://cam/live", "rtsp", "rtsp://cam/live"),
        ("http://cam:8080/video", "http", "http://cam:8080/video"),
        ("gstreamer:nvarguscamerasrc ! appsink", "gstreamer", "nvarguscamerasrc ! appsink"),
    ],
)
def test_a_camera_is_named_by_kind_and_place(text, kind, target):
    assert parse_camera(text) == CameraSpec(kind, target)


@pytest.mark.parametrize("text", ["", "camera", "v4l2:", "usb:1", "rtsp:cam", "http://", "0"])
def test_what_names_no_camera_is_refused_with_what_would(text):
    with pytest.raises(ConfigError, match=r"a camera must be one of folder:DIR, .*; got "):
        parse_camera(text)


def test_a_video_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="a video must be a file; got"):
        parse_camera(f"video:{tmp_path / 'no.mp4'}")


@pytest.mark.parametrize("kind", ["video", "v4l2", "rtsp"])
def test_a_camera_that_does_not_open_says_so_at_once(tmp_path, kind):
    (tmp_path / "text").write_text("no video")
    target = {"video": str(tmp_path / "text"), "v4l2": "/dev/video99", "rtsp": "rtsp://[::1]:1/x"}

    with pytest.raises(LinkError, match=f"a camera must open; got nothing from {kind}"):
        open_camera(CameraSpec(kind, target[kind]))


def test_without_gstreamer_the_message_tells_who_has_it():
    if "GStreamer:                   YES" in cv2.getBuildInformation():
        pytest.skip("this OpenCV has GStreamer")

    with pytest.raises(ConfigError, match="JetPack's python3-opencv"):
        open_camera(CameraSpec("gstreamer", "videotestsrc ! appsink"))


def test_without_opencv_the_message_tells_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)

    with pytest.raises(ConfigError, match=r"install adaptive-split\[camera\]"):
        open_camera(CameraSpec("v4l2", "/dev/video0"))
