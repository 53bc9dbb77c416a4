"""What this machine lets the server do for its containers, found out by doing it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from walras.runtimes.base import ContainerSpec, PodRef, StartError, Stream
from walras.runtimes.cgroups_detect import Detected
from walras.runtimes.launch import launch
from walras.runtimes.sandbox import Mode, Place, Sandbox, Tools
from walras.runtimes.spawn import Spawner

_POD: Final = PodRef("probe", "probe", "probe", "probe")


@dataclass(frozen=True, slots=True)
class Probed:
    """The sandbox to use, the cgroups found, and a line about everything that is missing."""

    sandbox: Sandbox
    cgroups: Detected | None
    notes: tuple[str, ...]


def find_tools() -> Tools:
    return Tools(*(shutil.which(name) or "" for name in ("bwrap", "setpriv", "nsenter", "setsid")))


async def probe(
    spawner: Spawner, wanted: Mode | None, cgroups: Detected | None, data_dir: Path, identities: Path | None
) -> Probed:
    """The strongest sandbox that works, or the one that is wanted. Raises StartError when that one fails."""
    tools = find_tools()
    notes = list(cgroups.notes) if cgroups is not None else ["cgroups are not used"]
    for mode in (wanted,) if wanted is not None else _candidates(tools, notes):
        sandbox = Sandbox(mode, tools, (data_dir,), identities)
        if mode == "plain" and wanted is None:
            return Probed(sandbox, cgroups, tuple(notes))
        try:
            await _try(spawner, sandbox)
            return Probed(sandbox, cgroups, tuple(notes))
        except (OSError, StartError) as error:
            if wanted is not None:
                raise StartError(f"no sandbox of mode {mode}: {error}") from error
            notes.append(f"sandbox {mode}: {error}")
    raise AssertionError("plain always works")


def _candidates(tools: Tools, notes: list[str]) -> Sequence[Mode]:
    if not tools.bwrap:
        notes.append(
            "bubblewrap (bwrap) is not installed: programs run as the server's user and see what it sees, "
            "its own data and tokens too"
        )
        return ("plain",)
    if os.geteuid() == 0 and tools.setpriv:
        return ("root", "user", "plain")
    return ("user", "plain")


async def _try(spawner: Spawner, sandbox: Sandbox) -> None:
    network = await spawner.make_network() if sandbox.mode == "root" else None
    spec = ContainerSpec(_POD, "probe", 0, ("true",), {"PATH": "/usr/bin:/bin"})

    def ignore(_stream: Stream, _data: bytes) -> None:
        pass

    try:
        started = await launch(spawner, sandbox, spec, (), Place(network), ignore)
        await started.monitor.ended()
        code = started.code()
        started.close()
        if code:
            raise StartError(f"`true` ends with exit code {code} in it")
    finally:
        if network is not None:
            os.close(network)
