"""The engine's images: which are here, for whom, and how more come."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import structlog

from walras.core.errors import WalrasError
from walras.runtimes.base import ImageError, PodRef
from walras.runtimes.engine import copying, orphans, registries
from walras.runtimes.engine.book import Book
from walras.runtimes.engine.client import Engine, EngineError
from walras.runtimes.engine.collecting import Stored, stored, to_free, victims
from walras.runtimes.engine.pull import Pulls, pull
from walras.runtimes.engine.service import Source
from walras.runtimes.image_names import HUB, repository
from walras.runtimes.slots import Slots

log = structlog.get_logger(__name__)

Keys = tuple[Mapping[str, str], ...]
# Of one agent at a time; more wait for these.
PULLS_MAX: Final = 3
# What the images that one agent pulled may take together: this, or so much of the disk if that is less.
AGENT_BYTES_MAX: Final = 64 << 30
_AGENT_PART: Final = 4
_DIGEST: Final = "sha256:"


@dataclass(frozen=True, slots=True)
class _Debt:
    """What a pull wrote that became no image, until it is cleared away."""

    cluster: str
    written_bytes: int
    at_s: float


class Images:
    """See base.Images. An image that was fetched with a key is for agents that can show one that fetches it.

    `book`: the file that remembers whose such images are.
    """

    def __init__(self, service: Source, book: Path, labels: Mapping[str, str]) -> None:
        """`labels`: of containers that are made to read images."""
        self._service, self._path, self._labels = service, book, labels
        self._slots, self._pulls = Slots(PULLS_MAX), Pulls()
        # Each takes a thread of those that everybody shares.
        self._copies = Slots(1)
        self._opened: Book | None = None
        self._settling = asyncio.Lock()
        # The engine's id and the configuration of each image that pods were told of.
        self._configs: dict[str, tuple[str, dict[str, Any]]] = {}
        # When each image was last found or pulled, or first seen here.
        self._used_s: dict[str, float] = {}
        # An earlier run may have left something too.
        self._debts = [_Debt("", 0, 0.0)]

    @property
    def _book(self) -> Book:
        if self._opened is None:
            self._opened = Book(self._path)
        return self._opened

    async def find(self, pod: PodRef, image: str, keys: Keys) -> str:
        del keys
        try:
            engine = await self._settled()
            for name in names(image):
                found = await inspect(engine, name)
                if found is not None and self._book.allows(found, pod.cluster):
                    return self._known(found, name)
        except WalrasError as error:
            raise ImageError(
                f'Failed to inspect image "{image}": {error.message}', "ImageInspectError"
            ) from error
        return ""

    async def pull(self, pod: PodRef, image: str, keys: Keys) -> tuple[str, int]:
        name = names(image)[0]
        await registries.check(name, self._service.registries)
        failure: WalrasError = EngineError("")
        async with self._slots.of(pod.cluster):
            for key in keys or ({},):
                try:
                    found = await self._pull(pod.cluster, name, key)
                except ImageError:
                    raise
                except WalrasError as error:
                    failure = error
                    continue
                return self._known(found, name), int(found.get("Size") or 0)
        raise ImageError(failure.message)

    async def _pull(self, cluster: str, name: str, key: Mapping[str, str]) -> dict[str, Any]:
        """The image as the engine shows it.

        Raises EngineError, StorageError, and ImageError for one that is too large.
        """
        engine = await self._settled()
        room = await self._room(engine, cluster)
        number = self._book.begin(name, cluster, await inspect(engine, name), keyed=bool(key))
        try:
            async with self._service.apart() as apart:
                try:
                    brought = await pull(apart, self._pulls, name, key, room)
                except BaseException:
                    if self._service.own:
                        self._debts.append(_Debt(cluster, apart.written(), _now_s()))
                    raise
            found = await inspect(engine, name)
            if found is None or not _is(found, brought):
                # Somebody else's pull of the name came in between, perhaps with a key.
                self._book.end(number, await inspect(engine, _own_name(name, brought)))
                raise EngineError(f"{name} was changed while it was pulled")
            self._book.note(found, number)
        except BaseException:
            self._book.leave(number, _now_s())
            raise
        self._used_s[str(found["Id"])] = _now_s()
        taken_bytes = self._taken(cluster)
        if not await self._fits(engine, cluster, str(found["Id"])):
            raise ImageError(self._too_much(taken_bytes))
        return found

    async def _settled(self) -> Engine:
        """The engine, once it is known what pulls that were cut off have left.

        Raises EngineError and StorageError.
        """
        engine = await self._service.engine()
        if self._book.left:
            async with self._settling:
                until_s = _now_s() - self._service.settles_s
                for number in [each for each, since_s in self._book.left.items() if since_s <= until_s]:
                    found = await inspect(engine, self._book.name(number))
                    if brought := self._book.end(number, found):
                        await self._remove(engine, brought)
        return engine

    async def copy_out(self, pod: PodRef, image_id: str, directory: str, into: Path, bytes_max: int) -> None:
        try:
            async with self._copies.of(pod.cluster):
                engine = await self._service.engine()
                await copying.copy_out(engine, image_id, directory, into, bytes_max, self._labels)
        except ImageError:
            raise
        except WalrasError as error:
            raise ImageError(f"{directory} of the image cannot be read: {error.message}") from error

    def forget_agent(self, cluster: str) -> None:
        """The agent is gone; its images are nobody's until they are pulled again. Raises StorageError."""
        self._book.drop(cluster)
        self._debts = [replace(each, cluster="") if each.cluster == cluster else each for each in self._debts]

    def user(self, image_id: str) -> str:
        """Whom the programs of a known image run as; "" is root."""
        return str(self._configs.get(image_id, ("", {}))[1].get("User") or "")

    def _known(self, found: Mapping[str, Any], name: str) -> str:
        """The image's id as pods show it: by digest where a registry gave it one."""
        self._used_s[str(found["Id"])] = _now_s()
        place = repository(name)
        digests = [each for each in found.get("RepoDigests") or () if repository(each) == place]
        # Without a registry behind it the digest is no name that anybody could pull.
        image_id = (
            digests[0]
            if digests and not place.startswith("localhost/")
            else f"sha256:{found['Id'].removeprefix('sha256:')}"
        )
        self._configs[image_id] = str(found["Id"]), dict(found.get("Config") or {})
        return image_id

    # Their room

    def _quota(self) -> int:
        disk = os.statvfs(self._service.storage)
        return min(AGENT_BYTES_MAX, disk.f_blocks * disk.f_frsize // _AGENT_PART)

    def _taken(self, cluster: str) -> int:
        return sum(self._book.paid(cluster).values()) + sum(
            each.written_bytes for each in self._debts if each.cluster == cluster
        )

    def _too_much(self, taken_bytes: int) -> str:
        return (
            f"no room for the image: those of this cluster take {taken_bytes} bytes, "
            f"and may take {self._quota()}"
        )

    async def _clear(self, engine: Engine) -> None:
        """Deletes what pulls that were cut off left, while nobody pulls. Raises EngineError."""
        if not self._debts or self._pulls.running or not self._service.own:
            return
        for each in await self._stored(engine):
            if not each.named and not each.kept and not self._book.knows(each.id):
                await self._remove(engine, each.id)
        try:
            found = orphans.condemn(self._service.storage, self._service.storage.parent / "gone")
        except (OSError, ValueError, LookupError) as error:
            log.warning("what pulls left is not cleared away", error=repr(error))
            return
        await asyncio.to_thread(shutil.rmtree, self._service.storage.parent / "gone", ignore_errors=True)
        if found is not None:
            since_s = _now_s() - orphans.AGE_MIN_S
            self._debts = [each for each in self._debts if each.at_s >= since_s]

    async def _room(self, engine: Engine, cluster: str) -> int:
        """Bytes that another image of the agent's may have. Raises ImageError when there are none."""
        if not await self._fits(engine, cluster):
            raise ImageError(self._too_much(self._taken(cluster)))
        return self._quota() - self._taken(cluster)

    async def _fits(self, engine: Engine, cluster: str, fresh: str = "") -> bool:
        """Whether the agent's images are within its quota once those that nobody uses are gone.

        `fresh`: one that goes first when they are not.
        """
        await self._clear(engine)
        quota, paid = self._quota(), self._book.paid(cluster)
        over = self._taken(cluster) - quota + (0 if fresh else 1)
        if over <= 0:
            return True
        own = [each for each in await self._stored(engine) if each.id in paid and each.id != fresh]
        for each in victims(own, self._used_s, _now_s(), over):
            await self._remove(engine, each)
        if self._taken(cluster) < quota + (1 if fresh else 0):
            return True
        if fresh:
            await self._remove(engine, fresh)
        return False

    async def look(self) -> None:
        """Makes room where there is little."""
        if not self._service.running:
            return
        with suppress(WalrasError):
            await self._clear(await self._settled())
        with suppress(OSError):
            disk = os.statvfs(self._service.storage)
            wanted_bytes = to_free(disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize)
            if wanted_bytes:
                await self.collect(wanted_bytes)

    async def collect(self, wanted_bytes: int) -> None:
        """Removes images that nobody uses, longest unused first, until so much is free."""
        with suppress(WalrasError):
            engine = await self._settled()
            found = await self._stored(engine)
            if not self._service.own:
                found = [each for each in found if self._book.knows(each.id)]
            for each in victims(found, self._used_s, _now_s(), wanted_bytes):
                log.info("unused image removed", image=each)
                await self._remove(engine, each)

    async def _stored(self, engine: Engine) -> list[Stored]:
        """All images, and which of them are used."""
        images = await engine.call("GET", "/images/json")
        containers = await engine.call("GET", "/containers/json", params={"all": "true"})
        found = stored(images, containers)
        for each in found:
            self._used_s.setdefault(each.id, _now_s())
        for gone in self._used_s.keys() - {each.id for each in found}:
            del self._used_s[gone]
        return found

    async def _remove(self, engine: Engine, engine_id: str) -> None:
        """Unless somebody uses it by now, which the engine sees to."""
        with suppress(EngineError):
            found = await inspect(engine, engine_id) or {}
            # By its names: with several of them an engine takes it for a mistake to remove it by its id.
            own = found.get("RepoTags") or found.get("RepoDigests") or [engine_id]
            for name in own if self._service.own else self._book.names(engine_id):
                # In another's engine a name may stand for something else by now.
                if self._service.own or (await inspect(engine, name) or {}).get("Id") == engine_id:
                    await engine.call("DELETE", f"/images/{name}")
            if self._service.own or await inspect(engine, engine_id) is None:
                self._book.forget(engine_id)
            self._configs = {name: each for name, each in self._configs.items() if each[0] != engine_id}


def _own_name(name: str, brought: str) -> str:
    """What a pull of the name brought, whatever that stands for by now."""
    return f"{_bare(name)}@{brought}" if brought.startswith(_DIGEST) else brought


def _is(found: Mapping[str, Any], brought: str) -> bool:
    """Whether it is what a pull said that it brought: how its id begins, or its digest."""
    if brought.startswith(_DIGEST):
        return any(each.endswith(f"@{brought}") for each in found.get("RepoDigests") or ())
    return str(found["Id"]).removeprefix("sha256:").startswith(brought)


def _now_s() -> float:
    return asyncio.get_running_loop().time()


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


async def inspect(engine: Engine, name: str) -> dict[str, Any] | None:
    """What the engine knows of an image, None for one that is not there. Raises EngineError."""
    try:
        found = await engine.call("GET", f"/images/{name}/json")
    except EngineError as error:
        if error.status == 404:
            return None
        raise
    return dict(found)
