"""Rate and round trip of a link over time, as an emulated link plays them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import accumulate


class Playback:
    """Rate and round trip of a link over time, from a moment on, repeated without end."""

    def __init__(
        self,
        *,
        time_s: list[float],
        uplink_mbps: list[float],
        rtt_s: list[float],
        duration_s: float,
        begin_s: float,
    ) -> None:
        """Take the start of every row, what holds from there on, and when to begin with row 0."""
        self._edges_s = [*time_s, duration_s]
        self._rtt_s = rtt_s
        self._bits_per_s = [rate * 1e6 for rate in uplink_mbps]
        lengths_s = (stop - start for start, stop in zip(time_s, self._edges_s[1:], strict=True))
        bits = (rate * length for rate, length in zip(self._bits_per_s, lengths_s, strict=True))
        self._bits = list(accumulate(bits, initial=0.0))
        self._duration_s, self._begin_s = duration_s, begin_s

    def sent_s(self, begin_s: float, bits: float) -> float:
        """When `bits` that begin at `begin_s` have crossed the uplink."""
        if self._bits[-1] <= 0:
            return float("inf")
        rounds, inside_s = divmod(begin_s - self._begin_s, self._duration_s)
        row = self._row(inside_s)
        before = self._bits[row] + self._bits_per_s[row] * (inside_s - self._edges_s[row])
        more, rest = divmod(before + bits, self._bits[-1])
        if rest == 0 and more > 0:  # the last bit of a round crosses in that round
            more, rest = more - 1, self._bits[-1]
        inside_s = self._moment_s(rest)
        return max(self._begin_s + (rounds + more) * self._duration_s + inside_s, begin_s)

    def rtt_at(self, moment_s: float) -> float:
        """Round trip in force at a moment."""
        return self._rtt_s[self._row((moment_s - self._begin_s) % self._duration_s)]

    def bits_per_s_at(self, moment_s: float) -> float:
        """Rate in force at a moment."""
        return self._bits_per_s[self._row((moment_s - self._begin_s) % self._duration_s)]

    def _row(self, inside_s: float) -> int:
        return min(bisect_right(self._edges_s, inside_s), len(self._bits_per_s)) - 1

    def _moment_s(self, bits: float) -> float:
        """When so many bits of a round have crossed; an outage that follows does not count."""
        row = bisect_left(self._bits, bits) - 1
        if row < 0:
            return 0.0
        return self._edges_s[row] + (bits - self._bits[row]) / self._bits_per_s[row]
