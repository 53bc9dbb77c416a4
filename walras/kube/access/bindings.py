"""Which bindings name whom: an index for each cluster with bindings of its own, and one for all others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from walras.kube.access.words import (
    CLUSTER_ROLE_BINDINGS,
    ROLE_BINDINGS,
    Object,
    account_name,
)
from walras.kube.api import API, Change
from walras.kube.context import Identity

# (namespace, "User" or "Group", name); the namespace of a ClusterRoleBinding is "".
Subject = tuple[str, str, str]


class Where(NamedTuple):
    """A binding; namespace "" for a ClusterRoleBinding."""

    namespace: str
    name: str


_RESOURCES: Final = (CLUSTER_ROLE_BINDINGS, ROLE_BINDINGS)


def subjects_of(binding: Object) -> Iterator[Subject]:
    """Whom a binding names."""
    namespace = str(binding["metadata"].get("namespace") or "")
    for subject in binding.get("subjects") or ():
        kind, name = subject.get("kind"), str(subject.get("name") or "")
        if kind in ("User", "Group"):
            yield namespace, kind, name
        elif kind == "ServiceAccount":
            home = str(subject.get("namespace") or "") or namespace
            if home:
                yield namespace, "User", account_name(home, name)


class _Index:
    """Bindings of one cluster by whom they name."""

    __slots__ = ("_by_subject", "_named", "own")

    def __init__(self, bindings: Iterable[Object]) -> None:
        self._by_subject: dict[Subject, dict[Where, None]] = {}
        self._named: dict[Where, tuple[Subject, ...]] = {}
        # How many of them are stored in the cluster.
        self.own = 0
        for binding in bindings:
            self.put(binding)

    def put(self, binding: Object) -> None:
        where = _where(binding)
        self.remove(where)
        named = self._named[where] = tuple(dict.fromkeys(subjects_of(binding)))
        for subject in named:
            self._by_subject.setdefault(subject, {})[where] = None

    def remove(self, where: Where) -> None:
        for subject in self._named.pop(where, ()):
            bindings = self._by_subject[subject]
            del bindings[where]
            if not bindings:
                del self._by_subject[subject]

    def of(self, subjects: Iterable[Subject]) -> list[Where]:
        found: dict[Where, None] = {}
        for subject in subjects:
            found.update(self._by_subject.get(subject, {}))
        return sorted(found)


class Bindings:
    """Follows the bindings of all clusters. What is kept of a cluster without any of its own is nothing."""

    def __init__(self, api: API) -> None:
        self._api = api
        self._defaults = {
            resource: {where: record.object for where, record in records.items()}
            for resource, records in api.state.defaults.items()
            if resource in _RESOURCES
        }
        self._shared = self._fresh()
        self._own: dict[str, _Index] = {}

    def watch(self) -> list[Callable[[], None]]:
        return [
            *(self._api.subscribe(resource, self._changed) for resource in _RESOURCES),
            self._api.on_sleep(lambda cluster: self._own.pop(cluster, None)),
        ]

    def _fresh(self) -> _Index:
        return _Index(binding for of_type in self._defaults.values() for binding in of_type.values())

    def _changed(self, change: Change) -> None:
        index = self._own.get(change.cluster)
        if index is None:
            if change.type == "DELETED":
                return
            index = self._own[change.cluster] = self._fresh()
        where = _where(change.object)
        default = self._defaults.get(change.resource, {}).get(where)
        if change.type == "DELETED":
            index.own -= change.old is not default
            index.remove(where)
            if default is not None:
                index.put(default)
            if not index.own:
                del self._own[change.cluster]
            return
        # A default's first own copy comes as a change of what was there.
        if change.old is None or change.old is default:
            index.own += 1
        index.put(change.object)

    def of(self, identity: Identity, cluster: str, namespace: str) -> list[Where]:
        """The bindings that name the caller, cluster-wide and in the namespace, in order."""
        self._api.rouse(cluster)
        index = self._own.get(cluster, self._shared)
        names = [("User", identity.user), *(("Group", group) for group in identity.groups)]
        places = ("", namespace) if namespace else ("",)
        return index.of((place, kind, name) for place in places for kind, name in names)

    def kept(self) -> Mapping[str, object]:
        """The clusters of which an index is kept."""
        return self._own


def _where(binding: Object) -> Where:
    return Where(str(binding["metadata"].get("namespace") or ""), binding["metadata"]["name"])
