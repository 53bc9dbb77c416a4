"""The shares of nodes: the groups, limits and CPU time that all runtimes of a server have in common."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Protocol

import structlog

from walras.runtimes.base import Limits, PodRef, Process, Resize
from walras.runtimes.cgroups import GroupPath, Groups, empty, group_name, kill_all
from walras.runtimes.cgroups_detect import Detected, detect
from walras.runtimes.cgroups_resize import missing, resize
from walras.runtimes.network.networks import Networks
from walras.runtimes.throttle import Throttle

log = structlog.get_logger(__name__)

POD_PIDS_MAX: Final = 1024
_REMEMBERED_NODES: Final = 4096


class Member(Protocol):
    """What runs on a node, as far as its share goes."""

    def pids(self) -> list[int]:
        """Its processes as far as they can be told."""

    def cpu_ns(self) -> int:
        """CPU time so far; asked for only where no cgroup counts it."""

    async def kill(self) -> None:
        """SIGKILL to all of it; returns when nothing is left."""


@dataclass
class _Node:
    """`ended_ns` is CPU time of members that are gone; only used where no cgroup counts it."""

    path: GroupPath
    limits: Limits
    throttle: Throttle | None = None
    members: dict[Member, None] = field(default_factory=dict)
    ended_ns: int = 0

    def uncounted_cpu_ns(self) -> int:
        """CPU time of all its members, past and present, as /proc tells it."""
        return self.ended_ns + sum(each.cpu_ns() for each in self.members)


class Shares:
    """A group a node, with one for each pod in it, whichever runtime runs the pod.

    `networks`: where pods meet, if they do.
    `one_path`: the groups are at one path in all hierarchies, for programs that take no more than one.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        use_cgroups: bool = True,
        one_path: bool = False,
        networks: Networks | None = None,
    ) -> None:
        self.networks = networks
        self.mark = hashlib.sha256(str(data_dir.resolve()).encode()).hexdigest()[:12]
        self.groups: Groups | None = None
        self.detected: Detected | None = None
        self._use_cgroups, self._one_path = use_cgroups, one_path
        self._open = False
        self._nodes: dict[tuple[str, str], _Node] = {}
        self._final_ms: OrderedDict[tuple[str, str], int] = OrderedDict()

    async def open(self) -> None:
        """Finds the groups and kills what an earlier run left in them; nothing the second time."""
        if self._open:
            return
        self._open = True
        if self.networks is not None:
            await self.networks.open()
        if self._use_cgroups:
            self.detected = detect(f"walras-{self.mark}", one_path=self._one_path)
            self.groups = self.detected.groups
        if self.groups is not None:
            await kill_all(self.groups, ())

    async def close(self) -> None:
        """Kills everything on every node."""
        for cluster, node in list(self._nodes):
            await self.remove_node(cluster, node)
        if self.groups is not None:
            await kill_all(self.groups, ())

    def _node(self, cluster: str, node: str) -> _Node:
        found = self._nodes.get((cluster, node))
        if found is None:
            path = (group_name("agent", cluster), group_name("node", node))
            found = self._nodes[cluster, node] = _Node(path, Limits())
            self.enforce(path, Limits())
        return found

    def enforce(self, path: GroupPath, limits: Limits) -> None:
        """Makes the group with the limits, as far as there are groups."""
        if self.groups is None:
            return
        try:
            self.groups.make(path, limits)
        except OSError as error:
            log.warning("limit not enforced", group="/".join(path), limits=str(limits), error=str(error))

    def pod_path(self, ref: PodRef) -> GroupPath:
        """Where the pod's group is, in that of its node."""
        return (*self._node(ref.cluster, ref.node).path, group_name("pod", ref.uid))

    def enforce_pod(self, ref: PodRef, limits: Limits) -> GroupPath:
        """Makes the pod's group: where it is."""
        path = self.pod_path(ref)
        self.enforce(path, replace(limits, pids=limits.pids or POD_PIDS_MAX))
        return path

    @property
    def fixed(self) -> str:
        """Why limits of programs that run cannot be changed; "" where they can."""
        return missing(self.groups)

    def resize(self, pod: PodRef, whole: Resize, parts: Mapping[str, tuple[Process, Resize]]) -> None:
        """See base.Runtime."""
        if self.groups is not None:
            resize(self.groups, self.pod_path(pod), whole, parts)

    def join(self, ref: PodRef, member: Member) -> None:
        """The member runs on the pod's node from now on."""
        self._node(ref.cluster, ref.node).members[member] = None

    def leave(self, ref: PodRef, member: Member, used_ns: int) -> None:
        """The member has ended and everything of it is gone."""
        if (node := self._nodes.get((ref.cluster, ref.node))) is not None:
            node.members.pop(member, None)
            node.ended_ns += used_ns

    def set_node(self, cluster: str, node: str, limits: Limits) -> None:
        """See base.Runtime."""
        found = self._node(cluster, node)
        if found.limits == limits:
            return
        found.limits = limits
        self.enforce(found.path, limits)
        if self.groups is not None and "cpu" in self.groups.controllers:
            return
        if found.throttle is not None:
            found.throttle.close()
            found.throttle = None
        if limits.cpu_milli is not None:
            members = found.members
            found.throttle = Throttle(
                lambda: [pid for each in members for pid in each.pids()], found.uncounted_cpu_ns
            )
            found.throttle.start(limits.cpu_milli)

    async def remove_node(self, cluster: str, node: str) -> None:
        """See base.Runtime."""
        found = self._nodes.get((cluster, node))
        if found is None:
            return
        if self.groups is not None:
            await empty(self.groups, found.path)
        await asyncio.gather(*(each.kill() for each in list(found.members)))
        if self._nodes.get((cluster, node)) is not found:
            return
        self._final_ms[cluster, node] = self.cpu_ms(cluster, node)
        while len(self._final_ms) > _REMEMBERED_NODES:
            self._final_ms.popitem(last=False)
        del self._nodes[cluster, node]
        if found.throttle is not None:
            found.throttle.close()
        if self.groups is not None:
            await kill_all(self.groups, found.path)
            with suppress(OSError):
                self.groups.remove_empty(found.path[:1])

    def cpu_ms(self, cluster: str, node: str) -> int:
        """See base.Runtime."""
        found = self._nodes.get((cluster, node))
        if found is None:
            return self._final_ms.get((cluster, node), 0)
        if self.groups is not None and (used_ns := self.groups.cpu_ns(found.path)):
            return used_ns // 1_000_000
        return found.uncounted_cpu_ns() // 1_000_000

    def pids(self, cluster: str, node: str) -> list[int]:
        """See base.Runtime."""
        found = self._nodes.get((cluster, node))
        if found is None:
            return []
        if self.groups is not None:
            return self.groups.pids(found.path)
        return [pid for each in found.members for pid in each.pids()]


class Sharing:
    """What a runtime is, of base.Runtime, by the shares that it stands on."""

    def __init__(self, shares: Shares) -> None:
        self.shares = shares

    @property
    def groups(self) -> Groups | None:
        return self.shares.groups

    @property
    def counts_memory(self) -> bool:
        """Whether what a pod's processes write to memory is charged to the pod."""
        return self.groups is not None and "memory" in self.groups.controllers

    def set_node(self, cluster: str, node: str, limits: Limits) -> None:
        self.shares.set_node(cluster, node, limits)

    def resize(self, pod: PodRef, whole: Resize, parts: Mapping[str, tuple[Process, Resize]]) -> None:
        self.shares.resize(pod, whole, parts)

    async def remove_node(self, cluster: str, node: str) -> None:
        await self.shares.remove_node(cluster, node)

    async def forget_agent(self, cluster: str) -> None:
        """See base.PodRuntime. Beside nodes and pods it has nothing of an agent."""

    def cpu_ms(self, cluster: str, node: str) -> int:
        return self.shares.cpu_ms(cluster, node)

    def pids(self, cluster: str, node: str) -> list[int]:
        return self.shares.pids(cluster, node)
