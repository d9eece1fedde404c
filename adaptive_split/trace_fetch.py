"""Bring recordings from their authors' public repositories, at fixed commits, and convert them."""

from __future__ import annotations

import csv
import hashlib
import http.client
import json
import os
import re
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from adaptive_split.errors import ConfigError, LinkError, TraceError
from adaptive_split.trace import read_trace

BASE_URL = "https://codeload.github.com"
MAX_ARCHIVE_BYTES = 512 * 2**20
MAX_EXTRACTED_BYTES = 2**30
MAX_FILES = 20_000

_CHUNK_BYTES = 2**20
_TIMEOUT_S = 60.0
_MAINE = re.compile(
    r"(?P<operator>att|verizon|starlink)/(?P<day>\d{8})/\d{9}/"
    r"(?:(?P<protocol>tcp|udp)_uplink_(?P<start>\d{9})\.csv|ping_(?P<ping>\d{9})\.out)"
)
_PING_REPLY = re.compile(r"icmp_seq=(\d+) .*time=([\d.]+) ms")
_PING_COUNT = re.compile(r"(\d+) packets transmitted")
# On this day UDP was measured by iperf3 at the sender, which says nothing about the link.
_MAINE_SENDER_SIDE = ("20240527", "udp")
_MAINE_PERIOD_S, _MAINE_PING_PERIOD_S, _MAINE_MIN_ROWS = 0.5, 0.2, 120
_MEMU_PERIOD_S = 0.1
_MEMU_RUN = re.compile(r"Run\s+(\d+)")

Progress = Callable[[int, "int | None"], None]
"""Called with the bytes received and the bytes expected (None = unknown)."""


@dataclass(frozen=True, slots=True)
class Source:
    """A public repository that holds recordings."""

    repository: str
    commit: str
    folder: str
    """The part of the repository that is kept."""
    endings: tuple[str, ...]
    """The files that are kept."""
    family: str
    """Name of the folder of the converted traces."""
    license: str
    citation: str
    note: str = ""
    """What has to be known about the conversion."""


SOURCES = {
    "mahimahi": Source(
        repository="ravinet/mahimahi",
        commit="ae477d437615b972217498ba52be07db17a15618",
        folder="traces",
        endings=(".up", ".pps", "README", "README.md"),
        family="mahimahi",
        license="GPL-3.0 (the repository's)",
        citation="Winstein, Sivaraman, Balakrishnan, NSDI 2013",
    ),
    "maine": Source(
        repository="NUWiNS/starlink-measurement",
        commit="4beb9fa12ef44401a87285691d1963452994bf21",
        folder="datasets/maine_starlink_trip",
        endings=(".csv", ".out"),
        family="nuwins_maine2024",
        license="none stated: do not redistribute",
        citation="NUWiNS, Northeastern University, starlink-measurement",
        note="nuttcp receiver reports: row index x 0.5 s; pings: sequence number x 0.2 s",
    ),
    "5gmemu": Source(
        repository="NUWiNS/sigcomm-5gmemu-5g-mmWave-uplink-data",
        commit="255526a8b067347377016e825090c02ff0fa1315",
        folder="",
        endings=(".list", "README.md"),
        family="nuwins_5gmemu2022",
        license="none stated: do not redistribute",
        citation="Ghoshal et al., 5G-MeMU 2022",
        note="the period of 0.1 s is inferred, it is not written in the files converted",
    ),
}


@dataclass(frozen=True, slots=True)
class Fetched:
    """What `fetch` brought; also written to `fetched.json`."""

    url: str
    sha256: str
    """Of the archive as received."""
    num_bytes: int
    license: str
    citation: str
    note: str
    traces: tuple[str, ...]
    """Converted rates, below `traces/<family>/`."""
    rtts: tuple[str, ...]
    """Converted pings, below `rtt/<family>/`."""
    left_raw: tuple[str, ...]
    """Files of the measurement that were kept below `raw/` only, and why."""


def fetch(
    name: str, out_dir: Path, base_url: str | None = None, progress: Progress | None = None
) -> Fetched:
    """Download a source to `out_dir/<name>/`: `raw/`, `traces/<family>/`, `rtt/<family>/`.

    The folder appears complete or not at all. Read the result with
    `read_traces([out_dir / name / "traces"])`.

    Args:
        name: One of `SOURCES`.
        out_dir: Made if missing; must not hold `<name>` yet.
        base_url: Where `/OWNER/REPOSITORY/tar.gz/COMMIT` is served; None = GitHub.
        progress: Called as bytes arrive.

    Raises:
        ConfigError: If the source is unknown, the URL is not http(s), or the folder exists.
        LinkError: If the server cannot be reached or refuses.
        TraceError: If the archive is too large, damaged, or unsafe.
    """
    if name not in SOURCES:
        raise ConfigError(f"name must be one of {sorted(SOURCES)}; got {name!r}")
    source, target = SOURCES[name], Path(out_dir) / name
    url = f"{(base_url or BASE_URL).rstrip('/')}/{source.repository}/tar.gz/{source.commit}"
    if not url.startswith(("https://", "http://")):
        raise ConfigError(f"base_url must be http or https; got {base_url!r}")
    if target.exists():
        raise ConfigError(f"{target} must not exist yet; remove it to fetch again")
    Path(out_dir).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=out_dir) as temporary:
        work = Path(temporary)
        sha256, num_bytes = _download(url, work / "archive.tar.gz", progress)
        result = work / "result"
        _extract(work / "archive.tar.gz", result / "raw", source)
        traces, rtts, left_raw = _CONVERTERS[name](result, source)
        fetched = Fetched(
            url, sha256, num_bytes, source.license, source.citation, source.note,
            tuple(sorted(traces)), tuple(sorted(rtts)), tuple(sorted(left_raw)),
        )  # fmt: skip
        text = json.dumps(asdict(fetched), indent=2) + "\n"
        (result / "fetched.json").write_text(text, encoding="utf-8")
        try:
            os.rename(result, target)
        except OSError as error:
            raise ConfigError(f"{target} must not exist yet; got {error}") from error
    return fetched


def _download(url: str, path: Path, progress: Progress | None) -> tuple[str, int]:
    digest, received = hashlib.sha256(), 0
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as reply, path.open("wb") as file:
            announced = reply.headers.get("Content-Length")
            expected = int(announced) if announced and announced.isdigit() else None
            while chunk := reply.read(_CHUNK_BYTES):
                received += len(chunk)
                if received > MAX_ARCHIVE_BYTES:
                    raise TraceError(f"{url} must hold at most {MAX_ARCHIVE_BYTES} bytes; got more")
                digest.update(chunk)
                file.write(chunk)
                if progress is not None:
                    progress(received, expected)
    except urllib.error.HTTPError as error:
        error.close()
        raise LinkError(f"{url} must be served; got {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        raise LinkError(f"{url} must be reachable; got {error}") from error
    if expected is not None and received != expected:
        raise LinkError(f"{url} must arrive whole, {expected} bytes; got {received}")
    return digest.hexdigest(), received


def _extract(archive: Path, folder: Path, source: Source) -> None:
    """Write the regular files that are wanted, without the archive's first folder.

    Links, devices and modes are never taken over: names and bytes only.
    """
    num_files = num_bytes = 0
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                parts = PurePosixPath(member.name).parts
                if member.name.startswith("/") or ".." in parts or "\\" in member.name:
                    raise TraceError(f"archive must hold relative paths only; got {member.name!r}")
                inner = PurePosixPath(*parts[1:])
                wanted = inner.is_relative_to(source.folder) and inner.name.endswith(source.endings)
                if not (member.isreg() and wanted):
                    continue
                num_files, num_bytes = num_files + 1, num_bytes + member.size
                if num_files > MAX_FILES or num_bytes > MAX_EXTRACTED_BYTES:
                    raise TraceError(
                        f"archive must hold at most {MAX_FILES} files and {MAX_EXTRACTED_BYTES}"
                        f" bytes; got {num_files} and {num_bytes}"
                    )
                content = tar.extractfile(member)
                assert content is not None  # a regular file
                target = folder / inner
                target.parent.mkdir(parents=True, exist_ok=True)
                with content, target.open("wb") as file:
                    shutil.copyfileobj(content, file)
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise TraceError(f"archive must be a whole tar.gz; got {error}") from error
    if num_files == 0:
        raise TraceError(
            f"archive must hold {source.folder or 'files'} of {source.repository}; got none"
        )


Converted = tuple[list[str], list[str], list[str]]


def _write_rows(path: Path, header: str, period_s: float, cells: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [f"{index * period_s:.10g},{cell}" for index, cell in enumerate(cells)]
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")


def _convert_mahimahi(result: Path, source: Source) -> Converted:
    """Opportunities of 1500 bytes, in bins of 100 ms."""
    traces, left_raw = [], []
    for path in sorted((result / "raw").rglob("*")):
        if path.suffix not in (".up", ".pps") or path.name.endswith("down.pps"):
            continue
        target = result / "traces" / source.family / f"{path.stem}.csv"
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            trace = read_trace(path)
        except TraceError as error:
            left_raw.append(f"{path.name}: {str(error).rpartition(': ')[2]}")
            continue
        # No RTT was recorded: none is written, so that whoever reads it says where its RTT is from.
        _write_rows(
            target, "time_s,uplink_mbps", 0.1, [f"{rate:.10g}" for rate in trace.uplink_mbps]
        )
        traces.append(target.name)
    return traces, [], left_raw


def _convert_maine(result: Path, source: Source) -> Converted:
    """Receiver reports of nuttcp and logs of ping."""
    traces, rtts, left_raw = [], [], []
    root = result / "raw" / source.folder
    for path in sorted(root.rglob("*")):
        inner = path.relative_to(root).as_posix()
        found = _MAINE.fullmatch(inner)
        if found is None:
            continue
        if found["ping"]:
            name = f"{found['operator']}_{found['day']}_{found['ping']}.csv"
            cells = _ping_cells(path)
            if len(cells) < 2:
                left_raw.append(f"{inner}: holds no pings")
                continue
            _write_rows(
                result / "rtt" / source.family / name, "time_s,rtt_ms", _MAINE_PING_PERIOD_S, cells
            )
            rtts.append(name)
            continue
        name = f"{found['operator']}_{found['protocol']}_{found['day']}_{found['start']}.csv"
        if (found["day"], found["protocol"]) == _MAINE_SENDER_SIDE:
            left_raw.append(f"{inner}: rates of the sender, not of the receiver")
            continue
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            rows = list(csv.reader(file))
        if not rows or rows[0][:2] != ["time", "throughput_mbps"]:
            left_raw.append(f"{inner}: header is not time,throughput_mbps")
        elif len(rows) - 1 < _MAINE_MIN_ROWS:
            left_raw.append(f"{inner}: shorter than 60 s")
        else:
            target = result / "traces" / source.family / name
            cells = [row[1] if len(row) > 1 else "" for row in rows[1:]]
            if _keep_if_sound(target, cells, _MAINE_PERIOD_S, left_raw, inner):
                traces.append(name)
    return traces, rtts, left_raw


def _ping_cells(path: Path) -> list[str]:
    """RTTs in ms in the order they were sent; empty = no reply."""
    text = path.read_text(encoding="utf-8", errors="replace")
    replies = {int(number): rtt_ms for number, rtt_ms in _PING_REPLY.findall(text)}
    sent = _PING_COUNT.search(text)
    count = int(sent[1]) if sent else max(replies, default=0)
    return [replies.get(number, "") for number in range(1, min(count, 100_000) + 1)]


def _convert_memu(result: Path, source: Source) -> Converted:
    """Lists with one line of numbers to each run; those with a grid and two legs stay raw."""
    traces, rtts, left_raw = [], [], []
    root = result / "raw"
    for path in sorted(root.rglob("*.list")):
        inner = path.relative_to(root)
        if len(inner.parts) != 4 or inner.parts[0] not in ("throughput", "ping"):
            left_raw.append(f"{inner.as_posix()}: not where the README puts lists")
            continue
        kind, mobility, technology, file = inner.parts
        runs = _memu_runs(path)
        if not runs or any(len(lines) != 1 for lines in runs.values()):
            left_raw.append(
                f"{inner.as_posix()}: several lines to a run (a grid and two radio legs)"
            )
            continue
        place = re.sub(r"_mac_tput|_mobile|\.list", "", file).removeprefix(f"{mobility}_")
        conditions = f"{mobility}_{technology}" + (f"_{place}" if place != kind else "")
        for run, lines in runs.items():
            name = f"{conditions}_run{run:02d}.csv"
            cells = lines[0].split(",")
            target = result / ("rtt" if kind == "ping" else "traces") / source.family / name
            if target.exists():
                left_raw.append(f"{inner.as_posix()}: run {run} is named as one of another list")
            elif kind == "ping":
                _write_rows(target, "time_s,rtt_ms", _MEMU_PERIOD_S, cells)
                rtts.append(name)
            elif _keep_if_sound(
                target, cells, _MEMU_PERIOD_S, left_raw, f"{inner.as_posix()} run {run}"
            ):
                traces.append(name)
    return traces, rtts, left_raw


def _memu_runs(path: Path) -> dict[int, list[str]]:
    runs: dict[int, list[str]] = {}
    number = 0
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if head := _MEMU_RUN.match(line):
            number = int(head[1])
            runs[number] = []
        elif line.strip() and not line.startswith("#") and number in runs:
            runs[number].append(line.strip())
    return runs


def _keep_if_sound(
    target: Path, cells: list[str], period_s: float, left_raw: list[str], inner: str
) -> bool:
    """Write a rate, unless it holds what is no rate."""
    try:
        rate = np.array(cells, np.float64)
    except ValueError:
        rate = np.full(1, np.nan)
    if len(rate) < 2 or not (np.isfinite(rate) & (rate >= 0)).all():
        left_raw.append(f"{inner}: holds what is not a rate")
        return False
    _write_rows(target, "time_s,uplink_mbps", period_s, cells)
    return True


_CONVERTERS: dict[str, Callable[[Path, Source], Converted]] = {
    "mahimahi": _convert_mahimahi,
    "maine": _convert_maine,
    "5gmemu": _convert_memu,
}
