"""What can be done for a container without bubblewrap: a session, a mark, and paths rewritten."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from contextlib import suppress
from dataclasses import replace
from typing import Final

from walras.runtimes import procfs
from walras.runtimes.base import ContainerSpec, Mount

MARK: Final = "WALRAS_RUNTIME"
CONTAINER_MARK: Final = "WALRAS_CONTAINER"
_ROUNDS_MAX: Final = 1000


def adapted(spec: ContainerSpec, mark: str) -> ContainerSpec:
    """The same container without a mount namespace: where its words name a mount's path, the volume's stands.

    The marks let its processes be found again, even those that left their session.
    """
    env = {name: _rewritten(value, spec.mounts) for name, value in spec.env.items()}
    working_dir = _rewritten(spec.working_dir, spec.mounts)
    return replace(
        spec,
        command=rewritten(spec.command, spec.mounts),
        args=rewritten(spec.args, spec.mounts),
        env={**env, MARK: mark, CONTAINER_MARK: mark_of(spec)},
        working_dir=working_dir if os.path.isdir(working_dir) else "/",
    )


def rewritten(argv: tuple[str, ...], mounts: tuple[Mount, ...]) -> tuple[str, ...]:
    """A command line in which the volumes' paths stand for those of the mounts."""
    return tuple(_rewritten(each, mounts) for each in argv)


def _rewritten(text: str, mounts: tuple[Mount, ...]) -> str:
    for mount in sorted(mounts, key=lambda each: -len(each.target)):
        pattern = rf"(?<![\w./-]){re.escape(mount.target)}(?![\w.-])"
        text = re.sub(pattern, mount.source.replace("\\", r"\\"), text)
    return text


def mark_of(spec: ContainerSpec) -> str:
    """What the environment of every process of the container says, as far as they do not change it."""
    return f"{spec.pod.uid}/{spec.name}/{spec.attempt}"


async def end_session(leader: int, mark: str) -> None:
    """SIGKILL to the leader's process group, its descendants and all that carry its mark, until none is left.

    What cleared its environment and had its parent die is not found: only a sandbox or a cgroup holds that.
    """
    for _ in range(_ROUNDS_MAX):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, signal.SIGKILL)
        found = {*procfs.descendants(leader), *procfs.marked(CONTAINER_MARK, mark)}
        if not found:
            return
        for pid in found:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(0.002)
