"""The engine's images: which are here, for whom, and how more come."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from walras.runtimes.base import ImageError, PodRef
from walras.runtimes.engine import registries
from walras.runtimes.engine.client import Engine, EngineError
from walras.runtimes.engine.service import Service
from walras.runtimes.image_names import HUB, repository

Keys = tuple[Mapping[str, str], ...]
# More wait: a registry, a disk and a line have room for so many at a time.
PULLS_MAX: Final = 4


class Images:
    """See base.Images. An image that was fetched with a key is for agents that can show one that fetches it.

    `book`: the file that remembers whose such images are.
    """

    def __init__(self, service: Service, book: Path) -> None:
        self._service, self._book = service, book
        self._pulling = asyncio.Semaphore(PULLS_MAX)
        self._configs: dict[str, dict[str, Any]] = {}
        # Ids of images that needed a key, with the agents that had one.
        self._private: dict[str, list[str]] = {}
        if book.exists():
            self._private = msgspec.json.decode(book.read_bytes(), type=dict[str, list[str]])

    async def find(self, pod: PodRef, image: str, keys: Keys) -> str:
        del keys
        try:
            engine = await self._service.engine()
            for name in names(image):
                found = await _inspect(engine, name)
                if found is not None and pod.cluster in self._private.get(str(found["Id"]), [pod.cluster]):
                    return self._known(found, name)
        except EngineError as error:
            raise ImageError(
                f'Failed to inspect image "{image}": {error.message}', "ImageInspectError"
            ) from error
        return ""

    async def pull(self, pod: PodRef, image: str, keys: Keys) -> tuple[str, int]:
        name = names(image)[0]
        await registries.check(name, self._service.registries)
        failure = EngineError("")
        async with self._pulling:
            for key in keys or ({},):
                try:
                    engine = await self._service.engine()
                    await _pull(engine, name, key)
                    found = await _inspect(engine, name)
                except EngineError as error:
                    failure = error
                    continue
                if found is None:
                    raise ImageError(f"{image} was pulled and is not there")
                self._note(pod.cluster, str(found["Id"]), private=bool(key))
                return self._known(found, name), int(found.get("Size") or 0)
        raise ImageError(failure.message)

    def user(self, image_id: str) -> str:
        """Whom the programs of a known image run as; "" is root."""
        return str((self._configs.get(image_id) or {}).get("User") or "")

    def _known(self, found: Mapping[str, Any], name: str) -> str:
        """The image's id as pods show it: by digest where a registry gave it one."""
        place = repository(name)
        digests = [each for each in found.get("RepoDigests") or () if repository(each) == place]
        # Without a registry behind it the digest is no name that anybody could pull.
        image_id = (
            digests[0]
            if digests and not place.startswith("localhost/")
            else f"sha256:{found['Id'].removeprefix('sha256:')}"
        )
        self._configs[image_id] = dict(found.get("Config") or {})
        return image_id

    def _note(self, cluster: str, engine_id: str, *, private: bool) -> None:
        """An image that came without a key is for everybody, whatever was known of it."""
        known = self._private.get(engine_id)
        if not private:
            changed = self._private.pop(engine_id, None) is not None
        else:
            changed = cluster not in (known or ())
            self._private[engine_id] = sorted({*(known or ()), cluster})
        if changed:
            fresh = self._book.with_suffix(".new")
            fresh.write_bytes(msgspec.json.encode(self._private))
            fresh.replace(self._book)


def names(image: str) -> tuple[str, ...]:
    """The full names that a pod's name of an image may stand for: a registry's first."""
    full = repository(image)
    rest = image.removeprefix(full.partition("/")[0] + "/") if full.partition("/")[0] in image else image
    host, _, path = full.partition("/")
    tail = image[len(_bare(image)) :]
    found = [f"{host}/{path}{tail}"]
    if host == HUB and "/" not in rest:
        found.append(f"localhost/{_bare(image)}{tail}")
    return tuple(found)


def _bare(image: str) -> str:
    """The name without tag and digest."""
    name = image.partition("@")[0]
    slash = name.rfind("/")
    colon = name.find(":", slash + 1)
    return name if colon < 0 else name[:colon]


async def _inspect(engine: Engine, name: str) -> dict[str, Any] | None:
    try:
        found = await engine.call("GET", f"/images/{name}/json")
    except EngineError as error:
        if error.status == 404:
            return None
        raise
    return dict(found)


async def _pull(engine: Engine, name: str, key: Mapping[str, str]) -> None:
    headers = {}
    if key:
        told = {**key, "serveraddress": name.partition("/")[0]}
        headers["X-Registry-Auth"] = base64.urlsafe_b64encode(msgspec.json.encode(told)).decode()
    async for said in engine.lines("/images/create", {"fromImage": name}, headers):
        if error := said.get("error") or (said.get("errorDetail") or {}).get("message"):
            raise EngineError(str(error))
