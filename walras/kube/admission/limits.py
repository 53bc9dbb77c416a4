"""LimitRanger: what LimitRanges give pods by default, and what they keep pods and claims within."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from walras.core.errors import Forbidden
from walras.kube.admission.call import Call
from walras.kube.amounts import containers, of_pod, shown, value
from walras.kube.objects import PODS
from walras.kube.policy import forbidden
from walras.kube.record import Object

LIMIT_RANGES: Final = "limitranges"
CLAIMS: Final = "persistentvolumeclaims"
_ANNOTATION: Final = "kubernetes.io/limit-ranger"


def _ranges(call: Call) -> list[Object]:
    """The limit ranges that the write is under; mostly none."""
    if call.operation not in ("CREATE", "UPDATE"):
        return []
    if call.subresource not in ("", "resize") or (call.subresource and call.key != PODS):
        return []
    if call.key == PODS and call.operation == "UPDATE" and not call.subresource:
        return []
    if call.old is not None and call.old["metadata"].get("deletionTimestamp"):
        return []
    return call.api.list(call.ctx.cluster, LIMIT_RANGES, call.namespace)


def _limits(ranges: list[Object]) -> Iterator[Mapping[str, Any]]:
    for limit_range in ranges:
        yield from (limit_range.get("spec") or {}).get("limits") or ()


def mutate(call: Call) -> None:
    """Gives containers the requests and limits that they do not name."""
    pod = call.object
    for limit_range in _ranges(call):
        requests: Object = {}
        limits: Object = {}
        for limit in _limits([limit_range]):
            if limit.get("type") == "Container":
                requests |= limit.get("defaultRequest") or {}
                limits |= limit.get("default") or {}
        _default(pod, requests, limits)


def _default(pod: Object, requests: Object, limits: Object) -> None:
    spec, told = pod["spec"], []
    for kind, field in (("container", "containers"), ("init container", "initContainers")):
        for container in spec.get(field) or ():
            resources = container.setdefault("resources", {})
            for word, given in (("limit", limits), ("request", requests)):
                mine = resources.get(f"{word}s") or {}
                missing = sorted(each for each in given if each not in mine)
                if missing:
                    resources[f"{word}s"] = {**mine, **{each: shown(given[each]) for each in missing}}
                    name = container.get("name", "")
                    told.append((name, word, f"{', '.join(missing)} {word} for {kind} {name}"))
    if told:
        # Of each container the requests come first.
        order = {name: place for place, (name, _, _) in reversed(list(enumerate(told)))}
        said = [text for _, _, text in sorted(told, key=lambda each: (order[each[0]], each[1] == "limit"))]
        annotations = pod["metadata"].get("annotations") or {}
        annotations = {**annotations, _ANNOTATION: f"LimitRanger plugin set: {'; '.join(said)}"}
        pod["metadata"]["annotations"] = annotations


def validate(call: Call) -> None:
    """Raises Forbidden with everything that is too little, too much or too uneven."""
    for limit_range in _ranges(call):
        faults: list[str] = []
        for limit in _limits([limit_range]):
            kind = limit.get("type")
            if call.key == CLAIMS and kind == "PersistentVolumeClaim":
                requests = (call.object["spec"].get("resources") or {}).get("requests") or {}
                faults += _faults(limit, requests, None)
            elif call.key == PODS and kind == "Container":
                for container in containers(call.object["spec"]):
                    resources = container.get("resources") or {}
                    faults += _faults(limit, resources.get("requests") or {}, resources.get("limits") or {})
            elif call.key == PODS and kind == "Pod":
                spec = call.object["spec"]
                faults += _faults(limit, of_pod(spec, "requests"), of_pod(spec, "limits"))
        if faults:
            raise _refused(call, list(dict.fromkeys(faults)))


def _refused(call: Call, faults: list[str]) -> Forbidden:
    why = faults[0] if len(faults) == 1 else f"[{', '.join(faults)}]"
    return forbidden(call.key, call.name, why)


def _faults(limit: Mapping[str, Any], requests: Object, limits: Object | None) -> Iterator[str]:
    kind = limit["type"]
    for name, bound in (limit.get("min") or {}).items():
        least = f"minimum {name} usage per {kind} is {shown(bound)}"
        if name not in requests:
            yield f"{least}.  No request is specified"
        elif value(requests[name]) < value(bound):
            yield f"{least}, but request is {shown(requests[name])}"
        elif limits is not None and name in limits and value(limits[name]) < value(bound):
            yield f"{least}, but limit is {shown(limits[name])}"
    for name, bound in (limit.get("max") or {}).items():
        most = f"maximum {name} usage per {kind} is {shown(bound)}"
        if limits is None:
            if name not in requests:
                yield f"{most}.  No request is specified"
            elif value(requests[name]) > value(bound):
                yield f"{most}, but request is {shown(requests[name])}"
        elif name not in limits:
            yield f"{most}.  No limit is specified"
        elif value(limits[name]) > value(bound):
            yield f"{most}, but limit is {shown(limits[name])}"
        elif name in requests and value(requests[name]) > value(bound):
            yield f"{most}, but request is {shown(requests[name])}"
    if limits is not None:
        yield from _uneven(limit, requests, limits)


def _uneven(limit: Mapping[str, Any], requests: Object, limits: Object) -> Iterator[str]:
    for name, bound in (limit.get("maxLimitRequestRatio") or {}).items():
        said = f"{name} max limit to request ratio per {limit['type']} is {shown(bound)}"
        request, most = requests.get(name, "0"), limits.get(name, "0")
        if value(request) == 0:
            yield f"{said}, but no request is specified or request is 0"
        elif value(most) == 0:
            yield f"{said}, but no limit is specified or limit is 0"
        elif value(most) / value(request) > value(bound):
            yield f"{said}, but provided ratio is {float(value(most) / value(request)):f}"
