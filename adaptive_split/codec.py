"""Features and pictures to the bytes of one payload, and back.

A feature payload is a header of 14 bytes and a body. The header is little-endian: magic `AS`, a
version, a byte with the bits (low half) and the flag `_ZSTD`, the shape as three u16 and a CRC-32
of everything else. No scale is written: codes lie in [0, 1], where the encoder's graph puts them
with the range it has learned, so a step is `1 / (2**bits - 1)`. The body is the codes packed
without gaps, most significant bit first, all channels of a position together: so packed, zstd saves
8-11 % more at 1 and 2 bits. It is compressed, or stored as it is where that is not smaller.
"""

from __future__ import annotations

import io
import struct
import threading
import zlib
from typing import Any

import numpy as np
import zstandard
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin, WebPImagePlugin

from adaptive_split.bundle import JPEG, WEBP
from adaptive_split.errors import ConfigError, PayloadError

PICTURE_SIZE = 224
HEADER_BYTES = 14

_MAGIC, _VERSION, _ZSTD = b"AS", 1, 0x10
_FIELDS = struct.Struct("<2sBBHHH")
_CRC = struct.Struct("<I")
_MAX_WINDOW_BYTES = 1 << 20
"""Level 1 needs no larger window; a hostile frame could otherwise ask for 128 MiB."""


class _Zstd(threading.local):
    """A compressor and a decompressor per thread: neither may be shared by two."""

    def __init__(self) -> None:
        # The size is left out of the frame because `decompress` would trust it over our limit.
        self.compress = zstandard.ZstdCompressor(
            level=1, write_content_size=False, write_checksum=False
        ).compress
        self.decompress = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES).decompress


_zstd = _Zstd()


def encode_feature(codes: NDArray[np.float32], bits: int) -> bytes:
    """Quantize, pack and compress the codes of one feature.

    An element comes back within half a step, `0.5 / (2**bits - 1)`.

    Args:
        codes: What the encoder of a bottleneck gives, shape `(C, H, W)`, in [0, 1].
        bits: Width of one code, 1..8.

    Raises:
        ConfigError: If `bits` or the shape cannot be written.
    """
    if not 1 <= bits <= 8:
        raise ConfigError(f"bits must lie in 1..8; got {bits!r}")
    if codes.ndim != 3 or not all(0 < side < 65536 for side in codes.shape):
        raise ConfigError(f"codes must have shape (C, H, W), sides 1..65535; got {codes.shape}")
    levels = (1 << bits) - 1
    steps = np.rint(codes * np.float32(levels)).astype(np.uint8)
    body = _pack(steps.transpose(1, 2, 0).reshape(-1), bits)
    flags = bits
    squeezed = _zstd.compress(body)
    if len(squeezed) < len(body):
        body, flags = squeezed, bits | _ZSTD
    fields = _FIELDS.pack(_MAGIC, _VERSION, flags, *codes.shape)
    return fields + _CRC.pack(zlib.crc32(body, zlib.crc32(fields))) + body


def decode_feature(payload: bytes, shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """Read the codes of one feature, in [0, 1].

    Args:
        payload: What `encode_feature` gave; may be hostile.
        shape: The shape that the bundle's split point has; the header must agree.

    Raises:
        PayloadError: If the payload is damaged, cut short, too long or of another shape.
    """
    if len(payload) < HEADER_BYTES:
        raise PayloadError(f"a payload must hold {HEADER_BYTES} bytes at least; got {len(payload)}")
    magic, version, flags, *sides = _FIELDS.unpack_from(payload)
    if magic != _MAGIC or version != _VERSION:
        raise PayloadError(
            f"a payload must start with {_MAGIC!r}, version {_VERSION}; got {magic!r}, {version}"
        )
    bits = flags & ~_ZSTD
    if not 1 <= bits <= 8:
        raise PayloadError(f"a payload must have 1..8 bits; got flags {flags:#04x}")
    if tuple(sides) != tuple(shape):
        raise PayloadError(f"a payload must have shape {tuple(shape)}; got {tuple(sides)}")
    channels, height, width = shape
    count = channels * height * width
    size = (count * bits + 7) // 8
    if len(payload) > HEADER_BYTES + size:
        raise PayloadError(
            f"a payload must hold {HEADER_BYTES + size} bytes at most; got {len(payload)}"
        )
    (stated,) = _CRC.unpack_from(payload, _FIELDS.size)
    body = payload[HEADER_BYTES:]
    if stated != zlib.crc32(body, zlib.crc32(payload[: _FIELDS.size])):
        raise PayloadError("a payload must match its CRC-32; got a damaged one")
    if flags & _ZSTD:
        body = _decompress(body, size)
    if len(body) != size:
        raise PayloadError(f"a payload must hold {size} bytes of codes; got {len(body)}")
    steps = _unpack(body, bits, count).reshape(height, width, channels).transpose(2, 0, 1)
    codes = steps.astype(np.float32, order="C")
    codes /= (1 << bits) - 1
    return codes


def encode_picture(pixels: NDArray[np.uint8], quality: int, picture_format: str = JPEG) -> bytes:
    """Compress a picture `(H, W, 3)` to a baseline JPEG or lossy WebP of a quality in 1..95."""
    if not 1 <= quality <= 95:
        raise ConfigError(f"a picture's quality must lie in 1..95; got {quality!r}")
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(
        buffer, picture_format, quality=quality, **_OPTIONS[picture_format]
    )
    return buffer.getvalue()


def decode_picture(
    payload: bytes,
    size: tuple[int, int] = (PICTURE_SIZE, PICTURE_SIZE),
    picture_format: str = JPEG,
) -> NDArray[np.uint8]:
    """Read an RGB picture of `size` (height, width); size and mode are checked before any pixel.

    Raises:
        PayloadError: If the payload is anything else; it may be hostile.
    """
    height, width = size
    limit = 3 * height * width + 4096
    if len(payload) > limit:
        raise PayloadError(f"a picture must hold {limit} bytes at most; got {len(payload)}")
    try:
        return np.asarray(_OPENERS[picture_format](payload, (width, height)))
    except PayloadError:
        raise
    except Exception as error:  # the plugin answers hostile bytes with a dozen kinds of exception
        raise PayloadError(
            f"a picture must be a {picture_format.upper()}; got a damaged one: {error}"
        ) from error


def _open_jpeg(payload: bytes, size: tuple[int, int]) -> Image.Image:
    # The plugin itself, as Image.open tries other formats and warns of large pictures.
    picture = JpegImagePlugin.JpegImageFile(io.BytesIO(payload))
    found = (picture.size, picture.mode, "progressive" in picture.info)
    if found != (size, "RGB", False):
        raise PayloadError(
            f"a picture must be a baseline RGB JPEG of {size[0]} x {size[1]}; "
            f"got (size, mode, progressive) {found}"
        )
    return picture


def _open_webp(payload: bytes, size: tuple[int, int]) -> Image.Image:
    """Open a file of one lossy frame (RFC 9649), whose header is looked at first.

    The plugin allocates what any header claims, up to gigabytes, as soon as it is made.
    """
    if payload[:4] + payload[8:16] != b"RIFFWEBPVP8 " or payload[23:26] != b"\x9d\x01\x2a":
        raise ValueError("no lossy frame")
    width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", payload, 26))
    if (width, height) != size:
        raise PayloadError(
            f"a picture must be a WEBP of {size[0]} x {size[1]}; got {width} x {height}"
        )
    return WebPImagePlugin.WebPImageFile(io.BytesIO(payload))


_OPENERS = {JPEG: _open_jpeg, WEBP: _open_webp}
_OPTIONS: dict[str, dict[str, int]] = {JPEG: {}, WEBP: {"method": 2}}
"""Pillow's default method, 4, makes WebPs 3-8 % smaller and takes more than twice as long."""


def _pack(codes: NDArray[np.uint8], bits: int) -> bytes:
    """Join codes without gaps; several are joined as one word wherever a byte holds whole codes."""
    if bits == 8:
        return codes.tobytes()
    if bits == 1:
        return np.packbits(codes).tobytes()
    if 8 % bits:
        return np.packbits(np.unpackbits(codes[:, None], axis=1)[:, 8 - bits :]).tobytes()
    word, shifts = _WORDS[bits]
    spare = -len(codes) % word.itemsize
    words = (np.pad(codes, (0, spare)) if spare else codes).view(word)
    packed = words << bits * (word.itemsize - 1)
    for shift in shifts:
        packed |= words >> shift
    return packed.astype(np.uint8).tobytes()


def _unpack(body: bytes, bits: int, count: int) -> NDArray[np.uint8]:
    packed = np.frombuffer(body, np.uint8)
    if bits == 8:
        return packed
    if bits == 1:
        return np.unpackbits(packed, count=count)
    if 8 % bits:
        codes = np.zeros((count, 8), np.uint8)
        codes[:, 8 - bits :] = np.unpackbits(packed, count=count * bits).reshape(count, bits)
        return np.packbits(codes)
    return _SPREAD[bits].take(packed).view(np.uint8)[:count]


def _spread(bits: int) -> NDArray[np.unsignedinteger]:
    """What each byte is as a word of one code a byte, shape `(256,)`."""
    shifts = np.arange(8 - bits, -1, -bits)
    codes = (np.arange(256)[:, None] >> shifts) & ((1 << bits) - 1)
    return np.asarray(codes.astype(np.uint8).view(_WORDS[bits][0])[:, 0])


_WORDS: dict[int, tuple[np.dtype[Any], tuple[int, ...]]] = {
    2: (np.dtype("<u4"), (4, 14, 24)),
    4: (np.dtype("<u2"), (8,)),
}
"""Type that holds the codes of one byte, and how far each but the first moves down into it."""
_SPREAD = {bits: _spread(bits) for bits in _WORDS}


def _decompress(body: bytes, size: int) -> bytes:
    try:
        if zstandard.frame_content_size(body) != -1:
            raise PayloadError("a payload's frame must not state its size; got one that does")
        return _zstd.decompress(body, max_output_size=size, allow_extra_data=False)
    except (zstandard.ZstdError, MemoryError) as error:
        raise PayloadError(f"a payload must decompress to {size} bytes; got {error}") from error
