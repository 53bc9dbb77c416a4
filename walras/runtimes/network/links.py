"""What makes an agent's network, as rtnetlink messages: a pair of devices for each pod, routed. Pure.

The agent's namespace is a router. A pod's device has one address, and a route by the router to what else is
there; so pods see each other's packets only where they are sent to them, and what comes from a pod with an
address that is not its own is dropped.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from walras.runtimes.network.netlink import ACK, CREATE, EXCL, attribute, message, nested

ROUTER: Final = IPv4Address("169.254.1.1")
LOOPBACK: Final = 1
POD_DEVICE: Final = 2
FIRST_DEVICE: Final = 2
_NEWLINK, _NEWADDR, _NEWROUTE = 16, 20, 24
_UP: Final = 1
_LINK: Final = 253
_UNIVERSE: Final = 0
_HOST: Final = 32


def _device(kind: int, flags: int, index: int, *attributes: bytes, up: bool = False) -> bytes:
    body = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, _UP if up else 0, _UP if up else 0)
    return message(kind, flags | ACK, body + b"".join(attributes))


def name(index: int) -> str:
    """What the device of a pod is called in the agent's namespace."""
    return f"pod{index}"


def up(index: int) -> bytes:
    return _device(_NEWLINK, 0, index, up=True)


def address(index: int, of: IPv4Address, scope: int = _UNIVERSE) -> bytes:
    body = struct.pack("=BBBBI", socket.AF_INET, _HOST, 0, scope, index)
    return message(_NEWADDR, CREATE | EXCL | ACK, body + attribute(2, of.packed) + attribute(1, of.packed))


def _route(index: int, to: IPv4Network, by: IPv4Address | None = None) -> bytes:
    scope = _LINK if by is None else _UNIVERSE
    body = struct.pack("=BBBBBBBBI", socket.AF_INET, to.prefixlen, 0, 0, 254, 4, scope, 1, 0)
    gateway = attribute(5, by.packed) if by is not None else b""
    return message(
        _NEWROUTE,
        CREATE | EXCL | ACK,
        body + attribute(1, to.network_address.packed) + attribute(4, index) + gateway,
    )


def _forwards(index: int) -> bytes:
    """It passes packets on, but none that come from where they cannot be."""
    settings = nested(1, attribute(1, 1), attribute(8, 1))
    return _device(_NEWLINK, 0, index, nested(26, nested(socket.AF_INET, settings)))


def quiet(index: int) -> bytes:
    """No IPv6 addresses that the kernel makes up; refused by one without IPv6, which makes up none."""
    mode = attribute(8, struct.pack("=B", 1))
    return _device(_NEWLINK, 0, index, nested(26, nested(socket.AF_INET6, mode)))


def router(addresses: Iterable[IPv4Address]) -> list[bytes]:
    """In a fresh namespace of an agent: what it answers itself has these addresses."""
    return [up(LOOPBACK), *(address(LOOPBACK, each) for each in addresses)]


def pair(index: int, pod: int) -> bytes:
    """In the agent's namespace: a device `index` whose other end is in the namespace of descriptor `pod`."""
    peer = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, POD_DEVICE, 0, 0)
    peer += attribute(3, "eth0") + attribute(28, pod)
    kind = nested(18, attribute(1, "veth"), nested(2, nested(1, peer)))
    return _device(_NEWLINK, CREATE | EXCL, index, attribute(3, name(index)), kind)


def near(index: int, of: IPv4Address) -> list[bytes]:
    """In the agent's namespace: the router's end of a link, on which nothing but `of` is."""
    return [
        _forwards(index),
        address(index, ROUTER, _LINK),
        up(index),
        _route(index, IPv4Network((of, _HOST))),
    ]


def inside(of: IPv4Address, networks: Iterable[IPv4Network]) -> list[bytes]:
    """In the pod's namespace, after the pair is made: its address, and ways to the networks."""
    return [
        address(POD_DEVICE, of),
        up(LOOPBACK),
        up(POD_DEVICE),
        _route(POD_DEVICE, IPv4Network((ROUTER, _HOST))),
        *(_route(POD_DEVICE, each, ROUTER) for each in networks),
    ]
