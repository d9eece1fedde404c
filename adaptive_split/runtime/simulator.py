"""The device, the uplink and the server as arithmetic: many lanes at once, one step = one frame.

Every lane plays one `Stream` on a clock of its own, as `runtime.device` would: newest frame first,
one at a time on the device, a FIFO uplink whose transfer time integrates the trace, half a round
trip, server queue and tail, half a round trip, give-up and fallback.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from adaptive_split.errors import ConfigError
from adaptive_split.observation import WINDOW
from adaptive_split.planner import (
    MARGIN_S,
    BacklogPrices,
    CandidateTable,
    Floats,
    Moment,
    Readings,
    combine,
    first_exit,
    utility_terms,
)
from adaptive_split.runtime.simulated_links import Links
from adaptive_split.runtime.simulated_step import Step
from adaptive_split.runtime.streams import Stream

RING = 24
PROBE_AFTER_S = 1.0
PROBE_BYTES = 4096.0
"""An idle uplink is measured this often with this much, as `runtime.sender` does."""


class Simulator:
    """All lanes of a batch; call `moment`, then `step` with a candidate per lane, until done."""

    def __init__(
        self, table: CandidateTable, streams: Sequence[Stream], *, probes: bool = True
    ) -> None:
        if not streams:
            raise ConfigError("a simulator must have at least one stream; got none")
        lengths = {stream.num_frames for stream in streams}
        if len(lengths) > 1:
            raise ConfigError(f"all streams must have the same number of frames; got {lengths}")
        self.table, self.streams, self.probes = table, tuple(streams), probes
        self.links = Links(streams)
        self.samples = np.stack([stream.samples for stream in streams])
        self.lanes, self.num_frames = self.samples.shape
        self.lane = np.arange(self.lanes)
        self.period_s = 1.0 / table.objective.fps
        # Waiting frames are bits of an int64; a device that far behind drops the oldest anyway.
        self.stack = min(int(np.ceil(table.objective.slo_s / self.period_s)) + 1, 62)
        self.reset()

    def replace(self, lanes: NDArray[np.int64], streams: Sequence[Stream]) -> None:
        """Start some lanes again with other streams; the rest go on where they are."""
        kept = np.ones(self.lanes, bool)
        kept[lanes] = False
        for lane, stream in zip(lanes, streams, strict=True):
            self.links.replace(int(lane), stream)
            self.samples[lane] = stream.samples
        self.links.refresh()
        old = {name: getattr(self, name) for name in self._STATE}
        probes, self.probes = self.probes, False
        self.reset()
        self.probes = probes
        for name, values in old.items():
            getattr(self, name)[kept] = values[kept]

    _STATE = (
        "device_free_s", "uplink_free_s", "believed_free_s", "newest", "waiting_bits", "done",
        "redo_s", "ring_at", "sent_s", "reply_s", "ring_bytes", "ring_rate", "ring_rtt",
        "ring_wait", "ring_give_up", "confidences", "total_probe_bytes", "current_bit",
        "frame_index", "arrival_s", "start_s",
    )  # fmt: skip

    def reset(self) -> None:
        """Go back to the start: everything idle, one answered handshake per lane."""
        lanes = self.lanes
        self.device_free_s, self.uplink_free_s, self.believed_free_s = np.zeros((3, lanes))
        self.newest = np.full(lanes, -1)
        self.waiting_bits = np.zeros(lanes, np.int64)
        self.done = np.zeros(lanes, bool)
        self.redo_s = np.full((lanes, self.stack + 1), np.inf)
        self.ring_at = np.zeros(lanes, np.int64)
        shape = (lanes, RING)
        self.sent_s = np.full(shape, -np.inf)
        self.reply_s = np.full(shape, np.inf)
        self.ring_bytes = np.zeros(shape)
        self.ring_rate, self.ring_rtt, self.ring_wait = np.full((3, *shape), np.nan)
        self.ring_give_up = np.full(shape, np.inf)
        self.confidences = np.full((lanes, 8), np.nan)
        self.total_probe_bytes = np.zeros(lanes)
        self._remember(self.lane, np.zeros(lanes), PROBE_BYTES, handshake=True)
        self._advance()

    def moment(self) -> Moment:
        """Tell what the controllers know at the start of every lane's current frame."""
        now = self.start_s
        order = (self.ring_at[:, None] - 1 - np.arange(RING)) % RING
        rows = self.lane[:, None]
        reply, sent = self.reply_s[rows, order], self.sent_s[rows, order]
        used = np.isfinite(sent)
        seen = used & (reply <= now[:, None])
        take = np.argsort(~seen, axis=1, kind="stable")[:, :WINDOW]
        known = seen[rows, take]

        def newest(values: Floats) -> Floats:
            return np.where(known, values[rows, order][rows, take], np.nan)

        pending = used & ~seen & (sent <= now[:, None])
        oldest_sent = np.where(pending, sent, np.inf).min(1)
        has_pending = np.isfinite(oldest_sent)
        oldest = np.where(pending, sent, np.inf).argmin(1)
        oldest_bytes = self.ring_bytes[rows, order][self.lane, oldest]
        # A request is late once its give-up moment has passed without a reply, not before.
        late = used & (np.minimum(reply, now[:, None]) > self.ring_give_up[rows, order])
        busy = np.where(has_pending, np.maximum(self.believed_free_s - now, 0.0), 0.0)
        reply_seen = np.where(known, reply[rows, take], np.nan)
        fps, slo_s = self.table.objective.fps, self.table.objective.slo_s
        gap = (np.floor(now * fps + 1e-9) + 1) / fps - now
        bits = self.waiting_bits & ~self.current_bit
        count = np.zeros(self.lanes)
        for position in range(self.stack):
            latest = (self.newest - position) * self.period_s + slo_s - MARGIN_S
            in_reach = now + self.table.head_s[1] <= latest + 1e-9
            count += ((bits >> position) & 1) * in_reach
        ones = np.ones(self.lanes)
        return Moment(
            slack_s=self.arrival_s + slo_s - now,
            gap_s=gap,
            waiting=count,
            sample_mbps=newest(self.ring_rate) / 1e6,
            sample_rtt_s=newest(self.ring_rtt),
            sample_wait_s=newest(self.ring_wait),
            sample_slowdown=np.where(known, 1.0, np.nan),
            sample_age_s=now[:, None] - reply_seen,
            uplink_busy_s=busy,
            unanswered_s=np.where(has_pending, now - oldest_sent, 0.0),
            unanswered_bytes=np.where(has_pending, oldest_bytes, 0.0),
            timeouts=late[:, :WINDOW].sum(1).astype(float),
            confidences=self.confidences.copy(),
            device_slowdown=ones,
            soc=ones,
            server_usable=np.ones(self.lanes, bool),
        )

    def payload_on_time(self) -> tuple[NDArray[np.bool_], Floats]:
        """Score every payload under the true link and server: `(on time, upload s)`, `(L, P)`.

        Payloads have their mean size. This is what makes counterfactuals possible: link and server
        do not depend on the decision.
        """
        table = self.table
        num_payloads = len(table.mean_bytes)
        lane = np.repeat(self.lane, num_payloads)
        ready = self._with_fallbacks(self.start_s[:, None] + table.ready_s).ravel()
        begin = np.maximum(ready, np.repeat(self.uplink_free_s, num_payloads))
        bits = np.tile(table.mean_bytes * 8, self.lanes)
        sent = self.links.sent_at(lane, begin, bits)
        _, reply = self._reply(lane, sent, np.tile(table.tail_s, self.lanes))
        shape = (self.lanes, num_payloads)
        deadline = self.arrival_s + table.objective.slo_s
        give_up = deadline[:, None] - table.keep_back_s
        upload = (sent - begin).reshape(shape)
        return (reply.reshape(shape) <= give_up), np.minimum(upload, table.objective.slo_s)

    def true_utility(self, moment: Moment, prices: BacklogPrices) -> Floats:
        """Expected utility of every candidate under the true link and server, `(L, N)`."""
        on_time, upload = self.payload_on_time()
        valid = np.ones((self.lanes, 1), bool)
        truth = Readings(valid, upload[:, None, :], upload[:, None, :], on_time[:, None, :])
        base, gain = utility_terms(self.table, moment, prices, truth)
        return combine(self.table, base, gain, on_time.astype(float))

    def step(self, candidate: NDArray[np.int64]) -> Step:
        """Run the current frame of every lane with its candidate, then start the next one."""
        table, grid = self.table, self.table.grid
        outcomes, lane = table.outcomes, self.lane
        active = ~self.done
        start, arrival = self.start_s.copy(), self.arrival_s.copy()
        deadline = arrival + table.objective.slo_s
        sample = self.samples[lane, np.clip(self.frame_index, 0, self.num_frames - 1)]
        split = grid.split_point[candidate]
        payload = np.maximum(grid.payload_index[candidate], 0)
        exit_index = first_exit(
            outcomes.exit_confidence[sample], split, grid.exit_threshold[candidate]
        )
        # A stage that would end too late is not begun: the deepest exit before it answers.
        ends = self._with_fallbacks(start[:, None] + table.head_s[1:])
        promise = deadline - MARGIN_S
        reach = np.maximum((ends <= promise[:, None] + 1e-9).sum(1), 1)
        planned = np.where(exit_index > 0, exit_index, split)
        cut = planned > reach
        sends = (exit_index == 0) & ~cut
        encode = table.ready_s[payload] - table.head_s[split]
        ready = self._with_fallbacks((start + table.head_s[split] + encode)[:, None])[:, 0]
        give_up = deadline - table.keep_back_s[payload]
        begin = np.maximum(ready, self.uplink_free_s)
        # What cannot get on the uplink in time is not encoded either, but answered at once.
        unsent = sends & (begin >= give_up)
        sent = active & sends & ~unsent
        deepest = np.maximum(np.minimum(planned, reach), 1)
        head = table.head_s[np.where(sent, split, deepest)]
        encode = np.where(sent, encode, 0.0)
        ready = self._compute(start + head + encode)

        wire_bytes = table.wire_bytes[sample, payload]
        done_s = self.links.sent_at(lane, begin, wire_bytes * 8)
        wait, reply = self._reply(lane, done_s, table.tail_s[payload])
        by_server = sent & (reply <= give_up)
        late = sent & ~by_server
        self._record_send(lane[sent], begin, ready, done_s, reply, wait, wire_bytes, give_up)
        redo = late & (split == 0)
        self._schedule_redo(redo, give_up)

        ended = np.where(late, promise, np.where(by_server, reply, ready))
        on_time = active & (ended <= deadline + 1e-9)
        right = np.where(
            by_server,
            outcomes.server_right[sample, payload],
            outcomes.exit_right[sample, deepest - 1],
        )
        answer = np.where(
            by_server,
            outcomes.server_answer[sample, payload],
            outcomes.exit_answer[sample, deepest - 1],
        )
        charged = np.where(sent, np.minimum(done_s - begin, table.objective.slo_s), 0.0)
        energy = table.device.compute_w * (head + encode + np.where(redo, table.head_s[1], 0.0))
        energy = energy + table.radio.watts * charged
        wire_bytes = np.where(sent, wire_bytes, 0.0)
        energy = energy + table.radio.joules_per_mbit * wire_bytes * 8e-6
        correct = right & on_time
        price = table.objective.energy_price * energy
        utility = correct - price - table.objective.byte_price * wire_bytes * 1e-6
        ran_first = active & ((split >= 1) | unsent)
        self.confidences[ran_first, 1:] = self.confidences[ran_first, :-1]
        self.confidences[ran_first, 0] = outcomes.exit_confidence[sample[ran_first], 0]
        half = np.where(by_server, self.links.rtt_at(lane, done_s) / 2, 0.0)
        report = Step(
            active=active, frame_index=self.frame_index.copy(), sample_index=sample,
            candidate=candidate, arrival_s=arrival, start_s=start,
            utility=np.where(active, utility, 0.0), correct=correct, on_time=on_time,
            answer=answer, exit_index=np.where(by_server, 0, deepest), by_server=by_server,
            fallback=np.where(unsent, 2, np.where(late | cut, 1, 0)),
            latency_s=ended - arrival, wait_s=ready - arrival - head - encode, head_s=head,
            encode_s=encode,
            uplink_s=np.where(by_server, done_s - ready + half, 0.0),
            server_wait_s=np.where(by_server, wait, 0.0),
            tail_s=np.where(by_server, table.tail_s[payload], 0.0),
            downlink_s=np.where(by_server, half, 0.0),
            fallback_s=np.where(late, ended - ready, 0.0),
            payload_bytes=wire_bytes, energy_j=energy,
        )  # fmt: skip
        self.device_free_s = np.where(active, ready, self.device_free_s)
        self.waiting_bits &= ~self.current_bit
        self._advance()
        return report

    def _reply(
        self, lane: NDArray[np.int64], sent_s: Floats, tail_s: Floats
    ) -> tuple[Floats, Floats]:
        """Server wait and reply time of payloads that crossed the uplink at `sent_s`."""
        rtt = self.links.rtt_at(lane, sent_s)
        at_server = sent_s + rtt / 2
        wait = self.links.wait_at(lane, at_server)
        return wait, at_server + wait + tail_s + rtt / 2

    def _record_send(
        self,
        lane: NDArray[np.int64],
        begin: Floats,
        ready: Floats,
        done: Floats,
        reply: Floats,
        wait: Floats,
        wire_bytes: Floats,
        give_up: Floats,
    ) -> None:
        believed = np.maximum(ready, self.believed_free_s)
        known = (self.reply_s <= self.start_s[:, None]) & ~np.isnan(self.ring_rate)
        total, count = np.where(known, self.ring_rate, 0.0).sum(1), known.sum(1)
        known_rate = np.where(count > 0, total / np.maximum(count, 1), 5e6)
        self.believed_free_s[lane] = (believed + wire_bytes * 8 / np.maximum(known_rate, 1e4))[lane]
        self.uplink_free_s[lane] = np.where(np.isfinite(done), done, 1e9)[lane]
        at, finite = self.ring_at[lane] % RING, np.isfinite(done)
        rate = np.where(finite, wire_bytes * 8 / np.maximum(done - begin, 1e-6), np.nan)
        self.sent_s[lane, at] = ready[lane]
        self.reply_s[lane, at] = np.where(finite, reply, np.inf)[lane]
        self.ring_bytes[lane, at] = wire_bytes[lane]
        self.ring_rate[lane, at] = np.minimum(rate, 1e9)[lane]
        self.ring_rtt[lane, at] = self.links.rtt_at(self.lane, done)[lane]
        self.ring_wait[lane, at] = wait[lane]
        self.ring_give_up[lane, at] = give_up[lane]
        self.ring_at[lane] += 1

    def _remember(
        self, lane: NDArray[np.int64], moment_s: Floats, size: float, *, handshake: bool = False
    ) -> None:
        """Send a probe (or the handshake, answered at once) on lanes that have been silent."""
        at = self.ring_at[lane] % RING
        bits = np.full(len(lane), size * 8)
        done = self.links.sent_at(lane, np.maximum(moment_s, self.uplink_free_s[lane]), bits)
        rtt = self.links.rtt_at(lane, done)
        finite = np.isfinite(done)
        self.sent_s[lane, at] = moment_s
        self.reply_s[lane, at] = moment_s if handshake else np.where(finite, done + rtt, np.inf)
        self.ring_bytes[lane, at] = size
        rate = bits / np.maximum(done - moment_s, 1e-6)
        self.ring_rate[lane, at] = np.clip(np.where(finite, rate, 1e4), 1e4, 1e9)
        if handshake:
            self.ring_rate[lane, at] = np.maximum(self.links.rate_at(lane, moment_s), 1e4)
        self.ring_rtt[lane, at] = rtt
        self.ring_wait[lane, at] = 0.0
        self.ring_give_up[lane, at] = np.inf
        self.ring_at[lane] += 1
        if not handshake:
            self.uplink_free_s[lane] = np.where(finite, done, 1e9)
            self.total_probe_bytes[lane] += size

    def _with_fallbacks(self, end: Floats) -> Floats:
        """Delay the ends of computations, `(L, K)`, by the fallbacks that come in between."""
        count = np.zeros(end.shape)
        while True:
            delayed = end + count * self.table.head_s[1]
            hits = (self.redo_s[:, None, :] < delayed[:, :, None]).sum(2)
            if (hits == count).all():
                return np.asarray(delayed)
            count = hits.astype(float)

    def _compute(self, end: Floats) -> Floats:
        """Compute until `end`, and the fallbacks that come up until then."""
        end = self._with_fallbacks(end[:, None])[:, 0]
        self.redo_s[self.redo_s < end[:, None]] = np.inf
        return end

    def _schedule_redo(self, mask: NDArray[np.bool_], moment_s: Floats) -> None:
        if mask.any():
            free = self.redo_s.argmax(1)
            self.redo_s[self.lane[mask], free[mask]] = moment_s[mask]

    def _advance(self) -> None:
        """Choose every lane's next frame: the newest that can still reach its first exit."""
        waits = ~self.done
        now = self._idle_until(self.device_free_s, self.device_free_s, waits)
        while True:
            idle = waits & ~self._catch_up(now, waits)
            following = self.newest + 1
            self.done |= idle & (following >= self.num_frames)
            waits = idle & ~self.done
            if not waits.any():
                break
            now = self._idle_until(now, following * self.period_s, waits)
        lowest = self.waiting_bits & -self.waiting_bits
        age = np.log2(np.maximum(lowest, 1)).astype(int)
        self.current_bit = lowest
        self.frame_index = self.newest - age
        self.arrival_s = self.frame_index * self.period_s
        self.start_s = np.maximum(now, self.arrival_s)
        if self.probes:
            self._probe()

    def _idle_until(self, now: Floats, moment_s: Floats, mask: NDArray[np.bool_]) -> Floats:
        """Let the device rest until a moment, save for the fallbacks that come due; `(L,)`."""
        while True:
            earliest = self.redo_s.min(1)
            due = mask & (earliest <= np.maximum(now, moment_s))
            if not due.any():
                return np.where(mask, np.maximum(now, moment_s), now)
            now = np.where(due, np.maximum(now, earliest) + self.table.head_s[1], now)
            self.redo_s[self.lane[due], self.redo_s.argmin(1)[due]] = np.inf

    def _catch_up(self, now: Floats, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Capture what has come until now; tell where a frame can start, drop all where not."""
        captured = np.minimum((now / self.period_s + 1e-9).astype(int), self.num_frames - 1)
        fresh = np.where(mask, np.maximum(captured - self.newest, 0), 0)
        added = np.minimum(fresh, self.stack)
        shifted = (self.waiting_bits << added) | ((1 << added) - 1)
        self.waiting_bits = shifted & ((1 << self.stack) - 1)
        self.newest = self.newest + fresh
        lowest = self.waiting_bits & -self.waiting_bits
        age = np.log2(np.maximum(lowest, 1)).astype(int)
        latest = (self.newest - age) * self.period_s + self.table.objective.slo_s - MARGIN_S
        first_end = self._with_fallbacks((now + self.table.head_s[1])[:, None])[:, 0]
        usable = (lowest > 0) & (first_end <= latest + 1e-9)
        self.waiting_bits = np.where(mask & ~usable, 0, self.waiting_bits)
        return np.asarray(usable)

    def _probe(self) -> None:
        last = self.sent_s.max(1)
        silent = ~self.done & (self.start_s - last >= PROBE_AFTER_S)
        silent &= self.uplink_free_s <= self.start_s
        if silent.any():
            lane = self.lane[silent]
            self._remember(lane, self.start_s[lane], PROBE_BYTES)
