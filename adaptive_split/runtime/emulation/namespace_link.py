"""A link between device and server that plays a trace packet by packet; needs root.

Two TUN devices with a forwarder between them: one in this network namespace, so that any program
here reaches the server at a plain address, the other in a namespace of its own, where the link's
far end listens and passes connections on to the server. TCP runs over it as over a modem: it feels
delay, a queue of `packet_queue.QUEUE_BYTES` that fills and drops, and losses. Uplink packets cross
at the trace's rate and arrive half a round trip later; the way back is delayed by half a round trip
and not paced. Congestion control is the machine's. Connect after `start`: TCP remembers the least
round trip of a connection, and one without a link misleads it for long.

    device -> TUN | forwarder: queue, rate, loss, delay | TUN -> relay -> server
    (this namespace)                        (its own namespace)   (this namespace)

Devices and namespace have no name on disk and vanish with the forwarder, also when it is killed.
"""

from __future__ import annotations

from adaptive_split.errors import ConfigError
from adaptive_split.runtime.emulation.emulated_link import EmulatedLink
from adaptive_split.runtime.emulation.link_process import LinkProcess, plan_of
from adaptive_split.runtime.emulation.tun_device import find_obstacle
from adaptive_split.trace import Trace


class NamespaceLink(LinkProcess):
    """Two TUN devices in front of a server; packets pass at once until a trace is started."""

    def __init__(self, server: str) -> None:
        """Make the devices.

        Args:
            server: `host:port` of the server behind the link; asked anew for every connection.

        Raises:
            LinkError: If this machine does not let us; `check_link` tells before.
        """
        super().__init__("tun_forwarder", server)

    def start(self, trace: Trace, offset_s: float = 0.0, *, loss: float = 0.0) -> float:
        """Play a trace; see `LinkProcess.start`.

        Args:
            trace: What to play, over and over.
            offset_s: Where to begin.
            loss: Share of the uplink's packets that are lost on the air, in [0, 1].
        """
        if not 0 <= loss <= 1:
            raise ConfigError(f"loss must be a share in [0, 1]; got {loss!r}")
        return self._command({**plan_of(trace, offset_s), "loss": loss})


LINKS: dict[str, type[EmulatedLink] | type[NamespaceLink]] = {
    "proxy": EmulatedLink,
    "namespaces": NamespaceLink,
}


def check_link(kind: str) -> None:
    """Refuse a kind of link that does not exist or that this machine cannot have."""
    if kind not in LINKS:
        raise ConfigError(f"link must be one of {', '.join(LINKS)}; got {kind!r}")
    if kind == "namespaces" and (obstacle := find_obstacle()):
        raise ConfigError(
            "a link of namespaces must be allowed to make TUN devices and network namespaces; got "
            f"{obstacle}; run as root, or use the link 'proxy'"
        )


def open_link(kind: str, server: str) -> EmulatedLink | NamespaceLink:
    """Start a link of a kind, see `LINKS`, in front of the server at `host:port`."""
    check_link(kind)
    return LINKS[kind](server)
