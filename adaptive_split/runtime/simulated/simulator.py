"""The device, the uplink and the server as arithmetic: many lanes at once, one step = one frame.

Every lane plays one `Stream` on a clock of its own, as `runtime.device` would: newest frame first,
one at a time on the device, a FIFO uplink whose transfer time integrates the trace, half a round
trip, server queue and tail, half a round trip, give-up and fallback.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adaptive_split.candidates import MARGIN_S, CandidateTable, Floats, first_exit
from adaptive_split.errors import ConfigError
from adaptive_split.planner import BacklogPrices, Moment, Readings, combine, utility_terms
from adaptive_split.runtime.simulated.device import Devices
from adaptive_split.runtime.simulated.links import Links
from adaptive_split.runtime.simulated.step import (
    Bools,
    Ints,
    Step,
    Transfer,
    Work,
    copy_lanes,
    report,
)
from adaptive_split.runtime.simulated.streams import Stream
from adaptive_split.runtime.simulated.uplink import Uplinks
from adaptive_split.scenario import Battery, Thermal


class Simulator:
    """All lanes of a batch; call `moment`, then `step` with a candidate per lane, until done.

    Attributes:
        energy_price: What a joule costs the controllers, in 1/J, shape `(L,)`; may be changed while
            running. `Step.utility` keeps to the stream's price, or the objective's.
    """

    def __init__(
        self,
        table: CandidateTable,
        streams: Sequence[Stream],
        *,
        probes: bool = True,
        battery: Battery | None = None,
        thermal: Thermal | None = None,
    ) -> None:
        """Put every lane at the start of its stream.

        Args:
            table: The candidates.
            streams: One per lane, all of the same number of frames.
            probes: Whether an idle link is measured.
            battery: Every lane's battery, where the charge counts; an empty one ends the lane.
                By default the first stream's.
            thermal: How every device heats up; by default the first stream's.
        """
        if not streams:
            raise ConfigError("a simulator must have at least one stream; got none")
        lengths = {stream.num_frames for stream in streams}
        if len(lengths) > 1:
            raise ConfigError(f"all streams must have the same number of frames; got {lengths}")
        self.table, self.streams, self.probes = table, list(streams), probes
        self.battery = streams[0].battery if battery is None else battery
        self.thermal = streams[0].thermal if thermal is None else thermal
        self.links = Links(streams)
        self.samples = np.stack([stream.samples for stream in streams])
        self.lanes, self.num_frames = self.samples.shape
        self.lane, num_payloads = np.arange(self.lanes), len(table.mean_bytes)
        self._payload_lane = np.repeat(self.lane, num_payloads)
        self._payload_bits = np.tile(table.mean_bytes * 8, self.lanes)
        self.reset()

    def reset(self) -> None:
        """Go back to the start: everything idle, one answered handshake per lane."""
        usual = self.table.objective.energy_price
        prices = [usual if s.energy_price is None else s.energy_price for s in self.streams]
        self._scored_price = np.array(prices, float)
        self.energy_price = self._scored_price.copy()
        self.confidences = np.full((self.lanes, 8), np.nan)
        self.uplinks = Uplinks(self.links)
        self.devices = Devices(self.table, self.streams, self.battery, self.thermal)

    def replace(self, lanes: Ints, streams: Sequence[Stream]) -> None:
        """Start some lanes again with other streams; the rest go on where they are."""
        fresh = Simulator(
            self.table, streams, probes=self.probes, battery=self.battery, thermal=self.thermal
        )
        for lane, stream in zip(lanes, streams, strict=True):
            self.streams[lane] = stream
        self._copy_lanes(lanes, fresh)

    def copy(self, times: int = 1) -> Simulator:
        """A simulator in the same state that goes on by itself.

        Args:
            times: How often it has every lane: all lanes, then all of them again.
        """
        twin = Simulator(
            self.table, self.streams * times, probes=self.probes, battery=self.battery,
            thermal=self.thermal,
        )  # fmt: skip
        for first in range(0, times * self.lanes, self.lanes):
            twin._copy_lanes(first + self.lane, self)
        return twin

    def _copy_lanes(self, lanes: Ints, other: Simulator) -> None:
        copy_lanes(self, other, lanes, ("samples", "energy_price", "_scored_price", "confidences"))
        self.links.copy_lanes(lanes, other.links)
        self.uplinks.copy_lanes(lanes, other.uplinks)
        self.devices.copy_lanes(lanes, other.devices)

    @property
    def done(self) -> Bools:
        """Lanes that have no frame left to start, shape `(L,)`."""
        return self.devices.done

    @property
    def frame_index(self) -> Ints:
        """The frame that every lane starts now, shape `(L,)`."""
        return self.devices.frame_index

    @property
    def arrival_s(self) -> Floats:
        """When that frame was captured, shape `(L,)`."""
        return self.devices.arrival_s

    @property
    def start_s(self) -> Floats:
        """The moment of the decision, shape `(L,)`."""
        return self.devices.start_s

    @property
    def uplink_free_s(self) -> Floats:
        """When the uplink has sent all it was given, shape `(L,)`."""
        return self.uplinks.free_s

    @property
    def redo_s(self) -> Floats:
        """When fallbacks of sent pictures come due, ascending, `inf` where none is, `(L, K)`."""
        return self.devices.redo_s

    @property
    def total_probe_bytes(self) -> Floats:
        """Bytes sent only to measure the link, shape `(L,)`."""
        return self.uplinks.total_probe_bytes

    def moment(self) -> Moment:
        """Tell what the controllers know at the start of every lane's current frame."""
        now, objective = self.start_s, self.table.objective
        charge, ones = self.devices.charge, np.ones(self.lanes)
        return Moment(
            slack_s=self.arrival_s + objective.slo_s - now,
            gap_s=(np.floor(now * objective.fps + 1e-9) + 1) / objective.fps - now,
            waiting=self.devices.num_waiting(),
            confidences=self.confidences.copy(),
            device_slowdown=self.devices.slowdown.copy(),
            soc=ones if charge is None else charge.soc(now),
            mission_ratio=ones if charge is None else charge.mission_ratio(now),
            energy_price=self.energy_price.copy(),
            server_usable=np.ones(self.lanes, bool),
            **self.uplinks.known(now),
        )

    def payload_on_time(self) -> tuple[Bools, Floats]:
        """Score every payload under the true link and server: `(on time, upload s)`, `(L, P)`.

        Payloads have their mean size. This is what makes counterfactuals possible: link and server
        do not depend on the decision.
        """
        table, slow = self.table, self.devices.slowdown[:, None]
        begun = self.start_s + self.devices.overhead_s
        ready = self.devices.delayed(begun[:, None] + table.ready_s * slow)
        begin = np.maximum(ready, self.uplinks.free_s[:, None])
        lane = self._payload_lane
        sent = self.links.sent_at(lane, begin.ravel(), self._payload_bits)
        tail = table.tail_s * self.links.servers.slowdown[:, None]
        deadline = self.arrival_s + table.objective.slo_s
        give_up = deadline[:, None] - (table.fallback_s * slow + MARGIN_S)
        _, reply = self.links.reply(lane, sent, tail.ravel(), give_up.ravel())
        upload = np.minimum(sent.reshape(begin.shape) - begin, table.objective.slo_s)
        return reply.reshape(begin.shape) <= give_up, upload

    def true_utility(
        self, moment: Moment, prices: BacklogPrices, table: CandidateTable | None = None
    ) -> Floats:
        """Expected utility of every candidate under the true link and server, `(L, N)`.

        Args:
            moment: The present one.
            prices: Backlog prices.
            table: Of the pictures over which the expectation is taken; those played by default.
        """
        on_time, upload = self.payload_on_time()
        valid = np.ones((self.lanes, 1), bool)
        truth = Readings(valid, upload[:, None, :], upload[:, None, :], on_time[:, None, :])
        scored = self.table if table is None else table
        base, gain = utility_terms(scored, moment, prices, truth)
        return combine(scored, base, gain, on_time.astype(float))

    def step(self, candidate: Ints) -> Step:
        """Run the current frame of every lane with its candidate, then start the next one."""
        work = self._work(candidate)
        transfer = self._transfer(work)
        if work.sent.any():
            self.uplinks.send(work, transfer)
            self.devices.schedule(transfer.redo, work.give_up_s)
        confidence = self.table.outcomes.exit_confidence
        ran_first = work.active & ((self.table.grid.split_point[candidate] >= 1) | work.unsent)
        self.confidences[ran_first, 1:] = self.confidences[ran_first, :-1]
        self.confidences[ran_first, 0] = confidence[work.sample[ran_first], 0]
        done = report(self.table, work, transfer, self._scored_price)
        if self.devices.charge is not None:
            self.devices.charge.used_j += np.where(work.active, done.energy_j, 0.0)
        self.devices.next_frame()
        if self.probes:
            self.uplinks.probe(self.start_s, ~self.done)
        return done

    def _work(self, candidate: Ints) -> Work:
        """Compute the frame on the device until it is answered there or ready to send."""
        table, devices, active = self.table, self.devices, ~self.done
        start, slow = devices.start_s, devices.slowdown
        deadline = devices.arrival_s + table.objective.slo_s
        sample = self.samples[self.lane, np.clip(devices.frame_index, 0, self.num_frames - 1)]
        split = table.grid.split_point[candidate]
        payload = np.maximum(table.grid.payload_index[candidate], 0)
        planned, deepest, sends = self._stages(candidate, sample, deadline)
        head = table.head_s[split] * slow
        encode = (table.ready_s[payload] - table.head_s[split]) * slow
        ready = devices.delayed((start + devices.overhead_s + head + encode)[:, None])[:, 0]
        begin = np.maximum(ready, self.uplinks.free_s)
        give_up = deadline - (table.fallback_s[payload] * slow + MARGIN_S)
        # What cannot get on the uplink in time is not encoded either, but answered at once.
        unsent = sends & (begin >= give_up)
        sent = active & sends & ~unsent
        head = np.where(sent, head, table.head_s[deepest] * slow)
        encode = np.where(sent, encode, 0.0)
        return Work(
            active=active, frame_index=devices.frame_index, sample=sample, candidate=candidate,
            payload=payload, arrival_s=devices.arrival_s, start_s=start, deadline_s=deadline,
            deepest=deepest, cut=planned > deepest, unsent=unsent, sent=sent, head_s=head,
            encode_s=encode, ready_s=devices.compute(head + encode, active), begin_s=begin,
            give_up_s=give_up, slowdown=slow,
        )  # fmt: skip

    def _stages(
        self, candidate: Ints, sample: Ints, deadline_s: Floats
    ) -> tuple[Ints, Ints, Bools]:
        """Last stage planned, deepest exit that is in reach, and whether no exit answers before."""
        table, slow = self.table, self.devices.slowdown
        split = table.grid.split_point[candidate]
        threshold = table.grid.exit_threshold[candidate]
        exit_index = first_exit(table.outcomes.exit_confidence[sample], split, threshold)
        # A stage that would end too late is not begun: the deepest exit before it answers.
        begun = self.start_s + self.devices.overhead_s
        ends = self.devices.delayed(begun[:, None] + table.head_s[1:] * slow[:, None])
        in_reach = (ends <= (deadline_s - MARGIN_S + 1e-9)[:, None]).sum(1)
        planned = np.maximum(np.where(exit_index > 0, exit_index, split), 1)
        deepest = np.minimum(planned, np.maximum(in_reach, 1))
        return planned, deepest, (exit_index == 0) & (planned == deepest)

    def _transfer(self, work: Work) -> Transfer:
        """Send the payloads and see what becomes of them."""
        table, links = self.table, self.links
        wire_bytes = table.wire_bytes[work.sample, work.payload]
        done = links.sent_at(self.lane, work.begin_s, wire_bytes * 8)
        tail = table.tail_s[work.payload] * links.servers.slowdown
        wait, reply = links.reply(self.lane, done, tail, work.give_up_s)
        by_server = work.sent & (reply <= work.give_up_s)
        late = work.sent & ~by_server
        return Transfer(
            wire_bytes=wire_bytes, done_s=done, wait_s=wait, reply_s=reply, tail_s=tail,
            half_rtt_s=links.rtt_at(self.lane, done) / 2, by_server=by_server, late=late,
            redo=late & (table.payload_split[work.payload] == 0),
        )  # fmt: skip
