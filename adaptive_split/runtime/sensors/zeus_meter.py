"""Joules as Zeus counts them, where it is installed: any system on a chip that it knows.

On a Jetson it is the last choice: it finds no total on AGX boards, and samples ten times a second
without a trapezoid. Tested against a stand-in only, never against Zeus.
"""

from __future__ import annotations

import importlib
import logging
from typing import Any

_log = logging.getLogger(__name__)


class ZeusMeter:
    """The total of Zeus' system on a chip; see `EnergyMeter`."""

    source = "Zeus: the chip's total"
    with_carrier = False

    def __init__(self, chip: Any) -> None:
        """Take what Zeus found.

        Raises:
            OSError: If it has no total.
        """
        self._chip = chip
        self._before_j = 0.0
        self._before_j = self.energy_j()

    def energy_j(self) -> float:
        """Joules since the meter was made.

        Raises:
            OSError: If Zeus does not tell.
        """
        try:
            total_mj = self._chip.get_total_energy_consumption().total_energy_mj
            return float(total_mj) / 1000 - self._before_j
        except Exception as error:  # it asks a process of its own, which may be gone
            raise OSError(f"Zeus must tell a total; got {error!r}") from error

    def close(self) -> None:
        """Leave Zeus running; it ends with this process."""


def find_zeus() -> ZeusMeter | None:
    """Zeus' meter; none without Zeus or a chip that it knows."""
    try:
        return ZeusMeter(importlib.import_module("zeus.device.soc").get_soc())
    except ImportError:
        return None
    except Exception as error:  # its own classes for a chip it does not know
        _log.info("Zeus is installed and does not answer: %s", error)
        return None
