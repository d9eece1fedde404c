"""Domain randomization: links, devices, servers and prices beyond those recorded."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from adaptive_split.runtime.simulated.streams import Stream, StreamSource


@dataclass(frozen=True, kw_only=True, slots=True)
class Variation:
    """Draws a stream and varies it; each factor is drawn once per stream, log-uniformly.

    A range `(a, b)` is that of the factor on what was recorded or measured.
    """

    rate: tuple[float, float] = (0.6, 1.6)
    rtt: tuple[float, float] = (0.7, 1.4)
    device: tuple[float, float] = (0.85, 1.4)
    server: tuple[float, float] = (0.7, 1.8)
    energy_price: tuple[float, float] = (0.5, 2.0)
    share: float = 0.5
    """Share of the streams that are varied; the others are as recorded."""

    def __call__(self, source: StreamSource, generator: np.random.Generator) -> Stream:
        """Draw the stream of a lane that starts."""
        stream = source.draw(generator)
        if generator.random() >= self.share:
            return stream

        def factor(name: str) -> float:
            low, high = getattr(self, name)
            return float(np.exp(generator.uniform(np.log(low), np.log(high))))

        return replace(
            stream,
            uplink_mbps=stream.uplink_mbps * factor("rate"),
            rtt_s=stream.rtt_s * factor("rtt"),
            device_slowdown=factor("device"),
            server_slowdown=factor("server"),
            energy_price=source.scenario.objective.energy_price * factor("energy_price"),
        )
