"""Aggregated ClusterRoles: their rules are those of the roles that their selectors find."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from walras.kube.access.words import CLUSTER_ROLES, Rule
from walras.kube.api import API, Change
from walras.kube.selectors import from_label_selector
from walras.tenants.controller import Key, Manager
from walras.tenants.objects import Object, deleting, labels

# Aggregated roles of a cluster that are kept up, by name: each of them looks at every role there is.
AGGREGATED_MAX: Final = 32
# What an aggregated role looks at of the rules of others.
RULES_BYTES_MAX: Final = 512 << 10


class AggregationController:
    def __init__(self, api: API, manager: Manager) -> None:
        self._api = api
        self._manager = manager

    def watch(self) -> list[Callable[[], None]]:
        return [self._api.subscribe(CLUSTER_ROLES, self._changed)]

    def _changed(self, change: Change) -> None:
        # One key for all of a cluster's roles: one may be part of another that is part of a third.
        self._manager.add(self, Key(change.cluster, "", ""))

    async def reconcile(self, cluster: str, namespace: str, name: str) -> int | None:
        del namespace, name
        if not self._api.has_cluster(cluster):
            return None
        aggregated = [role for role in self._api.list(cluster, CLUSTER_ROLES) if role.get("aggregationRule")]
        for role in aggregated[:AGGREGATED_MAX]:
            # Others go on in between: a cluster may have thousands of roles to look at.
            await asyncio.sleep(0)
            await self._update(cluster, role["metadata"]["name"])
        return None

    async def _update(self, cluster: str, name: str) -> None:
        role = self._api.find(cluster, CLUSTER_ROLES, "", name)
        if role is None or deleting(role):
            return
        rules = union(role, self._api.list(cluster, CLUSTER_ROLES))
        if rules is not None and rules != (role.get("rules") or []):
            await self._api.edit(cluster, CLUSTER_ROLES, "", name, lambda latest: latest.update(rules=rules))


def union(role: Object, roles: Iterable[Object]) -> list[Rule] | None:
    """The rules of the roles that an aggregated one selects, each once, by selector and name.

    None when they are too many to be one object's.
    """
    others = [each for each in roles if each["metadata"]["name"] != role["metadata"]["name"]]
    found: dict[bytes, Rule] = {}
    seen = 0
    for selector in (role.get("aggregationRule") or {}).get("clusterRoleSelectors") or ():
        chosen = from_label_selector(selector)
        for other in others:
            if not chosen.matches(labels(other)):
                continue
            for rule in other.get("rules") or ():
                raw = msgspec.json.encode(rule)
                seen += len(raw)
                if seen > RULES_BYTES_MAX:
                    return None
                found.setdefault(raw, rule)
    return list(found.values())
