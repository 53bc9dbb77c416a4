"""An engine of the operator's, by its socket, if agents' containers can be held in it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import structlog

from walras.core.errors import Invalid
from walras.runtimes.engine.apart import Apart
from walras.runtimes.engine.client import Engine, EngineError
from walras.runtimes.engine.service import unmount

log = structlog.get_logger(__name__)

_API_MIN: Final = (1, 41)
_DRIVERS: Final = ("overlay", "overlay2")
_PODMAN: Final = "Podman Engine"
# How long an engine may go on with what it was told to leave.
_SETTLES_S: Final = 60.0
_REGISTRIES: Final = "registries.conf"


class Outside:
    """See service.Source. `socket`: its path."""

    own = False
    settles_s = _SETTLES_S
    # Whether it was ever used cannot be told; nothing is started to find out.
    used = True

    def __init__(self, socket: Path, directory: Path, run: Path) -> None:
        self.socket, self._directory, self.run = socket, directory, run
        self._engine: Engine | None = None
        self._opening = asyncio.Lock()
        self.joins_paths = False
        self.storage = directory

    @property
    def running(self) -> bool:
        return self._engine is not None

    @property
    def registries(self) -> Path:
        return self._directory / _REGISTRIES

    @property
    def exits(self) -> Path:
        # Where the engine keeps exit codes is its own business: it is asked.
        return self.run / "none"

    def group(self, engine_id: str) -> str:
        return f"libpod-{engine_id}" if self.joins_paths else engine_id

    def forget(self, engine_id: str) -> None:
        """What it keeps is its own."""

    async def engine(self) -> Engine:
        """A client of it. Raises EngineError when it does not answer, Invalid when it will not do."""
        async with self._opening:
            if self._engine is None:
                engine = Engine(str(self.socket))
                try:
                    version = await engine.call("GET", "/version")
                    info = await engine.call("GET", "/info")
                    if why := unfit(version, info):
                        raise Invalid(f"--engine {self.socket}: {why}")
                except BaseException:
                    await engine.close()
                    raise
                self.joins_paths = is_podman(version)
                self.storage = Path(str(info["DockerRootDir"]))
                log.info("container engine ready", socket=str(self.socket), version=version.get("Version"))
                self._engine = engine
            return self._engine

    @asynccontextmanager
    async def apart(self) -> AsyncIterator[Apart]:
        """The engine itself: what a piece of work takes of it is not known."""
        yield Apart(await self.engine(), 0, self.storage)

    async def probe(self) -> None:
        """Raises Invalid for an engine that is not there, or will not do."""
        try:
            await self.engine()
        except EngineError as error:
            raise Invalid(f"--engine {self.socket}: {error.message}") from error

    def prepare(self) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def end_earlier(self) -> None:
        unmount((self.run,))

    async def close(self) -> None:
        if self._engine is not None:
            await self._engine.close()
            self._engine = None
        await asyncio.to_thread(unmount, (self.run,))


def is_podman(version: dict[str, Any]) -> bool:
    return any(each.get("Name") == _PODMAN for each in version.get("Components") or ())


def unfit(version: dict[str, Any], info: dict[str, Any]) -> str:
    """Why agents' containers cannot be held in an engine that says this of itself; "" when they can."""
    numbers = str(version.get("ApiVersion") or "0").split(".")
    told = tuple(int(each) for each in numbers if each.isdigit())
    if told < _API_MIN:
        return f"it speaks version {version.get('ApiVersion')} of the API; take one that speaks 1.41"
    if str(info.get("OSType")) != "linux":
        return f"it runs containers of {info.get('OSType')}; take one of Linux"
    security = [str(each) for each in info.get("SecurityOptions") or ()]
    if info.get("Rootless") or any("rootless" in each for each in security):
        return "it does not run as root, and cannot use the server's control groups; take one that does"
    if any(each.startswith("name=userns") for each in security):
        return "it remaps users, which keeps its containers out of agents' networks; start it without"
    if info.get("CgroupDriver") != "cgroupfs":
        return (
            f"its control groups are held by {info.get('CgroupDriver')}, not below the server's; start it "
            "with cgroupfs (native.cgroupdriver of Docker, cgroup_manager of Podman)"
        )
    if info.get("Driver") not in _DRIVERS:
        return (
            f"what containers write cannot be measured in its storage {info.get('Driver')}; "
            f"start it with one of {', '.join(_DRIVERS)}"
        )
    if not os.path.isdir(str(info.get("DockerRootDir") or "")):
        return f"its images in {info.get('DockerRootDir')} are not on this machine; take one that is here"
    return ""
