"""The revisions that have instances or requests, in all clusters: they follow pods, and find who answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

from walras.core.clock import Clock
from walras.core.errors import Invalid, NotFound, WalrasError
from walras.functions.backend import Backend, Instance
from walras.functions.connections import Connection, Link
from walras.functions.h2c import H2C
from walras.functions.settings import Scaling, limits_of, scaling_of
from walras.functions.template import is_http2, is_probed, port_of
from walras.functions.words import REVISION, REVISIONS, ROUTING_STATE, Where
from walras.kube.api import API, Change
from walras.tenants.objects import (
    PODS,
    Object,
    controller_of,
    deleting,
    finished,
    is_true,
    labels,
    phase,
    uid,
)

Dial = Callable[[str, Object, int], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]

_LABEL: Final = f'"{REVISION}"'.encode()
# How often a pod that runs is asked whether it accepts connections: soon at first, then less and less.
_PROBE_S_MIN: Final = 0.01
_PROBE_S_MAX: Final = 0.5


class Backends:
    """`dial` connects to a port of a pod. `changed` is told of revisions that there is work on, `began` when
    there is one more to be watched."""

    def __init__(
        self, api: API, clock: Clock, dial: Dial, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._api, self._clock, self.dial, self._sleep = api, clock, dial, sleep
        self._backends: dict[Where, Backend] = {}
        # By cluster and the uid of a pod.
        self._probes: dict[tuple[str, str], asyncio.Task[None]] = {}
        self.changed: Callable[[Where], None] = lambda _: None
        self.began: Callable[[], None] = lambda: None

    def __iter__(self) -> Iterator[Backend]:
        return iter(list(self._backends.values()))

    def watch(self) -> list[Callable[[], None]]:
        return [
            self._api.subscribe(REVISIONS, self._revision_changed),
            self._api.subscribe(PODS, self._pod_changed),
            self._api.on_sleep(self._sleeps),
        ]

    async def stop(self) -> None:
        for task in self._probes.values():
            task.cancel()
        await asyncio.gather(*self._probes.values(), return_exceptions=True)
        for where in list(self._backends):
            self.forget(where)

    def get(self, where: Where) -> Backend | None:
        return self._backends.get(where)

    def open(self, where: Where) -> Backend:
        """The backend of a revision, made where there is none yet. Raises NotFound."""
        found = self._backends.get(where)
        if found is not None:
            return found
        revision = self._api.find(where.cluster, REVISIONS, where.namespace, where.name)
        if revision is None or deleting(revision):
            raise NotFound(f'revision "{where.name}" not found')
        changed = self.changed
        made = self._backends[where] = Backend(
            where,
            self._clock,
            _scaling(revision),
            limits_of(revision),
            lambda: changed(where),
            is_http2=is_http2(revision),
        )
        made.is_reachable = labels(revision).get(ROUTING_STATE) == "active"
        self.began()
        return made

    def forget(self, where: Where) -> None:
        """Lets go of it, and of its connections."""
        backend = self._backends.pop(where, None)
        if backend is not None:
            backend.end()

    def _sleeps(self, cluster: str) -> None:
        for where in [each for each in self._backends if each.cluster == cluster]:
            self.forget(where)

    # What changes

    def _revision_changed(self, change: Change) -> None:
        where = Where(change.cluster, change.namespace, change.name)
        backend = self._backends.get(where)
        if backend is None:
            return
        if change.type == "DELETED":
            # Another may have its name soon, even another agent's.
            self.forget(where)
            return
        revision = change.object
        backend.is_reachable = labels(revision).get(ROUTING_STATE) == "active"
        backend.scaling, backend.limits = _scaling(revision), limits_of(revision)

    def _pod_changed(self, change: Change) -> None:
        if not change.mentions(_LABEL):
            return
        pod = change.object
        owner = controller_of(pod)
        if owner is None or owner.get("kind") != "Revision":
            return
        where = Where(change.cluster, change.namespace, str(owner["name"]))
        if change.type == "DELETED" or finished(pod):
            self._gone(where, uid(pod))
        else:
            self._there(where, str(owner.get("uid")), pod)
        self.changed(where)

    def _gone(self, where: Where, pod_uid: str) -> None:
        backend = self._backends.get(where)
        instance = backend.instances.pop(pod_uid, None) if backend else None
        if instance is not None:
            instance.end()

    def _there(self, where: Where, owner_uid: str, pod: Object) -> None:
        revision = self._api.find(where.cluster, REVISIONS, where.namespace, where.name)
        if revision is None or deleting(revision) or uid(revision) != owner_uid:
            return
        backend = self.open(where)
        instance = backend.instances.get(uid(pod))
        if instance is None:
            instance = backend.instances[uid(pod)] = Instance(pod, port_of(revision))
            self._count(backend, revision)
        instance.pod = pod
        if not is_serving(pod):
            backend.lose(instance)
        elif not instance.ready and instance.is_staying:
            self.probe(backend, instance)

    def _count(self, backend: Backend, revision: Object) -> None:
        """What ran before this server did, or before the cluster slept, is kept until it is measured."""
        count = sum(each.is_staying for each in backend.instances.values())
        if count > backend.wanted and is_true(revision, "ResourcesAvailable"):
            backend.begin(count)

    # Who answers

    def probe(self, backend: Backend, instance: Instance) -> None:
        """Connects to the instance again and again until it accepts: then it is ready."""
        key = (backend.where.cluster, instance.uid)
        if key not in self._probes:
            task = asyncio.get_running_loop().create_task(self._probed(backend, instance))
            self._probes[key] = task
            task.add_done_callback(lambda _: self._probes.pop(key, None))

    async def _probed(self, backend: Backend, instance: Instance) -> None:
        delay_s = _PROBE_S_MIN
        while self._is_starting(backend, instance):
            try:
                connection = await self.connect(backend, instance)
            except (WalrasError, OSError):
                await self._sleep(delay_s)
                delay_s = min(delay_s * 1.5, _PROBE_S_MAX)
                continue
            if self._is_starting(backend, instance) and backend.waiting:
                instance.idle.append(connection)
            else:
                connection.close()
            if self._is_starting(backend, instance):
                instance.ready = True
                backend.dispatch()
                self.changed(backend.where)
            return

    def _is_starting(self, backend: Backend, instance: Instance) -> bool:
        is_known = backend.instances.get(instance.uid) is instance
        return is_known and not instance.ready and instance.is_staying and is_serving(instance.pod)

    async def connect(self, backend: Backend, instance: Instance) -> Link:
        """A new connection to the instance, in what it speaks. Raises WalrasError or OSError."""
        kind = H2C if backend.is_http2 else Connection
        return kind(*await self.dial(backend.where.cluster, instance.pod, instance.port))


def is_serving(pod: Object) -> bool:
    """Whether the pod may answer: it is on a node and, where it has a probe, ready.

    What accepts connections runs, whether its status says so yet or not.
    """
    if is_probed(pod) or pod["spec"].get("initContainers"):
        return phase(pod) == "Running" and (not is_probed(pod) or is_true(pod, "Ready"))
    return bool(pod["spec"].get("nodeName")) and phase(pod) in ("", "Pending", "Running")


def _scaling(revision: Object) -> Scaling:
    try:
        return scaling_of(revision)
    except Invalid:
        # The revision says so in its conditions.
        return Scaling()
