"""The API of every cluster, in process: reads from memory, writes that return when they are durable."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from walras.core.clock import Clock, Ids, rfc3339
from walras.kube import definitions, objects, standing
from walras.kube.access import bootstrap
from walras.kube.admission.call import REVIEW
from walras.kube.admission.chain import Admission
from walras.kube.collection import is_default
from walras.kube.committer import Committer, Pending
from walras.kube.context import EVERY_CLUSTER
from walras.kube.conversion.asking import Converter
from walras.kube.events import Event, in_cluster
from walras.kube.hub import Hub, View
from walras.kube.record import Key, Object, Record
from walras.kube.registry import Registry
from walras.kube.registry_builtin import for_agents, for_all, for_fleet
from walras.kube.state import Effect, State, Write
from walras.kube.store.base import Batch, Params, Store
from walras.kube.subscribers import Change, Handler, Subscribers
from walras.kube.transaction import Births, Transaction
from walras.kube.watch import Watch, past, too_old

__all__ = ["API", "FLEET", "Change", "Handler"]

FLEET: Final = "fleet"


Objects = list[Object]
Names = list[str]
Events = list[Event]


class API:
    """Trusted access to every cluster. Belongs to the one thread that runs the event loop.

    `handlers`: runtimes for which every cluster has a RuntimeClass, with what each adds to its pods.
    `server`: the address and port at which clusters find their API.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        ids: Ids,
        *,
        handlers: standing.Overheads = standing.NONE,
        server: tuple[str, int] = ("", standing.PORT),
    ) -> None:
        self.store = store
        self.clock = clock
        self.ids = ids
        now = rfc3339(clock.now_ms())
        defaults = {**bootstrap.records(now), **standing.records(now, handlers, server)}
        self.state = State(store.clusters(), store.current(), store.load, defaults)
        self.state.on_wake = self._woke
        self.hub = Hub(self.revision)
        self._committer = Committer(store, self.state, self._publish)
        self._subscribers = Subscribers(self.state)
        self._creating: set[str] = set()
        self._registries: dict[str, Registry] = {}
        self.converter = Converter(self)
        self.admission = Admission(self)
        self.admission.watch()
        for cluster, _ in self.state.everywhere(objects.CRDS):
            self._serve_definitions(cluster)

    # Clusters

    def share(self, objects: Iterable[tuple[str, Object]]) -> None:
        """(resource, object) that every cluster has from now on, made now, without storing them."""
        self.state.share(bootstrap.recorded(objects, rfc3339(self.clock.now_ms())))

    def clusters(self) -> Names:
        """Names, sorted."""
        return sorted(name for name, cluster in self.state.clusters.items() if not cluster.dropping)

    def has_cluster(self, name: str) -> bool:
        cluster = self.state.clusters.get(name)
        return cluster is not None and not cluster.dropping

    def hold_to(self, name: str) -> Callable[[], None]:
        """What raises NotFound once the cluster is not the one that has the name now, whoever has it then.

        For whoever was let into a cluster and then waits.
        """
        clusters = self.state.clusters
        held = clusters.get(name)

        def check() -> None:
            if clusters.get(name) is not held:
                raise objects.not_found("clusters", name)

        return check

    async def create_cluster(self, name: str) -> None:
        """An empty cluster. Raises AlreadyExists."""
        if name in self.state.clusters or name in self._creating:
            raise objects.already_exists("clusters", name)
        self._creating.add(name)
        try:
            await self._committer.submit(Batch(clusters_created=(name,)), [])
        finally:
            self._creating.discard(name)

    async def delete_cluster(self, name: str) -> None:
        """Removes a cluster with everything in it; subscribers see every object DELETED. Raises NotFound."""
        # Subscribers will see every object go, so all of them must be there.
        cluster = self.state.cluster(name)
        cluster.dropping = True
        try:
            await self._committer.submit(Batch(clusters_dropped=(name,)), [])
        except BaseException:
            cluster.dropping = False
            raise

    def registry(self, cluster: str) -> Registry:
        """What the cluster serves. Raises NotFound."""
        if cluster == EVERY_CLUSTER:
            return for_all()
        counters = self.state.counters(cluster)
        if counters.asleep and counters.defines:
            self.state.cluster(cluster)
        return self._registries.get(cluster) or _base(cluster)

    def _serve_definitions(self, cluster: str) -> None:
        """Serves what the cluster's CRDs say; a cluster without any shares one registry with the others."""
        collection = self.state.clusters[cluster].collections.get(objects.CRDS)
        crds = [record.object for record in collection.listed()] if collection else []
        registry = definitions.served(_base(cluster), crds)
        if registry.additions:
            self._registries[cluster] = registry
        else:
            self._registries.pop(cluster, None)

    def revision(self, cluster: str) -> int:
        """The revision up to which everything is committed; of all clusters together for "*"."""
        if cluster == EVERY_CLUSTER:
            return self.state.total_revision()
        return self.state.counters(cluster).revision

    # Sleep

    async def hibernate(self, names: Sequence[str]) -> None:
        """Puts clusters that nobody uses at this moment to the disk, until somebody asks for one of them.

        Their objects leave memory, here and in what subscribers keep; requests and watches notice nothing.
        """
        quiet = tuple(
            name for name in names if self.state.is_quiet(name) and not self.state.clusters[name].asleep
        )
        for name in quiet:
            self.state.clusters[name].flagged = True
        if quiet:
            await self._committer.submit(Batch(slept=quiet), [])

    def is_asleep(self, name: str) -> bool:
        cluster = self.state.clusters.get(name)
        return cluster is not None and cluster.asleep

    def rouse(self, name: str) -> bool:
        """Whether the cluster is there; then its objects are too, and subscribers have heard of them."""
        if not self.has_cluster(name):
            return False
        self.state.cluster(name)
        return True

    def on_sleep(self, forget: Callable[[str], object]) -> Callable[[], None]:
        """Calls `forget` with each cluster that is put to sleep; returns what ends it.

        Subscribers see its objects ADDED again when it wakes. Who answers from what it keeps of a cluster,
        without asking for an object first, has to `rouse` it.
        """
        return self._subscribers.on_sleep(forget)

    def _woke(self, name: str) -> None:
        self._serve_definitions(name)
        self._subscribers.woke(name)

    # Reads

    def record(self, cluster: str, resource: str, namespace: str, name: str) -> Record | None:
        """The object as it lies in memory, with its revision: not decoded yet."""
        return self.state.visible(Key(cluster, resource, namespace, name))

    def find(self, cluster: str, resource: str, namespace: str, name: str) -> Object | None:
        record = self.state.visible(Key(cluster, resource, namespace, name))
        return record.object if record else None

    def get(self, cluster: str, resource: str, namespace: str, name: str) -> Object:
        """Raises NotFound."""
        found = self.find(cluster, resource, namespace, name)
        if found is None:
            self.state.cluster(cluster)
            raise objects.not_found(resource, name)
        return found

    def list(self, cluster: str, resource: str, namespace: str = "") -> Objects:
        """Objects of one namespace, or of all for "", by (namespace, name)."""
        collection = self.state.collection(cluster, resource)
        return [record.object for record in collection.listed(namespace)] if collection else []

    def everywhere(self, resource: str) -> Iterator[tuple[str, Object]]:
        """(cluster, object) of what is stored in clusters that are awake, by cluster, namespace and name."""
        for cluster, collection in self.state.everywhere(resource):
            for record in collection.listed():
                if not is_default(record):
                    yield cluster, record.object

    def everywhere_stored(self, resource: str, namespace: str = "") -> Iterator[Record]:
        """Records of one namespace, or of all, over all clusters, those that sleep among them, in order."""
        asleep: dict[str, list[Record]] = {}
        for row in self.store.sleeping(resource):
            cluster = self.state.clusters.get(row.cluster)
            if cluster is not None and cluster.asleep and namespace in ("", row.namespace):
                key = Key(row.cluster, resource, row.namespace, row.name)
                asleep.setdefault(row.cluster, []).append(Record(key, row.revision, row.data))
        awake = dict(self.state.everywhere(resource))
        for name in sorted({*asleep, *awake}):
            yield from asleep.get(name) or (r for r in awake[name].listed(namespace) if not is_default(r))

    def subscribe(self, resource: str, handler: Handler) -> Callable[[], None]:
        """Calls `handler` for every existing object as ADDED, now, then for each change.

        Objects of a cluster that sleeps come when it wakes, see `on_sleep`.

        A handler that raises is logged and called again for the next change. Returns what ends it.
        """
        return self._subscribers.subscribe(resource, handler)

    def watch(self, view: View, after: int | None = None, *, initial: bool = False) -> Watch:
        """Changes beyond revision `after`, or from now on; or what there is, as ADDED, and then changes.

        Raises Expired when changes beyond `after` are not known any more.
        """
        if view.cluster == EVERY_CLUSTER:
            if after is not None and after != self.state.total_revision():
                raise too_old(after, self.state.total_revision())
            return self.hub.open(view, self._existing(view) if initial else (), 0)
        counters = self.state.counters(view.cluster)
        live = counters.revision
        if after is None:
            return self.hub.open(view, self._existing(view) if initial else (), live)
        if after < counters.compacted:
            raise too_old(after, counters.compacted)
        if after < live and after < self.state.changed(view.cluster, view.resource):
            replays = self.store.history(view.cluster, view.resource, after, live)
            return self.hub.open(
                view, past(replays, view.namespace, view.name, view.matches, whole=view.whole), live
            )
        return self.hub.open(view, (), max(after, live))

    def _existing(self, view: View) -> Events:
        everywhere = view.cluster == EVERY_CLUSTER
        records: Iterable[Record]
        if everywhere:
            records = self.everywhere_stored(view.resource, view.namespace)
        else:
            collection = self.state.collection(view.cluster, view.resource)
            records = collection.listed(view.namespace) if collection else ()
        seen = (
            record
            for record in records
            if view.name in ("", record.key.name) and (view.matches is None or view.matches(record.object))
        )
        if everywhere:
            return [Event("ADDED", obj=in_cluster(record.key.cluster, record.object)) for record in seen]
        return [Event("ADDED", record) for record in seen]

    # Writes

    def transaction(self, births: Births | None = None) -> Transaction:
        return Transaction(self, births or REVIEW.get())

    async def create(self, cluster: str, resource: str, obj: Object) -> Object:
        """The new object. Raises AlreadyExists."""
        transaction = self.transaction()
        created = transaction.create(cluster, resource, obj)
        await transaction.commit()
        return created

    async def edit(
        self, cluster: str, resource: str, namespace: str, name: str, change: Callable[[Object], Any]
    ) -> Object:
        """`change` mutates a private copy of the latest state; what changes nothing writes nothing."""
        transaction = self.transaction()
        edited = transaction.edit(cluster, resource, namespace, name, change)
        await transaction.commit()
        return edited

    async def delete(
        self,
        cluster: str,
        resource: str,
        namespace: str,
        name: str,
        *,
        grace_seconds: int | None = None,
        propagation: str = "Background",
    ) -> None:
        """Deletes, or marks an object that finalizers or a grace period keep. Raises NotFound."""
        transaction = self.transaction()
        transaction.delete(
            cluster, resource, namespace, name, grace_seconds=grace_seconds, propagation=propagation
        )
        await transaction.commit()

    def submit(
        self, writes: Sequence[Write], statements: Sequence[tuple[str, Sequence[Params]]]
    ) -> asyncio.Future[None]:
        """Stages and sends to the disk; see Transaction.commit."""
        asyncio.get_running_loop()  # raises here, before anything is staged, outside of a loop
        rows, effects = self.state.stage(writes)
        woken = self.state.unflag({write.key.cluster for write in writes})
        return self._committer.submit(Batch(rows, tuple(statements), woken=woken), effects)

    def _publish(self, group: Sequence[Pending]) -> None:
        """Everything of a group becomes visible, then everybody is told, in order."""
        effects: list[Effect] = []
        for pending in group:
            for name in pending.batch.clusters_created:
                self.state.add_cluster(name)
            for name in pending.batch.clusters_dropped:
                effects += self.state.drop_cluster(name)
                self._registries.pop(name, None)
            self.state.publish(pending.effects)
            effects += pending.effects
            for name in pending.batch.slept:
                if self.state.sleep(name):
                    self._registries.pop(name, None)
                    self._subscribers.slept(name)
        self._follow(group, effects)
        self._subscribers.tell(effects)

    def _follow(self, group: Sequence[Pending], effects: Sequence[Effect]) -> None:
        """Tells the watches, and ends those of what is not served any more."""
        self.hub.dispatch(effects)
        for effect in effects:
            key = effect.record.key
            if key.resource == objects.CRDS and key.cluster in self.state.clusters:
                self._serve_definitions(key.cluster)
                if effect.deleted or definitions.converts_anew(effect.record, effect.previous):
                    self.hub.end(key.cluster, key.name)
        for pending in group:
            for name in pending.batch.clusters_dropped:
                self.hub.end(name)


def _base(cluster: str) -> Registry:
    return for_fleet() if cluster == FLEET else for_agents()
