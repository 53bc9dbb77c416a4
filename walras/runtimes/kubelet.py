"""The kubelet of every node of every cluster: pods that are bound become processes, processes status."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

from walras.core.clock import Clock
from walras.core.errors import Conflict, NotFound
from walras.kube.access.accounts import Accounts
from walras.kube.api import API, Change
from walras.runtimes.access import Access
from walras.runtimes.admission import node_limits
from walras.runtimes.base import Runtime
from walras.runtimes.claimfiles import Claim, ClaimFiles
from walras.runtimes.environment import Directories
from walras.runtimes.logs import LogStore
from walras.runtimes.network.networks import Networks
from walras.runtimes.network.services import Directory
from walras.runtimes.podworker import PodWorker
from walras.runtimes.pressure import Disk
from walras.runtimes.sandbox import uid_of
from walras.runtimes.services import Configs, Object, Recorder, Services
from walras.runtimes.volumes import CLAIMS, Places, claims_of
from walras.tenants.objects import NODES, PODS, finished

log = structlog.get_logger(__name__)


class Kubelet:
    """Owns every pod with a node; belongs to the loop that `start` is called in."""

    def __init__(
        self,
        api: API,
        runtime: Runtime,
        clock: Clock,
        recorder: Recorder,
        data_dir: Path,
        *,
        accounts: Accounts | None = None,
        mps: Directories | None = None,
        networks: Networks | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._api, self._runtime = api, runtime
        logs = LogStore(data_dir / "agents", clock)
        places = Places(data_dir, self._owner_of)
        self._networks = networks
        self._directory = Directory(api, networks) if networks is not None else None
        self._services = Services(
            api, runtime, clock, recorder, logs, places, Configs(api), Disk(data_dir), sleep, accounts, mps,
            networks,
        )  # fmt: skip
        self._claims = ClaimFiles(places, self._remove_tree)
        self._workers: dict[tuple[str, str], PodWorker] = {}
        self.access = Access(self._services, self._workers)
        # Nodes whose end was asked for: nothing starts there again, until one of that name is made anew.
        self._closed: set[tuple[str, str]] = set()
        # What is being done, and for whom.
        self._tasks: dict[asyncio.Task[Any], str] = {}
        self._unsubscribe: list[Callable[[], None]] = []
        self._stopping = False

    def _owner_of(self, cluster: str) -> int:
        return uid_of(cluster) if self._runtime.separates_users else -1

    async def start(self) -> None:
        """Takes up every pod that is bound already, then every one that is bound from now on."""
        await self._runtime.open()
        if self._networks is not None and self._directory is not None:
            self._networks.serve(self._directory)
            self._unsubscribe += self._directory.watch()
        pods = self._api.everywhere_stored(PODS)
        known = {(record.key.cluster, record.object["metadata"]["uid"]) for record in pods}
        await asyncio.to_thread(self._services.logs.keep_only, known)
        await asyncio.to_thread(self._services.places.close_off)
        await asyncio.to_thread(self._services.places.unmount)
        claims = {record.key for record in self._api.everywhere_stored(CLAIMS)}
        named = {(key.cluster, key.namespace, key.name) for key in claims}
        keep_only = self._services.places.keep_only
        await asyncio.to_thread(keep_only, known, named, tuple(self._api.clusters()))
        self._unsubscribe += [
            self._api.subscribe(NODES, self._node_changed),
            self._api.subscribe(PODS, self._pod_changed),
            *(self._api.subscribe(resource, self._config_changed) for resource in Configs.RESOURCES),
        ]

    async def stop(self, grace_s: float) -> None:
        """SIGTERM to every pod, SIGKILL after `grace_s`; they start again with the server."""
        self._stopping = True
        for unsubscribe in self._unsubscribe:
            unsubscribe()
        workers = list(self._workers.values())
        for worker in workers:
            worker.stop("shutdown", grace_s)
        await asyncio.gather(*(worker.task for worker in workers), *self._tasks, return_exceptions=True)
        await self._runtime.close()
        if self._networks is not None and self._directory is not None:
            await self._directory.close()
            await self._networks.close()
        await asyncio.to_thread(self._services.places.unmount)

    async def stop_node(self, cluster: str, node: str) -> None:
        """Kills everything on the node now; returns when every process is gone and every status is written.

        Pods are marked Failed, those that are being deleted are removed. No pod starts on the node any more.
        """
        self._closed.add((cluster, node))
        workers = list(self._on(cluster, node))
        for worker in workers:
            worker.stop("node", 0.0)
        await self._runtime.remove_node(cluster, node)
        await asyncio.gather(*(worker.task for worker in workers))
        # A container that was on its way while the first were killed.
        await self._runtime.remove_node(cluster, node)

    async def forget_agent(self, cluster: str) -> bool:
        """Ends and deletes what a cluster that is gone has left on this machine.

        Whether nothing is left, so that another may come by its name; False while something is still ending.
        Raises OSError, StorageError.
        """
        workers = [each for each in self._workers.values() if each.cluster == cluster]
        for worker in workers:
            worker.stop("deleted", 0.0)
        if workers or cluster in self._tasks.values():
            return False
        await self._runtime.forget_agent(cluster)
        places = self._services.places
        if places.has(cluster):
            aside = await asyncio.to_thread(places.set_aside, cluster)
            self._remove_tree("", aside)
        return True

    def node_cpu_ms(self, cluster: str, node: str) -> int:
        """CPU time, in milliseconds, that the node's pods have used so far."""
        return self._runtime.cpu_ms(cluster, node)

    def node_pids(self, cluster: str, node: str) -> list[int]:
        """The processes of the node's pods, as this machine numbers them."""
        return self._runtime.pids(cluster, node)

    # What changes

    def _on(self, cluster: str, node: str) -> Iterator[PodWorker]:
        return (each for each in self._workers.values() if (each.cluster, each.ref.node) == (cluster, node))

    def _node_changed(self, change: Change) -> None:
        name = change.object["metadata"]["name"]
        if change.type == "DELETED":
            self._spawn(change.cluster, self._node_gone(change.cluster, name))
            return
        if change.type == "ADDED":
            self._closed.discard((change.cluster, name))
            for pod in self._api.list(change.cluster, PODS) if self._unsubscribe else ():
                self._consider(change.cluster, pod)
        elif next(self._on(change.cluster, name), None) is not None:
            self._runtime.set_node(change.cluster, name, node_limits(change.object))
            self._services.rooms.freed((change.cluster, name))

    async def _node_gone(self, cluster: str, name: str) -> None:
        await self.stop_node(cluster, name)
        if self._api.find(cluster, NODES, "", name) is None:
            self._closed.discard((cluster, name))

    def _pod_changed(self, change: Change) -> None:
        pod = change.object
        worker = self._workers.get((change.cluster, pod["metadata"]["uid"]))
        if change.type == "DELETED":
            if worker is not None:
                worker.stop("deleted", 0.0)
            else:
                self._forget(change.cluster, pod["metadata"]["uid"])
        elif worker is not None:
            worker.update(pod)
        else:
            self._consider(change.cluster, pod)

    def _consider(self, cluster: str, pod: Object) -> None:
        """Starts the pod if it is this kubelet's, has not ended, and is not started yet."""
        uid, name = pod["metadata"]["uid"], pod["spec"].get("nodeName")
        if not name or self._stopping or (cluster, uid) in self._workers or finished(pod):
            return
        node = self._api.find(cluster, NODES, "", name)
        if node is None or (cluster, name) in self._closed:
            if "deletionTimestamp" in pod["metadata"]:
                self._spawn(cluster, self._remove(cluster, pod))
            return
        if not _is_ours(node):
            return
        self._runtime.set_node(cluster, name, node_limits(node))

        def others() -> list[Object]:
            return [each.pod for each in self._on(cluster, name) if each.ref.uid != uid and not each.over]

        worker = self._workers[cluster, uid] = PodWorker(self._services, cluster, pod, node, others)
        worker.task.add_done_callback(lambda task: self._ended(cluster, uid, task))

    async def _remove(self, cluster: str, pod: Object) -> None:
        """Lets go of a deleted pod of which nothing runs: its node is gone, or going."""
        metadata = pod["metadata"]
        transaction = self._api.transaction()
        with suppress(NotFound, Conflict):
            found = transaction.peek(cluster, PODS, metadata["namespace"], metadata["name"])
            if found is not None and found["metadata"]["uid"] == metadata["uid"]:
                transaction.delete(
                    cluster, PODS, metadata["namespace"], metadata["name"], grace_seconds=0, propagation=""
                )
                await transaction.commit()

    def _ended(self, cluster: str, uid: str, task: asyncio.Task[None]) -> None:
        worker = self._workers.pop((cluster, uid))
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("pod not ended", cluster=cluster, pod=worker.ref.name, error=str(error))
        if self._api.find(cluster, PODS, worker.namespace, worker.ref.name) is None:
            self._forget(cluster, uid)
        # However it ended: while one pod is to give way, no other is asked to.
        self._services.disk.forget((cluster, uid))
        self._services.rooms.freed((cluster, worker.ref.node))
        self._claims.left((cluster, uid))

    def _forget(self, cluster: str, uid: str) -> None:
        """The pod is gone: so are its logs and its own volumes."""
        self._spawn(cluster, asyncio.to_thread(self._services.logs.remove, cluster, uid))
        self._spawn(cluster, asyncio.to_thread(self._services.places.remove_pod, cluster, uid))

    def _config_changed(self, change: Change) -> None:
        self._services.configs.changed(change.cluster, change.namespace)
        if change.resource == CLAIMS:
            claim = Claim(change.cluster, change.namespace, change.name)
            if change.type == "DELETED":
                self._claims.gone(claim, self._users(claim))
            elif change.type == "ADDED":
                self._claims.came(claim)

    def _users(self, claim: Claim) -> Iterator[tuple[str, str]]:
        """Pods that have not ended and use the claim."""
        for each in self._workers.values():
            if (each.cluster, each.namespace) == claim[:2] and claim.name in claims_of(each.pod):
                yield each.ref.key

    def _remove_tree(self, cluster: str, path: Path) -> None:
        self._spawn(cluster, asyncio.to_thread(shutil.rmtree, path, ignore_errors=True))

    def _spawn(self, cluster: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[task] = cluster
        task.add_done_callback(self._tasks.pop)


def _is_ours(node: Object) -> bool:
    """Whether the node is one of this server's own; the operator may keep others, run by something else."""
    provider = str((node.get("spec") or {}).get("providerID") or "")
    return not provider or provider.startswith("walras://")
