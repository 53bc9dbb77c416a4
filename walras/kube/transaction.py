"""Staging of writes: synchronous, private to the transaction until it commits, then all or nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from walras.core.clock import Clock, Ids
from walras.core.errors import BadRequest, InternalError
from walras.kube import crd, defaults, definitions, deletion, objects, preparing, versions
from walras.kube.access import mounting
from walras.kube.record import Key, Object, Record, copy
from walras.kube.registry import Registry, Resource
from walras.kube.state import State, Write
from walras.kube.store.base import Params

if TYPE_CHECKING:
    from walras.kube.admission.chain import Admission

_NAME_ATTEMPTS = 8


class Engine(Protocol):
    """What a transaction needs of the API."""

    state: State
    clock: Clock
    ids: Ids
    admission: Admission

    def registry(self, cluster: str) -> Registry: ...

    def submit(
        self, writes: Sequence[Write], statements: Sequence[tuple[str, Sequence[Params]]]
    ) -> Awaitable[None]: ...


class Births(Clock, Ids, Protocol):
    """A clock and ids in one."""


class Transaction:
    """Writes as a trusted caller: whole objects, no schema, no policy.

    Each call sees what this transaction has staged before. Commit in the same turn of the loop: where another
    transaction changed an object in between, `commit` raises Conflict and writes nothing. The objects
    returned are the transaction's own, to be read only; they get their resourceVersion at the commit.
    """

    def __init__(self, engine: Engine, births: Births | None = None) -> None:
        """`births` gives new objects their time and ids, where those are not the engine's own."""
        self._engine = engine
        self._clock: Clock = births or engine.clock
        self._ids: Ids = births or engine.ids
        self._writes: list[Write] = []
        self._staged: dict[Key, Object | None] = {}
        self._statements: list[tuple[str, Sequence[Params]]] = []
        self._over = False

    def _resource(self, cluster: str, resource: str) -> Resource:
        return self._engine.registry(cluster)[resource]

    def _base(self, key: Key) -> Record | None:
        return self._engine.state.latest(key)

    def peek(self, cluster: str, resource: str, namespace: str, name: str) -> Object | None:
        """The latest state, with what is staged here or on its way to the disk; never to be mutated."""
        key = Key(cluster, resource, namespace, name)
        if key in self._staged:
            return self._staged[key]
        record = self._base(key)
        return record.object if record else None

    def is_going(self, cluster: str, resource: str, namespace: str, name: str) -> bool | None:
        """Whether the latest state is being deleted; None where there is nothing of the name."""
        key = Key(cluster, resource, namespace, name)
        if key in self._staged:
            staged = self._staged[key]
            return None if staged is None else "deletionTimestamp" in staged["metadata"]
        record = self._base(key)
        return record.is_going if record else None

    def _latest(self, key: Key) -> Object:
        obj = self.peek(*key)
        if obj is None:
            raise objects.not_found(key.resource, key.name)
        return obj

    def _private(self, key: Key, latest: Object) -> Object:
        record = None if key in self._staged else self._base(key)
        return record.fresh() if record else copy(latest)

    def _put(self, key: Key, obj: Object, *, deleted: bool = False) -> None:
        assert not self._over, "the transaction is over"
        self._writes.append(Write(key, self._base(key), obj, deleted))
        self._staged[key] = None if deleted else obj
        shared = self._engine.state.default(key) if deleted else None
        if shared is not None:
            # What every cluster has comes back at once, as another object, and who watches hears of it.
            again = shared.fresh()
            kind = self._resource(key.cluster, key.resource)
            objects.initialise(kind, again, self._clock.now_ms(), self._ids)
            self._put(key, again)

    def put(self, key: Key, obj: Object) -> bool:
        """Stages the whole object, uid and all, in place of whatever is there; whether that is a change."""
        latest = self.peek(*key)
        new = copy(obj)
        metadata = new["metadata"]
        metadata.pop("resourceVersion", None)
        if latest is not None:
            metadata["resourceVersion"] = latest["metadata"]["resourceVersion"]
            if new == latest:
                return False
        self._put(key, new)
        return True

    def drop(self, key: Key) -> bool:
        """Stages the end of an object, whatever would keep it; whether that is a change. Raises NotFound.

        What every cluster has is what it was at first, uid and all.
        """
        shared = self._engine.state.default(key)
        if shared is not None:
            return self.put(key, shared.object)
        self._put(key, self._private(key, self._latest(key)), deleted=True)
        return True

    def create(
        self,
        cluster: str,
        resource: str,
        obj: Object,
        finish: Callable[[Object], None] | None = None,
        begin: Callable[[Object], None] | None = None,
    ) -> Object:
        """The new object, with uid, creationTimestamp and, from generateName, its name. AlreadyExists.

        `finish` may fill in more, and refuse, once those are known; it refuses what has no name. `begin` sees
        the object before the server has put anything of its own into it.
        """
        kind = self._resource(cluster, resource)
        fresh = {"apiVersion": kind.api_version, "kind": kind.kind, **copy(obj)}
        metadata = fresh.setdefault("metadata", {})
        namespace = str(metadata.get("namespace") or "") if kind.namespaced else ""
        if kind.namespaced and not namespace:
            raise BadRequest(f"{kind.kind}: metadata.namespace is required")
        if finish is None or metadata.get("name") or metadata.get("generateName"):
            metadata["name"] = self._name(cluster, resource, namespace, metadata)
        objects.initialise(kind, fresh, self._clock.now_ms(), self._ids)
        if begin is not None:
            begin(fresh)
        if resource == objects.PODS:
            named = str((fresh.get("spec") or {}).get("serviceAccountName") or mounting.DEFAULT)
            account = self.peek(cluster, objects.ACCOUNTS, namespace, named)
            mounting.mount(fresh, account, self._ids)
        if finish is not None:
            finish(fresh)
        elif resource == objects.NAMESPACES:
            defaults.apply(kind, fresh)
            preparing.prepare(kind, fresh)
        key = Key(cluster, resource, namespace, str(metadata["name"]))
        present = self.peek(*key)
        if present is not None:
            raise objects.already_exists(resource, key.name, going="deletionTimestamp" in present["metadata"])
        if resource == objects.CRDS:
            definitions.establish(fresh, self._clock.now_ms(), self._definitions(cluster, key.name))
        self._put(key, fresh)
        return fresh

    def make(self, cluster: str, resource: str, obj: Object) -> Object:
        """As `create`, of what somebody's template asks for: admitted as if it came from outside.

        Raises Forbidden and its kin.
        """
        kind = self._resource(cluster, resource)

        def admit(fresh: Object) -> None:
            self._engine.admission.trusted(self, cluster, kind, fresh)

        return self.create(cluster, resource, obj, admit)

    def _name(self, cluster: str, resource: str, namespace: str, metadata: Object) -> str:
        if metadata.get("name"):
            return str(metadata["name"])
        prefix = metadata.get("generateName")
        if not prefix:
            raise BadRequest("name or generateName is required")
        for _ in range(_NAME_ATTEMPTS):
            name = objects.generated_name(prefix, self._ids)
            if self.peek(cluster, resource, namespace, name) is None:
                return name
        raise objects.already_exists(resource, prefix)

    def edit(
        self, cluster: str, resource: str, namespace: str, name: str, change: Callable[[Object], Any]
    ) -> Object:
        """`change` mutates a private copy of the latest state. Writes nothing when nothing changes.

        An object whose deletion waits for nothing any more is removed; its last state is returned.
        """
        key = Key(cluster, resource, namespace, name)

        def changed(old: Object) -> Object:
            new = self._private(key, old)
            change(new)
            return new

        return self.replace(cluster, resource, namespace, name, changed)

    def replace(
        self,
        cluster: str,
        resource: str,
        namespace: str,
        name: str,
        build: Callable[[Object], Object],
        *,
        preserved: bool = False,
    ) -> Object:
        """As `edit`, with what `build` makes of the latest state, which it must not mutate.

        `preserved` says that `build` has seen to it that what no write may change is as it was.
        """
        kind = self._resource(cluster, resource)
        key = Key(cluster, resource, namespace, name)
        old = self._latest(key)
        new = build(old)
        if not preserved:
            # What a webhook would make of the old state is not known here, nor does it matter to controllers.
            reads = kind.is_mixed and kind.converter is None
            objects.preserve(kind, old, new, versions.served(kind, old) if reads else None)
        if resource == objects.CRDS:
            definitions.establish(new, self._clock.now_ms(), self._definitions(cluster, name))
        if new == old:
            return old
        self._put(key, new, deleted=objects.is_done(kind, new))
        self._release(key)
        self._free_names(key)
        return new

    def delete(
        self,
        cluster: str,
        resource: str,
        namespace: str,
        name: str,
        *,
        grace_seconds: int | None = None,
        propagation: str = "Background",
    ) -> Object:
        """The object, marked, when a finalizer or its grace period keeps it; else its last state."""
        kind = self._resource(cluster, resource)
        key = Key(cluster, resource, namespace, name)
        old = self._latest(key)
        new, now_ms = self._private(key, old), self._clock.now_ms()
        gone = deletion.begin(kind, new, now_ms, grace_seconds, propagation)
        if resource == objects.CRDS and not self._clear(cluster, name):
            definitions.hold(new, now_ms)
            gone = False
        if gone and (resource != objects.PODS or "deletionTimestamp" not in old["metadata"]):
            # What goes at once goes as it was: there was no time in which it was being deleted.
            new = self._private(key, old)
        if gone or new != old:
            self._put(key, new, deleted=gone)
            self._release(key)
            self._free_names(key)
        return new

    def _definitions(self, cluster: str, name: str) -> list[Object]:
        """The cluster's other definitions."""
        keys = (key for key in self._objects_of(cluster, objects.CRDS) if key.name != name)
        return [found for key in keys if (found := self.peek(*key)) is not None]

    def _free_names(self, key: Key) -> None:
        """Lets definitions have the names that a definition has given up."""
        if key.resource != objects.CRDS:
            return
        for other in self._definitions(key.cluster, key.name):
            if crd.is_refused(other):
                self.edit(key.cluster, objects.CRDS, "", other["metadata"]["name"], lambda _: None)

    def _objects_of(self, cluster: str, resource: str) -> list[Key]:
        found = [record.key for record in self._engine.state.latest_of(cluster, resource)]
        kept = [key for key in found if key not in self._staged]
        staged = [key for key, obj in self._staged.items() if obj is not None]
        return kept + [key for key in staged if (key.cluster, key.resource) == (cluster, resource)]

    def _clear(self, cluster: str, resource: str) -> bool:
        """Deletes the objects of a cluster's own resource; whether none is left."""
        if not definitions.is_own(self._engine.registry(cluster), resource):
            return True
        for key in self._objects_of(cluster, resource):
            self.delete(*key)
        return not self._objects_of(cluster, resource)

    def _release(self, key: Key) -> None:
        """Lets go of a deleted definition when `key` was the last of its objects."""
        if self._staged[key] is not None or not definitions.is_own(
            self._engine.registry(key.cluster), key.resource
        ):
            return
        definition = self.peek(key.cluster, objects.CRDS, "", key.resource)
        if definition is None or "deletionTimestamp" not in definition["metadata"]:
            return
        if not self._objects_of(key.cluster, key.resource):
            self.edit(key.cluster, objects.CRDS, "", key.resource, definitions.let_go)

    def execute(self, sql: str, rows: Sequence[Params]) -> None:
        """One SQL statement for each of `rows`, in the same database transaction."""
        self._statements.append((sql, rows))

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to commit."""
        return not (self._writes or self._statements)

    async def commit(self) -> None:
        """Returns when everything staged is on the disk and visible.

        Raises StorageError when the disk refuses it, Conflict when it was overtaken; then nothing is written.
        """
        if self._over:
            raise InternalError("the transaction was committed before")
        self._over = True
        if not self.is_empty:
            await self._engine.submit(self._writes, self._statements)
