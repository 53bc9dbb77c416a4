"""The rows of the kinds that need little digesting."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from walras.kube.tables.columns import (
    NONE,
    UNSET,
    Cells,
    age,
    condition,
    human_duration,
    labels_text,
    name,
    selector_text,
    since,
    spec,
    status,
    template_containers,
)

Object = dict[str, Any]


def _row(*middle: Callable[[Object], Any], aged: bool = True) -> Cells:
    """A name, a cell of each function, and an age."""

    def cells(obj: Object, now_ms: int) -> list[Any]:
        last = [age(obj, now_ms)] if aged else []
        return [name(obj), *(cell(obj) for cell in middle), *last]

    return cells


def made_at(obj: Object, _now_ms: int) -> list[Any]:
    """The cells of kinds without a printer: name, and when it was made as a time."""
    return [name(obj), (obj.get("metadata") or {}).get("creationTimestamp", "")]


def _event(event: Object, now_ms: int) -> list[Any]:
    first = since(event.get("firstTimestamp") or event.get("eventTime"), now_ms)
    last = since(event["lastTimestamp"], now_ms) if event.get("lastTimestamp") else first
    count, series = event.get("count") or 1, event.get("series")
    if series is not None:
        last, count = since(series.get("lastObservedTime"), now_ms), series.get("count", 0)
    involved, source = event.get("involvedObject") or {}, event.get("source") or {}
    kind = involved.get("kind", "").lower()
    component = source.get("component") or event.get("reportingComponent", "")
    instance = source.get("host") or event.get("reportingInstance", "")
    return [
        last,
        event.get("type", ""),
        event.get("reason", ""),
        f"{kind}/{involved['name']}" if involved.get("name") else kind,
        involved.get("fieldPath", ""),
        f"{component}, {instance}" if instance else component,
        event.get("message", "").strip(),
        first,
        count,
        name(event),
    ]


def _component(obj: Object, _now_ms: int) -> list[Any]:
    healthy = condition(obj, "Healthy")
    state = {"True": "Healthy", None: "Unknown"}.get(healthy.get("status"), "Unhealthy")
    return [name(obj), state, healthy.get("message", ""), healthy.get("error", "")]


def _quota(quota: Object, now_ms: int) -> list[Any]:
    hard, used = status(quota).get("hard") or {}, status(quota).get("used") or {}
    texts = {resource: f"{resource}: {used.get(resource, '0')}/{hard[resource]}" for resource in sorted(hard)}
    limits = [text for resource, text in texts.items() if resource.startswith("limits.")]
    requests = [text for resource, text in texts.items() if not resource.startswith("limits.")]
    return [name(quota), ", ".join(requests), ", ".join(limits), age(quota, now_ms)]


def _binding(binding: Object, now_ms: int) -> list[Any]:
    role, subjects = binding.get("roleRef") or {}, binding.get("subjects") or ()

    def of(kind: str) -> str:
        return ", ".join(each.get("name", "") for each in subjects if each.get("kind") == kind)

    accounts = ", ".join(
        f"{each.get('namespace', '')}/{each.get('name', '')}".removeprefix("/")
        for each in subjects
        if each.get("kind") == "ServiceAccount"
    )
    return [
        name(binding), f"{role.get('kind', '')}/{role.get('name', '')}", age(binding, now_ms),
        of("User"), of("Group"), accounts,
    ]  # fmt: skip


def _signing_request(request: Object, now_ms: int) -> list[Any]:
    held = {each.get("type") for each in status(request).get("conditions") or ()}
    state = "Denied" if "Denied" in held else "Approved" if "Approved" in held else "Pending"
    state += ",Failed" if "Failed" in held else ""
    state += ",Issued" if status(request).get("certificate") else ""
    wanted, seconds = spec(request), spec(request).get("expirationSeconds")
    return [
        name(request),
        age(request, now_ms),
        wanted.get("signerName") or NONE,
        wanted.get("username", ""),
        NONE if seconds is None else human_duration(seconds * 1000),
        state,
    ]


def _claim_state(claim: Object) -> str:
    deleted = bool((claim.get("metadata") or {}).get("deletionTimestamp"))
    states = ["deleted"] if deleted else []
    if status(claim).get("allocation") is not None:
        states += ["allocated", *(["reserved"] if status(claim).get("reservedFor") else [])]
    elif not deleted:
        states.append("pending")
    return ",".join(states)


def _parameter_kind(policy: Object) -> str:
    kind = spec(policy).get("paramKind")
    return UNSET if kind is None else f"{kind.get('apiVersion', '')}/{kind.get('kind', '')}"


def _parameter(binding: Object) -> str:
    ref = spec(binding).get("paramRef") or {}
    if ref.get("name"):
        return f"{ref.get('namespace') or '*'}/{ref['name']}"
    return UNSET if ref.get("selector") is None else _go_text(ref["selector"])


def _go_text(selector: Mapping[str, Any]) -> str:
    """A label selector as Go's fmt shows the struct."""
    labels = "".join(f"{key}: {value}," for key, value in sorted((selector.get("matchLabels") or {}).items()))
    terms = "".join(
        f"LabelSelectorRequirement{{Key:{each.get('key', '')},Operator:{each.get('operator', '')},"
        f"Values:[{' '.join(each.get('values') or ())}],}},"
        for each in selector.get("matchExpressions") or ()
    )
    return (
        f"&LabelSelector{{MatchLabels:map[string]string{{{labels}}},"
        f"MatchExpressions:[]LabelSelectorRequirement{{{terms}}},}}"
    )


def _priority_level(level: Object) -> list[Any]:
    limited = spec(level).get("limited")
    if limited is None:
        return [spec(level).get("type", ""), *[NONE] * 4]
    queues = (limited.get("limitResponse") or {}).get("queuing")
    parts = ("queues", "handSize", "queueLengthLimit")
    shown = [NONE] * 3 if queues is None else [queues.get(part, 0) for part in parts]
    return [spec(level).get("type", ""), limited.get("nominalConcurrencyShares", 0), *shown]


def _controller(revision: Object) -> str:
    references = (revision.get("metadata") or {}).get("ownerReferences") or ()
    for each in references:
        if each.get("controller"):
            group = each.get("apiVersion", "").rpartition("/")[0]
            kind = f"{each.get('kind', '')}.{group}" if group else each.get("kind", "")
            return f"{kind.lower()}/{each.get('name', '')}"
    return NONE


def _available(service: Object) -> str:
    found = condition(status(service), "Available")
    if found.get("status") == "True" or not found.get("reason"):
        return str(found.get("status", "Unknown"))
    return f"{found.get('status')} ({found['reason']})"


def _backend(service: Object) -> str:
    target = spec(service).get("service")
    return "Local" if target is None else f"{target.get('namespace', '')}/{target.get('name', '')}"


_WEBHOOKS: Final = _row(lambda obj: len(obj.get("webhooks") or ()))
_POLICY_BINDING: Final = _row(lambda obj: spec(obj).get("policyName", ""), _parameter)

CELLS: Final[Mapping[str, Cells]] = {
    "componentstatuses": _component,
    "configmaps": _row(lambda obj: len(obj.get("data") or ()) + len(obj.get("binaryData") or ())),
    "events": _event,
    "namespaces": _row(lambda obj: status(obj).get("phase", "")),
    "podtemplates": lambda obj, _: [
        name(obj),
        *template_containers(obj.get("template")),
        labels_text(((obj.get("template") or {}).get("metadata") or {}).get("labels")),
    ],
    "resourcequotas": _quota,
    "secrets": _row(lambda obj: obj.get("type", ""), lambda obj: len(obj.get("data") or ())),
    "serviceaccounts": _row(),
    "apiservices.apiregistration.k8s.io": _row(_backend, _available),
    "controllerrevisions.apps": _row(_controller, lambda obj: obj.get("revision", 0)),
    "certificatesigningrequests.certificates.k8s.io": _signing_request,
    "clusterrolebindings.rbac.authorization.k8s.io": _binding,
    "rolebindings.rbac.authorization.k8s.io": _binding,
    "mutatingadmissionpolicies.admissionregistration.k8s.io": _row(
        lambda obj: len(spec(obj).get("mutations") or ()), _parameter_kind
    ),
    "mutatingadmissionpolicybindings.admissionregistration.k8s.io": _POLICY_BINDING,
    "mutatingwebhookconfigurations.admissionregistration.k8s.io": _WEBHOOKS,
    "validatingadmissionpolicies.admissionregistration.k8s.io": _row(
        lambda obj: len(spec(obj).get("validations") or ()), _parameter_kind
    ),
    "validatingadmissionpolicybindings.admissionregistration.k8s.io": _POLICY_BINDING,
    "validatingwebhookconfigurations.admissionregistration.k8s.io": _WEBHOOKS,
    "priorityclasses.scheduling.k8s.io": lambda obj, now_ms: [
        name(obj),
        obj.get("value", 0),
        bool(obj.get("globalDefault")),
        age(obj, now_ms),
        obj.get("preemptionPolicy", ""),
    ],
    "leases.coordination.k8s.io": _row(lambda obj: spec(obj).get("holderIdentity", "")),
    "runtimeclasses.node.k8s.io": _row(lambda obj: obj.get("handler", "")),
    "deviceclasses.resource.k8s.io": _row(),
    "resourceclaims.resource.k8s.io": _row(_claim_state),
    "resourceclaimtemplates.resource.k8s.io": _row(),
    "resourceslices.resource.k8s.io": _row(
        lambda obj: spec(obj).get("nodeName", ""),
        lambda obj: spec(obj).get("driver", ""),
        lambda obj: (spec(obj).get("pool") or {}).get("name", ""),
    ),
    "flowschemas.flowcontrol.apiserver.k8s.io": lambda obj, now_ms: [
        name(obj),
        (spec(obj).get("priorityLevelConfiguration") or {}).get("name", ""),
        spec(obj).get("matchingPrecedence", 0),
        (spec(obj).get("distinguisherMethod") or {}).get("type", NONE),
        age(obj, now_ms),
        condition(status(obj), "Dangling").get("status", "?"),
    ],
    "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io": lambda obj, now_ms: [
        name(obj),
        *_priority_level(obj),
        age(obj, now_ms),
    ],
    "networkpolicies.networking.k8s.io": _row(
        lambda obj: selector_text(spec(obj).get("podSelector")) or NONE
    ),
}
