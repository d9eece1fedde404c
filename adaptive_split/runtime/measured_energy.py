"""Joules of frames by the machine's own meter, once enough is known of what its parts draw."""

from __future__ import annotations

import logging
import threading
from collections import deque

from adaptive_split.clock import Clock, MonotonicClock
from adaptive_split.profile import MEASURED, MODELLED
from adaptive_split.runtime.ledger import EnergyModel, OpenFrame
from adaptive_split.runtime.sensors.attribution import EnergyWindow, PowerFit, fit_power
from adaptive_split.runtime.sensors.background import Background
from adaptive_split.runtime.sensors.energy import EnergyMeter

_log = logging.getLogger(__name__)

REST_S = 2.0
"""How long the machine rests before the first frame, to know what resting takes."""
WINDOW_S = 4.0
"""A frame counts in the window that it is answered in. Of simulated frames of up to 190 ms, windows
of 1, 2, 4 and 8 s found the watts of computing 18, 5, 2 and 0 % too low."""
FIRST_FIT = 8
"""Windows before frames are priced by them: half a minute."""
MOST_WINDOWS = 150
"""Ten minutes: what throttles or warms up is followed."""
_TRUSTED = 0.5
"""Share of the power above rest that may stay unexplained."""


class MeasuredEnergy:
    """Prices frames by a regression of the meter on computing, encoding and sending.

    Until the fit can be trusted, frames cost what the profile's model says, and are marked so.
    Where the meter ends at the module, a modem on the carrier board is not in it: then sending
    stays modelled, and a frame that sent is marked so. Joules are above rest, as in profiles.
    """

    def __init__(
        self,
        meter: EnergyMeter,
        model: EnergyModel,
        *,
        clock: Clock | None = None,
    ) -> None:
        """Rest, then begin to measure; the meter is closed with this.

        Raises:
            OSError: If the meter cannot be read.
        """
        self._meter, self._model, self._clock = meter, model, clock or MonotonicClock()
        self._kinds = 3 if meter.with_carrier else 2
        self._busy_s = [0.0] * self._kinds
        self._windows: deque[EnergyWindow] = deque(maxlen=MOST_WINDOWS)
        self._lock = threading.Lock()
        self.fit: PowerFit | None = None
        """What is known, while it is trusted."""
        self._began_s, self._began_j = self._clock.now_s(), meter.energy_j()
        self._clock.sleep_until(self._began_s + REST_S)
        self._rest = self._close_window()
        self._ticking = Background(self.end_window, WINDOW_S, clock=self._clock)

    @property
    def provenance(self) -> str:
        """How joules are known now."""
        return self._model.provenance if self.fit is None else MEASURED

    def price(self, frame: OpenFrame, slo_s: float) -> tuple[float, str]:
        """Joules of a frame above rest, and how they are known; called once for every frame."""
        busy_s = (frame.head_s + frame.redo_s, frame.encode_s, min(frame.upload_s, slo_s))
        with self._lock:
            for kind in range(self._kinds):
                self._busy_s[kind] += busy_s[kind]
        fit = self.fit
        if fit is None:
            return self._model.price(frame, slo_s)
        measured_j = sum(w * s for w, s in zip(fit.watts, busy_s, strict=False))
        if self._kinds == len(busy_s):
            return measured_j, MEASURED
        sending_j = self._model.sending_j(frame, slo_s)
        return measured_j + sending_j, MODELLED if sending_j else MEASURED

    def close(self) -> None:
        """Measure no more; log what was found."""
        self._ticking.close()
        self._meter.close()
        _log.info("%s", self.text())

    def text(self) -> str:
        """What was found, in a line for a person."""
        fit = self.fit
        if fit is None:
            return f"energy is modelled: too little or too noisy to tell from {self._meter.source}"
        names = ("computing", "encoding", "sending")
        parts = ", ".join(f"{n} {w:.2f} W" for n, w in zip(names, fit.watts, strict=False))
        return (
            f"energy by {self._meter.source}: rest {fit.rest_w:.2f} W, above it {parts}; residual "
            f"{fit.residual_w:.2f} W over {fit.num_windows} windows"
        )

    def end_window(self) -> None:
        """End a window and fit anew; called again and again, it does so when one is full.

        Raises:
            OSError: If the meter cannot be read; frames are modelled until it can.
        """
        if self._clock.now_s() - self._began_s < WINDOW_S:
            return
        fit, self.fit = self.fit, None
        self._windows.append(self._close_window())
        self.fit = fit if len(self._windows) < FIRST_FIT else self._fit()

    def _fit(self) -> PowerFit | None:
        fit = fit_power([self._rest, *self._windows])
        return fit if fit.residual_w <= _TRUSTED * fit.work_w else None

    def _close_window(self) -> EnergyWindow:
        now_s, now_j = self._clock.now_s(), self._meter.energy_j()
        with self._lock:
            busy_s, self._busy_s = self._busy_s, [0.0] * self._kinds
        window = EnergyWindow(now_s - self._began_s, now_j - self._began_j, tuple(busy_s))
        self._began_s, self._began_j = now_s, now_j
        return window
