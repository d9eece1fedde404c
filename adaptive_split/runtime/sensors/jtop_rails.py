"""Power rails as jetson-stats tells them, where it is installed and its service runs.

It is not needed where `rails` finds the kernel's files. It helps in a container that shows the
service's socket and not those files. Tested against a stand-in only, never against the service.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from typing import Any

from adaptive_split.runtime.sensors.rails import Rail

_log = logging.getLogger(__name__)


def jtop_rails() -> dict[str, Rail]:
    """Every rail by name; none without jetson-stats or its service."""
    try:
        service = importlib.import_module("jtop").jtop()
        service.start()
        service.ok()  # waits for the first data
        names = list(_watts(service))
    except ImportError:
        return {}
    except Exception as error:  # its own classes, by version: no service, no right to its socket
        _log.info("jetson-stats is installed and does not answer: %s", error)
        return {}
    return {name: Rail(name, _reader(service, name)) for name in names}


def _reader(service: Any, name: str) -> Callable[[], float]:
    def read_w() -> float:
        try:
            return _watts(service)[name]
        except Exception as error:  # as above
            raise OSError(f"jetson-stats must tell {name}; got {error!r}") from error

    return read_w


def _watts(service: Any) -> dict[str, float]:
    """Rails in milliwatts; one that is the total stands apart, under its name."""
    told = service.power
    rails = dict(told["rail"])
    if "name" in told["tot"]:
        rails[told["tot"]["name"]] = told["tot"]
    return {name: rail["power"] / 1000 for name, rail in rails.items()}
