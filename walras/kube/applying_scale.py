"""Server-side apply of a scale: who owns the replicas of an object owns them in its scale, and back."""

from __future__ import annotations

from dataclasses import replace

from walras.core.errors import Unclassified
from walras.kube import applying, fields, objects, owners, scaling
from walras.kube.fieldsets import FieldSet, Path
from walras.kube.owners import Managers, Owned, Who
from walras.kube.record import Object
from walras.kube.registry import Resource

_REPLICAS: Path = ("f:spec", "f:replicas")
_SCALE_VERSION = scaling.SCALE.api_version


def apply(resource: Resource, old: Object, applied: Object, *, manager: str, force: bool, now: str) -> Object:
    """The object after `manager` applied a Scale. Raises Conflict, Invalid, Unclassified."""
    path, parents = _path(resource), owners.held_in(old)
    scale = owned(resource, old, scaling.view(resource, old))
    result = applying.apply(
        scaling.SCALE, scale, applied, manager=manager, force=force, subresource="scale", now=now
    )
    try:
        shaped, _ = fields.decode(scaling.SCALE.schema, result)
    except fields.Undecodable as error:
        raise Unclassified(applying.unconverted(scaling.SCALE, applied, error.why)) from None
    version = shaped["metadata"].get("resourceVersion")
    if version not in (None, "", "0", old["metadata"]["resourceVersion"]):
        raise objects.conflict(resource.key, str(old["metadata"]["name"]))
    new = scaling.scaled(resource, old, shaped)
    owners.write(new, _back(resource, path, parents, owners.held_in(shaped)))
    return new


def owned(resource: Resource, obj: Object, scale: Object) -> Object:
    """The scale, in place, with those who own the replicas of its object as its managers."""
    path, parents = _path(resource), owners.held_in(obj)
    held = {_of_scale(who): _owned(each) for who, each in parents.items() if path in each.fields}
    owners.write(scale, held)
    return scale


def _path(resource: Resource) -> Path:
    return tuple(f"f:{name}" for name in scaling.replicas_path(resource))


def _of_scale(who: Who) -> Who:
    return who._replace(api_version="" if who.operation == "Apply" else _SCALE_VERSION)


def _owned(owned: Owned) -> Owned:
    return Owned(frozenset((_REPLICAS,)), _SCALE_VERSION, owned.time)


def _back(resource: Resource, path: Path, parents: Managers, scales: Managers) -> Managers:
    """Who owns what of the object, given who owns what of its scale now."""
    left = dict(scales)
    kept: Managers = {}
    for who, owned in parents.items():
        if path not in owned.fields or left.pop(_of_scale(who), None) is not None:
            kept[who] = owned
        elif rest := _without(owned, path):
            kept[who] = rest
    for who, owned in left.items():
        if _REPLICAS in owned.fields:
            # Upstream, too, gives what is owned through a scale no time.
            mine: FieldSet = frozenset((path,))
            version = who._replace(api_version="" if who.operation == "Apply" else resource.api_version)
            kept[version] = Owned(mine, resource.api_version)
    return kept


def _without(owned: Owned, path: Path) -> Owned | None:
    rest = owned.fields - {path}
    return replace(owned, fields=rest) if rest else None
