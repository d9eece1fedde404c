"""What several commands share: arguments, where shipped things lie, progress on standard error."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptive_split.errors import BundleError, ConfigError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from adaptive_split.agents.cluster import RayCluster
    from adaptive_split.runtime.controller_bundle import ControllerBundle
    from adaptive_split.runtime.credentials import TlsFiles
    from adaptive_split.runtime.telemetry.endpoint import MetricsEndpoint
    from adaptive_split.scenario import Scenario
    from adaptive_split.trace import Trace

DATA = Path(__file__).parents[1] / "data"
SHIPPED_CONTROLLERS = DATA / "controllers"
SHIPPED_CONTROLLER = SHIPPED_CONTROLLERS / "default"
SHIPPED_PICTURES = DATA / "pictures"
METRICS_PORTS = {"device": 9464, "server": 9465}
"""Where each side serves its metrics unless told otherwise."""

LINE_EVERY_S = 10.0
"""Between lines of progress where there is no terminal."""

Commands = Any
"""What `add_subparsers` gives; argparse has no public name for it."""


def add_command(
    commands: Commands, name: str, help_text: str, description: str, example: str
) -> argparse.ArgumentParser:
    """Add a command whose help ends with an example."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=help_text,
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def add_controller_bundle(parser: argparse.ArgumentParser) -> None:
    """Add `--controller-bundle`."""
    parser.add_argument(
        "--controller-bundle", type=Path, metavar="DIR",
        help="controller bundle that is 'sac'; default: the shipped one",
    )  # fmt: skip


def load_controller(
    folder: Path | None, scenario: Scenario
) -> tuple[ControllerBundle | None, Path | None]:
    """Load the given controller, or the shipped one if it belongs to this model bundle.

    Shipped are controllers for the shipped scenarios, by name, and one for all others.

    Raises:
        BundleError: If it is damaged, or the given one is missing.
    """
    from adaptive_split.runtime.controller_bundle import ControllerBundle

    if folder is None:
        path = shipped_controller(scenario)
        if not path.is_dir():
            return None, None
        shipped = ControllerBundle.load(path)
        if shipped.model_hash != scenario.bundle.hash:
            say("the shipped controller belongs to another model bundle: planners go untuned")
            return None, None
        return shipped, path
    if not folder.is_dir():
        raise BundleError(f"a controller bundle must be a directory; got {folder}")
    return ControllerBundle.load(folder), folder


def refuse_beside(flag: str, others: Mapping[str, object]) -> None:
    """Refuse other flags, by name and whether they were given, that a flag would ignore."""
    if given := [name for name, value in others.items() if value]:
        raise ConfigError(f"{flag} must come without {', '.join(given)}; leave them out")


def shipped_controller(scenario: Scenario) -> Path:
    """The shipped controller for a scenario: its own, or the default one."""
    own = SHIPPED_CONTROLLERS / scenario.name
    return own if own.is_dir() else SHIPPED_CONTROLLER


def add_tls(parser: argparse.ArgumentParser, peer: str) -> None:
    """Add `--insecure` and the files of mutual TLS."""
    parser.add_argument("--insecure", action="store_true", help="plain text, for trusted links")
    group = parser.add_argument_group("mutual TLS", "PEM files; all three, or --insecure")
    group.add_argument("--ca", type=Path, metavar="FILE", help=f"who signed the {peer} certificate")
    group.add_argument("--certificate", type=Path, metavar="FILE", help="of this side")
    group.add_argument("--key", type=Path, metavar="FILE", help="of this side")


def tls_files(arguments: argparse.Namespace) -> TlsFiles | None:
    """The TLS files named, or none with `--insecure`.

    Raises:
        ConfigError: If neither all files nor `--insecure` were given, or both.
    """
    from adaptive_split.runtime.credentials import TlsFiles

    given = (arguments.ca, arguments.certificate, arguments.key)
    if arguments.insecure:
        if any(given):
            raise ConfigError("either --insecure or TLS files must be given; got both")
        return None
    if not all(given):
        raise ConfigError("--ca, --certificate and --key must be given; or say --insecure")
    return TlsFiles(ca=given[0], certificate=given[1], key=given[2])


def add_metrics(parser: argparse.ArgumentParser, side: str) -> None:
    """Add `--metrics-port` and `--metrics-host`."""
    default_port = METRICS_PORTS[side]
    group = parser.add_argument_group("metrics", f"what the {side} counts, as Prometheus reads it")
    group.add_argument(
        "--metrics-port", type=int, nargs="?", const=default_port, metavar="PORT",
        help=f"serve them over HTTP; 0 = a port that is free (without PORT: {default_port})",
    )  # fmt: skip
    group.add_argument(
        "--metrics-host", default="127.0.0.1", metavar="HOST",
        help="interface that listens; there is no password (default: %(default)s)",
    )  # fmt: skip


def metrics_endpoint(
    arguments: argparse.Namespace, registry: CollectorRegistry
) -> AbstractContextManager[MetricsEndpoint | None]:
    """The endpoint that `--metrics-port` asks for, or nothing without it."""
    from adaptive_split.runtime.telemetry.endpoint import MetricsEndpoint

    if arguments.metrics_port is None:
        return nullcontext()
    return MetricsEndpoint(registry, host=arguments.metrics_host, port=arguments.metrics_port)


def add_link(parser: argparse.ArgumentParser) -> None:
    """Add `--link`."""
    parser.add_argument(
        "--link", choices=("proxy", "namespaces"), default="proxy",
        help="how the live link plays a trace: a TCP proxy, or packet by packet between network "
        "namespaces, with losses and full queues as TCP feels them; needs root (default: proxy)",
    )  # fmt: skip


def add_ray(parser: argparse.ArgumentParser, what: str) -> None:
    """Add `--ray` and `--workers`."""
    parser.add_argument(
        "--ray", nargs="?", const="local", metavar="ADDRESS",
        help=f"spread {what} over a Ray cluster at host:port, or over processes of this machine "
        "where no address is given; the results are the same",
    )  # fmt: skip
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes on this machine with --ray (default: one per core)",
    )


def open_cluster(arguments: argparse.Namespace) -> AbstractContextManager[RayCluster | None]:
    """The cluster that `--ray` names, or nothing without it.

    Raises:
        ConfigError: If it cannot be used, or `--workers` says nothing to it.
    """
    num_workers = arguments.workers
    if num_workers is not None and (arguments.ray != "local" or num_workers < 1):
        raise ConfigError(
            "--workers must be at least 1 and come with --ray without an address; "
            f"got {num_workers}"
        )
    if arguments.ray is None:
        return nullcontext()
    from adaptive_split.agents.cluster import RayCluster

    return RayCluster(arguments.ray, num_workers)


def load_traces(folders: list[Path] | None, split: str) -> tuple[list[Trace], str]:
    """Read the traces of some folders, else the default ones of a split; say which they are."""
    from adaptive_split.trace import read_traces
    from adaptive_split.trace_sets import default_traces

    if not folders:
        return default_traces(split)
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"traces must be folders; got {folder}")
    traces = read_traces(folders)
    names = ", ".join(str(folder) for folder in folders)
    synthetic = sum(trace.source == "synthetic" for trace in traces)
    note = f", {synthetic} of them synthetic" if synthetic else ""
    return traces, f"Using {len(traces)} traces from {names}{note}."


def new_folder(path: Path) -> Path:
    """Make a folder that must not exist yet.

    Raises:
        ConfigError: If it exists or cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=False)
    except FileExistsError:
        raise ConfigError(
            f"--out must not exist yet; got {path}; name another or remove it"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"--out must be a folder that can be made; got {path}: {error}"
        ) from error
    return path


def say(line: str) -> None:
    """Tell a person something; standard output is for results."""
    print(line, file=sys.stderr, flush=True)


class Bars:
    """Progress per phase on standard error, with the time left: a bar, or a line now and then.

    Without a terminal, as in a log file, there is no bar, and a line at most every `LINE_EVERY_S`.
    """

    def __init__(
        self,
        unit: str = "step",
        *,
        hidden: bool = False,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._unit, self._hidden, self._now_s = unit, hidden, now_s
        self._bar: Any = None
        self._phase = ""
        self._first = 0
        self._began_s = self._line_s = now_s()

    def __enter__(self) -> Bars:
        """Return the bars themselves."""
        return self

    def __exit__(self, *_: object) -> None:
        """Finish the last bar."""
        self._finish()

    def __call__(self, phase: str, done: int, total: int) -> None:
        """Show that `done` of `total` steps of a phase are done."""
        fresh = phase != self._phase
        if fresh:
            self._finish()
            self._phase, self._first, self._began_s = phase, done, self._now_s()
        if self._hidden:
            return
        if not sys.stderr.isatty():
            self._line(done, total)
            return
        from tqdm import tqdm

        if fresh:
            self._bar = tqdm(
                total=total, desc=phase, unit=self._unit, file=sys.stderr, leave=False,
                bar_format="{desc:<28.28} {percentage:3.0f} % |{bar:24}| {remaining} left",
            )  # fmt: skip
        self._bar.total = total
        self._bar.update(done - self._bar.n)

    def note(self, line: str) -> None:
        """Write a line above the bar."""
        from tqdm import tqdm

        tqdm.write(line, file=sys.stderr)

    def _line(self, done: int, total: int) -> None:
        """Tell where the phase is, unless something was told a moment ago."""
        now_s = self._now_s()
        if now_s - self._line_s < LINE_EVERY_S:
            return
        self._line_s, left = now_s, "?"
        if done > self._first:
            each_s = (now_s - self._began_s) / (done - self._first)
            minutes, seconds = divmod(round(each_s * max(total - done, 0)), 60)
            left = f"{minutes:02d}:{seconds:02d}"
        say(f"{self._phase}: {100 * done / max(total, 1):.0f} %, {left} left")

    def _finish(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
