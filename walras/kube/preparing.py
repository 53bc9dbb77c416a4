"""What a new state gets before it is stored: what upstream's strategies and admission plugins add to it.

It belongs to no field manager. In place, and idempotent: preparing an object again changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from walras.core.quantity import parse_milli
from walras.kube import services
from walras.kube.defaults import TEMPLATE_GENERATION
from walras.kube.registry import Resource

Object = dict[str, Any]

JOB_NAME: Final = "batch.kubernetes.io/job-name"
JOB_UID: Final = "batch.kubernetes.io/controller-uid"
_JOB_NAME_LABELS: Final = (JOB_NAME, "job-name")
_JOB_UID_LABELS: Final = (JOB_UID, "controller-uid")
_WHO: Final = ("username", "uid", "groups", "extra")
_APPROVALS: Final = ("Approved", "Denied")


class Request(NamedTuple):
    """Who writes (nobody: the server itself), through which subresource, and when (RFC 3339)."""

    user: str = ""
    groups: tuple[str, ...] = ()
    subresource: str = ""
    now: str = ""
    uid: str = ""
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()


_OWN: Final = Request()


def prepare(resource: Resource, obj: Object, old: Object | None = None, request: Request = _OWN) -> None:
    """Fills in what the server says. `obj` has its defaults, name and uid; `old` is what it replaces."""
    fill = _BUILTIN.get(resource.key) if resource.builtin else None
    if fill is not None:
        fill(obj, old, request)


def _pod(obj: Object, old: Object | None, _: Request) -> None:
    spec = obj["spec"]
    _account(spec)
    if old is None:
        obj["status"] = {"phase": "Pending", "qosClass": qos_class(spec)}


def _account(spec: Object) -> None:
    """Every pod has an account, under both of its names."""
    if not spec.get("serviceAccountName"):
        spec["serviceAccountName"] = "default"
    spec["serviceAccount"] = spec["serviceAccountName"]


def qos_class(spec: Object) -> str:
    """The pod's quality of service by its CPU and memory: "Guaranteed", "Burstable" or "BestEffort"."""
    asked = full = True
    any_set = False
    for container in (*spec.get("containers", ()), *spec.get("initContainers", ())):
        resources = container.get("resources") or {}
        requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
        for name in ("cpu", "memory"):
            any_set = any_set or _positive(requests.get(name)) or _positive(limits.get(name))
            full = full and _positive(limits.get(name))
            asked = asked and requests.get(name, limits.get(name)) == limits.get(name)
    if not any_set:
        return "BestEffort"
    return "Guaranteed" if full and asked else "Burstable"


def _positive(amount: Any) -> bool:
    return amount is not None and parse_milli(amount) > 0


def _job(obj: Object, old: Object | None, _: Request) -> None:
    """A selector by the job's uid and the labels that its pods then need; what the user wrote is kept, for
    validation to refuse where it disagrees."""
    metadata, spec = obj["metadata"], obj["spec"]
    if old is not None or spec.get("manualSelector"):
        return
    template = spec["template"]
    labels = template.setdefault("metadata", {}).setdefault("labels", {})
    for name in _JOB_NAME_LABELS:
        labels.setdefault(name, metadata.get("name", ""))
    for name in _JOB_UID_LABELS:
        labels.setdefault(name, metadata["uid"])
    if not spec.get("selector"):
        spec["selector"] = {"matchLabels": {JOB_UID: metadata["uid"]}}
    # Upstream's defaults, which are applied again when it is read, give a job without labels its pods'.
    if not metadata.get("labels"):
        metadata["labels"] = dict(labels)


def _claim(obj: Object, old: Object | None, request: Request) -> None:
    if old is None:
        obj["status"] = {"phase": "Pending"}
    if not request.subresource:
        _data_sources(obj["spec"])


def _data_sources(spec: Object) -> None:
    """A claim says where its data comes from in an older and in a newer field."""
    source, reference = spec.get("dataSource"), spec.get("dataSourceRef")
    if source is not None and reference is None:
        spec["dataSourceRef"] = dict(source)
    elif source is None and reference is not None and not reference.get("namespace"):
        spec["dataSource"] = dict(reference)


def _volume(obj: Object, old: Object | None, request: Request) -> None:
    at = "lastPhaseTransitionTime"
    if old is None:
        obj["status"] = {"phase": "Pending", **({at: request.now} if request.now else {})}
    if old is None or request.subresource != "status":
        return
    before, after = old.get("status") or {}, obj.get("status") or {}
    if before.get("phase") == after.get("phase"):
        if at not in after and at in before:
            after[at] = before[at]
    elif after.get(at) in (None, before.get(at)):
        after[at] = request.now


def _namespace(obj: Object, old: Object | None, _: Request) -> None:
    if old is None:
        finalizers = (obj.get("spec") or {}).get("finalizers") or []
        kept = finalizers if "kubernetes" in finalizers else [*finalizers, "kubernetes"]
        obj["spec"], obj["status"] = {"finalizers": kept}, {"phase": "Active"}


def _service(obj: Object, old: Object | None, request: Request) -> None:
    if old is None:
        services.match(obj)
    elif not request.subresource:
        services.carry(old, obj)


def _daemon_set(obj: Object, old: Object | None, _: Request) -> None:
    annotations = obj["metadata"].get("annotations") or {}
    before = ((old or {}).get("metadata") or {}).get("annotations") or {}
    generation = str((before if old else annotations).get(TEMPLATE_GENERATION, "1"))
    if old and (old.get("spec") or {}).get("template") != (obj.get("spec") or {}).get("template"):
        generation = str(int(generation) + 1) if generation.isdigit() else "1"
    said = "1" if generation == "0" else generation
    obj["metadata"]["annotations"] = {**annotations, TEMPLATE_GENERATION: said}


def _signing(obj: Object, old: Object | None, request: Request) -> None:
    """Who asks is what the server knows; only conditions are approved, the rest of a request stays."""
    if old is None:
        spec = {name: value for name, value in (obj.get("spec") or {}).items() if name not in _WHO}
        extra = {key: list(values) for key, values in request.extra}
        who = {"username": request.user, "uid": request.uid, "groups": list(request.groups), "extra": extra}
        obj["spec"] = {**spec, **{name: value for name, value in who.items() if value}}
        return
    obj["spec"] = old.get("spec") or {}
    if not request.subresource:
        return
    before, after = old.get("status") or {}, obj.get("status") or {}
    conditions = _dated(before, after, request)
    obj["status"] = dict(before if request.subresource == "approval" else after)
    obj["status"].pop("conditions", None)
    if conditions:
        obj["status"]["conditions"] = conditions


def _dated(before: Object, after: Object, request: Request) -> list[Object]:
    """The conditions of a signing request with their times; who signs leaves alone what was approved."""
    known = {each.get("type"): each for each in before.get("conditions") or ()}
    conditions = [dict(each) for each in after.get("conditions") or ()]
    if request.subresource == "status":
        kept = [known[kind] for kind in _APPROVALS if kind in known]
        conditions = kept + [each for each in conditions if each.get("type") not in _APPROVALS]
    for each in conditions:
        same = known.get(each.get("type"), {})
        unchanged = same.get("status") == each.get("status")
        since = same.get("lastTransitionTime") if unchanged else None
        each["lastUpdateTime"] = each.get("lastUpdateTime") or request.now
        each["lastTransitionTime"] = each.get("lastTransitionTime") or since or request.now
    return conditions


def _api_service(obj: Object, old: Object | None, request: Request) -> None:
    """An APIService without a Service behind it is this server's own, and that answers."""
    if old is not None or request.subresource:
        return
    obj["status"] = {}
    if not (obj.get("spec") or {}).get("service"):
        available = {
            "type": "Available",
            "status": "True",
            **({"lastTransitionTime": request.now} if request.now else {}),
            "reason": "Local",
            "message": "Local APIServices are always available",
        }
        obj["status"] = {"conditions": [available]}


_BUILTIN: Final[Mapping[str, Callable[[Object, Object | None, Request], None]]] = {
    "pods": _pod,
    "namespaces": _namespace,
    "persistentvolumeclaims": _claim,
    "persistentvolumes": _volume,
    "services": _service,
    "daemonsets.apps": _daemon_set,
    "jobs.batch": _job,
    "certificatesigningrequests.certificates.k8s.io": _signing,
    "apiservices.apiregistration.k8s.io": _api_service,
}
