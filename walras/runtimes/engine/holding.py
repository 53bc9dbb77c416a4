"""A pod's network for an engine that joins those of containers alone: one that is in it and does nothing."""

from __future__ import annotations

import asyncio
import os
import shutil
import tarfile
from collections.abc import Mapping
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from walras.runtimes.engine.client import Engine, EngineError

IMAGE: Final = "localhost/walras-holder:1"
_NETWORK: Final = "/network"
_SYSTEM: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib64")
_ENTERS_S: Final = 20.0
_NOBODY: Final = "65534"


async def hold(
    engine: Engine, network: int, place: Path, *, hostname: str, parent: str, labels: Mapping[str, str]
) -> str:
    """Starts it: its id. `network`: the namespace's descriptor; `place`: a file to have it mounted on.

    It enters the namespace with programs of this machine and gives up all that it may before it sleeps.
    Raises EngineError and OSError.
    """
    _make(place)
    await _run("mount", "--bind", f"/proc/{os.getpid()}/fd/{network}", str(place))
    engine_id = ""
    try:
        engine_id = str((await _made(engine, _body(place, hostname, parent, labels)))["Id"])
        await engine.call("POST", f"/containers/{engine_id}/start")
        async with asyncio.timeout(_ENTERS_S):
            await _entered(engine, engine_id, network)
    except BaseException as error:
        if engine_id:
            with suppress(EngineError):
                await engine.call("DELETE", f"/containers/{engine_id}", params={"force": "true"})
        await let_go(place)
        if isinstance(error, TimeoutError):
            raise EngineError("what holds the pod's network does not get there") from error
        raise
    return engine_id


def _make(place: Path) -> None:
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    place.touch()


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise EngineError(f"{name} not found on the server's machine")
    return os.path.realpath(found)


def _body(place: Path, hostname: str, parent: str, labels: Mapping[str, str]) -> dict[str, Any]:
    mounts = [(os.path.realpath(each), each) for each in _SYSTEM if os.path.isdir(each)]
    return {
        "Image": IMAGE,
        "Hostname": hostname,
        "Entrypoint": [
            _tool("nsenter"), f"--net={_NETWORK}", _tool("setpriv"), "--reuid", _NOBODY, "--regid", _NOBODY,
            "--clear-groups", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", _tool("sleep"),
            "infinity",
        ],
        "Labels": dict(labels),
        "HostConfig": {
            "NetworkMode": "host",
            "CapDrop": ["ALL"],
            "CapAdd": ["SYS_ADMIN", "SETUID", "SETGID", "SETPCAP"],
            "ReadonlyRootfs": True,
            "LogConfig": {"Type": "none"},
            "Mounts": [
                {"Type": "bind", "Source": source, "Target": target, "ReadOnly": True}
                for source, target in (*mounts, (str(place), _NETWORK))
            ],
            **({"CgroupParent": parent} if parent else {}),
        },
    }  # fmt: skip


async def let_go(place: Path) -> None:
    """The namespace's file is no longer needed, by whoever held it."""
    with suppress(OSError):
        await _run("umount", "--lazy", str(place))
        await asyncio.to_thread(place.unlink)


async def _made(engine: Engine, made: dict[str, Any]) -> dict[str, Any]:
    try:
        return dict(await engine.call("POST", "/containers/create", body=made))
    except EngineError as error:
        if error.status != 404:
            raise
    await engine.load(_empty(), IMAGE)
    return dict(await engine.call("POST", "/containers/create", body=made))


async def _entered(engine: Engine, engine_id: str, network: int) -> None:
    """Returns when it is where it is to be. Raises EngineError when it ends before."""
    wanted = os.fstat(network)
    while True:
        state = (await engine.look(engine_id))["State"]
        if not state.get("Running"):
            raise EngineError("what holds the pod's network does not start")
        with suppress(OSError):
            if os.path.samestat(os.stat(f"/proc/{int(state['Pid'])}/ns/net"), wanted):
                return
        await asyncio.sleep(0.02)


def _empty() -> bytes:
    """A file system that only has places."""
    text = BytesIO()
    with tarfile.open(fileobj=text, mode="w") as archive:
        for name in _SYSTEM:
            entry = tarfile.TarInfo(name.lstrip("/"))
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        archive.addfile(tarfile.TarInfo(_NETWORK.lstrip("/")))
    return text.getvalue()


async def _run(*argv: str) -> None:
    child = await asyncio.create_subprocess_exec(*argv, stderr=asyncio.subprocess.PIPE)
    _, said = await child.communicate()
    if child.returncode:
        raise OSError(f"{argv[0]}: {said.decode(errors='replace').strip()}")
