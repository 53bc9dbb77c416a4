"""From a host name to the revision that answers the next request to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from walras.core.errors import NotFound, ServiceUnavailable
from walras.functions.domains import Domains
from walras.functions.hosts import Domain, Split, bare, readings
from walras.functions.words import CLUSTER_LOCAL, DOMAIN_MAPPINGS, READY, ROUTES, VISIBILITY, Where
from walras.kube.api import API, Change
from walras.tenants.objects import Object, condition, deleting, labels, status, uid

# What Walras says to whom no function has an answer for: the same whether a cluster is there or not.
_NOBODY: Final = "no function is at this host"


@dataclass(frozen=True, slots=True)
class Found:
    """The route of a host, and the tag of a target where the host names one."""

    where: Where
    route: Object
    tag: str

    @property
    def is_private(self) -> bool:
        """Whether only callers of the cluster may use it."""
        return labels(self.route).get(VISIBILITY) == CLUSTER_LOCAL


class Routing:
    """Knows the names of all routes, those of clusters that sleep too: no other name wakes one."""

    def __init__(self, api: API, domain: Domain, domains: Domains) -> None:
        self._api, self._domain, self._domains = api, domain, domains
        self._names: set[Where] = set()
        self._splits: dict[Where, tuple[Sequence[Object], Split]] = {}

    def watch(self) -> list[Callable[[], None]]:
        for record in self._api.everywhere_stored(ROUTES):
            self._names.add(Where(record.key.cluster, record.key.namespace, record.key.name))
        return [self._api.subscribe(ROUTES, self._route_changed), self._api.on_sleep(self._sleeps)]

    def _route_changed(self, change: Change) -> None:
        where = Where(change.cluster, change.namespace, change.name)
        if change.type == "DELETED":
            self._names.discard(where)
            self._splits.pop(where, None)
        else:
            self._names.add(where)

    def _sleeps(self, cluster: str) -> None:
        for where in [each for each in self._splits if each.cluster == cluster]:
            del self._splits[where]

    def find(self, host: bytes, within: str = "") -> Found:
        """`within`: the cluster of the pod that asks. Raises NotFound."""
        named = self._domain.parse_inner(host, within) if within else self._domain.parse(host)
        if named is None and (mapping := self._domains.holder(bare(host))) is not None:
            return self._mapped(mapping, within)
        if named is None:
            form = "NAME.NAMESPACE" if within else f"NAME.NAMESPACE.AGENT.{self._domain.name}"
            raise NotFound(f"{_NOBODY}; hosts are {form}")
        for tag, name in readings(named.name):
            where = Where(named.cluster, named.namespace, name)
            if where not in self._names:
                continue
            route = self._api.find(where.cluster, ROUTES, where.namespace, name)
            if route is not None and (not tag or _target(route, tag) is not None):
                return Found(where, route, tag)
        raise NotFound(_NOBODY)

    def _mapped(self, mapping: Where, within: str) -> Found:
        """The route of a domain of somebody's own. Raises NotFound."""
        cluster, namespace, name = mapping
        if within not in ("", cluster):
            raise NotFound(_NOBODY)
        made = self._api.find(cluster, DOMAIN_MAPPINGS, namespace, name)
        ref = made["spec"]["ref"] if made is not None and not deleting(made) else {}
        where = Where(cluster, namespace, str(ref.get("name", "")))
        is_its_own = ref.get("namespace", namespace) == namespace and where in self._names
        route = self._api.find(cluster, ROUTES, namespace, where.name) if is_its_own else None
        if route is None:
            raise NotFound(_NOBODY)
        return Found(where, route, "")

    def revision(self, found: Found) -> Where:
        """The revision that answers the next request. Raises ServiceUnavailable, and NotFound where the route
        went since it was found."""
        where = found.where
        route = self._api.find(where.cluster, ROUTES, where.namespace, where.name)
        if route is None or uid(route) != uid(found.route):
            raise NotFound(_NOBODY)
        target = _target(found.route, found.tag) if found.tag else None
        name = str(target["revisionName"]) if target is not None else self._split(found).next()
        if name is None:
            ready = condition(found.route, READY) or {}
            why = ready.get("message") or "it is not ready yet"
            raise ServiceUnavailable(f'nothing answers for "{where.name}": {why}', retry_after_s=1)
        return Where(where.cluster, where.namespace, name)

    def _split(self, found: Found) -> Split:
        traffic: Sequence[Object] = status(found.route).get("traffic") or ()
        known = self._splits.get(found.where)
        if known is not None and known[0] == traffic:
            return known[1]
        made = Split(traffic)
        self._splits[found.where] = traffic, made
        return made


def _target(route: Object, tag: str) -> Object | None:
    targets: Sequence[Object] = status(route).get("traffic") or ()
    return next((each for each in targets if each.get("tag") == tag), None)
