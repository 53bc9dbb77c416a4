"""Domains of agents' own, by DomainMappings: each is one agent's, by the first to have asked for it.

Who has one is said by a ClusterDomainClaim in the operator's cluster, which no agent can write: a claim is
made with the first mapping and goes with it. The operator may make them before, or delete them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Final

from walras.core.clock import Clock, rfc3339
from walras.core.errors import AlreadyExists, NotFound
from walras.functions.hosts import Domain
from walras.functions.template import is_http2
from walras.functions.words import (
    CLAIMS,
    DOMAIN_MAPPINGS,
    MADE_FOR,
    REVISIONS,
    ROUTES,
    SERVICES,
    Where,
    sum_up,
)
from walras.kube.api import API, Change
from walras.kube.transaction import Transaction
from walras.tenants.controller import Key, Manager
from walras.tenants.events import Recorder
from walras.tenants.objects import AGENTS, FLEET, Object, deleting, set_condition, status
from walras.tenants.workloads import takes_pods

COMPONENT: Final = "domainmapping-controller"
# Domains that one agent may claim: strangers' too, which it has no use for, are first come, first served.
CLAIMS_MAX: Final = 100
CLAIMED: Final = "DomainClaimed"
RESOLVED: Final = "ReferenceResolved"
INGRESS: Final = "IngressReady"
CERTIFICATE: Final = "CertificateProvisioned"
_RESOURCES: Final = {"Service": SERVICES, "Route": ROUTES}
# (status, reason, message) of a condition.
_Said = tuple[str, str, str]
_TRUE: Final[_Said] = ("True", "", "")
_NOT_YET: Final[_Said] = ("Unknown", "IngressNotConfigured", "Ingress has not yet been reconciled.")


class Domains:
    """Knows who has which domain, and who asks for it, those of clusters that sleep too."""

    def __init__(
        self, api: API, clock: Clock, manager: Manager, recorder: Recorder, domain: Domain, own_host: str = ""
    ) -> None:
        """`own_host`: where the server itself is, which nobody's function is."""
        self._api, self._clock, self._manager, self._recorder = api, clock, manager, recorder
        self._domain, self._own_host = domain, own_host.lower().rstrip(".")
        # By domain: the cluster and the namespace that it is claimed for, and the mappings that ask for it.
        self._claims: dict[str, Where] = {}
        self._asking: dict[str, set[Where]] = defaultdict(set)

    def watch(self) -> list[Callable[[], None]]:
        for record in self._api.everywhere_stored(DOMAIN_MAPPINGS):
            key = record.key
            self._asking[key.name].add(Where(key.cluster, key.namespace, key.name))
        return [
            self._api.subscribe(CLAIMS, self._claim_changed),
            self._api.subscribe(DOMAIN_MAPPINGS, self._mapping_changed),
            self._api.subscribe(SERVICES, self._target_changed),
            self._api.subscribe(ROUTES, self._target_changed),
            self._api.subscribe(AGENTS, self._agent_changed),
        ]

    def holder(self, domain: str) -> Where | None:
        """The mapping that has the domain."""
        where = self._claims.get(domain)
        return where if where is not None and where in self._asking.get(domain, ()) else None

    # What changes

    def _claim_changed(self, change: Change) -> None:
        if change.cluster != FLEET:
            return
        if change.type == "DELETED":
            self._claims.pop(change.name, None)
        else:
            spec = change.object["spec"]
            self._claims[change.name] = Where(spec["agent"], spec["namespace"], change.name)
        self._manager.add(self, Key(FLEET, "", change.name))

    def _mapping_changed(self, change: Change) -> None:
        where = Where(change.cluster, change.namespace, change.name)
        if change.type == "DELETED":
            self._gone(where)
        else:
            self._asking[change.name].add(where)
            self._manager.add(self, Key(*where))

    def _gone(self, where: Where) -> None:
        asking = self._asking[where.name]
        asking.discard(where)
        if not asking:
            del self._asking[where.name]
        self._manager.add(self, Key(FLEET, "", where.name))

    def _target_changed(self, change: Change) -> None:
        if not self._api.has_cluster(change.cluster):
            return
        for mapping in self._api.list(change.cluster, DOMAIN_MAPPINGS, change.namespace):
            if mapping["spec"]["ref"]["name"] == change.name:
                self._manager.add(self, Key(change.cluster, change.namespace, mapping["metadata"]["name"]))

    def _agent_changed(self, change: Change) -> None:
        if change.type == "DELETED":
            agents = [each for asking in self._asking.values() for each in asking]
            for where in [each for each in agents if each.cluster == change.name]:
                self._gone(where)

    # Claims

    async def reconcile(self, cluster: str, namespace: str, name: str) -> int | None:
        if cluster == FLEET:
            return await self._release(name)
        mapping = self._api.find(cluster, DOMAIN_MAPPINGS, namespace, name)
        if mapping is None or deleting(mapping) or not takes_pods(self._api, cluster, namespace):
            return None
        transaction = self._api.transaction()
        try:
            claimed = self._claim(transaction, Where(cluster, namespace, name))
            self._report(transaction, cluster, mapping, claimed)
        except (NotFound, AlreadyExists):
            # Somebody was before it; the next look sees it.
            return 1
        await transaction.commit()
        return None

    async def _release(self, name: str) -> int | None:
        """Gives up a claim that was made for a mapping that is gone; else others may have it, or no more."""
        claim = self._api.find(FLEET, CLAIMS, "", name)
        where = self._claims.get(name)
        asking = self._asking.get(name, set())
        notes = (claim["metadata"].get("annotations") or {}) if claim is not None else {}
        if where not in asking and MADE_FOR in notes:
            try:
                await self._api.delete(FLEET, CLAIMS, "", name)
            except NotFound:
                return None
            return None
        for each in asking:
            # Who sleeps looks when it wakes.
            if self._api.has_cluster(each.cluster) and not self._api.is_asleep(each.cluster):
                self._manager.add(self, Key(*each))
        return None

    def _claim(self, transaction: Transaction, where: Where) -> _Said:
        """Has the domain claimed for the mapping where nobody has it."""
        name = where.name
        if self._domain.reserves(name) or name == self._own_host:
            return "False", "DomainClaimFailed", f'"{name}" is a name of the server\'s own'
        claim = transaction.peek(FLEET, CLAIMS, "", name)
        if claim is not None:
            spec = claim["spec"]
            if (spec["agent"], spec["namespace"]) == (where.cluster, where.namespace):
                return _TRUE
            message = "The domain name is already in use by another DomainMapping"
            return "False", "DomainAlreadyClaimed", message
        if sum(each.cluster == where.cluster for each in self._claims.values()) >= CLAIMS_MAX:
            return "False", "DomainClaimFailed", f"an agent may claim {CLAIMS_MAX} domains"
        made: Object = {
            "metadata": {"name": name, "annotations": {MADE_FOR: "DomainMapping"}},
            "spec": {"agent": where.cluster, "namespace": where.namespace},
        }
        transaction.create(FLEET, CLAIMS, made)
        return _TRUE

    # Status

    def _report(self, transaction: Transaction, cluster: str, mapping: Object, claimed: _Said) -> None:
        metadata, ref = mapping["metadata"], mapping["spec"]["ref"]
        namespace, name = metadata["namespace"], metadata["name"]
        resolved, ingress, is_grpc = self._target(cluster, namespace, ref)
        if claimed is not _TRUE:
            ingress = _NOT_YET
        url = f"http://{name}{self._domain.suffix(is_http2=is_grpc)}"
        now = rfc3339(self._clock.now_ms())

        def report(latest: Object) -> None:
            said = latest.setdefault("status", {})
            said["observedGeneration"] = latest["metadata"].get("generation", 1)
            said["url"], said["address"] = url, {"url": url}
            certificate = ("True", "TLSNotEnabled", "external-domain-tls is not enabled")
            conditions = {CLAIMED: claimed, RESOLVED: resolved, INGRESS: ingress, CERTIFICATE: certificate}
            for kind, (value, reason, message) in conditions.items():
                set_condition(latest, kind, value, now, reason=reason, message=message)
            sum_up(latest, tuple(conditions), now)

        before = _reasons(mapping)
        edited = transaction.edit(cluster, DOMAIN_MAPPINGS, namespace, name, report)
        if _reasons(edited) != before and claimed[0] == "False":
            message = f'namespace "{namespace}" does not own cluster domain claim for "{name}"'
            told = message if claimed[1] == "DomainAlreadyClaimed" else claimed[2]
            self._recorder.about(transaction, cluster, mapping, COMPONENT).warning("InternalError", told)

    def _target(self, cluster: str, namespace: str, ref: Object) -> tuple[_Said, _Said, bool]:
        """Whether the reference leads to something, and that can be asked; and whether in HTTP/2 alone."""
        name = str(ref["name"])
        if ref.get("namespace", namespace) != namespace:
            message = f'the namespace of the reference must be "{namespace}", that of the DomainMapping'
            return ("False", "ResolveFailed", message), _NOT_YET, False
        resource = _RESOURCES[ref["kind"]]
        if self._api.find(cluster, resource, namespace, name) is None:
            return ("False", "ResolveFailed", f'{resource} "{name}" not found'), _NOT_YET, False
        route = self._api.find(cluster, ROUTES, namespace, name)
        traffic = status(route).get("traffic") or () if route is not None else ()
        if not traffic:
            return _TRUE, _NOT_YET, False
        names = {str(each["revisionName"]) for each in traffic if each.get("percent")}
        found = [self._api.find(cluster, REVISIONS, namespace, each) for each in names]
        return _TRUE, _TRUE, bool(found) and all(each is not None and is_http2(each) for each in found)


def _reasons(mapping: Object) -> list[str]:
    conditions = status(mapping).get("conditions") or ()
    return [each.get("reason", "") for each in conditions if each["type"] == CLAIMED]
