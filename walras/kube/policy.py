"""What callers from outside may not do: the market's own objects are for the market to write."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from walras.core.errors import Cause, Forbidden, MethodNotAllowed, NotFound
from walras.kube.context import EVERY_CLUSTER, Context, Identity
from walras.kube.objects import CRDS, NAMESPACES, details
from walras.kube.record import Object
from walras.kube.registry import Resource

FLEET: Final = "fleet"
NODES: Final = "nodes"
LEASES: Final = "gpuleases.walras.dev"
BIDS: Final = "bids.walras.dev"
SLICES: Final = "resourceslices.resource.k8s.io"
GROUP: Final = "walras.dev"

_MADE_BY_WALRAS: Final = (NODES, LEASES, SLICES)
_STATUS_BY_WALRAS: Final = (NODES, LEASES, BIDS)
_READS: Final = ("get", "list", "watch")
POOLS: Final = "pools.walras.dev"
_IMMORTAL: Final = ("default", "kube-public", "kube-system")
# The fields of a spec that an agent may write on an object of the market.
_SPEC: Final[Mapping[str, tuple[str, ...]]] = {
    NODES: ("unschedulable", "taints"),
    LEASES: ("resalePrice",),
}
_METADATA: Final = ("labels", "annotations", "managedFields", "resourceVersion", "generation")


def refusal(cluster: str, verb: str, resource: str, subresource: str = "") -> str:
    """Why nobody from outside may do this in the cluster; "" where the policy has nothing against it.

    `resource` is a `Resource.key`.
    """
    if cluster == EVERY_CLUSTER:
        return "" if verb in _READS else "objects are written in one cluster at a time"
    if cluster == FLEET or verb in _READS:
        return ""
    if subresource == "status" and resource in _STATUS_BY_WALRAS:
        return f"the status of {resource} is written by Walras alone"
    if resource in _MADE_BY_WALRAS and (verb not in ("update", "patch") or resource == SLICES):
        return f"{resource} come and go with what the agent has leased"
    return ""


def authorise(ctx: Context, verb: str, resource: Resource, namespace: str, subresource: str = "") -> None:
    """Raises Forbidden, in the words of Kubernetes' access control."""
    why = _closed(ctx.identity, ctx.cluster) or refusal(ctx.cluster, verb, resource.key, subresource)
    if why:
        said = _said(ctx, verb, resource, namespace, subresource)
        raise Forbidden(f"{resource.key} is forbidden: {said}: {why}", details=details(resource.key, ""))


def check_verb(ctx: Context, verb: str, resource: Resource, namespace: str, subresource: str = "") -> None:
    """Raises Forbidden, MethodNotAllowed, NotFound before anything is looked at."""
    authorise(ctx, verb, resource, namespace, subresource)
    if subresource and subresource not in resource.subresources:
        raise NotFound("the server could not find the requested resource")
    if not subresource and verb not in resource.verbs:
        raise MethodNotAllowed("the server does not allow this method on the requested resource")


def _said(ctx: Context, verb: str, resource: Resource, namespace: str, subresource: str) -> str:
    what = f"{resource.plural}/{subresource}" if subresource else resource.plural
    where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
    user = ctx.identity.user
    return f'User "{user}" cannot {verb} resource "{what}" in API group "{resource.group}" {where}'


def _closed(identity: Identity, cluster: str) -> str:
    if identity.cluster in ("", cluster):
        return ""
    return f'this identity may only open the cluster "{identity.cluster}"'


def forbidden(resource: str, name: str, why: str, causes: tuple[Cause, ...] = ()) -> Forbidden:
    """`pods "x" is forbidden: ...`, as admission says it."""
    return Forbidden(
        f'{resource} "{name}" is forbidden: {why}', causes=causes, details=details(resource, name)
    )


def check_create(resource: Resource, obj: Object) -> None:
    """Raises Forbidden for an object that may not be made by callers."""
    if resource.key != CRDS:
        return
    spec = obj.get("spec") or {}
    if spec.get("group") == GROUP or str(spec.get("group", "")).endswith(f".{GROUP}"):
        name = str(obj["metadata"].get("name", ""))
        raise forbidden(resource.key, name, f"the API group {GROUP} belongs to Walras")


def check_delete(resource: Resource, name: str) -> None:
    """Raises Forbidden for the namespaces that every cluster keeps, and for the market itself."""
    if resource.key == NAMESPACES and name in _IMMORTAL:
        raise forbidden(resource.key, name, "this namespace may not be deleted")
    if resource.key == POOLS:
        raise forbidden(resource.key, name, "the pool is the market of every agent; change its spec instead")


def check_change(ctx: Context, resource: Resource, old: Object, new: Object) -> None:
    """Raises Forbidden when a caller changes more of the market's object than is the caller's to change."""
    allowed = _SPEC.get(resource.key)
    if ctx.cluster == FLEET or allowed is None:
        return
    changed = sorted(_changed(old, new, allowed))
    if changed:
        writable = ", ".join((*(f"spec.{name}" for name in allowed), "labels and annotations of your own"))
        raise forbidden(
            resource.key,
            str(old["metadata"]["name"]),
            f"{', '.join(changed)} may not be changed; what may be is {writable}",
        )


def _changed(old: Object, new: Object, allowed: tuple[str, ...]) -> set[str]:
    found = {
        f"spec.{name}"
        for name in _differing(old.get("spec") or {}, new.get("spec") or {})
        if name not in allowed
    }
    before, after = old["metadata"], new["metadata"]
    found |= {f"metadata.{name}" for name in _differing(before, after) if name not in _METADATA}
    for part in ("labels", "annotations"):
        keys = _differing(before.get(part) or {}, after.get(part) or {})
        found |= {f"metadata.{part}[{key}]" for key in keys if _reserved(key)}
    return found


def _reserved(key: str) -> bool:
    prefix = key.rpartition("/")[0]
    return prefix == GROUP or prefix.endswith(f".{GROUP}")


def _differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> set[str]:
    return {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}
