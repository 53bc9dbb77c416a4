"""Who is owned by whom: an index over every object of every cluster, rebuilt from the API at each start."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from walras.kube.api import API, Change
from walras.kube.registry_builtin import for_all
from walras.tenants.objects import CRDS, Object, owners, uid

Handler = Callable[[Change], None]


class Ref(NamedTuple):
    """Where an object is, within its cluster."""

    resource: str
    namespace: str
    name: str


# Objects whose JSON has no such word have no owners.
OWNERS: Final = b'"ownerReferences"'
# Refs of one cluster, in order of appearance, by what they are looked up by.
Refs = dict[str, dict[Ref, None]]


class Dependents:
    """Follows all resources, those of CRDs too; handlers are called after the index has the change."""

    def __init__(self, api: API) -> None:
        self._api = api
        # By cluster, then by the owner's uid, or by namespace.
        self._children: dict[str, Refs] = {}
        self._unowned_pods: dict[str, Refs] = {}
        self._handlers: list[Handler] = []
        self._following: dict[str, Callable[[], None]] = {}

    def start(self) -> None:
        self._following[""] = self._api.on_sleep(self._sleep)
        for resource in for_all():
            if "watch" in resource.verbs:
                self._follow(resource.key)

    def stop(self) -> None:
        for unsubscribe in self._following.values():
            unsubscribe()
        self._following.clear()

    def subscribe(self, handler: Handler) -> None:
        """Calls it with every later change; before `start`, with every existing object too."""
        self._handlers.append(handler)

    def children(self, cluster: str, owner_uid: str, resource: str = "") -> list[tuple[Ref, Object]]:
        """What has an owner reference to this uid, of one resource or of all, in order of appearance."""
        found = []
        for ref in self._children.get(cluster, {}).get(owner_uid, ()):
            obj = self._api.find(cluster, *ref) if resource in ("", ref.resource) else None
            if obj is not None:
                found.append((ref, obj))
        return found

    def controlled(self, cluster: str, owner: Object, resource: str) -> list[Object]:
        """The objects of a resource of which this one is the controller."""
        return [
            obj
            for _, obj in self.children(cluster, uid(owner), resource)
            if any(each.get("controller") and each.get("uid") == uid(owner) for each in owners(obj))
        ]

    def unowned_pods(self, cluster: str, namespace: str) -> list[Object]:
        """Pods without a controller, which a replica set may adopt."""
        refs = self._unowned_pods.get(cluster, {}).get(namespace, ())
        return [pod for ref in refs if (pod := self._api.find(cluster, *ref)) is not None]

    def _follow(self, resource: str) -> None:
        if resource not in self._following:
            # Entered first: the replay of CRDs below may bring more to follow.
            self._following[resource] = lambda: None
            self._following[resource] = self._api.subscribe(resource, self._changed)

    def _changed(self, change: Change) -> None:
        if change.resource == "pods" or change.mentions(OWNERS):
            if change.old is not None or change.type == "DELETED":
                self._forget(change)
            if change.type != "DELETED":
                self._remember(change)
        if change.resource == CRDS and change.type == "ADDED":
            self._follow(_defines(change.object))
        for handler in self._handlers:
            handler(change)

    def _sleep(self, cluster: str) -> None:
        self._children.pop(cluster, None)
        self._unowned_pods.pop(cluster, None)

    def _remember(self, change: Change) -> None:
        metadata = change.object["metadata"]
        ref = Ref(change.resource, metadata.get("namespace", ""), metadata["name"])
        references = owners(change.object)
        for owner in references:
            _add(self._children, change.cluster, str(owner.get("uid")), ref)
        if change.resource == "pods" and not any(owner.get("controller") for owner in references):
            _add(self._unowned_pods, change.cluster, ref.namespace, ref)

    def _forget(self, change: Change) -> None:
        old = change.old or change.object
        metadata = old["metadata"]
        ref = Ref(change.resource, metadata.get("namespace", ""), metadata["name"])
        for owner in owners(old):
            _remove(self._children, change.cluster, str(owner.get("uid")), ref)
        if change.resource == "pods":
            _remove(self._unowned_pods, change.cluster, ref.namespace, ref)


def _add(index: dict[str, Refs], cluster: str, key: str, ref: Ref) -> None:
    index.setdefault(cluster, {}).setdefault(key, {})[ref] = None


def _remove(index: dict[str, Refs], cluster: str, key: str, ref: Ref) -> None:
    keys = index.get(cluster, {})
    refs = keys.get(key)
    if refs is None:
        return
    refs.pop(ref, None)
    if not refs:
        del keys[key]
    if not keys:
        del index[cluster]


def _defines(crd: Any) -> str:
    return f"{crd['spec']['names']['plural']}.{crd['spec']['group']}"
