"""What happens to a frame (design, section 5), one frame at a time and in plain Python."""

from __future__ import annotations

import math

from adaptive_split.candidates import MARGIN_S
from adaptive_split.decision import NEVER
from adaptive_split.runtime.simulated.streams import PERIOD_S, WAIT_PERIOD_S

EPSILON = 1e-9


class ReferenceDevice:
    """One device on one stream; `play` gives a dict per frame, in the order they start."""

    def __init__(self, table, stream, *, probes=True, battery=None, thermal=None):
        self.table, self.stream, self.probes = table, stream, probes
        self.battery, self.thermal = battery, thermal
        self.objective, self.outcomes = table.objective, table.outcomes
        device = table.device
        self.profiled_s = [
            0.0,
            *(s + e for s, e in zip(device.stage_s, device.exit_s, strict=True)),
        ]
        self.price = stream.energy_price
        if self.price is None:
            self.price = self.objective.energy_price
        self.slowdown = stream.device_slowdown
        self.now = 0.0
        self.used_j = 0.0
        self.temperature_c = thermal.ambient_c if thermal else 0.0
        self.throttles, self.looked_at, self.hot_s = False, 0.0, 0.0
        self.fallbacks = []  # moments at which pictures that were sent get their stage 1
        self.uplink_free = 0.0
        self.last_sent = 0.0  # the handshake
        self.waiting, self.captured, self.dropped = [], 0, []
        self.probe_bytes = 0

    def play(self, choose):
        """Let `choose(frame)` decide every frame."""
        frames = []
        while (frame := self.next_frame()) is not None:
            frames.append(self.run_frame(frame, choose(frame)))
        return frames

    # The camera and the device.

    def next_frame(self):
        """Wait for the newest frame that can still be answered; `None` after the last."""
        total, period = self.stream.num_frames, 1 / self.objective.fps
        while True:
            self.rest_until(self.now)
            self.feel_heat()
            while self.captured < total and self.captured * period <= self.now + EPSILON * period:
                self.waiting.append(self.captured)
                self.captured += 1
            if self.waiting:
                end, _ = self.work(self.now, self.first_s)
                if end <= self.deadline(self.waiting[-1]) - MARGIN_S + EPSILON:
                    if self.battery and self.soc() <= 0:
                        self.dropped += [*self.waiting, *range(self.captured, total)]
                        return None
                    self.probe_if_silent()
                    return self.waiting.pop()
            self.dropped += self.waiting
            self.waiting = []
            if self.captured == total:
                return None
            self.rest_until(self.captured * period)

    @property
    def first_s(self):
        """Time of stage 1 and its exit."""
        return self.profiled_s[1] * self.slowdown

    def soc(self):
        """What is left in the battery."""
        used_j = self.used_j + self.battery.idle_w * self.now
        return self.battery.start_soc - used_j / self.battery.capacity_j

    def feel_heat(self):
        """Heat up by the work since the last look, or cool down; throttle or resume."""
        if not self.thermal or self.now == self.looked_at:
            return
        elapsed_s, thermal = self.now - self.looked_at, self.thermal
        power_w = self.table.device.compute_w * self.hot_s / elapsed_s
        goal_c = thermal.ambient_c + thermal.resistance_c_per_w * power_w
        away_c = (self.temperature_c - goal_c) * math.exp(-elapsed_s / thermal.time_constant_s)
        self.temperature_c = goal_c + away_c
        if self.temperature_c > thermal.throttle_at_c:
            self.throttles = True
        elif self.temperature_c < thermal.resume_below_c:
            self.throttles = False
        factor = thermal.slowdown if self.throttles else 1.0
        self.slowdown = self.stream.device_slowdown * factor
        self.looked_at, self.hot_s = self.now, 0.0

    def deadline(self, frame):
        """When a frame's answer is due."""
        return frame / self.objective.fps + self.objective.slo_s

    def rest_until(self, moment):
        """Idle until a moment, save for fallbacks."""
        while self.fallbacks and min(self.fallbacks) <= max(self.now, moment):
            due = min(self.fallbacks)
            self.fallbacks.remove(due)
            self.now = max(self.now, due) + self.first_s
            self.hot_s += self.first_s
        self.now = max(self.now, moment)

    def work(self, begin, duration):
        """End of a computation, and the fallbacks that interrupt it."""
        end, done = begin + duration, []
        while due := [moment for moment in self.fallbacks if moment < end and moment not in done]:
            done.append(min(due))
            end += self.first_s
        return end, done

    def compute(self, duration):
        """Spend time on the present frame."""
        self.now, done = self.work(self.now, duration)
        self.fallbacks = [moment for moment in self.fallbacks if moment not in done]
        self.busy_s += duration
        self.hot_s += duration + len(done) * self.first_s

    # One frame.

    def run_frame(self, frame, candidate):
        """Do one frame as decided."""
        grid, start = self.table.grid, self.now
        decision = grid.candidates[candidate]
        sample = int(self.stream.samples[frame])
        arrival, deadline = frame / self.objective.fps, self.deadline(frame)
        self.busy_s, self.energy, self.payload_bytes = 0.0, 0.0, 0
        reason, exit_index, done_exit = "", 0, 0
        for stage in range(1, decision.split_point + 1):
            stage_s = self.profiled_s[stage] * self.slowdown
            end, _ = self.work(self.now, stage_s)
            if stage > 1 and end > deadline - MARGIN_S + EPSILON:
                exit_index, reason = done_exit, "late"
                break
            self.compute(stage_s)
            done_exit = stage
            sure = self.outcomes.exit_confidence[sample, stage - 1] >= decision.exit_threshold
            if (sure and decision.exit_threshold < NEVER) or stage == grid.num_stages:
                exit_index = stage
                break
        by_server = False
        if exit_index:
            answered = self.now
        else:
            payload = int(grid.payload_index[candidate])
            reply, reason = self.send(sample, payload, deadline)
            by_server = reason == ""
            exit_index = max(done_exit, 1)
            if reason == "unsent":
                if done_exit == 0:
                    self.compute(self.first_s)
                answered = self.now
            else:
                answered = reply if by_server else deadline - MARGIN_S
        self.energy += self.table.device.compute_w * self.busy_s
        if by_server:
            right = self.outcomes.server_right[sample, payload]
        else:
            right = self.outcomes.exit_right[sample, exit_index - 1]
        on_time = answered <= deadline + EPSILON
        self.used_j += self.energy
        price = self.price * self.energy
        price += self.objective.byte_price * self.payload_bytes / 1e6
        return {
            "frame_index": frame, "start_s": start, "by_server": by_server,
            "exit_index": 0 if by_server else exit_index, "on_time": on_time,
            "correct": bool(right and on_time), "latency_s": answered - arrival,
            "payload_bytes": self.payload_bytes, "energy_j": self.energy, "reason": reason,
            "utility": float(right and on_time) - price,
        }  # fmt: skip

    def send(self, sample, payload, deadline):
        """Send a payload; give the reply's moment and why it is of no use, if so."""
        split_point, _ = self.table.grid.payloads[payload]
        encoder_s = self.table.device.encoder_s[split_point] * self.slowdown
        give_up = deadline - MARGIN_S - (self.first_s if split_point == 0 else 0.0)
        ready, _ = self.work(self.now, encoder_s)
        begin = max(ready, self.uplink_free)
        if begin >= give_up:
            return math.inf, "unsent"
        self.compute(encoder_s)
        size = int(self.outcomes.payload_bytes[sample, payload]) + self.table.radio.overhead_bytes
        done = self.cross(begin, size * 8)
        self.uplink_free = done
        self.last_sent = self.now
        self.payload_bytes = size
        self.energy += self.table.radio.watts * min(done - begin, self.objective.slo_s)
        self.energy += self.table.radio.joules_per_mbit * size * 8e-6
        tail_s = self.table.server.tail_s(split_point) * self.stream.server_slowdown
        reply = self.reply(done, tail_s)
        if reply <= give_up:
            return reply, ""
        if split_point == 0:
            self.fallbacks.append(give_up)
            self.busy_s += self.first_s
        return reply, "late"

    # The link and the server.

    def cross(self, begin, bits):
        """Moment at which bits have crossed the uplink."""
        rates, moment, slot = self.stream.uplink_mbps * 1e6, begin, int(begin / PERIOD_S)
        while slot < len(rates):
            end = (slot + 1) * PERIOD_S
            room = rates[slot] * (end - moment)
            if room >= bits and rates[slot] > 0:
                return moment + bits / rates[slot]
            bits, moment, slot = bits - room, end, slot + 1
        return math.inf

    def reply(self, sent, tail_s):
        """Moment of the reply to what crossed at `sent`."""
        if math.isinf(sent):
            return math.inf
        rtt = self.stream.rtt_s[min(int(sent / PERIOD_S), len(self.stream.rtt_s) - 1)]
        waits, there = self.stream.server_wait_s, sent + rtt / 2
        return there + waits[min(int(there / WAIT_PERIOD_S), len(waits) - 1)] + tail_s + rtt / 2

    def probe_if_silent(self):
        """Measure a link that has been idle for a second."""
        if self.probes and self.now - self.last_sent >= 1.0 and self.uplink_free <= self.now:
            self.uplink_free = self.cross(self.now, 8 * 4096)
            self.last_sent = self.now
            self.probe_bytes += 4096
