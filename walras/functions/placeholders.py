"""Services by which pods find functions, as Knative has them: aliases of where those of the cluster are."""

from __future__ import annotations

from typing import Final

from walras.functions.words import ROUTE, Where
from walras.kube.api import API
from walras.kube.transaction import Transaction
from walras.tenants.objects import SERVICES, Object, controlled_by, deleting, labels, owner_reference, status
from walras.tenants.quota import Room
from walras.tenants.workloads import complete

# Where pods of every cluster reach the server.
_GATEWAY: Final = "kubernetes.default.svc.cluster.local"
# The reason that a cluster has no room for one.
FULL: Final = "FailedCreate"


class Placeholders:
    def __init__(self, api: API) -> None:
        self._api = api
        self._room = Room(api)

    def keep(self, transaction: Transaction, cluster: str, route: Object) -> tuple[str, str] | None:
        """Stages a Service for the route and for each tag, and the end of others; (reason, message) where
        there cannot be one of them."""
        metadata = route["metadata"]
        where = Where(cluster, metadata["namespace"], metadata["name"])
        tags = (target["tag"] for target in status(route).get("traffic") or () if target.get("tag"))
        wanted = [where.name, *(f"{tag}-{where.name}" for tag in tags)]
        trouble: tuple[str, str] | None = None
        room = self._room.left(cluster)
        for name in wanted:
            found = transaction.peek(cluster, SERVICES, where.namespace, name)
            if found is None and room:
                transaction.create(cluster, SERVICES, _placeholder(route, name))
                room -= 1
            elif found is None:
                trouble = trouble or (FULL, self._room.refusal(cluster))
            elif not controlled_by(found, route):
                message = f'There is an existing placeholder Service "{name}" that we do not own.'
                trouble = trouble or ("NotOwned", message)
        for each in self._api.list(cluster, SERVICES, where.namespace):
            name = each["metadata"]["name"]
            is_own = labels(each).get(ROUTE) == where.name and controlled_by(each, route)
            if is_own and name not in wanted and not deleting(each):
                transaction.delete(cluster, SERVICES, where.namespace, name)
        return trouble


def _placeholder(route: Object, name: str) -> Object:
    metadata = route["metadata"]
    made: Object = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            "namespace": metadata["namespace"],
            "labels": {ROUTE: metadata["name"]},
            "ownerReferences": [owner_reference(route)],
        },
        "spec": {
            "type": "ExternalName",
            "externalName": _GATEWAY,
            "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
        },
    }
    complete(SERVICES, made)
    return made
