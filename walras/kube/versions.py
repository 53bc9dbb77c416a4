"""Versions of one type: its objects are stored in one of them, and read and written in each that is served.

Where a version says the same in other words, the functions below translate; where it only has another name,
apiVersion is all that changes. Where a webhook converts, they look into what it said (conversion/answers.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from walras.kube import defaults, fields
from walras.kube import versions_builtin as builtin
from walras.kube.conversion.answers import Conversions, converted
from walras.kube.patch import copied
from walras.kube.record import Object
from walras.kube.registry import Resource

Convert = Callable[[Object], Object]

# By (group, version, plural) of the served version: from the stored one, and back. Neither changes its
# argument; the result may share parts with it.
_CONVERSIONS: Final[Mapping[tuple[str, str, str], tuple[Convert, Convert]]] = {
    ("events.k8s.io", "v1", "events"): (builtin.event_served, builtin.event_stored),
    ("autoscaling", "v1", "horizontalpodautoscalers"): (builtin.autoscaler_served, builtin.autoscaler_stored),
}


def served(resource: Resource, obj: Object, conversions: Conversions | None = None) -> Object:
    """A stored object in the version of `resource`; itself where that is the stored one.

    Raises Unconverted where a webhook has to be asked first.
    """
    if resource.is_as_stored:
        return obj
    if resource.converter is not None:
        return converted(resource, (obj,), conversions)[0]
    if not resource.builtin:
        return _renamed(resource, obj)
    return _converted(resource, resource, obj, 0)


def all_served(
    resource: Resource, objects: Iterable[Object], conversions: Conversions | None = None
) -> list[Object]:
    """As `served`; a webhook is asked about all of them at once."""
    if resource.converter is not None and not resource.is_as_stored:
        return converted(resource, objects, conversions)
    return [served(resource, obj) for obj in objects]


def stored(resource: Resource, obj: Object, conversions: Conversions | None = None) -> Object:
    """An object of the version of `resource` as it is stored; itself where that is the stored version.

    Raises Unconverted where a webhook has to be asked first.
    """
    if resource.stored is None:
        return obj
    if resource.converter is not None:
        # Who lays it down has given it the defaults of its own version.
        return converted(resource.stored, (obj,), conversions)[0]
    if not resource.builtin:
        # What only this version knows stays until it has been judged; see `pruned`.
        shaped = copied(obj)
        defaults.apply(resource, shaped)
        return {**shaped, "apiVersion": resource.stored.api_version}
    return _converted(resource, resource.stored, obj, 1)


def pruned(resource: Resource, obj: Object) -> Object:
    """A custom resource that was written in another version than it is stored in, as it is stored."""
    return fields.prune(resource.storage.schema, obj)


def _renamed(resource: Resource, obj: Object) -> Object:
    """A custom resource with the defaults of the version in which it lies, pruned by that of `resource`."""
    lies_in = next(
        (each for each in (resource, resource.storage) if each.api_version == obj["apiVersion"]), None
    )
    if lies_in is not None:
        obj = copied(obj)
        defaults.apply(lies_in, obj)
    if lies_in is resource:
        return obj
    return {**fields.prune(resource.schema, obj), "apiVersion": resource.api_version}


def _converted(resource: Resource, to: Resource, obj: Object, way: int) -> Object:
    convert = _CONVERSIONS.get((resource.group, resource.version, resource.plural))
    shaped = convert[way](obj) if convert else obj
    return {**shaped, "apiVersion": to.api_version, "kind": to.kind}
