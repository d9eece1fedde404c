"""Codec: what comes back, how large it is, and what hostile bytes may do (nothing)."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from adaptive_split.codec import (
    HEADER_BYTES,
    decode_feature,
    decode_picture,
    encode_feature,
    encode_picture,
)
from adaptive_split.errors import ConfigError, PayloadError

SHAPE = (3, 4, 5)
codes_of_any_shape = array_shapes(min_dims=3, max_dims=3, max_side=9).flatmap(
    lambda shape: arrays(np.float32, shape, elements=st.floats(0, 1, width=32))
)


def payload_of(body: bytes, flags: int, shape: tuple[int, int, int] = SHAPE) -> bytes:
    """A payload whose header and checksum are right, whatever its body."""
    fields = struct.pack("<2sBBHHH", b"AS", 1, flags, *shape)
    return fields + checksum(fields + body) + body


def checksum(content: bytes) -> bytes:
    return struct.pack("<I", zlib.crc32(content))


def jpeg(size: tuple[int, int] = (224, 224), mode: str = "RGB", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def webp(size: tuple[int, int] = (224, 224), mode: str = "RGB", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, "WEBP", **options)
    return buffer.getvalue()


@given(codes=codes_of_any_shape, bits=st.integers(1, 8))
def test_an_element_moves_by_half_a_step_at_most(codes, bits):
    decoded = decode_feature(encode_feature(codes, bits), codes.shape)

    assert decoded.shape == codes.shape
    assert decoded.dtype == np.float32
    assert decoded.min() >= 0
    assert decoded.max() <= 1
    np.testing.assert_allclose(decoded, codes, atol=0.5 / (2**bits - 1) + 1e-6)


@given(codes=codes_of_any_shape, bits=st.integers(1, 8))
def test_a_decoded_feature_is_encoded_to_the_same_bytes(codes, bits):
    payload = encode_feature(codes, bits)

    assert encode_feature(decode_feature(payload, codes.shape), bits) == payload


@given(codes=codes_of_any_shape, bits=st.integers(1, 8))
def test_a_payload_is_never_larger_than_header_and_packed_codes(codes, bits):
    assert len(encode_feature(codes, bits)) <= HEADER_BYTES + (codes.size * bits + 7) // 8


def test_a_plain_feature_is_compressed():
    assert len(encode_feature(np.zeros((24, 14, 14), np.float32), 8)) < 60


@pytest.mark.parametrize("bits", [0, 9, -1])
def test_a_width_the_codec_cannot_pack_is_refused(bits):
    with pytest.raises(ConfigError, match=rf"bits must lie in 1\.\.8; got {bits}"):
        encode_feature(np.zeros(SHAPE, np.float32), bits)


@given(payload=st.binary(max_size=200))
@example(payload=b"")
def test_hostile_bytes_are_a_payload_error_at_most(payload):
    with pytest.raises(PayloadError):
        decode_feature(payload, SHAPE)


@given(body=st.binary(max_size=64), flags=st.integers(0, 255))
@example(body=zstandard.ZstdCompressor().compress(bytes(20)), flags=0x12)
def test_a_hostile_body_with_a_right_checksum_is_a_payload_error_at_most(body, flags):
    try:
        decoded = decode_feature(payload_of(body, flags), SHAPE)
    except PayloadError:
        return
    assert decoded.shape == SHAPE
    assert decoded.max() <= 1


@given(position=st.integers(0, 10_000), bit=st.integers(0, 7), bits=st.integers(1, 8))
def test_one_flipped_bit_is_noticed(position, bit, bits):
    ramp = np.linspace(0, 1, 60, dtype=np.float32).reshape(SHAPE)
    payload = bytearray(encode_feature(ramp, bits))
    payload[position % len(payload)] ^= 1 << bit

    with pytest.raises(PayloadError):
        decode_feature(bytes(payload), SHAPE)


@pytest.mark.parametrize("position", range(HEADER_BYTES))
@pytest.mark.parametrize("bit", range(8))
def test_a_bit_flipped_in_the_header_is_noticed(position, bit):
    payload = bytearray(encode_feature(np.zeros(SHAPE, np.float32), 4))
    payload[position] ^= 1 << bit

    with pytest.raises(PayloadError):
        decode_feature(bytes(payload), SHAPE)


@pytest.mark.parametrize("position", range(HEADER_BYTES - 4))
@given(value=st.integers(0, 255), bits=st.integers(1, 8))
def test_a_lying_header_with_a_right_checksum_is_a_payload_error_at_most(position, value, bits):
    payload = encode_feature(np.linspace(0, 1, 60, dtype=np.float32).reshape(SHAPE), bits)
    fields, body = bytearray(payload[: HEADER_BYTES - 4]), payload[HEADER_BYTES:]
    fields[position] = value

    try:
        decoded = decode_feature(bytes(fields) + checksum(bytes(fields) + body) + body, SHAPE)
    except PayloadError:
        return
    assert decoded.shape == SHAPE
    assert decoded.max() <= 1


@given(length=st.integers(0, 10_000))
def test_a_payload_cut_short_is_noticed(length):
    payload = encode_feature(np.linspace(0, 1, 60, dtype=np.float32).reshape(SHAPE), 4)

    with pytest.raises(PayloadError):
        decode_feature(payload[: length % len(payload)], SHAPE)


def test_a_payload_of_another_shape_is_refused():
    payload = encode_feature(np.zeros((5, 4, 3), np.float32), 4)

    with pytest.raises(PayloadError, match=r"shape \(3, 4, 5\); got \(5, 4, 3\)"):
        decode_feature(payload, SHAPE)


def test_a_payload_too_long_for_its_shape_is_refused_unread():
    with pytest.raises(PayloadError, match="44 bytes at most; got 1014"):
        decode_feature(payload_of(bytes(1000), 4), SHAPE)


def bomb(num_bytes: int, **options: int) -> bytes:
    """A zstd frame that grows to so many zeros."""
    return zstandard.ZstdCompressor(**options).compress(bytes(num_bytes))


def wide(num_bytes: int) -> bytes:
    """A bomb that asks for a window of 128 MiB besides."""
    parameters = zstandard.ZstdCompressionParameters(window_log=27, write_content_size=False)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return compressor.compress(bytes(num_bytes)) + compressor.flush()


SKIPPED = struct.pack("<II", 0x184D2A50, 8) + bytes(8)
"""A frame that a decoder is to skip."""
BOMBS = {
    "states its size": bomb(1 << 26),
    "hides its size": bomb(1 << 26, write_content_size=False),
    "wants a window": wide(1 << 26),
    "twice": 2 * bomb(1 << 26, write_content_size=False),
    "behind frames to skip": 100 * SKIPPED + bomb(1 << 26, write_content_size=False),
    "one byte too much": bomb(64**3 + 1, write_content_size=False),
    "one byte too few": bomb(64**3 - 1, write_content_size=False),
    "nothing but frames to skip": 1000 * SKIPPED,
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_without_the_memory_it_asks_for(name):
    shape = (64, 64, 64)
    tracemalloc.start()

    with pytest.raises(PayloadError):
        decode_feature(payload_of(BOMBS[name], 0x18, shape), shape)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20


@given(body=st.binary(max_size=64), flips=st.lists(st.integers(0, 8 * 200), max_size=8))
def test_a_damaged_frame_with_a_right_checksum_is_a_payload_error_at_most(body, flips):
    frame = bytearray(bomb(20, write_content_size=False) + body)
    for flip in flips:
        frame[flip // 8 % len(frame)] ^= 1 << flip % 8

    try:
        decoded = decode_feature(payload_of(bytes(frame), 0x12), SHAPE)
    except PayloadError:
        return
    assert decoded.shape == SHAPE
    assert decoded.max() <= 1


@given(
    quality=st.integers(1, 95), size=st.sampled_from([(224, 224), (48, 64)]),
    form=st.sampled_from(["jpeg", "webp"]),
)  # fmt: skip
def test_a_picture_comes_back_alike_at_every_quality(quality, size, form):
    pixels = np.full((*size, 3), 128, np.uint8)

    decoded = decode_picture(encode_picture(pixels, quality, form), size, form)

    assert decoded.shape == pixels.shape
    assert decoded.dtype == np.uint8
    assert abs(decoded.astype(int) - 128).max() <= 3


def test_a_better_quality_costs_more_bytes():
    pixels = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)
    sizes = [len(encode_picture(pixels, quality)) for quality in (8, 20, 45, 80)]

    assert sizes == sorted(set(sizes))


@pytest.mark.parametrize("quality", [0, 96])
def test_a_quality_out_of_range_is_refused(quality):
    with pytest.raises(ConfigError, match=rf"quality must lie in 1\.\.95; got {quality}"):
        encode_picture(np.zeros((8, 8, 3), np.uint8), quality)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", "must be a JPEG; got a damaged one"),
        (b"\xff\xd8\xff" + bytes(99), "must be a JPEG; got a damaged one"),
        (jpeg()[:-200], "must be a JPEG; got a damaged one"),
        (jpeg((100, 224)), r"224 x 224; got .* \(\(100, 224\), 'RGB', False\)"),
        (jpeg((20000, 20000), "L")[:2000], r"224 x 224; got .* \(\(20000, 20000\), 'L', False\)"),
        (jpeg(mode="CMYK"), r"RGB JPEG of 224 x 224; got .*'CMYK'"),
        (jpeg(progressive=True), r"baseline .*True\)"),
        (bytes(1_000_000), "154624 bytes at most; got 1000000"),
    ],
)
def test_another_picture_than_the_one_expected_is_refused(payload, message):
    with pytest.raises(PayloadError, match=message):
        decode_picture(payload)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", "must be a WEBP; got a damaged one: no lossy frame"),
        (jpeg(), "must be a WEBP; got a damaged one: no lossy frame"),
        (webp(lossless=True), "must be a WEBP; got a damaged one: no lossy frame"),
        (webp(mode="RGBA"), "must be a WEBP; got a damaged one: no lossy frame"),
        (webp()[:29], "must be a WEBP; got a damaged one: unpack_from"),
        (webp()[:60], "must be a WEBP; got a damaged one"),
        (webp((100, 224)), "WEBP of 224 x 224; got 100 x 224"),
        (webp((16383, 8))[:60], "WEBP of 224 x 224; got 16383 x 8"),
        (bytes(1_000_000), "154624 bytes at most; got 1000000"),
    ],
)
def test_another_webp_than_the_one_expected_is_refused(payload, message):
    with pytest.raises(PayloadError, match=message):
        decode_picture(payload, picture_format="webp")


@given(
    position=st.integers(0, 10_000), value=st.integers(0, 255),
    form=st.sampled_from(["jpeg", "webp"]),
)  # fmt: skip
def test_a_damaged_picture_is_a_payload_error_at_most(position, value, form):
    payload = bytearray({"jpeg": jpeg, "webp": webp}[form]())
    payload[position % len(payload)] = value

    try:
        decoded = decode_picture(bytes(payload), picture_format=form)
    except PayloadError:
        return
    assert decoded.shape == (224, 224, 3)
