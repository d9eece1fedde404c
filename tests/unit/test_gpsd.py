"""Positions from a server that speaks gpsd's protocol."""

import json

import pytest

from adaptive_split.clock import MonotonicClock
from adaptive_split.runtime.recording.gpsd import GpsReader, read_report
from tests.one_thread_server import OneThreadServer
from tests.secure_world import until

TPV = {
    "class": "TPV", "mode": 3, "time": "2026-01-02T12:00:00.000Z", "lat": 52.5, "lon": 13.4,
    "altMSL": 34.0, "speed": 8.3, "track": 90.0, "eph": 2.1, "device": "/dev/ttyUSB0",
}  # fmt: skip


class Gpsd(OneThreadServer):
    """A gpsd that greets, waits for a watch, and reports one position per connection."""

    def __init__(self, latitudes):
        self.watches = []
        self._latitudes = iter(latitudes)
        super().__init__(self._report, len(latitudes))

    def _report(self, peer):
        peer.sendall(b'{"class":"VERSION","release":"3.25","proto_major":3}\r\n')
        self.watches.append(peer.recv(1024))
        report = (json.dumps({**TPV, "lat": next(self._latitudes)}) + "\r\n").encode()
        peer.sendall(report[:20])
        peer.sendall(report[20:] + b'{"class":"SKY","satellites":[]}\r\n')


def test_the_newest_position_is_kept_and_a_lost_gpsd_is_asked_again():
    with Gpsd([52.5, 48.1]) as gpsd, GpsReader("127.0.0.1", gpsd.port, MonotonicClock()) as reader:
        until(lambda: reader.newest and reader.newest.values["latitude_deg"] == 48.1)

        assert reader.newest.values == {
            "latitude_deg": 48.1, "longitude_deg": 13.4, "altitude_m": 34.0, "speed_mps": 8.3,
            "track_deg": 90.0, "horizontal_error_m": 2.1, "gps_time": "2026-01-02T12:00:00.000Z",
        }  # fmt: skip
        assert [json.loads(watch[7:-2]) for watch in gpsd.watches] == [
            {"enable": True, "json": True}
        ] * 2


@pytest.mark.parametrize(
    "line",
    [
        b"", b"no json", b"[]", b'"TPV"', b'{"class":"SKY"}', b'{"class":"TPV"}',
        b'{"class":"TPV","mode":1,"lat":1}', b'{"class":"TPV","mode":"3","lat":1}', b"\xff\xfe",
    ],
)  # fmt: skip
def test_a_line_without_a_position_says_nothing(line):
    assert read_report(line) == {}


def test_what_a_receiver_does_not_know_is_left_out():
    line = json.dumps({"class": "TPV", "mode": 2, "lat": 1.5, "lon": 2.5, "speed": None}).encode()

    assert read_report(line) == {"latitude_deg": 1.5, "longitude_deg": 2.5}
