"""Learn in situ: go on training a controller from recorded frames, and ship it only if it is safe.

The gate asks twice. In the simulator, on the validation streams, the new weights may lose no more
than `VALIDATION_SLACK`: what was learnt before is not to be forgotten. On the recorded frames that
were held out, the estimate of `off_policy` may lie below the old policy's by half its interval at
most, and by no more than `LOG_SLACK`: a short log with a wide interval is no excuse for a loss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from adaptive_split.agents.continued import ContinuedConfig, continue_training
from adaptive_split.agents.evaluate import mean_utility
from adaptive_split.agents.log_frames import LogFrames
from adaptive_split.agents.log_labels import payload_on_time
from adaptive_split.agents.off_policy import Judged, judge
from adaptive_split.agents.sac import UNKNOWN
from adaptive_split.candidates import CandidateTable
from adaptive_split.errors import BundleError, ConfigError
from adaptive_split.runtime.controller import ForecastWeights
from adaptive_split.runtime.controller_bundle import ControllerBundle
from adaptive_split.runtime.simulated.streams import Stream
from adaptive_split.scenario import Scenario
from adaptive_split.trace import Trace

LOG_SLACK = 0.002
"""Fall of the estimate, at most half its interval, that may be luck. Validation has none: both
controllers play the same streams."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether new weights may replace the deployed ones."""

    old_validation: float
    new_validation: float
    judged: Judged

    @property
    def reasons(self) -> tuple[str, ...]:
        """What speaks against them, in words; nothing = they may."""
        gain, found = self.judged.gain, []
        lost = self.old_validation - self.new_validation
        if lost > 0:
            found.append(f"the validation utility must not fall; it fell by {lost:.2g}")
        allowed = min((gain.high - gain.low) / 2, LOG_SLACK)
        if gain.value < -allowed:
            found.append(
                f"the estimate on held-out frames must fall by at most {allowed:.4f}; it fell by "
                f"{-gain.value:.4f}"
            )
        return tuple(found)

    @property
    def passes(self) -> bool:
        """Whether nothing speaks against them."""
        return not self.reasons


@dataclass(frozen=True, slots=True, eq=False)
class Learned:
    """A continued controller, what it learnt from and whether it may be shipped."""

    bundle: ControllerBundle
    verdict: Verdict
    num_learnt: int
    """Recorded frames that it was trained on."""
    num_held_out: int


def check_controller(bundle: ControllerBundle, scenario: Scenario) -> None:
    """Refuse a controller that cannot be continued in a scenario.

    Raises:
        BundleError: If it belongs to another model bundle or grid, or has nothing to learn.
    """
    bundle.check_model(scenario.bundle)
    if bundle.grid != scenario.grid:
        raise BundleError(
            "the controller must have been trained with the scenario's decision grid; got "
            f"{bundle.grid}; name the scenario that it was trained for"
        )
    if not bundle.adapts:
        raise BundleError(
            "the controller must be one that adapts; it keeps one decision, which no log changes; "
            "train one with 'adaptive-split train'"
        )


def learn_from_logs(
    bundle: ControllerBundle,
    scenario: Scenario,
    log: LogFrames,
    traces: Sequence[Trace],
    streams: Sequence[Stream],
    config: ContinuedConfig,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Learned:
    """Continue a controller on the first part of a log and judge it on the rest.

    Args:
        bundle: The deployed controller; prices and guard stay.
        scenario: Where it is deployed.
        log: Recorded frames; see `log_frames.read_logs`.
        traces: Training traces, to rehearse in the simulator.
        streams: Validation streams of the scenario.
        config: How long to train, and the seed.
        progress: Called with `(frames done, frames in all)`.

    Raises:
        ConfigError: If no frame to learn from was sent.
    """
    table = scenario.table("policy")
    learning, held_out = log.halves()
    labels = payload_on_time(learning, table)
    telling = (labels != UNKNOWN).any(1)
    if not telling.any():
        raise ConfigError(
            "records must hold frames that were sent to a server; got none to learn from; record "
            "a longer run"
        )
    weights = continue_training(
        bundle.weights, scenario, traces, bundle.prices, learning.observation[telling],
        labels[telling], config, progress,
    )  # fmt: skip
    verdict = weigh(bundle, weights, table, held_out, streams)
    told = {"config": asdict(config), "frames": len(learning), "verdict": _plain(verdict)}
    # Learned on from weights that were scaled by their trust: it is part of them now.
    provenance = {**bundle.provenance, "trust": 1.0, "from_logs": told}
    continued = replace(bundle, weights=weights, provenance=provenance)
    return Learned(continued, verdict, int(telling.sum()), len(held_out))


def weigh(
    bundle: ControllerBundle,
    weights: ForecastWeights,
    table: CandidateTable,
    held_out: LogFrames,
    streams: Sequence[Stream],
) -> Verdict:
    """Compare new weights with the deployed ones, in the simulator and on held-out frames."""
    old = bundle.controller(table)
    new = replace(bundle, weights=weights).controller(table)
    judged = judge(held_out, payload_on_time(held_out, table), old, new)
    return Verdict(mean_utility(old, table, streams), mean_utility(new, table, streams), judged)


def _plain(verdict: Verdict) -> dict[str, Any]:
    """A verdict as numbers."""
    judged = verdict.judged
    return {
        "validation": [verdict.old_validation, verdict.new_validation],
        **{name: getattr(judged, name).to_json() for name in ("old", "new", "gain")},
        "agreement": round(judged.agreement, 4),
    }
