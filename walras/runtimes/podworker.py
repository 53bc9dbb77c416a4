"""One pod on a node, from its binding to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal

import structlog

from walras.runtimes import actions, bounds
from walras.runtimes.admission import not_given, refusal
from walras.runtimes.base import Mount, PodRef
from walras.runtimes.containers import Containers
from walras.runtimes.environment import HOST_IP
from walras.runtimes.network.networks import PodNetwork
from walras.runtimes.preparing import Preparing
from walras.runtimes.publisher import Publisher
from walras.runtimes.resizing import Resizing
from walras.runtimes.resources import by_name
from walras.runtimes.running import Running
from walras.runtimes.services import Services
from walras.runtimes.status import Verdict, gates_of, last_word, phase, pod_status
from walras.runtimes.tempering import Tempering
from walras.runtimes.waiting import Grace, first
from walras.tenants.claims.pod import RESOURCE_CLAIMS

log = structlog.get_logger(__name__)

Object = dict[str, Any]
# Why a pod ends: it is deleted; its node is taken away; the server stops and will start it again; its main
# containers are over and the others are to follow.
Ending = Literal["deleted", "node", "shutdown", "finished"]
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
        self._containers = Containers(self, pod)
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
        self._containers.add_ephemeral()
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
            self._containers.killed()
            if self.services.networks is not None:
                await self.services.networks.leave(self.ref)
        await self._conclude()

    async def _live(self) -> None:
        preparing = Preparing(self)
        if self._containers.killed():
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
        volumes = await preparing.volumes()
        if volumes is None:
            return
        watches = (
            preparing.renewals(),
            preparing.updates(),
            bounds.deadline(self),
            bounds.storage(self, volumes),
        )
        # A pod that is no longer watched, as a watch failed, is not left to run.
        async with asyncio.TaskGroup() as group:
            timers = [group.create_task(each) for each in watches]
            await self._containers.run(volumes)
            for timer in timers:
                timer.cancel()

    def fail(self, verdict: Verdict, type_: str, grace_s: float) -> None:
        """Ends the pod by a verdict that does not follow from its containers."""
        self._verdict = verdict
        self.event(type_, verdict.reason, verdict.message.rstrip())
        self.stop("shutdown", grace_s)

    def _terminate(self) -> None:
        assert self.grace is not None, "stop comes first"
        self._signalled = self._ending != "finished" and bool(self.running)
        if self._ending == "shutdown" and self._verdict is None:
            self._publisher.silent = True
        self._containers.end(self.grace)

    # Its status

    def _render(self, pod: Object) -> Object:
        given = by_name(self.pod)
        for record in (*self._containers.inits, *self._containers.mains):
            record.given = given[record.name]
        return pod_status(
            pod,
            self._containers.inits,
            self._containers.mains,
            now_ms=self.services.clock.now_ms(),
            extras=self._containers.extras,
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
        inits, mains = self._containers.inits, self._containers.mains
        finished = phase(inits, mains) in {"Succeeded", "Failed"} and not self._signalled
        if self._verdict is None and self.stopping and not finished:
            if self._ending == "node" and not deleted:
                self._verdict = _NODE_GONE
            elif self._ending != "shutdown":
                self._verdict = last_word(self.pod, mains, interrupted=self._signalled)
        if deleted:
            self._publisher.silent = False
            await self._publisher.remove()
        elif not self._publisher.silent:
            self.publish()
            await self._publisher.flush()
        if self._ending != "shutdown" or self._verdict is not None:
            await asyncio.to_thread(self.services.places.remove_pod, self.cluster, self.ref.uid)
