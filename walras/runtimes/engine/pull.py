"""One pull: by an engine process of its own, ended when it takes too long or too much."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any, Final

import msgspec

from walras.runtimes.engine.apart import Apart
from walras.runtimes.engine.client import EngineError
from walras.runtimes.waiting import cancelled

# As long as a registry may say nothing; and as long as the engine may unpack what it has.
SILENCE_S: Final = 60.0
UNPACK_S: Final = 600.0
# What is left of a disk when nothing is pulled on to it any more, in percent.
SPARE: Final = 5
# As long as all of a pull may take.
PULL_S: Final = 3600.0
_LOOK_S: Final = 0.25
_DOWNLOADED: Final = "Download complete"
# In Docker's words, where Podman ends with the id.
_DIGEST: Final = "Digest: "
_THERE: Final = "Already exists"


class Pulls:
    """Those that are under way, so that the one that fills the disk is told from the others."""

    def __init__(self) -> None:
        self.running: set[Apart] = set()

    def is_largest(self, apart: Apart) -> bool:
        return apart.written() >= max(each.written() for each in self.running)


async def pull(apart: Apart, pulls: Pulls, name: str, key: Mapping[str, str], room_bytes: int) -> str:
    """Pulls the image: how its id begins, or its digest.

    Raises EngineError, also when it takes more than `room_bytes`.
    """
    pulls.running.add(apart)
    getting = asyncio.ensure_future(_get(apart, name, key))
    try:
        while True:
            await asyncio.wait((getting,), timeout=_LOOK_S)
            if getting.done():
                return getting.result()
            _check(apart, pulls, room_bytes)
    except TimeoutError as error:
        raise EngineError(f"the pull takes more than {PULL_S:.0f} seconds") from error
    except OSError as error:
        raise EngineError(f"what is pulled is lost: {error.strerror or error}") from error
    finally:
        if not getting.done():
            apart.kill()
        await cancelled(getting)
        pulls.running.discard(apart)


def _check(apart: Apart, pulls: Pulls, room_bytes: int) -> None:
    # What is fetched lies on the disk beside what it is unpacked to.
    if apart.written() > 2 * room_bytes:
        raise EngineError(f"the image takes more than the {room_bytes} bytes that there are for it")
    disk = os.statvfs(apart.directory)
    if disk.f_bavail * 100 < disk.f_blocks * SPARE and pulls.is_largest(apart):
        raise EngineError("no space left on device")


async def _get(apart: Apart, name: str, key: Mapping[str, str]) -> str:
    headers = {}
    if key:
        told = {**key, "serveraddress": name.partition("/")[0]}
        headers["X-Registry-Auth"] = base64.urlsafe_b64encode(msgspec.json.encode(told)).decode()
    lines = apart.engine.lines("/images/create", {"fromImage": name}, headers)
    async with asyncio.timeout(PULL_S), aclosing(lines):
        return await _brought(lines, name)


async def _brought(lines: AsyncIterator[dict[str, Any]], name: str) -> str:
    """What the engine says that it is, once it is all there."""
    under_way: set[str] = set()
    last, digest, done = "", "", False
    while True:
        patience_s = UNPACK_S if done and not under_way else SILENCE_S
        said = await _next(lines, patience_s)
        if said is None:
            if not (digest or last):
                raise EngineError(f"the engine does not say what {name} is")
            return digest or last
        if error := said.get("error") or (said.get("errorDetail") or {}).get("message"):
            raise EngineError(str(error))
        if str(said.get("status")).startswith(_DIGEST):
            digest = str(said["status"]).removeprefix(_DIGEST)
        elif said.get("id"):
            last = str(said["id"])
            if said.get("status") in (_DOWNLOADED, _THERE, "Pull complete"):
                under_way.discard(last)
                done = True
            else:
                under_way.add(last)


async def _next(lines: AsyncIterator[dict[str, Any]], patience_s: float) -> dict[str, Any] | None:
    try:
        async with asyncio.timeout(patience_s):
            return await anext(lines, None)
    except TimeoutError as error:
        raise EngineError(f"no progress of the pull for {patience_s:.0f} seconds") from error
