"""A pod's containers get other CPU and memory while they run, as kubelet's allocation manager gives them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from walras.runtimes import resources
from walras.runtimes.admission import INFEASIBLE, container_limits, no_room, pod_limits
from walras.runtimes.base import Limits, Process, Resize, ResizeError
from walras.runtimes.status import IN_PROGRESS, PENDING
from walras.tenants.objects import NODES

if TYPE_CHECKING:
    from walras.runtimes.podworker import PodWorker

Object = dict[str, Any]
_ERROR: Final = "Error"
# As often as the kubelet looks at a pod again of which something failed.
_AGAIN_S: Final = 10.0


class Resizing:
    """What the containers of one pod are given of what its spec says, and whether they have it.

    `restarts`: names of containers that end to begin again with what they are given.
    """

    def __init__(self, worker: PodWorker, pod: Object, others: Callable[[], Iterable[Object]]) -> None:
        self._worker, self._others, self._wanted = worker, others, pod
        self.restarts: set[str] = set()
        self._given: dict[str, Object] | None = None  # None until the node has taken the pod
        self._generation = 0
        self._pending: Object | None = None
        self._progress: Object | None = None
        self._of_pod: Limits | None = None  # what its group was made with
        self._retry: asyncio.Task[None] | None = None

    @property
    def conditions(self) -> list[Object]:
        """What its status says of a resize that is not done."""
        return [each for each in (self._pending, self._progress) if each is not None]

    def admitted(self) -> Object:
        """The node has taken the pod as it ran last: the pod as it is to run now."""
        self._given = resources.by_name(self._worker.pod)
        return self.taken(self._wanted)

    def taken(self, pod: Object) -> Object:
        """The pod as it is to run: what its containers have is what they are given of what it says."""
        self._wanted = pod
        if self._given is None:
            return resources.recovered(pod)
        generation = int(pod["metadata"].get("generation") or 0)
        if generation != self._generation and not self._worker.stopping:
            self._generation = generation
            self._decide(self._given)
        return resources.given(pod, self._given)

    def again(self) -> None:
        """There may be room now for what was put off."""
        if self._pending is not None and self._given is not None and not self._worker.stopping:
            self._decide(self._given)
            self._worker.pod = resources.given(self._wanted, self._given)
            self._worker.publish()
            self.actuate()

    def forget(self) -> None:
        """The pod ends: nothing of it waits any more."""
        self._given = None
        self._worker.services.rooms.forget(self._node, self.again)

    @property
    def _node(self) -> tuple[str, str]:
        return self._worker.cluster, self._worker.ref.node

    def _decide(self, given: dict[str, Object]) -> None:
        wanted, rooms = resources.by_name(self._wanted), self._worker.services.rooms
        same = resources.same_all(wanted, given)
        refused = None if same else self._refused()
        if refused is not None:
            self._put_off(*refused)
            return
        self._given, self._pending = wanted, None
        rooms.forget(self._node, self.again)
        if not same:
            self._progress = self._said(IN_PROGRESS)
            self._event("Normal", "ResizeStarted", "Pod resize started", self._generation)
            # It may have given something back.
            asyncio.get_running_loop().call_soon(rooms.freed, self._node)

    def _put_off(self, reason: str, message: str) -> None:
        before, self._pending = self._pending, self._said(PENDING, reason, message)
        if reason != INFEASIBLE:
            self._worker.services.rooms.wait(self._node, self.again)
        seen = ("reason", "observedGeneration")
        if before is None or any(before.get(each) != self._pending.get(each) for each in seen):
            self._event("Warning", f"Resize{reason}", f"Pod resize {reason}", self._generation, message)

    def _refused(self) -> tuple[str, str] | None:
        worker = self._worker
        if fixed := worker.services.runtime.traits(worker.ref).fixed:
            return INFEASIBLE, fixed
        node = worker.services.api.find(worker.cluster, NODES, "", worker.ref.node) or worker.node
        return no_room(self._wanted, node, self._others())

    # What is given is applied

    def limits(self) -> Limits:
        """Of the whole pod, for a container that starts: the first of them makes the pod's group."""
        if self._of_pod is None:
            self._of_pod = pod_limits(self._worker.pod)
        return self._of_pod

    def actuate(self) -> None:
        """Gives running containers what is theirs; those that have it are left alone."""
        if self._given is None or self._worker.stopping:
            return
        if self._of_pod is None:
            self._done()
            return
        parts: dict[str, tuple[Process, Resize]] = {}
        for name, to in self._given.items():
            running = self._worker.running.get(name)
            if running is None or resources.same(running.record.resources, to):
                continue
            if resources.restarts(self._wanted, name, running.record.resources, to):
                self.restarts.add(name)
                running.end(f"Container {name} resize requires restart", self._worker.own_grace())
                continue
            was = container_limits({"resources": running.record.resources})
            parts[name] = (running.process, Resize(was, container_limits({"resources": to})))
        whole = Resize(self._of_pod, pod_limits(self._worker.pod))
        if parts or whole.was != whole.to:
            try:
                self._worker.services.runtime.resize(self._worker.ref, whole, parts)
            except ResizeError as error:
                self._failed(error.message)
                return
            self._of_pod = whole.to
            for name in parts:
                self._worker.running[name].record.resources = self._given[name]
        if not self.restarts:
            self._done()

    def _done(self) -> None:
        """What is given is what containers have, or will begin with."""
        done, self._progress = self._progress, None
        if done is not None:
            self._event("Normal", "ResizeCompleted", "Pod resize completed", done["observedGeneration"])
            self._worker.publish()

    def _failed(self, message: str) -> None:
        before = self._progress or self._said(IN_PROGRESS)
        self._progress = {**before, "reason": _ERROR, "message": message}
        if self._progress != before:
            of = int(before["observedGeneration"])
            self._event("Warning", "ResizeError", "Pod resize error", of, message)
            self._worker.publish()
        if self._retry is None or self._retry.done():
            self._retry = asyncio.get_running_loop().create_task(self._later())

    async def _later(self) -> None:
        if await self._worker.pause(_AGAIN_S):
            self._retry = None
            self.actuate()

    def _said(self, kind: str, reason: str = "", message: str = "") -> Object:
        said = {"reason": reason, "message": message}
        kept = {key: text for key, text in said.items() if text}
        return {"type": kind, "status": "True", "observedGeneration": self._generation, **kept}

    def _event(self, type_: str, reason: str, said: str, generation: int, error: str = "") -> None:
        summary: Object = {}
        for field in ("initContainers", "containers"):
            if each := self._wanted["spec"].get(field):
                summary[field] = [
                    {"name": one["name"], "resources": one.get("resources") or {}} for one in each
                ]
        summary |= {"generation": generation, **({"error": error} if error else {})}
        self._worker.event(type_, reason, f"{said}: {msgspec.json.encode(summary).decode()}")
