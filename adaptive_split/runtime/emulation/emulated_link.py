"""A link between device and server that plays a trace: rate, delay and outages, without root.

A TCP proxy in a process of its own, so that neither side's work disturbs its timing. The uplink is
a FIFO: bytes leave at the trace's rate and arrive half a round trip later; the way back is delayed
by half a round trip and not paced. Buffers are small, so a backlog stays in the sender's socket, as
it would in a modem's queue. Losses are not played, as TCP ends here: a lost reply is a long round
trip.
"""

from __future__ import annotations

from adaptive_split.runtime.emulation.link_process import LinkProcess


class EmulatedLink(LinkProcess):
    """A proxy in front of a server; passes bytes on at once until a trace is started."""

    def __init__(self, server: str) -> None:
        """Start the proxy.

        Args:
            server: `host:port` of the server behind the link; asked anew for every connection.
        """
        super().__init__("link_proxy", server)
