"""Finds the policy that a device's `--controller` names."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from adaptive_split.cli.common import shipped_controller
from adaptive_split.cli.controllers import find_knobs, shipped_training
from adaptive_split.errors import BundleError, ConfigError

if TYPE_CHECKING:
    from adaptive_split.candidates import CandidateTable
    from adaptive_split.runtime.controller import Policy
    from adaptive_split.runtime.controller_bundle import ControllerBundle
    from adaptive_split.scenario import Scenario

_log = logging.getLogger(__name__)


def choose_policy(name: str, scenario: Scenario, table: CandidateTable) -> Policy:
    """Find the controller; the distribution planner stands in for one that cannot be loaded.

    Raises:
        ConfigError: If it is unknown or cannot run on a device.
    """
    from adaptive_split.agents.roster import LEARNED, NAMES, SIMULATED_ONLY, make_policy

    if name in SIMULATED_ONLY:
        raise ConfigError(
            f"{name} must be simulated: it needs a future or a feedback that a device does not "
            "have; use 'adaptive-split compare'"
        )
    folder = Path(name)
    is_folder = name not in NAMES and (folder.exists() or "/" in name)
    learned, problem = load_if_sound(
        folder if is_folder else shipped_controller(scenario), scenario
    )
    wanted = LEARNED if is_folder else name
    if wanted == LEARNED and learned is None:
        _log.warning("%s; the distribution planner decides instead", problem)
        wanted = "distribution-planner"
    return make_policy(
        wanted, table, learned, find_knobs([wanted], scenario, learned, shipped_training)
    )


def load_if_sound(folder: Path, scenario: Scenario) -> tuple[ControllerBundle | None, str]:
    """Load a controller bundle; or say why it cannot be used here."""
    try:
        return load_learned(folder, scenario), ""
    except BundleError as error:
        return None, str(error)


def load_learned(folder: Path, scenario: Scenario) -> ControllerBundle:
    """Load a controller bundle for a scenario's model.

    Raises:
        BundleError: If it cannot be used.
    """
    from adaptive_split.runtime.controller_bundle import ControllerBundle

    learned = ControllerBundle.load(folder)
    learned.check_model(scenario.bundle)
    return learned
