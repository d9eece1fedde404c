"""What `adaptive-split profile` prints: every part's times, and predictions beside them."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from adaptive_split.bundle import PARTS
from adaptive_split.cli.tables import table
from adaptive_split.profile import MEDIANS, P95S, SPREADS, Profile

if TYPE_CHECKING:
    from adaptive_split.bundle import ModelBundle
    from adaptive_split.runtime.peaks import Peaks
    from adaptive_split.runtime.roofline import BundleWork

NO_ROOF = 1e8
"""GB/s that no operator waits for."""


def parts_table(profile: Profile) -> str:
    """A row for every part: median, 95th percentile and spread."""
    rows = [["part", "median ms", "p95 ms", "spread"]]
    for part, *names in zip(PARTS, MEDIANS, P95S, SPREADS, strict=True):
        columns = (getattr(profile, name) for name in names)
        for position, (middle, late, spread) in enumerate(zip(*columns, strict=True)):
            rows.append([
                _name(part, position + (part in ("stage", "exit"))),
                f"{1e3 * middle:.3f}", f"{1e3 * late:.3f}", f"{100 * spread:.0f} %",
            ])  # fmt: skip
    return table(rows)


def origin(profile: Profile) -> str:
    """Where the numbers come from, and the whole network's time."""
    threads = f"{profile.num_threads} thread(s), " if profile.num_threads else ""
    energy = f"energy {profile.energy_provenance}"
    if profile.compute_w:
        energy += f", {profile.compute_w:.2f} W while computing ({profile.energy_source})"
    return (
        f"{profile.machine}\n{profile.provider}, {threads}power mode {profile.power_mode}; "
        f"all stages and exits: {1e3 * profile.full_s:.1f} ms; "
        f"spread {100 * profile.spread:.0f} %; {energy}"
    )


def prediction_table(
    bundle: ModelBundle, work: BundleWork, measured: Profile, here: Peaks, there: Profile
) -> str:
    """A row for every graph: its work, three predictions of this machine, and the other machine.

    Args:
        bundle: The model.
        work: What was counted.
        measured: This machine's profile,
        here: and its peaks.
        there: The other machine's profile, predicted.
    """
    from adaptive_split.runtime.peaks import Peaks
    from adaptive_split.runtime.roofline import left_out, reached, time_coding, times

    coding = time_coding(bundle, measured)
    roofline = reached(work, measured, here, coding)
    flops_alone = reached(work, measured, Peaks(here.gflops, NO_ROOF), coding)
    shared = left_out(roofline)
    spent, elsewhere = times(measured), times(there)
    rows = [["graph", "MFLOP", "MB moved", "measured ms", "FLOPs alone", "roofline", "with shares",
             "there ms"]]  # fmt: skip
    for key, operators in work.items():
        ratios = (f"{ratio[key]:.2f}" for ratio in (flops_alone, roofline, shared))
        rows.append([
            _name(*key), f"{sum(one.flops for one in operators) / 1e6:.1f}",
            f"{sum(one.moved_bytes for one in operators) / 1e6:.2f}", f"{1e3 * spent[key]:.3f}",
            *ratios, f"{1e3 * elsewhere[key]:.3f}",
        ])  # fmt: skip
    errors = [
        f"{100 * median(abs(ratio - 1) for ratio in found.values()):.0f} %"
        for found in (flops_alone, roofline, shared)
    ]
    rows.append(["median error", "", "", "", *errors, ""])
    return (
        f"this machine at most: {here.gflops:.1f} GFLOP/s, {here.memory_gbps:.1f} GB/s; "
        "predicted over measured by FLOPs alone, by the roofline, and by\nthe share of the "
        f"roofline that the other graphs of its kind reach here:\n{table(rows)}"
    )


def _name(part: str, index: int) -> str:
    if part in ("stage", "exit"):
        return f"{part} {index}"
    return f"{part} at split {index}" if index else f"{part} of the picture"
