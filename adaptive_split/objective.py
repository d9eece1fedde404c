"""What a user promises and pays for: the objective and the utility of a frame."""

from __future__ import annotations

from dataclasses import dataclass

from adaptive_split.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Objective:
    """The latency promised, the frame rate and the prices.

    `utility = 1[correct and on time] - energy_price * joules - byte_price * megabytes`
    """

    slo_s: float = 0.200
    """The latency promised, capture to answer; a frame's deadline is its arrival plus this."""

    fps: float = 30.0
    """Frames per second that the camera delivers."""

    energy_price: float = 0.05
    """Utility lost per joule drawn by the device, in 1/J."""

    byte_price: float = 0.0
    """Utility lost per megabyte (10^6 bytes) sent, in 1/MB."""

    def __post_init__(self) -> None:
        """Refuse what could not be run."""
        if not 0.005 <= self.slo_s <= 10:
            raise ConfigError(f"slo_s must lie in [0.005, 10] seconds; got {self.slo_s!r}")
        if not 0.1 <= self.fps <= 240:
            raise ConfigError(f"fps must lie in [0.1, 240] frames per second; got {self.fps!r}")
        if not self.energy_price >= 0:
            raise ConfigError(f"energy_price must be 0 or more, in 1/J; got {self.energy_price!r}")
        if not self.byte_price >= 0:
            raise ConfigError(f"byte_price must be 0 or more, in 1/MB; got {self.byte_price!r}")

    def utility(self, *, correct_on_time: float, energy_j: float, payload_bytes: float) -> float:
        """Utility of one frame; `correct_on_time` may be a probability."""
        price = self.energy_price * energy_j + self.byte_price * payload_bytes / 1e6
        return correct_on_time - price
