"""How small and how fast is the codec on the codes of a bundle, and would blosc2 be better?

    python experiments/codec.py

Prints the tables of CODEC.md. Codes are those of the shipped pictures at every split point. The
columns of blosc2 need that package, which the project does not: `pip install blosc2` first. Times
are processor times on one thread, so other work on the machine counts little.
"""

from __future__ import annotations

import argparse
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import zstandard

from adaptive_split.bundle import ModelBundle, bundle_path
from adaptive_split.codec import HEADER_BYTES, decode_feature, encode_feature
from adaptive_split.decision import BITS
from adaptive_split.runtime.picture_folder import read_folder
from adaptive_split.runtime.stages import StageRunner

SHAPES = ((4, 8, 8), (16, 8, 8), (16, 16, 16), (64, 16, 16), (64, 32, 32), (64, 64, 64))
"""1 KB to 1 MB of float32."""
ROUNDS = 5
PICTURES = Path(__file__).parents[1] / "adaptive_split" / "data" / "pictures"

Packer = tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", default="garments")
    parser.add_argument("--pictures", type=Path, default=PICTURES, metavar="DIR")
    parser.add_argument("--repeats", type=int, default=100)
    arguments = parser.parse_args()
    bundle = ModelBundle.load(bundle_path(arguments.bundle))
    codes = codes_of(bundle, arguments.pictures)
    print_sizes(codes)
    print_speeds(codes[1], arguments.repeats)
    print_ranges(codes)


def codes_of(bundle: ModelBundle, folder: Path) -> dict[int, list[np.ndarray]]:
    """The codes `(C, H, W)` of every picture at every split point."""
    found: dict[int, list[np.ndarray]] = {split: [] for split in bundle.code_shapes}
    with StageRunner(bundle) as runner:
        for pixels in read_folder(folder, bundle).pixels:
            tensor = runner.prepare(pixels)
            for split in found:
                tensor = runner.stage(split, tensor)
                found[split].append(runner.encode(split, tensor))
    return found


def packers() -> dict[str, Packer]:
    """Lossless compressors; those of blosc2 if it is there."""
    squeeze, unsqueeze = zstandard.ZstdCompressor(1), zstandard.ZstdDecompressor()
    found: dict[str, Packer] = {
        "zstd 1": (squeeze.compress, unsqueeze.decompress),
        "zlib 1": (lambda body: zlib.compress(body, 1), zlib.decompress),
    }
    try:
        import blosc2
    except ImportError:
        return found
    options = {
        "codec": blosc2.Codec.ZSTD, "clevel": 1, "typesize": 1, "nthreads": 1,
        "filters": [blosc2.Filter.BITSHUFFLE], "filters_meta": [0],
    }  # fmt: skip
    found["blosc2"] = (lambda body: blosc2.compress2(body, **options), blosc2.decompress2)
    return found


def print_sizes(codes: dict[int, list[np.ndarray]]) -> None:
    """Bytes of a payload's body, and what compressing and decompressing it takes."""
    found = packers()
    columns = [(name, form) for name in found for form in ("packed", "loose")]
    print(f"| split | bits | packed | {' | '.join(f'{n}, {form}' for n, form in columns)} |")
    print(f"| --- {'| --- ' * (2 + len(columns))}|")
    for split, features in codes.items():
        for bits in BITS:
            steps = [
                np.rint(one * (2**bits - 1)).astype(np.uint8).transpose(1, 2, 0).ravel()
                for one in features
            ]
            bodies = {
                "packed": [pack(one, bits) for one in steps],
                "loose": [one.tobytes() for one in steps],
            }
            size = np.mean([len(one) for one in bodies["packed"]])
            cells = [describe(bodies[form], found[name]) for name, form in columns]
            print(f"| {split} | {bits} | {size:.0f} | {' | '.join(cells)} |")


def pack(codes: np.ndarray, bits: int) -> bytes:
    """Codes without gaps, most significant bit first, as the codec packs them."""
    return np.packbits(np.unpackbits(codes[:, None], axis=1)[:, 8 - bits :]).tobytes()


def describe(bodies: list[bytes], packer: Packer) -> str:
    """Mean bytes, stored as they are where that is smaller, and microseconds there + back."""
    squeeze, unsqueeze = packer
    squeezed = [squeeze(body) for body in bodies]
    assert [unsqueeze(one) for one in squeezed] == bodies
    size = np.mean([min(len(a), len(b)) for a, b in zip(squeezed, bodies, strict=True)])
    there = median_s(lambda: [squeeze(body) for body in bodies], 5) / len(bodies)
    back = median_s(lambda: [unsqueeze(body) for body in squeezed], 5) / len(bodies)
    return f"{size:.0f}, {1e6 * there:.0f} + {1e6 * back:.0f}"


def print_speeds(features: list[np.ndarray], repeats: int) -> None:
    """Throughput of the whole codec for sizes that models have, real codes side by side."""
    print(f"\n| float32 bytes | {' | '.join(f'{bits} bits' for bits in BITS)} | 4 bits, us |")
    print(f"| --- {'| --- ' * (len(BITS) + 1)}|")
    for shape in SHAPES:
        codes, cells, both = quilt(features, shape), [], ""
        for bits in BITS:
            payload = encode_feature(codes, bits)
            out = median_s(lambda c=codes, b=bits: encode_feature(c, b), repeats)
            back = median_s(lambda p=payload, s=shape: decode_feature(p, s), repeats)
            cells.append(f"{codes.nbytes / out / 1e6:.0f} / {codes.nbytes / back / 1e6:.0f}")
            if bits == 4:
                both = f"{1e6 * out:.0f} + {1e6 * back:.0f}"
        print(f"| {codes.nbytes} | {' | '.join(cells)} | {both} |")


def quilt(features: list[np.ndarray], shape: tuple[int, int, int]) -> np.ndarray:
    """Codes of another shape, sewn together from those of many pictures."""
    channels, height, width = features[0].shape
    columns, rows, layers = -(-shape[2] // width), -(-shape[1] // height), -(-shape[0] // channels)
    pieces = iter(features * (columns * rows * layers // len(features) + 1))
    sewn = np.concatenate([
        np.concatenate([
            np.concatenate([next(pieces) for _ in range(columns)], axis=2) for _ in range(rows)
        ], axis=1) for _ in range(layers)
    ])  # fmt: skip
    return np.ascontiguousarray(sewn[: shape[0], : shape[1], : shape[2]])


def print_ranges(codes: dict[int, list[np.ndarray]]) -> None:
    """What quantizing every payload in a range of its own would change, at 4 bits."""
    print("\n| split | mean of least code | of largest | rms error in [0, 1] | in its own range |")
    print("| --- | --- | --- | --- | --- |")
    for split, features in codes.items():
        rows = []
        for one in features:
            low, high = float(one.min()), float(one.max())
            own = (one - low) / max(high - low, 1e-6)
            back = low + decode_feature(encode_feature(own, 4), one.shape) * (high - low)
            fixed = decode_feature(encode_feature(one, 4), one.shape)
            rows.append((low, high, rms(fixed - one), rms(back - one)))
        print(f"| {split} | {' | '.join(f'{value:.4f}' for value in np.mean(rows, axis=0))} |")
    print(f"\nheader: {HEADER_BYTES} bytes")


def rms(values: np.ndarray) -> float:
    """Root of the mean square."""
    return float(np.sqrt((values**2).mean()))


def median_s(run: Callable[[], object], repeats: int) -> float:
    """Processor time of one run on this thread: the least median of some rounds.

    What others do on the machine slows whole rounds, through caches and shared cores.
    """
    medians = []
    for _ in range(ROUNDS):
        times = []
        for _ in range(repeats):
            begin = time.thread_time_ns()
            run()
            times.append(time.thread_time_ns() - begin)
        medians.append(np.median(times))
    return float(min(medians)) / 1e9


if __name__ == "__main__":
    main()
