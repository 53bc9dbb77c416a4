"""Services as rules of the kernel (nf_tables): what goes to a Service's address goes to one of its pods.

Pure. One table holds all Services of an agent and is replaced as a whole, at once; connections keep to their
pods.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from walras.runtimes.network.netlink import ACK, CREATE, attribute, message, nested

PROTOCOLS: Final = {"TCP": socket.IPPROTO_TCP, "UDP": socket.IPPROTO_UDP, "SCTP": 132}
_TABLE: Final = "walras"
_SUBSYSTEM: Final = 10
_BEGIN, _END = 0x10, 0x11
_NEWTABLE, _DELTABLE, _NEWCHAIN, _NEWRULE, _NEWSET, _NEWELEMENTS = 0, 2, 3, 6, 9, 12
_PREROUTING, _POSTROUTING = 0, 4
_NETWORK, _TRANSPORT = 1, 2
_ANONYMOUS, _CONSTANT, _MAP = 1, 2, 8
# Registers of four bytes, one after the other.
_R0, _R1, _R2 = 8, 9, 10
# As many elements as one attribute has room for, with something to spare.
_ELEMENTS_MAX: Final = 1000

Target = tuple[IPv4Address, int]


@dataclass(frozen=True, slots=True)
class Forward:
    """What goes to `address` and `port` goes to one of `targets`, the same for a client if it is `sticky`."""

    address: IPv4Address
    port: int
    protocol: str
    targets: tuple[Target, ...]
    sticky: bool = False


def rules(forwards: Sequence[Forward]) -> bytes:
    """The batch that replaces all rules of a namespace by these."""
    return _Batch().filled(forwards)


def _be(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack(">I", value & 0xFFFFFFFF))


def _value(kind: int, data: bytes) -> bytes:
    return nested(kind, attribute(1, data))


def _expression(name: str, *attributes: bytes) -> bytes:
    return nested(1, attribute(1, name), nested(2, *attributes))


def _load(base: int, offset: int, size: int, register: int) -> bytes:
    return _expression("payload", _be(1, register), _be(2, base), _be(3, offset), _be(4, size))


def _equal(register: int, data: bytes) -> bytes:
    return _expression("cmp", _be(1, register), _be(2, 0), _value(3, data))


class _Batch:
    def __init__(self) -> None:
        self._messages: list[bytes] = []
        self._sets = 0

    def _add(self, kind: int, flags: int, *attributes: bytes) -> None:
        body = struct.pack(">BBH", socket.AF_INET, 0, 0) + b"".join(attributes)
        number = len(self._messages) + 1
        self._messages.append(message(_SUBSYSTEM << 8 | kind, flags, body, number))

    def _mark(self, kind: int) -> None:
        body = struct.pack(">BBH", socket.AF_UNSPEC, 0, _SUBSYSTEM)
        self._messages.append(message(kind, 0, body, len(self._messages) + 1))

    def filled(self, forwards: Sequence[Forward]) -> bytes:
        self._mark(_BEGIN)
        table = attribute(1, _TABLE)
        # Made first, so that there is one to delete.
        self._add(_NEWTABLE, CREATE, table)
        self._add(_DELTABLE, 0, table)
        self._add(_NEWTABLE, CREATE, table)
        self._chain("services", _PREROUTING, -100)
        self._chain("hairpins", _POSTROUTING, 100)
        for each in forwards:
            if each.targets:
                self._rule("services", self._to_service(each))
        own = sorted({address for each in forwards for address, _ in each.targets})
        for few in _pieces(own):
            self._rule("hairpins", self._from_itself(few))
        self._messages[-1] = _acknowledging(self._messages[-1])
        self._mark(_END)
        return b"".join(self._messages)

    def _chain(self, name: str, hook: int, priority: int) -> None:
        self._add(
            _NEWCHAIN,
            CREATE,
            attribute(1, _TABLE),
            attribute(3, name),
            nested(4, _be(1, hook), _be(2, priority)),
            attribute(7, "nat"),
        )

    def _rule(self, chain: str, expressions: Iterable[bytes]) -> None:
        self._add(_NEWRULE, CREATE, attribute(1, _TABLE), attribute(2, chain), nested(4, *expressions))

    def _set(self, size: int, elements: Iterable[bytes], *, values: int = 0) -> bytes:
        """An anonymous set, or map to `values` bytes: what names it in a lookup."""
        self._sets += 1
        name, number = attribute(2, f"__set{self._sets}"), self._sets
        flags = _ANONYMOUS | _CONSTANT | (_MAP if values else 0)
        described = [attribute(1, _TABLE), name, _be(3, flags), _be(4, 0), _be(5, size)]
        described += [_be(6, 1), _be(7, values)] if values else []
        self._add(_NEWSET, CREATE, *described, _be(10, number))
        self._add(_NEWELEMENTS, CREATE, attribute(1, _TABLE), name, _be(4, number), nested(3, *elements))
        return attribute(1, f"__set{self._sets}") + _be(4, number)

    def _to_service(self, forward: Forward) -> Iterator[bytes]:
        targets = forward.targets[:_ELEMENTS_MAX]
        elements = [
            nested(
                1,
                _value(1, struct.pack("=I", number)),
                _value(2, address.packed + struct.pack(">HH", port, 0)),
            )
            for number, (address, port) in enumerate(targets)
        ]
        named = self._set(4, elements, values=8)
        yield _expression("meta", _be(1, _R0), _be(2, 16))
        yield _equal(_R0, struct.pack("=B", PROTOCOLS[forward.protocol]))
        yield _load(_NETWORK, 16, 4, _R0)
        yield _equal(_R0, forward.address.packed)
        yield _load(_TRANSPORT, 2, 2, _R0)
        yield _equal(_R0, struct.pack(">H", forward.port))
        if forward.sticky:
            yield _load(_NETWORK, 12, 4, _R1)
            yield _expression(
                "hash", _be(1, _R1), _be(2, _R0), _be(3, 4), _be(4, len(targets)), _be(5, 1), _be(7, 0)
            )
        else:
            yield _expression("numgen", _be(1, _R0), _be(2, len(targets)), _be(3, 1))
        yield _expression("lookup", named, _be(2, _R0), _be(3, _R1))
        yield _expression("nat", _be(1, 1), _be(2, socket.AF_INET), _be(3, _R1), _be(5, _R2))

    def _from_itself(self, addresses: Sequence[IPv4Address]) -> Iterator[bytes]:
        """A pod that comes to itself by a Service would not take its own address for a stranger's."""
        named = self._set(8, [nested(1, _value(1, each.packed * 2)) for each in addresses])
        yield _load(_NETWORK, 12, 4, _R0)
        yield _load(_NETWORK, 16, 4, _R1)
        yield _expression("lookup", named, _be(2, _R0))
        yield _expression("masq")


def _pieces(addresses: Sequence[IPv4Address]) -> Iterator[Sequence[IPv4Address]]:
    for start in range(0, len(addresses), _ELEMENTS_MAX):
        yield addresses[start : start + _ELEMENTS_MAX]


def _acknowledging(data: bytes) -> bytes:
    size, kind, flags, number, port = struct.unpack_from("=IHHII", data)
    return struct.pack("=IHHII", size, kind, flags | ACK, number, port) + data[16:]
