"""TUN devices and network namespaces of Linux, without a name on disk, gone with their process.

A TUN device hands the packets that the kernel routes to it to a program and takes packets from it.
It lasts as long as its descriptor; a namespace lasts as long as a process or socket is in it. So
nothing is left behind, whatever ends the program.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

DEVICE = Path("/dev/net/tun")
NAMESPACE = Path("/proc/self/ns/net")
MTU_BYTES = 1500

# From linux/if_tun.h, linux/sockios.h, linux/if.h and linux/sched.h.
_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 0x1
_SIOCSIFADDR, _SIOCSIFDSTADDR, _SIOCSIFNETMASK = 0x8916, 0x8918, 0x891C
_SIOCSIFMTU = 0x8922
_CLONE_NEWNET = 0x40000000
_CAP_NET_ADMIN, _CAP_SYS_ADMIN = 12, 21


def find_obstacle() -> str | None:
    """Tell what keeps this process from making TUN devices and namespaces, if anything does."""
    if not NAMESPACE.exists():
        return "a kernel without network namespaces"
    try:
        os.close(os.open(DEVICE, os.O_RDWR))
    except OSError as error:
        return str(error)
    status = Path("/proc/self/status").read_text(encoding="ascii")
    effective = int(status.split("CapEff:")[1].split()[0], 16)
    for bit, name in ((_CAP_NET_ADMIN, "CAP_NET_ADMIN"), (_CAP_SYS_ADMIN, "CAP_SYS_ADMIN")):
        if not effective >> bit & 1:
            return f"a process without {name}"
    return None


def open_tun(name: str, address: str, peer: str) -> int:
    """Make a device in this namespace; return its descriptor, which does not block.

    Args:
        name: Of the device, at most 15 letters.
        address: This end's, IPv4.
        peer: What is reached through the device, IPv4.
    """
    tun = os.open(DEVICE, os.O_RDWR | os.O_NONBLOCK)
    flags = _IFF_TUN | _IFF_NO_PI
    fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for request, given in (
            (_SIOCSIFADDR, address),
            (_SIOCSIFDSTADDR, peer),
            (_SIOCSIFNETMASK, "255.255.255.255"),
        ):
            fields = (name.encode(), socket.AF_INET, 0, socket.inet_aton(given))
            fcntl.ioctl(control, request, struct.pack("16sHH4s16x", *fields))
        for request, number in ((_SIOCSIFMTU, MTU_BYTES), (_SIOCSIFFLAGS, _IFF_UP)):
            fcntl.ioctl(control, request, struct.pack("16si20x", name.encode(), number))
    return tun


@contextlib.contextmanager
def new_namespace() -> Iterator[None]:
    """Put the calling thread into a network namespace of its own; back again at the end."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open(NAMESPACE, os.O_RDONLY)
    try:
        _check(libc.unshare(_CLONE_NEWNET))
        try:
            yield
        finally:
            _check(libc.setns(home, _CLONE_NEWNET))
    finally:
        os.close(home)


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
