"""One pod on a node, from its binding to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal

import structlog

from walras.runtimes import actions, bounds
from walras.runtimes.admission import not_given, refusal
from walras.runtimes.backoff import Restart
from walras.runtimes.base import Mount, PodRef
from walras.runtimes.container import ContainerLoop, in_order
from walras.runtimes.environment import HOST_IP
from walras.runtimes.network.networks import PodNetwork
from walras.runtimes.preparing import Preparing
from walras.runtimes.publisher import Publisher
from walras.runtimes.records import record_of, records
from walras.runtimes.resizing import Resizing
from walras.runtimes.resources import by_name
from walras.runtimes.running import Running
from walras.runtimes.services import Services
from walras.runtimes.status import Verdict, gates_of, last_word, phase, pod_status
from walras.runtimes.tempering import Tempering
from walras.runtimes.volumes import Volume
from walras.runtimes.waiting import Grace, cancelled, first
from walras.tenants.claims.pod import RESOURCE_CLAIMS

log = structlog.get_logger(__name__)

Object = dict[str, Any]
# Why a pod ends: it is deleted; its node is taken away; the server stops and will start it again; its main
# containers are over and the others are to follow.
Ending = Literal["deleted", "node", "shutdown", "finished"]
KILLED: Final = 137
_RESTARTED: Final = "the server that ran the pod was restarted"
_NODE_GONE: Final = Verdict(
    "Failed", "Terminated", "The pod's node went away, and everything on it was ended."
)


class PodWorker:
    """Owns the processes and the status of one pod; `task` ends when both are final."""

    def __init__(
        self,
        services: Services,
        cluster: str,
        pod: Object,
        node: Object,
        others: Callable[[], Iterable[Object]],
    ) -> None:
        metadata = pod["metadata"]
        self.services, self.cluster, self.node = services, cluster, node
        # What its containers have may be another CPU and memory than its spec says.
        self.resizing = Resizing(self, pod, others)
        self.pod = self.resizing.taken(pod)
        self.ref = PodRef(cluster, pod["spec"]["nodeName"], metadata["uid"], metadata["name"])
        self.namespace: str = metadata["namespace"]
        self.running: dict[str, Running] = {}
        self.grace: Grace | None = None  # set once the pod is to end
        self.network: PodNetwork | None = None
        self.files: tuple[Mount, ...] = ()  # of its network, for every container
        self._others = others
        self._ending: Ending | None = None
        self._end = asyncio.Event()
        # The spec is another than before.
        self.respecified = asyncio.Event()
        # Its labels or annotations are.
        self.relabelled = asyncio.Event()
        self._verdict: Verdict | None = None
        self._disrupted = ""
        self._signalled = False
        self._tempering = Tempering()
        self._inits, self._mains, self._extras = records(pod)
        self._volumes: Mapping[str, Volume] | None = None
        # Sidecars and ephemeral containers, which run until the main ones are over.
        self._beside: list[asyncio.Task[bool]] = []
        self._publisher = Publisher(services, cluster, pod, self._render)
        self.task = asyncio.get_running_loop().create_task(self._run())

    # What the kubelet tells it

    def update(self, pod: Object) -> None:
        """The pod's newest state."""
        old, self.pod = self.pod, self.resizing.taken(pod)
        metadata = pod["metadata"]
        if old["metadata"].get("generation") != metadata.get("generation"):
            self.respecified.set()
            # Whoever changes the spec waits until the status is said of that.
            self.publish()
            self.resizing.actuate()
        elif gates_of(old) != gates_of(pod):
            self.publish()
        if any(old["metadata"].get(each) != metadata.get(each) for each in ("labels", "annotations")):
            self.relabelled.set()
        self._debug()
        if "deletionTimestamp" in metadata:
            self.stop("deleted", float(metadata.get("deletionGracePeriodSeconds") or 0))

    def stop(self, ending: Ending, grace_s: float) -> None:
        """Ends the pod; later calls can only shorten the time it has."""
        if self._ending is None or ending == "node":
            self._ending = ending
        if self.grace is None:
            self.grace = Grace(grace_s, self.services.sleep)
        else:
            self.grace.shorten(grace_s)
        self._end.set()

    @property
    def over(self) -> bool:
        """Whether the pod holds nothing of its node any more."""
        return self.task.done()

    # What its containers ask it

    @property
    def stopping(self) -> bool:
        return self._end.is_set()

    async def ending(self) -> None:
        """Returns when the pod is to end."""
        await self._end.wait()

    async def pause(self, seconds: float) -> bool:
        """Waits; False when the pod is to end before."""
        return not await first(self._end.wait(), self.services.sleep(seconds))

    async def configs_changed(self) -> None:
        """Returns when something that containers refer to may be there now, or the pod is to end."""
        configs = self.services.configs
        event = configs.wait(self.cluster, self.namespace)
        try:
            await first(self._end.wait(), event.wait())
        finally:
            configs.forget(self.cluster, self.namespace, event)

    def lookup(self, resource: str, name: str) -> Mapping[str, Any] | None:
        return self.services.configs.find(self.cluster, self.namespace, resource, name)

    def publish(self) -> None:
        """The containers' records changed."""
        self._publisher.mark()

    def event(self, type_: str, reason: str, message: str) -> None:
        if self._tempering.lets(self.services.clock.now_ms()):
            self.services.event(self.cluster, self.pod, type_, reason, message)

    async def dial(self, port: int) -> actions.Streams:
        """A connection to a port of the pod. Raises ServiceUnavailable."""
        return await self.services.runtime.dial(self.ref, port)

    def address(self) -> str:
        return self.network.address if self.network is not None else HOST_IP

    def own_grace(self, seconds: int | None = None) -> Grace:
        """The time that one of its containers has to end: `seconds`, or what the pod gives."""
        return Grace(self.grace_s() if seconds is None else float(seconds), self.services.sleep)

    def grace_s(self) -> float:
        """The seconds that the pod gives its containers to end."""
        seconds = float(self.pod["spec"].get("terminationGracePeriodSeconds", 30))
        # As everywhere, less than none is a second.
        return seconds if seconds >= 0 else 1.0

    # Its life

    async def _run(self) -> None:
        if "deletionTimestamp" in self.pod["metadata"]:
            self.update(self.pod)
        alive = asyncio.ensure_future(self._live())
        try:
            await first(self._end.wait(), asyncio.shield(alive))
            if self.stopping:
                self._terminate()
            await alive
        except Exception:
            log.exception("pod failed", cluster=self.cluster, pod=self.ref.name)
            self._verdict = Verdict("Failed", "InternalError", "the runtime failed; see the server's log")
        finally:
            self.resizing.forget()
            await self.services.runtime.remove_pod(self.ref)
            self._killed()
            if self.services.networks is not None:
                await self.services.networks.leave(self.ref)
        await self._conclude()

    async def _live(self) -> None:
        preparing = Preparing(self)
        if self._killed():
            self._disrupted = _RESTARTED
        if self._verdict is not None or self.stopping or not await preparing.handled():
            return
        self._verdict = refusal(
            self.pod,
            self.node,
            self._others(),
            lambda: self.services.api.list(self.cluster, RESOURCE_CLAIMS),
        )
        if self._verdict is not None:
            self.event("Warning", self._verdict.reason, self._verdict.message)
            return
        self.pod = self.resizing.admitted()
        if ignored := not_given(self.pod, self.services.runtime.traits(self.ref)):
            self.event("Warning", "Ignored", ignored)
        if not await preparing.networked():
            return
        self._volumes = await preparing.volumes()
        if self._volumes is None:
            return
        watches = (
            preparing.renewals(),
            preparing.updates(),
            bounds.deadline(self),
            bounds.storage(self, self._volumes),
        )
        # A pod that is no longer watched, as a watch failed, is not left to run.
        async with asyncio.TaskGroup() as group:
            timers = [group.create_task(each) for each in watches]
            await self._containers(self._volumes)
            for timer in timers:
                timer.cancel()

    async def _containers(self, volumes: Mapping[str, Volume]) -> None:
        self._debug()
        try:
            if await self._initialised(volumes):
                for record in self._mains:
                    record.initialised()
                containers = zip(self.pod["spec"]["containers"], self._mains, strict=True)
                await in_order([ContainerLoop(self, *each, volumes) for each in containers])
            if self._beside:
                self.stop("finished", self.grace_s())
            await asyncio.gather(*self._beside)
        finally:
            await cancelled(*self._beside)

    async def _initialised(self, volumes: Mapping[str, Volume]) -> bool:
        """Whether the main containers may start: init containers are done, sidecars have started."""
        containers = self.pod["spec"].get("initContainers") or ()
        for container, record in zip(containers, self._inits, strict=True):
            if record.sidecar:
                loop = ContainerLoop(self, container, record, volumes)
                task = asyncio.ensure_future(loop.run())
                self._beside.append(task)
                if not await first(loop.started.wait(), asyncio.shield(task)):
                    return False
            elif record.ended is not None and record.exit_code == 0:
                continue
            elif not await ContainerLoop(self, container, record, volumes).run():
                return False
        return not self.stopping

    def _debug(self) -> None:
        """Starts ephemeral containers that are new."""
        if self._volumes is None or self.stopping:
            return
        known = {record.name for record in self._extras}
        for container in self.pod["spec"].get("ephemeralContainers") or ():
            if container["name"] not in known:
                record = record_of(self.pod, container)
                record.restart = Restart("Never")
                self._extras.append(record)
                loop = ContainerLoop(self, container, record, self._volumes)
                self._beside.append(asyncio.ensure_future(loop.run()))

    def _killed(self) -> bool:
        """Ends the records of what runs by them alone: it was killed, with an earlier server or just now."""
        found = [each for each in (*self._inits, *self._mains, *self._extras) if each.running]
        for record in found:
            record.end(KILLED, self.services.clock.now_ms())
        return bool(found)

    def fail(self, verdict: Verdict, type_: str, grace_s: float) -> None:
        """Ends the pod by a verdict that does not follow from its containers."""
        self._verdict = verdict
        self.event(type_, verdict.reason, verdict.message.rstrip())
        self.stop("shutdown", grace_s)

    def _terminate(self) -> None:
        """Has every container end in its turn: sidecars after those that follow them."""
        assert self.grace is not None, "stop comes first"
        self._signalled = self._ending != "finished" and bool(self.running)
        if self._ending == "shutdown" and self._verdict is None:
            self._publisher.silent = True
        order = {record.name: place for place, record in enumerate(self._inits)}
        last = len(order)
        for name, running in list(self.running.items()):
            place = order.get(name, last)
            after = [each for other, each in self.running.items() if place < order.get(other, last)]
            running.end(f"Stopping container {name}", self.grace, after)

    # Its status

    def _render(self, pod: Object) -> Object:
        given = by_name(self.pod)
        for record in (*self._inits, *self._mains):
            record.given = given[record.name]
        return pod_status(
            pod,
            self._inits,
            self._mains,
            now_ms=self.services.clock.now_ms(),
            extras=self._extras,
            address=self.network.address if self.network is not None else "",
            verdict=self._verdict,
            disrupted=self._disruption(),
            observed=int(self.pod["metadata"].get("generation") or 0),
            resizes=self.resizing.conditions,
        )

    def _disruption(self) -> str:
        """What interrupts the pod for good, in words."""
        if self._verdict is not None and self._verdict.reason == bounds.EVICTED:
            return self._verdict.message
        return self._disrupted if self.pod["spec"].get("restartPolicy") == "Never" else ""

    async def _conclude(self) -> None:
        """Everything is gone: says so, and lets the pod go where it is deleted."""
        deleted = "deletionTimestamp" in self.pod["metadata"]
        finished = phase(self._inits, self._mains) in {"Succeeded", "Failed"} and not self._signalled
        if self._verdict is None and self.stopping and not finished:
            if self._ending == "node" and not deleted:
                self._verdict = _NODE_GONE
            elif self._ending != "shutdown":
                self._verdict = last_word(self.pod, self._mains, interrupted=self._signalled)
        if deleted:
            self._publisher.silent = False
            await self._publisher.remove()
        elif not self._publisher.silent:
            self.publish()
            await self._publisher.flush()
        if self._ending != "shutdown" or self._verdict is not None:
            await asyncio.to_thread(self.services.places.remove_pod, self.cluster, self.ref.uid)
