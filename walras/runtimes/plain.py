"""What can be done for a container without bubblewrap: a session, a mark, and paths rewritten."""

from __future__ import annotations

import os
import re
import signal
from contextlib import suppress
from dataclasses import replace
from typing import Final

from walras.runtimes import procfs
from walras.runtimes.base import ContainerSpec, Mount

MARK: Final = "WALRAS_RUNTIME"
POD_MARK: Final = "WALRAS_POD_UID"


def adapted(spec: ContainerSpec, mark: str) -> ContainerSpec:
    """The same container without a mount namespace: where its words name a mount's path, the volume's stands.

    The marks let its processes be found again, even those that left their session.
    """
    env = {name: _rewritten(value, spec.mounts) for name, value in spec.env.items()}
    working_dir = _rewritten(spec.working_dir, spec.mounts)
    return replace(
        spec,
        argv=tuple(_rewritten(each, spec.mounts) for each in spec.argv),
        env={**env, MARK: mark, POD_MARK: spec.pod.uid},
        working_dir=working_dir if os.path.isdir(working_dir) else "/",
    )


def _rewritten(text: str, mounts: tuple[Mount, ...]) -> str:
    for mount in sorted(mounts, key=lambda each: -len(each.target)):
        pattern = rf"(?<![\w./-]){re.escape(mount.target)}(?![\w.-])"
        text = re.sub(pattern, mount.source.replace("\\", r"\\"), text)
    return text


def kill_session(leader: int, pod_uid: str) -> None:
    """SIGKILL to the leader's process group, to all that descend from it, and to all that carry its mark."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
    for pid in {*procfs.descendants(leader), *procfs.marked(POD_MARK, pod_uid)}:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
