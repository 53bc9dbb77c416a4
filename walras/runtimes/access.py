"""Running pods as others reach into them: their logs, their ports, their containers' programs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

from walras.core.errors import BadRequest, NotFound
from walras.kube.serve.ports import Wish
from walras.runtimes.actions import Streams
from walras.runtimes.base import Pausable, Process, Session
from walras.runtimes.logs import Query
from walras.runtimes.podworker import PodWorker
from walras.runtimes.services import Object, Services


class Access:
    """See ports.PodAccess. `workers` are those of the kubelet, by cluster and uid of their pods."""

    def __init__(self, services: Services, workers: Mapping[tuple[str, str], PodWorker]) -> None:
        self._services, self._workers = services, workers

    def logs(
        self,
        cluster: str,
        pod: Object,
        container: str,
        *,
        follow: bool = False,
        previous: bool = False,
        tail_lines: int | None = None,
        since_seconds: int | None = None,
        timestamps: bool = False,
        limit_bytes: int | None = None,
    ) -> AsyncIterator[bytes]:
        """The container's log in pieces. Raises NotFound and BadRequest, in the words of kubelet, at once."""
        status = _container_status(pod, container)
        attempt = int(status.get("restartCount") or 0)
        state, last = status.get("state") or {}, status.get("lastState") or {}
        name = pod["metadata"]["name"]
        if previous:
            if "terminated" not in last:
                raise BadRequest(f'previous terminated container "{container}" in pod "{name}" not found')
            # A container that waits for its next attempt has not counted it yet.
            attempt -= 0 if "waiting" in state else 1
        elif "waiting" in state and "terminated" not in last:
            reason = state["waiting"].get("reason", "ContainerCreating")
            raise BadRequest(f'container "{container}" in pod "{name}" is waiting to start: {reason}')
        since_ms = None if since_seconds is None else self._services.clock.now_ms() - since_seconds * 1000
        store = self._services.logs
        path = store.path(cluster, pod["metadata"]["uid"], container, max(0, attempt))
        return store.read(path, Query(follow and not previous, tail_lines, since_ms, timestamps, limit_bytes))

    async def dial(self, cluster: str, pod: Object, port: int) -> Streams:
        """A connection to a port of the pod. Raises ServiceUnavailable."""
        return await self._worker(cluster, pod).dial(port)

    def _worker(self, cluster: str, pod: Object) -> PodWorker:
        worker = self._workers.get((cluster, pod["metadata"]["uid"]))
        if worker is None:
            raise NotFound(f'pod "{pod["metadata"]["name"]}" is not running')
        return worker

    def _process(self, cluster: str, pod: Object, container: str) -> Process:
        running = self._worker(cluster, pod).running.get(container)
        if running is None:
            raise NotFound(f'container not found ("{container}")')
        return running.process

    async def exec(
        self, cluster: str, pod: Object, container: str, argv: tuple[str, ...], wish: Wish
    ) -> Session:
        """Another program in a running container. Raises NotFound, and StartError in the words of runc."""
        return await self._process(cluster, pod, container).enter(argv, wish)

    async def pause(self, cluster: str, pod: Object, container: str, paused: bool) -> None:
        """See virtual.acts.Pausing. Raises NotFound, BadRequest, ServiceUnavailable."""
        process = self._process(cluster, pod, container)
        if not isinstance(process, Pausable):
            raise BadRequest(f'pod "{pod["metadata"]["name"]}" is no virtual machine')
        await process.pause(paused)

    def attach(self, cluster: str, pod: Object, container: str, wish: Wish) -> Session:
        """What the container's main process says from now on. Raises NotFound."""
        return self._process(cluster, pod, container).attach(wish)


def _container_status(pod: Object, container: str) -> Object:
    status = pod.get("status") or {}
    for specs in ("containers", "initContainers", "ephemeralContainers"):
        statuses = f"{specs.removesuffix('s')}Statuses"
        for each in status.get(statuses) or ():
            if each["name"] == container:
                return dict(each)
        if any(each["name"] == container for each in pod["spec"].get(specs) or ()):
            return {"state": {"waiting": {"reason": "ContainerCreating"}}}
    raise BadRequest(f"container {container} is not valid for pod {pod['metadata']['name']}")
