"""A cluster's objects as one document, and a cluster put back to what such a document says.

What stands for the real world is in neither: nodes, bids and leases are the market's, Events tell of a past.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from walras.core.clock import rfc3339
from walras.core.errors import BadRequest, Invalid
from walras.kube import crd, objects
from walras.kube.api import API
from walras.kube.record import Key, Object
from walras.tenants.objects import AGENTS, EVENTS, FLEET, NODES, PODS, finished, uid

KIND: Final = "ClusterBackup"
VERSION: Final = "walras.dev/v1alpha1"
LEFT_OUT: Final = frozenset(
    (EVENTS, "events.events.k8s.io", NODES, "bids.walras.dev", "gpuleases.walras.dev",
     "resourceslices.resource.k8s.io", AGENTS, "pools.walras.dev")
)  # fmt: skip


class Item(msgspec.Struct, forbid_unknown_fields=True):
    """One object, and the resource that it is stored as."""

    resource: str
    object: dict[str, Any]


class Backup(msgspec.Struct, forbid_unknown_fields=True, rename={"api_version": "apiVersion"}):
    """The document; `metadata` says of which cluster it is, from when, and at which revision."""

    api_version: str
    kind: str
    metadata: dict[str, Any]
    items: list[Item]


def taken(api: API, cluster: str, now_ms: int) -> Object:
    """The document of a cluster as it is at this moment. Raises NotFound."""
    collections = api.state.cluster(cluster).collections
    items = [
        {"resource": resource, "object": msgspec.Raw(record.raw)}
        for resource, collection in sorted(collections.items())
        if resource not in LEFT_OUT
        for record in collection.listed()
        if record.key.cluster
    ]
    metadata = {
        "name": cluster,
        "creationTimestamp": rfc3339(now_ms),
        "resourceVersion": str(api.revision(cluster)),
    }
    return {"apiVersion": VERSION, "kind": KIND, "metadata": metadata, "items": items}


async def restored(api: API, cluster: str, document: Mapping[str, Any]) -> Object:
    """Makes the cluster what the document says, all of it or nothing; how many objects were written, deleted.

    Revisions go on from where they are, so that watches see what changes. Raises BadRequest for a document
    that is none, Invalid for one that the cluster cannot hold, NotFound.
    """
    if cluster == FLEET:
        raise Invalid("the fleet is not restored: copy the data directory instead")
    wanted = _wanted(api, cluster, _read(document))
    transaction, written, deleted = api.transaction(), 0, 0
    for key, live in _present(api, cluster):
        if key not in wanted:
            deleted += transaction.drop(key)
        elif key.resource == PODS and not finished(live) and uid(live) == uid(wanted[key]):
            # It runs, or is about to, and goes on.
            del wanted[key]
    for key, obj in wanted.items():
        written += transaction.put(key, obj)
    await transaction.commit()
    return {"restored": cluster, "written": written, "deleted": deleted}


def _read(document: Mapping[str, Any]) -> Backup:
    try:
        backup = msgspec.convert(document, Backup)
    except msgspec.ValidationError as error:
        raise BadRequest(f"this is no backup of a cluster: {error}") from None
    if (backup.api_version, backup.kind) != (VERSION, KIND):
        raise BadRequest(f"this is no backup of a cluster: it is a {backup.kind} of {backup.api_version}")
    return backup


def _present(api: API, cluster: str) -> list[tuple[Key, Object]]:
    return [
        (record.key, record.object)
        for resource, collection in api.state.cluster(cluster).collections.items()
        if resource not in LEFT_OUT
        for record in collection.stored()
    ]


def _wanted(api: API, cluster: str, backup: Backup) -> dict[Key, Object]:
    """The objects to have, by key. Raises Invalid for one that has no place in the cluster."""
    served = {each.key: each.namespaced for each in api.registry(cluster) if each.stored is None}
    for item in backup.items:
        if item.resource == objects.CRDS:
            served |= {each.key: each.namespaced for each in crd.resources(item.object)}
    wanted: dict[Key, Object] = {}
    for item in backup.items:
        key = _key(cluster, item, served)
        obj = _as_restored(item.resource, item.object)
        if obj is not None:
            wanted[key] = obj
    return wanted


def _key(cluster: str, item: Item, served: Mapping[str, bool]) -> Key:
    metadata = item.object.get("metadata")
    if not isinstance(metadata, dict):
        raise Invalid(f"the backup holds {item.resource} without metadata")
    name, namespace = metadata.get("name"), metadata.get("namespace") or ""
    if item.resource in LEFT_OUT or item.resource not in served:
        raise Invalid(f'the backup holds {item.resource} "{name}", which the cluster does not take')
    if not all(isinstance(metadata.get(each), str) for each in ("name", "uid", "creationTimestamp")):
        raise Invalid(f'the backup holds {item.resource} "{name}" without what the server wrote in it')
    if not isinstance(namespace, str) or bool(namespace) != served[item.resource]:
        raise Invalid(f'the backup holds {item.resource} "{name}" in the namespace "{namespace}"')
    return Key(cluster, item.resource, namespace, str(name))


def _as_restored(resource: str, obj: Object) -> Object | None:
    """What is put back of an object; None where its controller makes it anew."""
    if resource != PODS or finished(obj):
        return obj
    owners = obj["metadata"].get("ownerReferences") or ()
    if any(each.get("controller") for each in owners):
        return None
    # Its node is gone, or runs something else by now: it waits for one again.
    spec = {name: value for name, value in (obj.get("spec") or {}).items() if name != "nodeName"}
    return {**obj, "spec": spec, "status": {"phase": "Pending"}}
