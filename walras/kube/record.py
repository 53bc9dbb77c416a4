"""A version of an object in memory: its JSON, decoded when somebody looks."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, ClassVar, Final, NamedTuple

import msgspec

Object = dict[str, Any]

encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Key(NamedTuple):
    """Where an object lives; namespace "" for a cluster-scoped one."""

    cluster: str
    resource: str
    namespace: str
    name: str


def parse(text: bytes | str) -> Any:
    """What JSON that comes from outside says. Raises ValueError for what is none, or nested too deep."""
    try:
        return _decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(str(error)) from None


def copy(obj: Object) -> Object:
    """A deep copy of plain JSON data, several times faster than `copy.deepcopy`."""
    return _decode(encode(obj))  # type: ignore[no-any-return]


def size(obj: Object) -> int:
    """Bytes of its JSON."""
    return len(encode(obj))


# Decoded, an object takes some eight times its JSON: so much JSON of clusters is kept decoded, all in all.
DECODED_BYTES_MAX: Final = 2 << 20


class Record:
    """`raw` is the JSON with the resourceVersion in it; `object` is shared: never mutate it."""

    __slots__ = ("_object", "key", "raw", "revision")
    # The records that are decoded, of all clusters, the longest first.
    _decoded: ClassVar[OrderedDict[Record, None]] = OrderedDict()
    _decoded_bytes: ClassVar[int] = 0

    def __init__(self, key: Key, revision: int, raw: bytes) -> None:
        self.key = key
        self.revision = revision
        self.raw = raw
        self._object: Object | None = None

    @classmethod
    def of(cls, key: Key, revision: int, obj: Object) -> Record:
        """The record of `obj`, whose metadata gets the revision in place."""
        obj["metadata"]["resourceVersion"] = str(revision)
        return cls(key, revision, encode(obj))

    @property
    def object(self) -> Object:
        found = self._object
        if found is None:
            found = self._object = _decode(self.raw)
            if self.key.cluster:
                self._keep()
        return found

    def _keep(self) -> None:
        """Counts this one as decoded, and lets go of those that were decoded the longest ago."""
        Record._decoded[self] = None
        Record._decoded_bytes += len(self.raw)
        while Record._decoded_bytes > DECODED_BYTES_MAX and len(Record._decoded) > 1:
            next(iter(Record._decoded)).release()

    def release(self) -> None:
        """Forgets what was decoded, until somebody looks again."""
        if self in Record._decoded:
            del Record._decoded[self]
            Record._decoded_bytes -= len(self.raw)
            self._object = None

    @property
    def is_going(self) -> bool:
        """Whether the object is being deleted; mostly nothing has to be decoded to see that it is not."""
        return b'"deletionTimestamp"' in self.raw and "deletionTimestamp" in self.object["metadata"]

    def fresh(self) -> Object:
        """A private copy, to mutate."""
        return _decode(self.raw)  # type: ignore[no-any-return]
