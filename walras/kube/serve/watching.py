"""Watch streams: one JSON document a line, in the representation that the client asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any, Final, Protocol

from walras.core.errors import Invalid, WalrasError
from walras.kube import tables, versions
from walras.kube.registry import Resource
from walras.kube.serve import status
from walras.kube.serve.answers import encode
from walras.kube.serve.negotiate import Representation

Object = dict[str, Any]

# A watch without timeoutSeconds ends after this; clients go on from where they were.
DEFAULT_TIMEOUT_S: Final = 1800
TIMEOUT_S_MAX: Final = 4 * 3600
_CHUNK_BYTES: Final = 64 * 1024


class Watching(Protocol):
    """What the request verbs give for a watch."""

    def __aiter__(self) -> AsyncIterator[tuple[str, Object]]: ...

    async def __anext__(self) -> tuple[str, Object]: ...

    def ready(self) -> tuple[str, Object] | None:
        """The next event if it is there already."""

    def close(self) -> None:
        """Ends the iteration, also one that is waiting now; more than once is fine."""


def initial_events_error(message: str) -> Invalid:
    return Invalid(f'ListOptions.meta.k8s.io "" is invalid: {message}')


class Failed:
    """A watch that never was: its only event is the error."""

    def __init__(self, error: WalrasError) -> None:
        self._error = error

    def __aiter__(self) -> AsyncIterator[tuple[str, Object]]:
        return self

    async def __anext__(self) -> tuple[str, Object]:
        raise self._error

    def ready(self) -> None:
        return None

    def close(self) -> None:
        pass


async def lines(
    watch: Watching,
    resource: Resource,
    shape: Representation,
    include_object: str,
    now: Callable[[], int],
    timeout_s: int,
) -> AsyncGenerator[bytes, None]:
    """The events as lines until the timeout, the watch's end or the generator's close."""
    shaper = _Shaper(resource, shape, include_object, now)
    # A timeout context must not span a yield: the timer would cancel whoever holds the chunk then.
    timer = asyncio.get_running_loop().call_later(timeout_s, watch.close)
    try:
        async for kind, obj in watch:
            chunk = _line(kind, shaper(kind, obj))
            # What waits already goes along, up to a size that a slow reader still takes in one piece.
            while len(chunk) < _CHUNK_BYTES and (event := watch.ready()) is not None:
                chunk += _line(event[0], shaper(*event))
            yield chunk
    except WalrasError as error:
        yield _line("ERROR", status.failure(error))
    finally:
        timer.cancel()
        watch.close()


def _line(kind: str, obj: Object) -> bytes:
    return b'{"type":"%b","object":%b}\n' % (kind.encode(), encode(obj))


class _Shaper:
    """Turns the objects of one stream into the representation; a Table names its columns once."""

    def __init__(
        self, resource: Resource, shape: Representation, include_object: str, now: Callable[[], int]
    ) -> None:
        self._resource, self._shape, self._include, self._now = resource, shape, include_object, now
        self._columns_told = False

    def __call__(self, kind: str, obj: Object) -> Object:
        if kind not in ("BOOKMARK", "ERROR"):
            obj = versions.served(self._resource, obj)
        if not self._shape.as_ or kind == "ERROR":
            return obj
        if self._shape.as_ != "Table":
            return tables.partial(obj)
        if kind == "BOOKMARK":
            return self._bookmark(obj)
        headers, self._columns_told = not self._columns_told, True
        return tables.table(
            self._resource, [obj], now_ms=self._now(), include_object=self._include, headers=headers
        )

    def _bookmark(self, obj: Object) -> Object:
        row = {"cells": [], "object": tables.partial(obj)}
        metadata = {"resourceVersion": obj["metadata"]["resourceVersion"]}
        empty = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}
        return {**empty, "columnDefinitions": [], "rows": [row]}
