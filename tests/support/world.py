"""The API on a store in memory with every controller at work, in virtual time. Nothing runs the pods."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from walras.core.clock import SequenceIds, VirtualClock, rfc3339
from walras.kube import defaults, preparing
from walras.kube.access.certificates import Authority
from walras.kube.api import API
from walras.kube.standing import NONE, Overheads
from walras.kube.store.sqlite import SqliteStore
from walras.tenants.planes import ControlPlanes

Object = dict[str, Any]

ENDPOINT = "https://127.0.0.1:6443"
CA = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
AGENT = "acme"


@dataclass
class World:
    api: API
    clock: VirtualClock
    planes: ControlPlanes

    async def settle(self) -> None:
        """Until the controllers have nothing left to do; none of them may have failed."""
        await self.planes.settle()
        assert not self.planes.manager.failures

    async def later(self, seconds: float) -> None:
        self.clock.advance(round(seconds * 1000))
        await self.settle()

    async def create(self, resource: str, obj: Object, cluster: str = AGENT) -> Object:
        """As a client's request would: with defaults, in the namespace "default" unless it says another."""
        kind = self.api.registry(cluster)[resource]
        metadata = obj.setdefault("metadata", {})
        if kind.namespaced:
            metadata.setdefault("namespace", "default")

        def finish(fresh: Object) -> None:
            defaults.apply(kind, fresh)
            preparing.prepare(kind, fresh)

        transaction = self.api.transaction()
        created = transaction.create(cluster, resource, obj, finish)
        await transaction.commit()
        return created

    async def agent(self, name: str = AGENT) -> Object:
        await self.api.create("fleet", "agents.walras.dev", agent(name))
        await self.settle()
        return self.api.get("fleet", "agents.walras.dev", "", name)

    def pods(self, namespace: str = "default", cluster: str = AGENT) -> list[Object]:
        return self.api.list(cluster, "pods", namespace)

    async def set_status(self, pod: Object, cluster: str = AGENT, **status: Any) -> None:
        """What the kubelet would report."""
        metadata = pod["metadata"]
        await self.api.edit(
            cluster,
            "pods",
            metadata["namespace"],
            metadata["name"],
            lambda latest: latest["status"].update(status),
        )

    async def run_pod(self, pod: Object) -> None:
        """The kubelet started it: running and ready."""
        now = rfc3339(self.clock.now_ms())
        ready = {"type": "Ready", "status": "True", "lastTransitionTime": now}
        await self.set_status(pod, phase="Running", conditions=[ready])
        await self.settle()

    async def end_pod(self, pod: Object, code: int = 0) -> None:
        """Its only container ended."""
        now = rfc3339(self.clock.now_ms())
        ended = {"name": "main", "state": {"terminated": {"exitCode": code, "finishedAt": now}}}
        phase = "Failed" if code else "Succeeded"
        await self.set_status(pod, phase=phase, containerStatuses=[ended], conditions=[])
        await self.settle()

    async def remove(self, pod: Object, cluster: str = AGENT) -> None:
        """The kubelet is done with a pod that is being deleted."""
        metadata = pod["metadata"]
        await self.api.delete(cluster, "pods", metadata["namespace"], metadata["name"], grace_seconds=0)
        await self.settle()

    def events(self, reason: str, cluster: str = AGENT) -> list[Object]:
        return [event for event in self.api.list(cluster, "events") if event["reason"] == reason]


def tell(
    story: Callable[[World], Coroutine[Any, Any, None]],
    *,
    agents: tuple[str, ...] = (AGENT,),
    authority: Authority | None = None,
    handlers: Overheads = NONE,
) -> None:
    """Runs a story in a fresh world with these agents, an authority for client certificates, and runtimes."""

    async def told() -> None:
        store = SqliteStore(":memory:")
        clock = VirtualClock()
        api = API(store, clock, SequenceIds(), handlers=handlers)
        planes = ControlPlanes(api, clock, SequenceIds(), endpoint=ENDPOINT, ca_pem=CA, authority=authority)
        await planes.start()
        world = World(api, clock, planes)
        for name in agents:
            await world.agent(name)
        try:
            await story(world)
        finally:
            await planes.stop()
            store.close()

    asyncio.run(told())


def agent(name: str) -> Object:
    return {"metadata": {"name": name}, "spec": {"budget": {"income": "12/h"}}}


def pod(name: str, *, limits: Object | None = None, **spec: Any) -> Object:
    container: Object = {"name": "main", "image": "none", "command": ["true"]}
    if limits:
        container["resources"] = {"limits": limits}
    return {"metadata": {"name": name}, "spec": {"containers": [container], **spec}}


def job(name: str = "train", *, restart: str = "Never", **spec: Any) -> Object:
    template = {"spec": {**pod("")["spec"], "restartPolicy": restart}}
    return {"metadata": {"name": name}, "spec": {**spec, "template": template}}


def lease_node(name: str, *, milli: int = 1000, bid: str = "", **spec: Any) -> Object:
    """A node as the exchange makes one for a lease of one device."""
    capacity = {
        "cpu": "1",
        "memory": "4Gi",
        "pods": "16",
        "walras.dev/milligpu": str(milli),
        "walras.dev/gpu-memory-mib": "16384",
    }
    if milli == 1000:
        capacity["nvidia.com/gpu"] = "1"
    labels = {"walras.dev/lease": name, **({"walras.dev/bid": bid} if bid else {})}
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": spec,
        "status": {"capacity": capacity, "allocatable": dict(capacity)},
    }


def scheduled(obj: Object) -> Object:
    """The PodScheduled condition; empty when there is none."""
    conditions = obj.get("status", {}).get("conditions", [])
    return next((each for each in conditions if each["type"] == "PodScheduled"), {})


def condition(obj: Object, kind: str) -> str:
    """The condition's status, "" when it is not there."""
    conditions = obj.get("status", {}).get("conditions", [])
    return next((str(each["status"]) for each in conditions if each["type"] == kind), "")
