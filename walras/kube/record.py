"""A version of an object in memory: its JSON, decoded when somebody looks."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

Object = dict[str, Any]

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Key(NamedTuple):
    """Where an object lives; namespace "" for a cluster-scoped one."""

    cluster: str
    resource: str
    namespace: str
    name: str


def copy(obj: Object) -> Object:
    """A deep copy of plain JSON data, several times faster than `copy.deepcopy`."""
    return _decode(_encode(obj))  # type: ignore[no-any-return]


def size(obj: Object) -> int:
    """Bytes of its JSON."""
    return len(_encode(obj))


class Record:
    """`raw` is the JSON with the resourceVersion in it; `object` is shared: never mutate it."""

    __slots__ = ("_object", "key", "raw", "revision")

    def __init__(self, key: Key, revision: int, raw: bytes) -> None:
        self.key = key
        self.revision = revision
        self.raw = raw
        self._object: Object | None = None

    @classmethod
    def of(cls, key: Key, revision: int, obj: Object) -> Record:
        """The record of `obj`, whose metadata gets the revision in place."""
        obj["metadata"]["resourceVersion"] = str(revision)
        return cls(key, revision, _encode(obj))

    @property
    def object(self) -> Object:
        if self._object is None:
            self._object = _decode(self.raw)
        return self._object

    def fresh(self) -> Object:
        """A private copy, to mutate."""
        return _decode(self.raw)  # type: ignore[no-any-return]
