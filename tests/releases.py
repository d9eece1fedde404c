"""Releases for tests: a key of this process, small signed controllers, settled frames."""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from adaptive_split.decision import NEVER, Decision
from adaptive_split.measurement import FrameReport
from adaptive_split.planner import BacklogPrices
from adaptive_split.runtime.controller_bundle import ControllerBundle
from adaptive_split.runtime.updates.keys import key_id
from adaptive_split.runtime.updates.signature import sign
from tests import support

KEY = Ed25519PrivateKey.generate()
TRUSTED = {key_id(KEY.public_key()): KEY.public_key()}


def write_controller(folder, kept=3, model_hash=support.HASH):
    """Write a controller bundle that keeps one decision."""
    ControllerBundle(
        weights=support.weights(), prices=BacklogPrices(), guard_candidate=kept, guard_margin=None,
        adapts=False, model_hash=model_hash, grid=support.GRID, tuned={}, provenance={},
    ).save(folder)  # fmt: skip
    return folder


def signed_controller(folder, version, **changes):
    """Write and sign one; give its folder and the name of the release."""
    write_controller(folder, **changes)
    return folder, sign(folder, KEY, version).name


def report(index=0, *, latency_s=0.06, reason="", by="server", confidence=0.8, **changes):
    """A settled frame that was promised 200 ms."""
    values = {
        "frame_index": index, "sample_index": 0, "arrival_s": index / 10,
        "decision": Decision(1, NEVER, 8), "answer": 0, "answered_by": by, "exit_index": 1,
        "confidence": confidence, "correct": True, "on_time": (latency_s or 9) <= 0.2,
        "fallback_reason": reason, "latency_s": latency_s, "utility": 0.8,
    }  # fmt: skip
    return FrameReport(**(values | changes))


def dropped(index=0):
    """A frame that never started."""
    return report(
        index, latency_s=None, by="", confidence=None, reason="dropped", decision=None,
        answer=None, exit_index=None, on_time=False, correct=False, utility=0.0,
    )  # fmt: skip
