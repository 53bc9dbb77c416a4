"""Resolves a Route's targets to revisions, and tells revisions whether a route leads to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from walras.core.clock import Clock, rfc3339
from walras.core.errors import AlreadyExists, NotFound
from walras.functions.hosts import Domain
from walras.functions.placeholders import FULL, Placeholders
from walras.functions.rollouts import Plan, write
from walras.functions.template import is_http2
from walras.functions.words import (
    CONFIGURATIONS,
    READY,
    REVISIONS,
    ROUTES,
    ROUTING_STATE,
    ROUTING_STATE_MODIFIED,
    Where,
    sum_up,
)
from walras.kube.api import API, Change
from walras.kube.transaction import Transaction
from walras.tenants.controller import Key, Manager
from walras.tenants.objects import SERVICES, Object, condition, deleting, labels, set_condition, status
from walras.tenants.quota import RETRY_MS
from walras.tenants.workloads import takes_pods

ASSIGNED: Final = "AllTrafficAssigned"
_INGRESS: Final = "IngressReady"
_CERTIFICATE: Final = "CertificateProvisioned"
_ROLLING: Final = "A gradual rollout of the latest revision(s) is in progress."
# (status, reason, message) of a target that leads nowhere yet.
_Trouble = tuple[str, str, str]


class RouteController:
    def __init__(self, api: API, clock: Clock, manager: Manager, domain: Domain) -> None:
        self._api, self._clock, self._manager, self._domain = api, clock, manager, domain
        self._placeholders = Placeholders(api)

    def watch(self) -> list[Callable[[], None]]:
        return [
            self._api.subscribe(ROUTES, self._route_changed),
            self._api.subscribe(CONFIGURATIONS, self._target_changed),
            self._api.subscribe(REVISIONS, self._target_changed),
            self._api.subscribe(SERVICES, self._placeholder_changed),
        ]

    def _route_changed(self, change: Change) -> None:
        self._manager.add(self, Key(change.cluster, change.namespace, change.name))

    def _target_changed(self, change: Change) -> None:
        if not self._api.has_cluster(change.cluster):
            return
        field = "configurationName" if change.resource == CONFIGURATIONS else "revisionName"
        for route in self._api.list(change.cluster, ROUTES, change.namespace):
            # A rollout leads to revisions that nobody names.
            more = status(route).get("traffic") or () if change.type == "DELETED" else ()
            if any(target.get(field) == change.name for target in (*route["spec"]["traffic"], *more)):
                self._manager.add(self, Key(change.cluster, change.namespace, route["metadata"]["name"]))

    def _placeholder_changed(self, change: Change) -> None:
        """One that is gone is made again, and its name may be free for another."""
        if change.type == "DELETED" and self._api.has_cluster(change.cluster):
            for route in self._api.list(change.cluster, ROUTES, change.namespace):
                name = route["metadata"]["name"]
                if change.name == name or change.name.endswith(f"-{name}"):
                    self._manager.add(self, Key(change.cluster, change.namespace, name))

    async def reconcile(self, cluster: str, namespace: str, name: str) -> int | None:
        route = self._api.find(cluster, ROUTES, namespace, name)
        transaction, next_ms = self._api.transaction(), None
        try:
            if route is not None and not deleting(route) and takes_pods(self._api, cluster, namespace):
                before = _names(status(route).get("traffic") or ())
                route, next_ms = self._report(transaction, cluster, route)
                concerned = before | _names(status(route).get("traffic") or ())
            else:
                revisions = self._api.list(cluster, REVISIONS, namespace)
                concerned = {str(each["metadata"]["name"]) for each in revisions}
            self._tell(transaction, cluster, namespace, concerned, route)
        except (NotFound, AlreadyExists):
            return 1
        await transaction.commit()
        ingress = condition(route, _INGRESS) if route is not None else None
        return RETRY_MS if ingress is not None and ingress.get("reason") == FULL else next_ms

    def _report(self, transaction: Transaction, cluster: str, route: Object) -> tuple[Object, int | None]:
        """The route as its status is staged, and milliseconds until its requests are split anew."""
        metadata, now = route["metadata"], rfc3339(self._clock.now_ms())
        where = Where(cluster, metadata["namespace"], metadata["name"])
        resolved = [self._resolve(where, target) for target in route["spec"]["traffic"]]
        troubles = [each for each in resolved if isinstance(each, tuple)]
        plan = Plan(route, self._clock.now_ms(), lambda name: self._trouble(where, name) is None)
        whole = [each for each in resolved if not isinstance(each, tuple)]
        traffic = whole if troubles else [part for each in whole for part in plan.targets(each)]

        def report(latest: Object) -> None:
            said = latest.setdefault("status", {})
            said["observedGeneration"] = latest["metadata"].get("generation", 1)
            latest_traffic = said.get("traffic") or () if troubles else traffic
            said["url"] = self._domain.url(where, is_http2=self._is_http2(where, latest_traffic))
            said["address"] = {"url": self._domain.inner_url(where)}
            if troubles:
                value, reason, message = min(troubles)
                set_condition(latest, ASSIGNED, value, now, reason=reason, message=message)
            else:
                said["traffic"] = traffic
                write(said, plan.rollouts)
                set_condition(latest, ASSIGNED, "True", now)
            trouble = self._placeholders.keep(transaction, cluster, latest)
            if trouble is not None:
                set_condition(latest, _INGRESS, "False", now, reason=trouble[0], message=trouble[1])
            elif plan.rollouts:
                set_condition(latest, _INGRESS, "Unknown", now, reason="RolloutInProgress", message=_ROLLING)
            else:
                set_condition(latest, _INGRESS, "True", now)
            set_condition(
                latest, _CERTIFICATE, "True", now,
                reason="TLSNotEnabled", message="external-domain-tls is not enabled",
            )  # fmt: skip
            sum_up(latest, (ASSIGNED, _INGRESS, _CERTIFICATE), now)

        edited = transaction.edit(cluster, ROUTES, where.namespace, where.name, report)
        return edited, plan.next_ms

    def _resolve(self, where: Where, target: Object) -> Object | _Trouble:
        """The target as the status has it, or what is the matter with it."""
        name = target.get("revisionName")
        if not name:
            found = self._latest(where, str(target.get("configurationName") or ""))
            if isinstance(found, tuple):
                return found
            name = found
        else:
            trouble = self._trouble(where, str(name))
            if trouble is not None:
                return trouble
        resolved: Object = {"revisionName": name, "latestRevision": not target.get("revisionName")}
        if "percent" in target:
            resolved["percent"] = target["percent"]
        if target.get("tag"):
            resolved["tag"] = target["tag"]
            resolved["url"] = self._domain.url(
                where, target["tag"], is_http2=self._is_http2(where, [resolved])
            )
        return resolved

    def _is_http2(self, where: Where, traffic: Iterable[Object]) -> bool:
        """Whether all that answer speak HTTP/2: then they are asked where it is spoken with trailers."""
        names = _names(each for each in traffic if each.get("percent") != 0 or each.get("tag"))
        found = [self._api.find(where.cluster, REVISIONS, where.namespace, name) for name in names]
        return bool(found) and all(each is not None and is_http2(each) for each in found)

    def _latest(self, where: Where, name: str) -> str | _Trouble:
        configuration = self._api.find(where.cluster, CONFIGURATIONS, where.namespace, name)
        if configuration is None:
            return "False", "ConfigurationMissing", f'Configuration "{name}" referenced in traffic not found.'
        ready = status(configuration).get("latestReadyRevisionName")
        if ready:
            return str(ready)
        if (condition(configuration, READY) or {}).get("status") == "False":
            message = f'Configuration "{name}" does not have any ready Revision.'
            return "False", "RevisionMissing", message
        message = f'Configuration "{name}" is waiting for a Revision to become ready.'
        return "Unknown", "RevisionMissing", message

    def _trouble(self, where: Where, name: str) -> _Trouble | None:
        revision = self._api.find(where.cluster, REVISIONS, where.namespace, name)
        if revision is None or deleting(revision):
            return "False", "RevisionMissing", f'Revision "{name}" referenced in traffic not found.'
        value = (condition(revision, READY) or {}).get("status", "Unknown")
        if value == "False":
            return "False", "RevisionMissing", f'Revision "{name}" failed to become ready.'
        if value == "Unknown":
            return "Unknown", "RevisionMissing", f'Revision "{name}" is not yet ready.'
        return None

    def _tell(
        self,
        transaction: Transaction,
        cluster: str,
        namespace: str,
        names: Iterable[str],
        route: Object | None,
    ) -> None:
        """Labels revisions by whether some route leads to them; `route` as it is staged."""
        own = route["metadata"]["name"] if route is not None else ""
        routes = [each for each in self._api.list(cluster, ROUTES, namespace) if not deleting(each)]
        routed = set[str]()
        for each in routes:
            latest = route if route is not None and each["metadata"]["name"] == own else each
            routed |= _names(status(latest).get("traffic") or ())
        for name in names:
            revision = transaction.peek(cluster, REVISIONS, namespace, name)
            state = "active" if name in routed else "reserve"
            if revision is None or deleting(revision) or labels(revision).get(ROUTING_STATE) == state:
                continue
            if state == "reserve" and labels(revision).get(ROUTING_STATE) == "pending":
                # No route has led to it yet.
                continue

            def tell(latest: Object, state: str = state) -> None:
                metadata = latest["metadata"]
                metadata["labels"] = {**labels(latest), ROUTING_STATE: state}
                said = {ROUTING_STATE_MODIFIED: rfc3339(self._clock.now_ms())}
                metadata["annotations"] = {**(metadata.get("annotations") or {}), **said}

            transaction.edit(cluster, REVISIONS, namespace, name, tell)


def _names(traffic: Iterable[Object]) -> set[str]:
    return {str(target["revisionName"]) for target in traffic}
