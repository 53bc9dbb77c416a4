"""How a container is made, started and removed, though the engine may end in the middle of it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import msgspec
import structlog

from walras.core.errors import WalrasError
from walras.runtimes.base import CreateError, StartError
from walras.runtimes.cgroups import GroupPath, Groups, clear
from walras.runtimes.engine.client import Engine, EngineError, Streams, has_just_ended
from walras.runtimes.engine.service import Source
from walras.runtimes.engine.sessions import spoken

log = structlog.get_logger(__name__)
T = TypeVar("T")

_REMOVE_TRIES: Final = 4
# While an engine that has ended comes back.
_BACK_S: Final = (0.05, 0.1, 0.2, 0.5, 1.0)
# The label of a container that says whose it is before its id is known.
_GROUP: Final = "dev.walras.group"
# How Docker and Podman call a container whose program was never begun.
_NEW: Final = ("created", "configured", "initialized")


class Host(Protocol):
    """What is asked of the runtime."""

    @property
    def groups(self) -> Groups | None: ...

    # As many things as the engine does at a time.
    turns: asyncio.Semaphore

    @property
    def service(self) -> Source: ...

    async def engine(self) -> Engine: ...


@dataclass(frozen=True, slots=True)
class Started:
    """`pid`: the main process, 0 when it has ended. `layer`: where what it writes over its image lies."""

    streams: Streams
    pid: int
    layer: Path | None


async def begin(host: Host, made: dict[str, Any], path: GroupPath, stdin: bool) -> tuple[str, Started]:
    """Makes a container and starts it: its id, and what there is of it then.

    `path`: its control group. Raises CreateError, StartError.
    """
    made["Labels"] = {**made.get("Labels", {}), _GROUP: "/".join(path)}
    try:
        engine = await host.engine()
        async with host.turns:
            engine_id = str((await engine.call("POST", "/containers/create", body=made))["Id"])
    except WalrasError as error:
        if isinstance(error, EngineError) and not error.status:
            await _remove_unnamed(host, path)
        raise CreateError(error.message, again=True) from error
    try:
        async with host.turns:
            started = await _watch_start(engine, engine_id, stdin)
    except BaseException as error:
        lost = isinstance(error, EngineError) and not error.status
        found = await _found_again(host, engine_id) if lost else None
        if found is not None and found["State"]["Status"] not in _NEW:
            # It was asked in time.
            return engine_id, _started(await _heard_again(host, engine_id, stdin), found)
        await remove(host, engine_id)
        if host.groups is not None:
            await clear(host.groups, path)
        if found is not None:
            raise CreateError(str(error), again=True) from error
        if isinstance(error, EngineError):
            raise StartError(spoken(error.message)) from error
        raise
    return engine_id, started


async def _remove_unnamed(host: Host, path: GroupPath) -> None:
    """Takes away what the engine may have made before it died, and could tell nobody."""
    label = msgspec.json.encode({"label": [f"{_GROUP}={'/'.join(path)}"]}).decode()
    asked = {"all": "true", "filters": label}
    found = await _back(host, lambda engine: engine.call("GET", "/containers/json", params=asked))
    for each in found or ():
        await remove(host, str(each["Id"]))


async def _found_again(host: Host, engine_id: str) -> dict[str, Any] | None:
    """What an engine that has ended knows of the container once it is back; None when that is not soon."""
    return await _back(host, lambda engine: engine.look(engine_id))


async def _back(host: Host, ask: Callable[[Engine], Awaitable[T]]) -> T | None:
    """What an engine that has ended answers once it is back; None when that is not soon, or a refusal."""
    for pause_s in _BACK_S:
        try:
            return await ask(await host.engine())
        except EngineError as error:
            if error.status:
                break
            await asyncio.sleep(pause_s)
        except WalrasError:
            break
    return None


async def _heard_again(host: Host, engine_id: str, stdin: bool) -> Streams:
    """The streams of a container that was started, at their end for one that has ended. Raises OSError."""
    with suppress(WalrasError):
        return await attach(await host.engine(), engine_id, stdin)
    ours, theirs = socket.socketpair()
    theirs.close()
    return await asyncio.open_unix_connection(sock=ours)


async def remove(host: Host, engine_id: str) -> None:
    """Takes the container from the engine, with all that it wrote."""
    why = ""
    for _ in range(_REMOVE_TRIES):
        try:
            engine = await host.engine()
            async with host.turns:
                await engine.call("DELETE", f"/containers/{engine_id}", params={"force": "true", "v": "true"})
        except WalrasError as error:
            if isinstance(error, EngineError) and error.status == 404:
                host.service.forget(engine_id)
                return
            # One that was killed from under its monitor takes two.
            why = error.message
            await asyncio.sleep(0.05)
        else:
            host.service.forget(engine_id)
            return
    log.warning("container not removed", container=engine_id, error=why)


async def attach(engine: Engine, engine_id: str, stdin: bool) -> Streams:
    """The container's streams; one that was only made gets ready by it. Raises EngineError."""
    wanted = {"stream": "true", "stdout": "true", "stderr": "true", **({"stdin": "true"} if stdin else {})}
    return await engine.hijack(f"/containers/{engine_id}/attach", params=wanted)


async def _watch_start(engine: Engine, engine_id: str, stdin: bool) -> Started:
    """Attaches and starts. Raises EngineError."""
    streams = await attach(engine, engine_id, stdin)
    try:
        await _start(engine, engine_id)
        found = await engine.look(engine_id)
    except BaseException:
        streams[1].close()
        raise
    return _started(streams, found)


def _started(streams: Streams, found: dict[str, Any]) -> Started:
    layer = ((found.get("GraphDriver") or {}).get("Data") or {}).get("UpperDir")
    return Started(streams, int(found["State"].get("Pid") or 0), Path(layer) if layer else None)


async def _start(engine: Engine, engine_id: str) -> None:
    try:
        await engine.call("POST", f"/containers/{engine_id}/start")
    except EngineError as error:
        if not has_just_ended(error):
            raise
