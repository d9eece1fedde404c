"""Fit the link families that ship with the package, and show how near they come to the recordings.

    python experiments/fit_link_families.py DATA_DIR [--write]

`DATA_DIR` holds `index_traces.csv`, `traces/` and `rtt/`. Only rows of the split `train` are used,
and only parameters and quantiles are written (`adaptive_split/data/link_families.json`).
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import NormalDist

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from adaptive_split.link_model import (
    CELLULAR,
    FIVE_G,
    LTE,
    OUTAGE_MBPS,
    STARLINK,
    LinkProcess,
    guess_family,
)
from adaptive_split.trace_rtt import read_mecperf

HERE = Path(__file__).parent
TARGET = HERE.parent / "adaptive_split" / "data" / "link_families.json"
PERIOD_S = {CELLULAR: 0.5, STARLINK: 0.5, FIVE_G: 0.1}
RTT_PERIOD_S = {LTE: 0.05, CELLULAR: 0.2, STARLINK: 0.2, FIVE_G: 0.1}
TIME_CONSTANTS_S = {0.5: (0.5, 4.0, 40.0), 0.1: (0.2, 2.0, 20.0)}
# Where the search starts; that of 0.1 s is the end of an earlier search of another loss.
STARTS = {
    0.5: (0.5, -2.0, -1.0, 0.0, -2.0, 1.0, 0.0, 0.0),
    0.1: (-1.97, -4.0, -2.5, -0.27, -1.46, 1.74, -0.14, -4.1),
}
SEED = 20240527
PATH_S = 120.0
NUM_PATHS = {0.5: 500, 0.1: 400}
NUM_STEPS = {0.5: 500, 0.1: 150}
NUM_RTT_STEPS = 250
NUM_SHOWN = 3000

CDF = np.vectorize(NormalDist().cdf, otypes=[np.float64])

Paths = Sequence[NDArray[np.float64]]


def log_rate(rate_mbps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Decimal logarithm of a rate, with a floor of 0.05 Mbps."""
    return np.log10(np.maximum(rate_mbps, 0.05))


def identity(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The values themselves."""
    return values


def autocorrelation(
    paths: Paths, lag: int, scale: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> float:
    """Autocorrelation pooled over paths, about the mean of all of them; pairs with nan left out."""
    pooled = scale(np.concatenate(paths))
    mean, variance = np.nanmean(pooled), np.nanvar(pooled)
    products = [
        (scale(path)[lag:] - mean) * (scale(path)[:-lag] - mean)
        for path in paths
        if len(path) > lag
    ]
    return float(np.nanmean(np.concatenate(products)) / variance)


def mean_run(flags: Sequence[NDArray[np.bool_]]) -> float:
    """Mean number of rows in a row that are on."""
    starts = sum(int((np.diff(np.r_[0, flag.astype(int)]) == 1).sum()) for flag in flags)
    return sum(int(flag.sum()) for flag in flags) / max(starts, 1)


def rate_statistics(paths: Paths, period_s: float) -> dict[str, float]:
    """The statistics that the generator is held to."""
    pooled = np.concatenate(paths)
    out = [path < OUTAGE_MBPS for path in paths]
    p5, p50, p95 = np.percentile(pooled, [5, 50, 95])
    second = round(1 / period_s)
    return {
        "mean, Mbps": float(pooled.mean()),
        "p5, Mbps": float(p5),
        "p50, Mbps": float(p50),
        "p95, Mbps": float(p95),
        "acf of log rate, 1 s": autocorrelation(paths, second, log_rate),
        "acf of log rate, 10 s": autocorrelation(paths, 10 * second, log_rate),
        "acf of rate, 1 s": autocorrelation(paths, second, identity),
        "acf of rate, 10 s": autocorrelation(paths, 10 * second, identity),
        "share in outage": float((pooled < OUTAGE_MBPS).mean()),
        "mean outage, s": mean_run(out) * period_s,
    }


def rtt_statistics(paths: Paths, period_s: float) -> dict[str, float]:
    """The statistics of an RTT process; lost replies are left out of all but their share."""
    pooled = np.concatenate(paths)
    p5, p50, p95, p99 = np.nanpercentile(pooled, [5, 50, 95, 99]) * 1e3
    lost = [np.isnan(path) for path in paths]
    second = round(1 / period_s)
    return {
        "mean, ms": float(np.nanmean(pooled) * 1e3),
        "p5, ms": float(p5),
        "p50, ms": float(p50),
        "p95, ms": float(p95),
        "p99, ms": float(p99),
        "acf of log RTT, one period": autocorrelation(paths, 1, np.log10),
        "acf of log RTT, 0.5 s": autocorrelation(paths, max(second // 2, 1), np.log10),
        "share lost": float(np.isnan(pooled).mean()),
        "mean lost in a row": mean_run(lost),
    }


def with_quantiles(
    process: LinkProcess, values: NDArray[np.float64], jump: float | None
) -> LinkProcess:
    """The same process with the marginal of `values`.

    Args:
        process: Gives the distribution of the latent: a mixture of two normals.
        values: Sorted recorded values.
        jump: A value whose share below is kept exactly, by two knots close to each other.
    """
    dip = NormalDist(-process.dip_depth, math.hypot(1.0, process.dip_noise))
    fine = np.linspace(-3.4 * dip.stdev - process.dip_depth, 3.4, 801)
    below = (1 - process.dip_share) * CDF(fine) + process.dip_share * CDF(
        (fine - dip.mean) / dip.stdev
    )
    knots = fine[::4]
    value = np.interp(np.interp(knots, fine, below), np.linspace(0, 1, len(values)), values)
    if jump is not None:
        count = int(np.searchsorted(values, jump))
        edge = float(np.interp(count / len(values), below, fine))
        keep = np.abs(knots - edge) > 1e-3
        knots = np.r_[knots[keep], edge - 1e-4, edge + 1e-4]
        value = np.r_[value[keep], values[max(count - 1, 0)], values[count]]
        value[:-2] = np.where(knots[:-2] < edge, np.minimum(value[:-2], value[-2]), value[:-2])
        value[:-2] = np.where(knots[:-2] > edge, np.maximum(value[:-2], value[-1]), value[:-2])
        order = np.argsort(knots)
        knots, value = knots[order], value[order]
    return dataclasses.replace(process, latent=np.round(knots, 4), value=np.round(value, 5))


def draw(process: LinkProcess, seed: int, num_paths: int, num_rows: int) -> Paths:
    """Paths with evenly spread levels."""
    levels = np.array([NormalDist().inv_cdf((i + 0.5) / num_paths) for i in range(num_paths)])
    return list(process.sample(np.random.default_rng(seed), levels, num_rows))


def unpack(
    guess: NDArray[np.float64], period_s: float, constants_s: tuple[float, ...], dips: bool
) -> LinkProcess:
    """Free numbers to a process: a softmax of variance shares, then the dips."""
    num_shares = 1 + len(constants_s)
    weight = np.exp(guess[:num_shares] - guess[:num_shares].max())
    weight /= weight.sum()
    share, length_s, depth, noise = 0.0, period_s, 0.0, 0.0
    if dips:
        share = 0.3 / (1 + math.exp(-guess[num_shares]))
        length_s = period_s * (1 + math.exp(guess[num_shares + 1]))
        depth = 4.0 / (1 + math.exp(-guess[num_shares + 2]))
        noise = 2.0 / (1 + math.exp(-guess[num_shares + 3]))
    return LinkProcess(
        period_s=period_s,
        level_share=float(weight[0]),
        time_constants_s=constants_s,
        shares=tuple(float(part) for part in weight[1:]),
        dip_share=share,
        dip_length_s=length_s,
        dip_depth=depth,
        dip_noise=noise,
        latent=np.zeros(1),
        value=np.zeros(1),
    )


def search(
    start: NDArray[np.float64], loss: Callable[[NDArray[np.float64]], float], num_steps: int
) -> NDArray[np.float64]:
    """Random local search: a step that helps is kept, and steps shrink."""
    rng = np.random.default_rng(SEED)
    best, best_loss, width = start, loss(start), 0.6
    for _ in range(num_steps):
        trial = best + width * rng.standard_normal(len(start)) * (rng.random(len(start)) < 0.5)
        trial_loss = loss(trial)
        if trial_loss < best_loss:
            best, best_loss, width = trial, trial_loss, min(width * 1.3, 1.0)
        else:
            width = max(width * 0.985, 0.04)
    return best


def fit_rate(paths: Paths, period_s: float, num_steps: int) -> LinkProcess:
    """Fit a rate process: search the shares and the dips for the statistics of the recordings."""
    target = rate_statistics(paths, period_s)
    values = np.sort(np.concatenate(paths))
    held = [name for name in target if name.startswith("acf")] + ["mean outage, s"]
    lag_target = autocorrelation(paths, 1, identity)
    constants_s = TIME_CONSTANTS_S[period_s]

    def loss(guess: NDArray[np.float64]) -> float:
        process = with_quantiles(unpack(guess, period_s, constants_s, True), values, OUTAGE_MBPS)
        drawn = draw(process, SEED, NUM_PATHS[period_s], round(PATH_S / period_s))
        got = rate_statistics(drawn, period_s)
        errors = [(got[name] / target[name] - 1) / 0.1 for name in held]
        errors.append((autocorrelation(drawn, 1, identity) / lag_target - 1) / 0.1)
        # The fourth power minds the worst error most: all of them are to stay within 10 %.
        return float(np.power(errors, 4).sum())

    best = search(np.array(STARTS[period_s]), loss, num_steps)
    return with_quantiles(unpack(best, period_s, constants_s, True), values, OUTAGE_MBPS)


def fit_rtt(paths: Paths, period_s: float, num_steps: int, tie: float) -> LinkProcess:
    """Fit an RTT process: shares for the autocorrelation of its logarithm, a chain for losses."""
    lags = [
        lag
        for lag in (1, *(round(lag_s / period_s) for lag_s in (0.5, 1.0, 5.0)))
        if sum(len(path) > 2 * lag for path in paths) > len(paths) / 2
    ]
    target = np.array([autocorrelation(paths, lag, np.log10) for lag in lags])
    values = np.sort(np.concatenate(paths))
    values = values[np.isfinite(values)]
    constants_s = (0.05, 0.5, 8.0)

    def loss(guess: NDArray[np.float64]) -> float:
        process = with_quantiles(unpack(guess, period_s, constants_s, False), values, None)
        drawn = draw(process, SEED, 160, round(30 / period_s))
        got = np.array([autocorrelation(drawn, lag, np.log10) for lag in lags])
        return float(np.square((got - target) / (0.05 + 0.1 * np.abs(target))).sum())

    best = search(np.array([0.0, 0.0, 0.0, 0.0]), loss, num_steps)
    process = with_quantiles(unpack(best, period_s, constants_s, False), values, None)
    lost = [np.isnan(path) for path in paths]
    return dataclasses.replace(
        process,
        loss_share=round(float(np.concatenate(lost).mean()), 6),
        loss_length=round(max(mean_run(lost), 1.0), 4),
        rate_level_correlation=round(tie, 3),
    )


def read_column(path: Path) -> NDArray[np.float64]:
    """The second column of a CSV; nan where it is empty."""
    with path.open() as file:
        return np.array([float(row[1] or "nan") for row in list(csv.reader(file))[1:]])


def read_recordings(data_dir: Path) -> tuple[dict[str, Paths], dict[str, Paths], dict[str, float]]:
    """Rates by family, RTTs by family, and how their levels are tied within a run."""
    rates: dict[str, list[NDArray[np.float64]]] = {}
    rtts: dict[str, list[NDArray[np.float64]]] = {}
    runs: dict[str, dict[str, dict[str, float]]] = {}
    with (data_dir / "index_traces.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        kind, source = row["file"].split("/")[0], row["source"]
        if row["split"] != "train" or not source.startswith("nuwins") or kind == "traces_down":
            continue
        family = guess_family(source, Path(row["file"]).stem)
        column = read_column(data_dir / row["file"])
        run = runs.setdefault(family, {}).setdefault(row["run_id"], {})
        if kind == "rtt":
            rtts.setdefault(family, []).append(column / 1e3)
            run["rtt"] = float(np.nanmedian(column))
        elif float(row["duration_s"]) >= 12:
            rates.setdefault(family, []).append(column)
            run["rate"] = float(np.median(column))
    segments = read_mecperf(data_dir / "rtt" / "mecperf" / "rtt_ms.csv.gz")
    rtts[LTE] = [segment.rtt_s for segment in segments]
    ties = {LTE: 0.0, FIVE_G: 0.0}
    for family in (CELLULAR, STARLINK):
        both = [run for run in runs[family].values() if len(run) == 2]
        pairs = np.array([(run["rate"], run["rtt"]) for run in both])
        ranks: NDArray[np.int64] = pairs.argsort(axis=0).argsort(axis=0)
        ties[family] = 2 * math.sin(math.pi / 6 * float(np.atleast_2d(np.corrcoef(ranks.T))[0, 1]))
    return dict(rates), dict(rtts), ties


def print_table(title: str, recorded: dict[str, float], synthetic: dict[str, float]) -> None:
    """Recorded beside synthetic, and the difference."""
    print(f"\n{title}\n{'':28} {'recorded':>10} {'synthetic':>10} {'error':>8}")
    for name, value in recorded.items():
        error = f"{synthetic[name] / value - 1:+8.1%}" if value else f"{'':>8}"
        print(f"{name:28} {value:10.4g} {synthetic[name]:10.4g} {error}")


def draw_figure(rates: dict[str, Paths], processes: dict[str, LinkProcess], path: Path) -> None:
    """Distribution, autocorrelation and one path of every family."""
    figure, axes = plt.subplots(len(processes), 3, figsize=(12, 2.6 * len(processes)))
    for row, (family, process) in zip(axes, processes.items(), strict=True):
        drawn = draw(process, 1, 200, round(PATH_S / process.period_s))
        lags = np.unique(np.geomspace(1, 30 / process.period_s, 25).astype(int))
        for label, paths in (("recorded", rates[family]), ("synthetic", drawn)):
            row[0].plot(
                np.quantile(np.concatenate(paths), np.linspace(0, 1, 400)),
                np.linspace(0, 1, 400),
                label=label,
            )
            row[1].plot(
                lags * process.period_s,
                [autocorrelation(paths, int(lag), log_rate) for lag in lags],
                label=label,
            )
        row[0].set(xscale="symlog", xlabel="uplink, Mbps", ylabel=f"{family}\nshare below")
        row[1].set(xscale="log", xlabel="lag, s", ylabel="autocorrelation of log rate", ylim=(0, 1))
        row[2].plot(np.arange(len(drawn[90])) * process.period_s, drawn[90], lw=0.7, color="C1")
        row[2].set(xlabel="time, s", ylabel="one synthetic path, Mbps")
        row[0].legend(frameon=False)
    figure.tight_layout()
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


def as_json(process: LinkProcess) -> dict[str, object]:
    """Fields of a process as JSON holds them."""
    fields = dataclasses.asdict(process)
    for name, value in fields.items():
        if isinstance(value, np.ndarray):
            fields[name] = value.tolist()
        elif isinstance(value, tuple):
            fields[name] = [round(part, 5) for part in value]
        elif isinstance(value, float):
            fields[name] = round(value, 5)
    return fields


def main() -> None:
    """Fit, print the tables, draw the figure, and write the parameters if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--write", action="store_true", help="write the package's parameters")
    arguments = parser.parse_args()
    rates, rtts, ties = read_recordings(arguments.data_dir)
    fitted: dict[str, dict[str, LinkProcess]] = {"rate": {}, "rtt": {}}
    for family, period_s in PERIOD_S.items():
        process = fit_rate(rates[family], period_s, NUM_STEPS[period_s])
        fitted["rate"][family] = process
        drawn = draw(process, 1, NUM_SHOWN, round(PATH_S / period_s))
        real = rate_statistics(rates[family], period_s)
        counts = f"{len(rates[family])} recordings, {NUM_SHOWN} x {PATH_S:.0f} s synthetic"
        title = f"{family}, rate ({counts})"
        print_table(title, real, rate_statistics(drawn, period_s))
    for family, period_s in RTT_PERIOD_S.items():
        process = fit_rtt(rtts[family], period_s, NUM_RTT_STEPS, ties[family])
        fitted["rtt"][family] = process
        drawn = draw(process, 1, 400, round(30 / period_s))
        real = rtt_statistics(rtts[family], period_s)
        title = f"{family}, RTT ({len(rtts[family])} recordings), tie to rate {ties[family]:+.2f}"
        print_table(title, real, rtt_statistics(drawn, period_s))
    draw_figure(rates, fitted["rate"], HERE / "figures" / "link_families.svg")
    if arguments.write:
        content = {
            kind: {family: as_json(process) for family, process in processes.items()}
            for kind, processes in fitted.items()
        }
        TARGET.write_text(json.dumps({"version": 1, **content}) + "\n", encoding="utf-8")
        print(f"\nwrote {TARGET}")


if __name__ == "__main__":
    main()
