"""The controller bundle: `controller.npz` and a manifest, run by numpy alone."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adaptive_split import observation
from adaptive_split.bundle import ModelBundle
from adaptive_split.candidates import CandidateTable
from adaptive_split.decision import DecisionGrid
from adaptive_split.errors import BundleError, ConfigError
from adaptive_split.planner import BacklogPrices
from adaptive_split.runtime.controller import ForecastController, ForecastWeights

VERSION = 1
MANIFEST, WEIGHTS = "controller.json", "controller.npz"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ControllerBundle:
    """A trained controller and what it belongs to."""

    weights: ForecastWeights
    prices: BacklogPrices
    guard_candidate: int
    """The best static decision on the training traces."""
    guard_margin: float | None
    """By how much a decision must beat it; none = no guard."""
    adapts: bool = True
    """False where nothing can be won: that decision always, and no probes."""
    model_hash: str
    grid: DecisionGrid
    tuned: Mapping[str, Any]
    """Knobs of the planners picked on the same training traces."""
    provenance: Mapping[str, Any]
    """Scenario, traces, seed, frames, validation scores."""

    def controller(self, table: CandidateTable) -> ForecastController:
        """Build the controller for a table; the guard needs the grid it was trained with."""
        same = self.grid == table.grid
        return ForecastController(
            table,
            self.weights,
            self.prices,
            guard_candidate=self.guard_candidate if same and self.guard_margin else None,
            guard_margin=self.guard_margin or 0.0,
            kept=None if self.adapts or not same else self.guard_candidate,
        )

    def check_model(self, bundle: ModelBundle) -> None:
        """Refuse a model bundle other than the one the controller was trained with."""
        if bundle.hash != self.model_hash:
            raise BundleError(
                f"the controller was trained with model bundle {self.model_hash[:12]}; got "
                f"{bundle.hash[:12]}; train one for this bundle with 'adaptive-split train'"
            )

    def save(self, folder: Path) -> None:
        """Write both files.

        Raises:
            ConfigError: If the folder already exists.
        """
        if folder.exists():
            raise ConfigError(f"the controller's folder must not exist yet; got {folder}")
        staging = folder.with_name(folder.name + ".partial")
        if staging.exists():
            shutil.rmtree(staging)
        staging.mkdir(parents=True)
        weights = self.weights
        arrays = {
            f"{net}_{index}": layer
            for net in ("forecast", "residual")
            for index, layer in enumerate(getattr(weights, net))
        }
        arrays |= {
            name: getattr(weights, name)
            for name in ("context_mean", "context_scale", "payload_mean", "payload_scale")
        }
        np.savez(staging / WEIGHTS, **arrays)
        manifest = {
            "version": VERSION,
            "sha256": hashlib.sha256((staging / WEIGHTS).read_bytes()).hexdigest(),
            "observation": {
                "version": observation.VERSION,
                "context": [asdict(column) for column in observation.CONTEXT],
                "payload": [asdict(column) for column in observation.PAYLOAD_COLUMNS],
                "candidate": [asdict(column) for column in observation.CANDIDATE_COLUMNS],
            },
            "grid": asdict(self.grid),
            "prices": asdict(self.prices),
            "guard_candidate": self.guard_candidate,
            "guard_margin": self.guard_margin,
            "adapts": self.adapts,
            "model_hash": self.model_hash,
            "tuned": dict(self.tuned),
            "provenance": dict(self.provenance),
        }
        text = json.dumps(manifest, indent=1) + "\n"
        (staging / MANIFEST).write_text(text, encoding="utf-8")
        staging.rename(folder)

    @classmethod
    def load(cls, folder: Path) -> ControllerBundle:
        """Read and check a controller bundle.

        Raises:
            BundleError: If a file is missing or damaged, or the observation differs from this
                version's.
        """
        try:
            manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            blob = (folder / WEIGHTS).read_bytes()
        except FileNotFoundError as error:
            raise BundleError(f"a controller bundle must hold {error.filename}") from None
        except (OSError, ValueError) as error:
            raise BundleError(f"{folder / MANIFEST} must be readable: {error}") from error
        try:
            _check(folder, manifest, blob)
            with np.load(folder / WEIGHTS, allow_pickle=False) as data:
                layers = {
                    net: tuple(
                        data[f"{net}_{index}"]
                        for index in range(sum(name.startswith(net) for name in data.files))
                    )
                    for net in ("forecast", "residual")
                }
                weights = ForecastWeights(
                    context_mean=data["context_mean"],
                    context_scale=data["context_scale"],
                    payload_mean=data["payload_mean"],
                    payload_scale=data["payload_scale"],
                    forecast=layers["forecast"],
                    residual=layers["residual"],
                )
            _check_numbers(folder, weights)
            grid = manifest["grid"]
            return cls(
                weights=weights,
                prices=BacklogPrices(**manifest["prices"]),
                guard_candidate=int(manifest["guard_candidate"]),
                guard_margin=manifest["guard_margin"],
                adapts=bool(manifest.get("adapts", True)),
                model_hash=str(manifest["model_hash"]),
                grid=DecisionGrid(
                    int(grid["num_stages"]), tuple(grid["thresholds"]), tuple(grid["bits"])
                ),
                tuned=manifest["tuned"],
                provenance=manifest["provenance"],
            )
        except BundleError:
            raise
        # What the parts of a damaged bundle are refused with.
        except (KeyError, TypeError, AttributeError, ValueError, OSError) as error:
            raise BundleError(f"{folder} must be a whole controller bundle: {error!r}") from error


def _check_numbers(folder: Path, weights: ForecastWeights) -> None:
    means = (weights.context_mean, weights.context_scale)
    layers = (*means, weights.payload_mean, weights.payload_scale)
    if not all(np.isfinite(part).all() for part in layers + weights.forecast + weights.residual):
        raise BundleError(f"{folder / WEIGHTS} must hold finite numbers; train it again")


def _check(folder: Path, manifest: Mapping[str, Any], blob: bytes) -> None:
    if manifest["version"] != VERSION:
        raise BundleError(
            f"{folder}: a controller bundle must be of version {VERSION}; "
            f"got {manifest['version']!r}"
        )
    if hashlib.sha256(blob).hexdigest() != manifest["sha256"]:
        raise BundleError(f"{folder / WEIGHTS} must match its checksum; it is damaged")
    seen = manifest["observation"]
    names = [
        [column["name"] for column in seen[part]] for part in ("context", "payload", "candidate")
    ]
    ours = [
        [column.name for column in columns]
        for columns in (
            observation.CONTEXT, observation.PAYLOAD_COLUMNS, observation.CANDIDATE_COLUMNS
        )
    ]  # fmt: skip
    # Context of an older version is the beginning of this one's.
    ours[0] = ours[0][: len(names[0])]
    if not 1 <= seen["version"] <= observation.VERSION or names != ours:
        raise BundleError(
            f"{folder}: the controller must have been trained on this version's observation; "
            "train it again with 'adaptive-split train'"
        )
