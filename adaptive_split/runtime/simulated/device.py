"""The devices of a simulator: frames that wait, the one that computes, and fallbacks in between."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from adaptive_split.candidates import MARGIN_S, CandidateTable, Floats
from adaptive_split.runtime.simulated.power import Charge, Heat
from adaptive_split.runtime.simulated.step import Bools, copy_lanes
from adaptive_split.runtime.simulated.streams import Stream
from adaptive_split.scenario import Battery, Thermal


class Devices:
    """All lanes' devices: newest frame first, one at a time; a sent picture may need a fallback.

    Attributes:
        done: Lanes whose frames are all captured, or whose battery is empty, shape `(L,)`.
        frame_index, arrival_s, start_s: The frame that starts now; not of lanes that are done.
        slowdown: Factor on the profile's times in force: the stream's, times throttling.
        overhead_s: What a frame takes to start, not computing, shape `(L,)`.
    """

    _STATE = (
        "base_slowdown", "overhead_s", "slowdown", "free_s", "done", "redo_s", "newest",
        "waiting_bits", "current_bit", "frame_index", "arrival_s", "start_s",
    )  # fmt: skip

    def __init__(
        self,
        table: CandidateTable,
        streams: Sequence[Stream],
        battery: Battery | None,
        thermal: Thermal | None,
    ) -> None:
        lanes, self.table = len(streams), table
        self.num_frames, self.period_s = streams[0].num_frames, 1.0 / table.objective.fps
        # Waiting frames are bits of an int64; a device that far behind drops the oldest anyway.
        self.stack = min(int(np.ceil(table.objective.slo_s / self.period_s)) + 1, 62)
        self.base_slowdown = np.array([stream.device_slowdown for stream in streams])
        self.overhead_s = np.array([stream.overheads.start_s for stream in streams])
        self.slowdown = self.base_slowdown.copy()
        mission_s, compute_w = self.num_frames * self.period_s, table.device.compute_w
        self.charge = None if battery is None else Charge(battery, lanes, mission_s)
        self.heat = None if thermal is None else Heat(thermal, lanes, compute_w)
        self.free_s = np.zeros(lanes)
        self.done = np.zeros(lanes, bool)
        self.redo_s = np.full((lanes, self.stack + 1), np.inf)  # ascending
        self.newest = np.full(lanes, -1)
        self.waiting_bits, self.current_bit = np.zeros((2, lanes), np.int64)
        self.next_frame()

    @property
    def first_s(self) -> Floats:
        """Time until the first exit, shape `(L,)`: what a fallback takes."""
        return np.asarray(self.table.head_s[1] * self.slowdown)

    def copy_lanes(self, lanes: NDArray[np.int64], other: Devices) -> None:
        """Put some lanes into the state of another batch, which has as many lanes."""
        copy_lanes(self, other, lanes, self._STATE)
        if self.charge is not None and other.charge is not None:
            self.charge.copy_lanes(lanes, other.charge)
        if self.heat is not None and other.heat is not None:
            self.heat.copy_lanes(lanes, other.heat)

    def num_waiting(self) -> Floats:
        """Frames older than the one that starts and still in reach, shape `(L,)`."""
        position = np.arange(self.stack)
        bits = self.waiting_bits & ~self.current_bit
        waits = (bits[:, None] >> position) & 1
        latest = self._latest_s(self.newest[:, None] - position)
        in_reach = (self.start_s + self.first_s)[:, None] <= latest
        return np.asarray((waits * in_reach).sum(1), float)

    def delayed(self, end_s: Floats) -> Floats:
        """Delay the ends of computations, `(L, K)`, by the fallbacks that come in between."""
        delayed, count, first_s = end_s, np.zeros(end_s.shape), self.first_s[:, None]
        for position in range(self.stack + 1):
            hit = self.redo_s[:, position, None] < delayed
            if not hit.any():
                break
            count += hit
            delayed = end_s + count * first_s
        return delayed

    def compute(self, duration_s: Floats, active: Bools) -> Floats:
        """Compute the current frame, and the fallbacks that come up; when it is done, `(L,)`."""
        end = self.delayed((self.start_s + self.overhead_s + duration_s)[:, None])[:, 0]
        hits = self.redo_s < end[:, None]
        if self.heat is not None:
            self.heat.busy_s += active * (duration_s + hits.sum(1) * self.first_s)
        if hits.any():
            self.redo_s[hits] = np.inf
            self.redo_s.sort(1)
        self.free_s = np.where(active, end, self.free_s)
        self.waiting_bits &= ~self.current_bit
        return end

    def schedule(self, mask: Bools, moment_s: Floats) -> None:
        """Let a fallback of some lanes become due at a moment."""
        if mask.any():
            self.redo_s[mask, -1] = moment_s[mask]
            self.redo_s.sort(1)

    def next_frame(self) -> None:
        """Choose every lane's next frame: the newest that can still reach its first exit."""
        waits = ~self.done
        now = self._idle_until(self.free_s, self.free_s, waits)
        while True:
            if self.heat is not None:
                self.slowdown = self.base_slowdown * self.heat.throttling(now)
            idle = waits & ~self._catch_up(now, waits)
            following = self.newest + 1
            self.done |= idle & (following >= self.num_frames)
            waits = idle & ~self.done
            if not waits.any():
                break
            now = self._idle_until(now, following * self.period_s, waits)
        self.current_bit, age = self._lowest()
        self.frame_index = self.newest - age
        self.arrival_s: Floats = np.asarray(self.frame_index * self.period_s)
        self.start_s = np.maximum(now, self.arrival_s)
        if self.charge is not None:
            self.done |= self.charge.soc(self.start_s) <= 0

    def _idle_until(self, now: Floats, moment_s: Floats, mask: Bools) -> Floats:
        """Let the device rest until a moment, save for the fallbacks that come due; `(L,)`."""
        while True:
            earliest, rest = self.redo_s[:, 0], np.maximum(now, moment_s)
            due = mask & (earliest <= rest)
            if not due.any():
                return np.where(mask, rest, now)
            now = np.where(due, np.maximum(now, earliest) + self.first_s, now)
            self.redo_s[due, 0] = np.inf
            self.redo_s.sort(1)
            if self.heat is not None:
                self.heat.busy_s += due * self.first_s

    def _catch_up(self, now: Floats, mask: Bools) -> Bools:
        """Capture what has come until now; tell where a frame can start, drop all where not."""
        captured = np.minimum((now / self.period_s + 1e-9).astype(int), self.num_frames - 1)
        fresh = np.where(mask, np.maximum(captured - self.newest, 0), 0)
        added = np.minimum(fresh, self.stack)
        shifted = (self.waiting_bits << added) | ((1 << added) - 1)
        self.waiting_bits = shifted & ((1 << self.stack) - 1)
        self.newest = self.newest + fresh
        lowest, age = self._lowest()
        first_end = self.delayed((now + self.overhead_s + self.first_s)[:, None])[:, 0]
        usable = (lowest > 0) & (first_end <= self._latest_s(self.newest - age))
        self.waiting_bits = np.where(mask & ~usable, 0, self.waiting_bits)
        return usable

    def _latest_s(self, frame_index: NDArray[np.int64]) -> Floats:
        """Latest moment at which the first exit of frames may end."""
        within_s = self.table.objective.slo_s - MARGIN_S + 1e-9
        return np.asarray(frame_index * self.period_s + within_s)

    def _lowest(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Bit and position of every lane's newest waiting frame; 0 and 0 where none waits."""
        lowest = self.waiting_bits & -self.waiting_bits
        return lowest, np.log2(np.maximum(lowest, 1)).astype(np.int64)
