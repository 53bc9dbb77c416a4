"""What is done inside network namespaces, by a thread or a process that may enter them."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Final

from walras.runtimes.network import links, netlink

NEWNET: Final = 0x40000000
_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC
_BACKLOG: Final = 128
_TUN: Final = "/dev/net/tun"
_SET_DEVICE, _SET_INDEX = 0x400454CA, 0x400454DA
# Ethernet without a head of the kernel's own but that for checksums and segments left to the receiver.
_TAP: Final = 0x0002 | 0x1000 | 0x4000
_IPV6: Final = Path("/proc/sys/net/ipv6/conf")
_LOW_PORTS: Final = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")


def unshare(libc: ctypes.CDLL, what: int) -> None:
    """Raises OSError."""
    _check(libc.unshare(what))


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _quiet(index: int) -> None:
    with suppress(OSError):
        netlink.tell(netlink.ROUTE, [links.quiet(index)])


def _only_ipv4(device: str) -> None:
    """Who may write any packet there would have routes and addresses made without end. Raises OSError."""
    if _IPV6.exists():
        Path(_IPV6, device, "disable_ipv6").write_text("1")


class Acts:
    """Belongs to the thread that made it, whose own namespace it always comes back to. All raise OSError."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._home = os.open("/proc/thread-self/ns/net", _FLAGS)

    @contextmanager
    def _within(self, namespace: int) -> Iterator[None]:
        _check(self._libc.setns(namespace, NEWNET))
        try:
            yield
        finally:
            _check(self._libc.setns(self._home, NEWNET))

    def _fresh(self) -> int:
        unshare(self._libc, NEWNET)
        try:
            return os.open("/proc/thread-self/ns/net", _FLAGS)
        finally:
            _check(self._libc.setns(self._home, NEWNET))

    def make_agent(self, addresses: Sequence[str]) -> int:
        """A namespace for an agent's pods to meet in, itself with these addresses: its descriptor."""
        namespace = self._fresh()
        try:
            with self._within(namespace):
                netlink.tell(netlink.ROUTE, links.router(map(IPv4Address, addresses)))
        except BaseException:
            os.close(namespace)
            raise
        return namespace

    def make_pod(self, agent: int, index: int, address: str, networks: Sequence[str]) -> int:
        """A namespace for a pod, connected to the agent's: its descriptor."""
        namespace, own = self._fresh(), IPv4Address(address)
        try:
            with self._within(agent):
                netlink.tell(netlink.ROUTE, [links.pair(index, namespace)])
                _quiet(index)
                with suppress(OSError):
                    _only_ipv4(links.name(index))
                netlink.tell(netlink.ROUTE, links.near(index, own))
            with self._within(namespace):
                _quiet(links.POD_DEVICE)
                netlink.tell(netlink.ROUTE, links.inside(own, map(IPv4Network, networks)))
                # As container engines have it: in its own network a pod may listen on any port. Where the
                # server is in a container itself, it may not be allowed to let it.
                with suppress(OSError):
                    _LOW_PORTS.write_text("0")
        except BaseException:
            os.close(namespace)
            raise
        return namespace

    def make_tap(self, agent: int, index: int, address: str) -> int:
        """A device in the agent's namespace whose other end is a machine's: its descriptor.

        The device goes with the last copy of the descriptor.
        """
        with self._within(agent):
            # A device belongs to the namespace in which this file was opened.
            tap = os.open(_TUN, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                fcntl.ioctl(tap, _SET_INDEX, struct.pack("=I", index))
                fcntl.ioctl(tap, _SET_DEVICE, struct.pack("=16sH22x", links.name(index).encode(), _TAP))
                _only_ipv4(links.name(index))
                netlink.tell(netlink.ROUTE, links.near(index, IPv4Address(address)))
            except BaseException:
                os.close(tap)
                raise
        return tap

    def set_rules(self, agent: int, batch: bytes) -> None:
        with self._within(agent):
            netlink.tell(netlink.NETFILTER, [batch])

    def listen(self, namespace: int, kind: int, address: str, port: int) -> int:
        """A socket that is bound in the namespace, and for TCP listens: its descriptor."""
        with self._within(namespace), socket.socket(socket.AF_INET, kind) as made:
            made.setblocking(False)
            made.bind((address, port))
            if kind == socket.SOCK_STREAM:
                made.listen(_BACKLOG)
            return made.detach()

    def open_socket(self, namespace: int, family: int, kind: int) -> int:
        """A socket that belongs to the namespace for good: its descriptor."""
        with self._within(namespace), socket.socket(family, kind) as made:
            return made.detach()

    def close(self) -> None:
        os.close(self._home)
