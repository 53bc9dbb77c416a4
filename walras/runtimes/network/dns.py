"""Messages of the domain name system (RFC 1035), as far as a server of one zone needs them. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

A, CNAME, PTR, AAAA, SRV, ANY = 1, 5, 12, 28, 33, 255
NO_ERROR, FORMAT_ERROR, NO_SUCH_NAME, NOT_IMPLEMENTED, REFUSED = 0, 1, 3, 4, 5
UDP_BYTES_MAX: Final = 512
TTL_S: Final = 5
_HEAD: Final = struct.Struct(">HHHHHH")
_RESPONSE, _AUTHORITATIVE, _TRUNCATED, _RECURSION_DESIRED = 0x8000, 0x0400, 0x0200, 0x0100
_OPCODE: Final = 0x7800
_QUESTION_AT: Final = 0xC00C
_INTERNET: Final = 1
_LABEL_MAX: Final = 63
_NAME_MAX: Final = 255


@dataclass(frozen=True, slots=True)
class Question:
    """`name`: its labels in lower case. `asked` are its own bytes, to be said back."""

    number: int
    flags: int
    name: tuple[str, ...]
    kind: int
    asked: bytes


@dataclass(frozen=True, slots=True)
class Record:
    """An answer to the question's own name, or to `name`."""

    kind: int
    data: bytes
    name: bytes = b""


def read(data: bytes) -> Question:
    """The question of a query. Raises ValueError for what is none."""
    if len(data) < _HEAD.size:
        raise ValueError("too short")
    number, flags, questions, *_ = _HEAD.unpack_from(data)
    if flags & _RESPONSE or questions != 1:
        raise ValueError("not one question")
    labels, at = [], _HEAD.size
    while at < len(data) and data[at]:
        size = data[at]
        if size > _LABEL_MAX or at + 1 + size >= len(data) or at - _HEAD.size + size > _NAME_MAX:
            raise ValueError("no name")
        labels.append(data[at + 1 : at + 1 + size].decode("ascii", "replace").lower())
        at += 1 + size
    if at + 5 > len(data):
        raise ValueError("cut short")
    kind, class_ = struct.unpack_from(">HH", data, at + 1)
    if class_ != _INTERNET:
        raise ValueError("not of the Internet")
    return Question(number, flags, tuple(labels), kind, data[_HEAD.size : at + 5])


def understood(question: Question) -> bool:
    """Whether it is a plain query."""
    return not question.flags & _OPCODE


def malformed(data: bytes) -> bytes:
    """The answer to what cannot be read; nothing to what has no number either, or is an answer itself."""
    if len(data) < _HEAD.size or data[2] & 0x80:
        return b""
    return _HEAD.pack(int.from_bytes(data[:2]), _RESPONSE | FORMAT_ERROR, 0, 0, 0, 0)


def answer(
    question: Question,
    code: int,
    records: Iterable[Record] = (),
    extra: Iterable[Record] = (),
    *,
    bytes_max: int = 65_535,
) -> bytes:
    """What is answered; where it does not fit the client is told to ask over TCP."""
    flags = _RESPONSE | _AUTHORITATIVE | (question.flags & (_OPCODE | _RECURSION_DESIRED)) | code
    packed, beside = [_record(each) for each in records], [_record(each) for each in extra]
    size = _HEAD.size + len(question.asked) + sum(map(len, packed))
    if size + sum(map(len, beside)) > bytes_max:
        beside = []
    if size > bytes_max:
        packed, flags = [], flags | _TRUNCATED
    head = _HEAD.pack(question.number, flags, 1, len(packed), 0, len(beside))
    return b"".join((head, question.asked, *packed, *beside))


def _record(record: Record) -> bytes:
    name = record.name or struct.pack(">H", _QUESTION_AT)
    return name + struct.pack(">HHIH", record.kind, _INTERNET, TTL_S, len(record.data)) + record.data


def name_of(labels: Iterable[str]) -> bytes:
    """A name in full. Raises ValueError for one that cannot be."""
    parts = [each.encode("ascii") for each in labels]
    if any(not 0 < len(each) <= _LABEL_MAX for each in parts):
        raise ValueError("no name")
    return b"".join(bytes((len(each),)) + each for each in parts) + b"\0"


def address(of: str, name: bytes = b"") -> Record:
    return Record(A, IPv4Address(of).packed, name)


def service(port: int, target: bytes) -> Record:
    return Record(SRV, struct.pack(">HHH", 0, 100, port) + target)
