"""Amounts of resources that containers, and pods as a whole, ask for and are limited to."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Final

from walras.core.quantity import canonical, exact, parse_milli, written_like
from walras.kube.validation import names
from walras.kube.validation.faults import Faults

Object = Mapping[str, Any]

_STANDARD: Final = ("cpu", "memory", "ephemeral-storage")
_KUBERNETES: Final = "kubernetes.io/"
# What is no container's and yet a resource.
_KNOWN: Final = frozenset((
    *_STANDARD, *(f"{kind}.{name}" for kind in ("requests", "limits") for name in _STANDARD), "pods",
    "resourcequotas", "services", "replicationcontrollers", "secrets", "configmaps",
    "persistentvolumeclaims", "storage", "requests.storage", "services.nodeports", "services.loadbalancers",
))  # fmt: skip
_HUGE: Final = ("hugepages-", "requests.hugepages-")
_UNKNOWN: Final = "must be a standard resource type or fully qualified"


def claims(faults: Faults, path: str, claims: Any, spec: Object) -> None:
    known = {claim.get("name", "") for claim in spec.get("resourceClaims") or ()}
    seen: set[str] = set()
    in_part: set[str] = set()
    for index, claim in enumerate(claims):
        at, name, request = f"{path}[{index}]", claim.get("name", ""), claim.get("request", "")
        if not name:
            faults.required(at)
            continue
        key = f"{name}/{request}" if request else name
        if name in seen:
            faults.duplicate(at, name)
        else:
            if request:
                faults.each(f"{at}.request", request, names.dns_label(request))
            if key in seen:
                faults.duplicate(at, key)
            elif not request and name in in_part:
                faults.duplicate(at, name)
            seen.add(key)
            if request:
                in_part.add(name)
        if name not in known and not faults.full:
            listed = f": {', '.join(sorted(known))}" if known else " which is empty"
            faults.not_found(at, name, f"must be one of the names in pod.spec.resourceClaims{listed}")


def of_pod(faults: Faults, path: str, spec: Object) -> None:
    """The resources of a pod as a whole."""
    given = spec.get("resources")
    if given is None:
        return
    if (spec.get("os") or {}).get("name") == "windows":
        faults.forbidden(path, "may not be set for a windows pod")
        return
    if given.get("claims") is not None:
        faults.forbidden(f"{path}.claims", "claims may not be set for Resources at pod-level")
    resources(faults, path, given, whole=True)
    requests, limits = given.get("requests") or {}, given.get("limits") or {}
    for name, total in sorted(_requested(spec).items()):
        if name in requests and total > exact(str(requests[name])):
            said = (
                f"must be greater than or equal to aggregate container requests of {written_like(total, '1')}"
            )
            faults.invalid(f"{path}.requests[{name}]", canonical(str(requests[name])), said)
    for index, container in enumerate(spec.get("containers") or ()):
        for name, amount in ((container.get("resources") or {}).get("limits") or {}).items():
            if name in limits and exact(str(amount)) > exact(str(limits[name])):
                said = f"must be less than or equal to pod limits of {canonical(str(limits[name]))}"
                faults.invalid(f"{path}.containers[{index}][{name}].limits", canonical(str(amount)), said)


def is_native(name: str) -> bool:
    """Whether Kubernetes itself defines the resource, so that more of it may be promised than there is."""
    return "/" not in name or _KUBERNETES in name


def _overcommits(name: str) -> bool:
    return is_native(name) and not name.startswith("hugepages-")


def resources(faults: Faults, path: str, given: Object, *, whole: bool = False) -> None:
    """Requests and limits of a container, or of a pod as a whole."""
    requests, limits = given.get("requests") or {}, given.get("limits") or {}
    for name, amount in sorted(limits.items()):
        _resource(faults, f"{path}.limits[{name}]", name, amount, whole=whole)
    for name, amount in sorted(requests.items()):
        _resource(faults, f"{path}.requests[{name}]", name, amount, whole=whole)
        at = f"{path}.requests"
        if name in limits:
            asked, most = parse_milli(amount), parse_milli(limits[name])
            shown = f"{name} limit of {canonical(str(limits[name]))}"
            if asked != most and not _overcommits(name):
                faults.invalid(at, amount, f"must be equal to {shown}")
            elif asked > most:
                faults.invalid(at, amount, f"must be less than or equal to {shown}")
        elif not _overcommits(name):
            faults.required(f"{path}.limits", "Limit must be set for non overcommitable resources")


def _resource(faults: Faults, path: str, name: str, amount: Any, *, whole: bool) -> None:
    said = names.qualified_name(name)
    faults.each(path, name, said)
    if not said:
        if whole:
            _of_whole(faults, path, name)
        elif "/" not in name:
            if name not in _KNOWN and not name.startswith(_HUGE):
                faults.invalid(path, name, _UNKNOWN)
            if name not in _STANDARD and not name.startswith("hugepages-"):
                faults.invalid(path, name, "must be a standard resource for containers")
        elif not is_native(name) and names.qualified_name(f"requests.{name}"):
            faults.invalid(path, name, "doesn't follow extended resource name standard")
    quantity(faults, path, amount)
    if not is_native(name) and parse_milli(amount) % 1000:
        faults.invalid(path, amount, "must be an integer")


def _of_whole(faults: Faults, path: str, name: str) -> None:
    if "/" not in name and name not in _KNOWN and not name.startswith(_HUGE):
        faults.invalid(path, name, _UNKNOWN)
    elif name not in ("cpu", "memory") and not name.startswith("hugepages-"):
        faults.not_supported(path, name, ("cpu", "hugepages-", "memory"))


def _requested(spec: Object) -> dict[str, Fraction]:
    """What the containers of a pod ask for together: those that run, or one of those before them."""
    running: dict[str, Fraction] = {}
    staying: dict[str, Fraction] = {}
    most: dict[str, Fraction] = {}
    for container in spec.get("containers") or ():
        _add(running, container)
    for container in spec.get("initContainers") or ():
        mine = dict(staying)
        _add(mine, container)
        if container.get("restartPolicy") == "Always":
            _add(running, container)
            staying = mine
        most = {name: max(mine.get(name, Fraction()), most.get(name, Fraction())) for name in {*mine, *most}}
    return {
        name: max(most.get(name, Fraction()), running.get(name, Fraction())) for name in {*most, *running}
    }


def _add(amounts: dict[str, Fraction], container: Object) -> None:
    for name, amount in ((container.get("resources") or {}).get("requests") or {}).items():
        amounts[name] = amounts.get(name, Fraction()) + exact(str(amount))


def quantity(faults: Faults, path: str, amount: Any) -> None:
    if parse_milli(amount) < 0:
        faults.invalid(path, amount, "must be greater than or equal to 0")
