"""What containers have of CPU and memory, beside what their pod's spec says. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from walras.core.errors import WalrasError
from walras.tenants.demands import amount

Object = dict[str, Any]
_KINDS: Final = ("limits", "requests")
_RESIZED: Final = ("cpu", "memory")
_FIELDS: Final = ("initContainers", "containers")


def by_name(pod: Mapping[str, Any]) -> dict[str, Object]:
    """The `resources` of every container that a pod's spec has from its beginning."""
    return {
        str(each["name"]): each.get("resources") or {}
        for field in _FIELDS
        for each in pod["spec"].get(field) or ()
    }


def given(pod: Object, resources: Mapping[str, Object]) -> Object:
    """The pod, its containers with these resources."""
    if by_name(pod) == resources:
        return pod
    changed = {
        field: [{**each, "resources": resources.get(each["name"], {})} for each in pod["spec"][field]]
        for field in _FIELDS
        if pod["spec"].get(field)
    }
    return {**pod, "spec": {**pod["spec"], **changed}}


def recovered(pod: Object) -> Object:
    """The pod with the CPU and memory that its status says its containers had."""
    status, found = pod.get("status") or {}, by_name(pod)
    for field in ("initContainerStatuses", "containerStatuses"):
        for each in status.get(field) or ():
            had = each.get("resources")
            if had is not None and each["name"] in found and not same(had, found[each["name"]]):
                found[each["name"]] = _with(found[each["name"]], had)
    return given(pod, found)


def _with(resources: Object, had: Object) -> Object:
    """Of all other resources a status has no say."""
    found = {key: each for key, each in resources.items() if key not in _KINDS}
    for kind in _KINDS:
        kept = {name: each for name, each in (resources.get(kind) or {}).items() if name not in _RESIZED}
        kept |= {name: had[kind][name] for of, name in _amounts(had) if of == kind}
        if kept:
            found[kind] = kept
    return found


def same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether they say the same of CPU and memory, in whatever words."""
    return one == other or _amounts(one) == _amounts(other)


def same_all(one: Mapping[str, Object], other: Mapping[str, Object]) -> bool:
    return all(same(each, other.get(name, {})) for name, each in one.items())


def restarts(pod: Mapping[str, Any], name: str, was: Object, to: Object) -> bool:
    """Whether the container of that name begins again when its resources change so."""
    before, after = _amounts(was), _amounts(to)
    changed = {key[1] for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    every = [each for field in _FIELDS for each in pod["spec"].get(field) or () if each["name"] == name]
    return any(
        policy.get("resourceName") in changed and policy.get("restartPolicy") == "RestartContainer"
        for each in every
        for policy in each.get("resizePolicy") or ()
    )


def _amounts(resources: Mapping[str, Any]) -> dict[tuple[str, str], int]:
    """By kind and name; what is no quantity is left out."""
    found = {}
    for kind in _KINDS:
        for name in _RESIZED:
            try:
                found[kind, name] = amount(name, str((resources.get(kind) or {})[name]))
            except (KeyError, WalrasError):
                continue
    return found
