"""One pod on a node, from its binding to its end."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final, Literal

import structlog

from walras.core.errors import WalrasError
from walras.runtimes.admission import not_given, refusal
from walras.runtimes.base import NoRuntime, PodRef, Process
from walras.runtimes.container import ContainerLoop, gather
from walras.runtimes.environment import ConfigError, EnvSource
from walras.runtimes.publisher import Publisher
from walras.runtimes.services import Services
from walras.runtimes.status import CONTAINER_CREATING, DISRUPTION, Verdict, phase, pod_status, records
from walras.runtimes.volumes import Volume, prepare, renew, token_lifetime_s

log = structlog.get_logger(__name__)

Object = dict[str, Any]
# Why a pod ends: it is deleted; its node is taken away; the server stops and will start it again.
Ending = Literal["deleted", "node", "shutdown"]
KILLED: Final = 137
_RETRY_S: Final = 5.0
_RENEW_AT: Final = 0.8
_RESTARTED: Final = "the server that ran the pod was restarted"
_NODE_GONE: Final = Verdict(
    "Failed", "Terminated", "The pod's node went away, and everything on it was ended."
)
_DEADLINE: Final = Verdict(
    "Failed", "DeadlineExceeded", "Pod was active on the node longer than the specified deadline"
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
        self.services, self.cluster, self.pod, self.node = services, cluster, pod, node
        self.ref = PodRef(cluster, pod["spec"]["nodeName"], metadata["uid"], metadata["name"])
        self.namespace: str = metadata["namespace"]
        self.processes: dict[str, Process] = {}
        self.killing = False
        self._others = others
        self._ending: Ending | None = None
        self._grace_s = 0.0
        self._end = asyncio.Event()
        self._changed = asyncio.Event()
        self._verdict: Verdict | None = None
        self._disrupted = ""
        self._signalled = False
        self._inits, self._mains = records(pod)
        self._publisher = Publisher(services, cluster, pod, self._render)
        self.task = asyncio.get_running_loop().create_task(self._run())

    # What the kubelet tells it

    def update(self, pod: Object) -> None:
        """The pod's newest state."""
        self.pod = pod
        metadata = pod["metadata"]
        if "deletionTimestamp" in metadata:
            self.stop("deleted", float(metadata.get("deletionGracePeriodSeconds") or 0))

    def stop(self, ending: Ending, grace_s: float) -> None:
        """Ends the pod; later calls can only shorten the time it has."""
        if self._ending is None or ending == "node":
            self._ending = ending
        if self._end.is_set():
            self._grace_s = min(self._grace_s, grace_s)
        else:
            self._grace_s = grace_s
        self._end.set()
        self._changed.set()

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
        return not await self._either(self._end.wait(), self.services.sleep(seconds))

    async def configs_changed(self) -> None:
        """Returns when something that containers refer to may be there now, or the pod is to end."""
        configs = self.services.configs
        event = configs.wait(self.cluster, self.namespace)
        try:
            await self._either(self._end.wait(), event.wait())
        finally:
            configs.forget(self.cluster, self.namespace, event)

    def lookup(self, resource: str, name: str) -> Mapping[str, Any] | None:
        return self.services.configs.find(self.cluster, self.namespace, resource, name)

    def publish(self) -> None:
        """The containers' records changed."""
        self._publisher.mark()

    def event(self, type_: str, reason: str, message: str) -> None:
        self.services.event(self.cluster, self.pod, type_, reason, message)

    async def _either(self, first: Any, second: Any) -> bool:
        """Whether the first came true, when either has."""
        tasks = [asyncio.ensure_future(first), asyncio.ensure_future(second)]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return bool(tasks[0].done())
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # Its life

    async def _run(self) -> None:
        if "deletionTimestamp" in self.pod["metadata"]:
            self.update(self.pod)
        alive = asyncio.ensure_future(self._live())
        try:
            await self._either(self._end.wait(), asyncio.shield(alive))
            if self.stopping:
                await self._terminate(alive)
            await alive
        except Exception:
            log.exception("pod failed", cluster=self.cluster, pod=self.ref.name)
            self._verdict = Verdict("Failed", "InternalError", "the runtime failed; see the server's log")
        finally:
            await self.services.runtime.remove_pod(self.ref)
        await self._conclude()

    async def _live(self) -> None:
        self._recover()
        if self._verdict is not None or self.stopping or not await self._handled():
            return
        self._verdict = refusal(self.pod, self.node, self._others())
        if self._verdict is not None:
            self.event("Warning", self._verdict.reason, self._verdict.message)
            return
        if ignored := not_given(self.pod, self.services.runtime.traits(self.ref)):
            self.event("Warning", "Ignored", ignored)
        volumes = await self._volumes()
        if volumes is None:
            return
        timers = [asyncio.ensure_future(self._deadline()), asyncio.ensure_future(self._renewals())]
        try:
            await self._containers(volumes)
        finally:
            for timer in timers:
                timer.cancel()
            await asyncio.gather(*timers, return_exceptions=True)

    async def _containers(self, volumes: Mapping[str, Volume]) -> None:
        spec = self.pod["spec"]
        for container, record in zip(spec.get("initContainers") or (), self._inits, strict=True):
            if record.ended is not None and record.exit_code == 0:
                continue
            if not await ContainerLoop(self, container, record, volumes).run():
                return
        for record in self._mains:
            if record.state.get("waiting", {}).get("reason") == "PodInitializing":
                record.wait(CONTAINER_CREATING)
        await gather(
            [
                ContainerLoop(self, container, record, volumes)
                for container, record in zip(spec["containers"], self._mains, strict=True)
            ]
        )

    async def _handled(self) -> bool:
        """Finds the runtime that the pod's class names; False when there is none before the pod is to end."""
        said = ""
        while not self.stopping:
            try:
                self.ref = replace(self.ref, handler=self.services.handler(self.cluster, self.pod))
                self.services.runtime.traits(self.ref)
            except WalrasError as error:
                message = f"Failed to create pod sandbox: {error.message}"
                if message != said:
                    self.event("Warning", "FailedCreatePodSandBox", message)
                    self.publish()
                said = message
                if isinstance(error, NoRuntime):
                    await self.ending()
                else:
                    await self.pause(_RETRY_S)
            else:
                return True
        return False

    def _recover(self) -> None:
        """What ran under an earlier server was killed with it."""
        for record in (*self._inits, *self._mains):
            if record.running:
                record.end(KILLED, self.services.clock.now_ms())
                self._disrupted = _RESTARTED

    async def _volumes(self) -> dict[str, Volume] | None:
        """Waits for what volumes are made from; None when the pod is to end before."""
        said = ""
        while not self.stopping:
            try:
                return prepare(self.services.places, self.cluster, self._source())
            except (WalrasError, OSError) as error:
                message = f"MountVolume.SetUp failed: {error}"
                if message != said:
                    self.event("Warning", "FailedMount", message)
                    self.publish()
                said = message
                if isinstance(error, ConfigError):
                    await self.configs_changed()
                elif isinstance(error, OSError):
                    # A full disk is full until somebody makes room, which nothing tells of.
                    await self.pause(_RETRY_S)
                else:
                    await self.ending()
        return None

    def _source(self) -> EnvSource:
        return EnvSource(
            self.pod, self.node, self.lookup, partial(self.services.token, self.cluster, self.pod)
        )

    async def _renewals(self) -> None:
        """Writes the tokens in the pod's volumes anew when four fifths of their time are over."""
        lifetime_s = token_lifetime_s(self.pod)
        while lifetime_s and await self.pause(lifetime_s * _RENEW_AT):
            try:
                renew(self.services.places, self.cluster, self._source())
            except (WalrasError, OSError) as error:
                self.event("Warning", "FailedMount", f"MountVolume.SetUp failed: {error}")

    async def _deadline(self) -> None:
        seconds: int | None = self.pod["spec"].get("activeDeadlineSeconds")
        if seconds is None:
            return
        if await self.pause(float(seconds)):
            self._verdict = _DEADLINE
            self.event("Normal", "DeadlineExceeded", _DEADLINE.message)
            grace_s = float(self.pod["spec"].get("terminationGracePeriodSeconds", 30))
            # As everywhere, less than none is a second.
            self.stop("shutdown", grace_s if grace_s >= 0 else 1.0)

    async def _terminate(self, alive: asyncio.Future[None]) -> None:
        """SIGTERM, the time that is left, SIGKILL; a shorter time may be set meanwhile."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        self._signalled = bool(self.processes)
        if self._ending == "shutdown" and self._verdict is None:
            self._publisher.silent = True
        for name, process in list(self.processes.items()):
            self.event("Normal", "Killing", f"Stopping container {name}")
            if self._grace_s > 0:
                process.signal(signal.SIGTERM)
        while not alive.done() and (left_s := began_s + self._grace_s - loop.time()) > 0:
            self._changed.clear()
            timer = self._either(self._changed.wait(), self.services.sleep(left_s))
            if not await self._either(asyncio.shield(alive), timer) and not self._changed.is_set():
                break
        self.killing = True
        await asyncio.gather(*(process.kill() for process in list(self.processes.values())))

    # Its status

    def _render(self, pod: Object) -> Object:
        return pod_status(
            pod,
            self._inits,
            self._mains,
            now_ms=self.services.clock.now_ms(),
            verdict=self._verdict,
            disrupted=self._disrupted if self._is_disrupted() else "",
        )

    def _is_disrupted(self) -> bool:
        return bool(self.pod["spec"].get("restartPolicy") == "Never")

    def _last_word(self, pod: Object) -> Verdict:
        """The phase of a pod that was ended from outside: an interrupted one has not succeeded."""
        conditions = (pod.get("status") or {}).get("conditions") or ()
        disrupted = any(each["type"] == DISRUPTION and each["status"] == "True" for each in conditions)
        done = all(record.ended is not None and record.exit_code == 0 for record in self._mains)
        return Verdict("Succeeded" if done and not (disrupted and self._signalled) else "Failed")

    async def _conclude(self) -> None:
        """Everything is gone: says so, and lets the pod go where it is deleted."""
        deleted = "deletionTimestamp" in self.pod["metadata"]
        policy = self.pod["spec"].get("restartPolicy", "Always")
        finished = phase(self._inits, self._mains, policy) in {"Succeeded", "Failed"} and not self._signalled
        if self._verdict is None and self.stopping and not finished:
            if self._ending == "node" and not deleted:
                self._verdict = _NODE_GONE
            elif self._ending != "shutdown":
                self._verdict = self._last_word(self.pod)
        if deleted:
            self._publisher.silent = False
            await self._publisher.remove()
        elif not self._publisher.silent:
            self.publish()
            await self._publisher.flush()
        if self._ending != "shutdown" or self._verdict is not None:
            await asyncio.to_thread(self.services.places.remove_pod, self.cluster, self.ref.uid)
