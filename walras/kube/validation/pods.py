"""Pods and pod templates."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import Any, Final

from walras.kube.validation import amounts, names, placement, security, walras
from walras.kube.validation.containers import containers, image, key_files
from walras.kube.validation.faults import Faults, go
from walras.kube.validation.metadata import check_annotations, check_labels
from walras.kube.validation.network import check_ip
from walras.kube.validation.volumes import volumes

Object = Mapping[str, Any]

_INT32_MAX: Final = 2**31 - 1
_RESTART: Final = ("Always", "OnFailure", "Never")
_DNS: Final = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
_SERVERS_MAX: Final = 3
_SEARCHES_MAX: Final = 32
_SEARCH_CHARACTERS_MAX: Final = 2048
_HOSTNAME_MAX: Final = 64
_DIFF_LINES_MAX: Final = 60
_UPDATABLE: Final = (
    "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,"
    "`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` "
    "(allow it to be set to 1 if it was previously negative)"
)


def pod(faults: Faults, obj: Object, old: Object | None) -> None:
    """A pod as it is created, or as an update would leave it."""
    spec = obj.get("spec") or {}
    whole(faults, obj)
    if old is not None:
        _update(faults, spec, old.get("spec") or {})
        return
    walras.gpu_request(faults, "spec", spec)
    if spec.get("ephemeralContainers"):
        faults.forbidden("spec.ephemeralContainers", "cannot be set on create")
    if spec.get("nodeName") and spec.get("schedulingGates"):
        faults.forbidden("spec.nodeName", "cannot be set until all schedulingGates have been cleared")


def whole(faults: Faults, obj: Object) -> None:
    """What holds of every pod, whatever it was before."""
    spec = obj.get("spec") or {}
    pod_spec(faults, "spec", spec, is_pod=True)
    for kind in ("containers", "initContainers"):
        for index, container in enumerate(spec.get(kind) or ()):
            image(faults, f"spec.{kind}[{index}]", container)
    annotations = (obj.get("metadata") or {}).get("annotations")
    walras.pod_annotations(faults, "metadata.annotations", annotations)


def pod_template(faults: Faults, path: str, template: Object) -> None:
    """The template of a workload; what it says in annotations is the terms of its pods' bids."""
    meta, spec = template.get("metadata") or {}, template.get("spec") or {}
    check_labels(faults, f"{path}.labels", meta.get("labels"))
    check_annotations(faults, f"{path}.annotations", meta.get("annotations"))
    walras.pod_annotations(faults, f"{path}.metadata.annotations", meta.get("annotations"))
    pod_spec(faults, f"{path}.spec", spec)
    walras.gpu_request(faults, f"{path}.spec", spec)
    if spec.get("ephemeralContainers"):
        faults.forbidden(
            f"{path}.spec.ephemeralContainers", "ephemeral containers not allowed in pod template"
        )


def pod_spec(faults: Faults, path: str, spec: Object, *, is_pod: bool = False) -> None:
    """What a pod's spec and a template's have in common."""
    if spec.get("terminationGracePeriodSeconds") is None:
        faults.required(f"{path}.terminationGracePeriodSeconds")
    good = volumes(faults, f"{path}.volumes", spec.get("volumes") or (), is_pod=is_pod)
    _claims(faults, f"{path}.resourceClaims", spec.get("resourceClaims") or ())
    containers(faults, path, spec, good)
    amounts.of_pod(faults, f"{path}.resources", spec)
    _host_network(faults, path, spec, is_pod=is_pod)
    faults.one_of(f"{path}.restartPolicy", spec.get("restartPolicy"), _RESTART)
    faults.one_of(f"{path}.dnsPolicy", spec.get("dnsPolicy"), _DNS)
    check_labels(faults, f"{path}.nodeSelector", spec.get("nodeSelector"))
    security.of_pod(faults, path, spec)
    placement.affinity(faults, f"{path}.affinity", spec.get("affinity") or {})
    _dns(faults, f"{path}.dnsConfig", spec.get("dnsConfig"), spec.get("dnsPolicy"))
    for index, gate in enumerate(spec.get("readinessGates") or ()):
        kind = gate.get("conditionType", "")
        faults.each(f"{path}.readinessGates[{index}].conditionType", kind, names.qualified_name(kind))
    placement.gates(faults, f"{path}.schedulingGates", spec.get("schedulingGates") or ())
    spreading = spec.get("topologySpreadConstraints") or ()
    placement.spreading(faults, f"{path}.topologySpreadConstraints", spreading)
    security.host_users(faults, path, spec)
    _hostname(faults, path, spec)
    _named(faults, path, spec, "serviceAccountName", "nodeName")
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not 1 <= deadline <= _INT32_MAX:
        detail = f"must be between 1 and {_INT32_MAX}, inclusive"
        faults.invalid(f"{path}.activeDeadlineSeconds", deadline, detail)
    _named(faults, path, spec, "hostname", "subdomain")
    placement.tolerations(faults, f"{path}.tolerations", spec.get("tolerations") or ())
    for index, alias in enumerate(spec.get("hostAliases") or ()):
        check_ip(faults, f"{path}.hostAliases[{index}].ip", alias.get("ip", ""))
        for number, name in enumerate(alias.get("hostnames") or ()):
            at = f"{path}.hostAliases[{index}].hostnames[{number}]"
            faults.each(at, name, names.dns_subdomain(name))
    _named(faults, path, spec, "priorityClassName", "runtimeClassName")
    if spec.get("preemptionPolicy") is not None:
        policies = ("PreemptLowerPriority", "Never")
        faults.one_of(f"{path}.preemptionPolicy", spec["preemptionPolicy"], policies)
    if spec.get("overhead"):
        amounts.resources(faults, f"{path}.overhead", {"limits": spec["overhead"]})
    security.system(faults, path, spec)
    key_files(faults, path, spec)


def _named(faults: Faults, path: str, spec: Object, *fields: str) -> None:
    for field in fields:
        check = names.dns_label if field in ("hostname", "subdomain") else names.dns_subdomain
        if spec.get(field):
            faults.each(f"{path}.{field}", spec[field], check(spec[field]))


def _claims(faults: Faults, path: str, claims: Any) -> None:
    seen: set[str] = set()
    for index, claim in enumerate(claims):
        at, name = f"{path}[{index}]", claim.get("name", "")
        if not name:
            faults.required(f"{at}.name")
        elif name in seen:
            faults.duplicate(f"{at}.name", name)
        else:
            faults.each(f"{at}.name", name, names.dns_label(name))
        seen.add(name)
        given, template = claim.get("resourceClaimName"), claim.get("resourceClaimTemplateName")
        shown = go(Name=name, ResourceClaimName=given, ResourceClaimTemplateName=template)
        if given is not None and template is not None:
            detail = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"
            faults.invalid(at, shown, detail)
        if given is None and template is None:
            detail = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"
            faults.invalid(at, shown, detail)
        for field, value in (("resourceClaimName", given), ("resourceClaimTemplateName", template)):
            if value is not None:
                faults.each(f"{at}.{field}", value, names.dns_subdomain(value))


def _host_network(faults: Faults, path: str, spec: Object, *, is_pod: bool) -> None:
    for index, container in enumerate(spec.get("containers") or () if spec.get("hostNetwork") else ()):
        for number, port in enumerate(container.get("ports") or ()):
            host, inside = port.get("hostPort", 0), port.get("containerPort", 0)
            # In a template it may be left out, as each pod will be given it.
            if host != inside and (is_pod or host):
                at = f"{path}.containers[{index}].ports[{number}].hostPort"
                faults.invalid(at, host, "must match `containerPort` when `hostNetwork` is true")


def _dns(faults: Faults, path: str, config: Object | None, policy: str | None) -> None:
    servers = (config or {}).get("nameservers") or []
    if policy == "None" and config is None:
        faults.required(path, "must provide `dnsConfig` when `dnsPolicy` is None")
    if config is None:
        return
    if policy == "None" and not servers:
        detail = "must provide at least one DNS nameserver when `dnsPolicy` is None"
        faults.required(f"{path}.nameservers", detail)
        return
    if len(servers) > _SERVERS_MAX:
        detail = f"must not have more than {_SERVERS_MAX} nameservers"
        faults.invalid(f"{path}.nameservers", servers, detail)
    for index, server in enumerate(servers):
        check_ip(faults, f"{path}.nameservers[{index}]", server)
    searches = config.get("searches") or []
    if len(searches) > _SEARCHES_MAX:
        faults.invalid(f"{path}.searches", searches, f"must not have more than {_SEARCHES_MAX} search paths")
    if len(" ".join(searches)) > _SEARCH_CHARACTERS_MAX:
        detail = f"must not have more than {_SEARCH_CHARACTERS_MAX} characters (including spaces) in the "
        faults.invalid(f"{path}.searches", searches, f"{detail}search list")
    for index, search in enumerate(searches):
        name = search.removesuffix(".") if search != "." else ""
        if search != ".":
            faults.each(f"{path}.searches[{index}]", name, names.dns_subdomain_with_underscore(name))
    for index, option in enumerate(config.get("options") or ()):
        if not option.get("name"):
            faults.required(f"{path}.options[{index}]", "must not be empty")


def _hostname(faults: Faults, path: str, spec: Object) -> None:
    name = spec.get("hostnameOverride")
    if name is None:
        return
    at = f"{path}.hostnameOverride"
    if spec.get("setHostnameAsFQDN"):
        faults.forbidden(at, "may not be specified when setHostnameAsFQDN is true")
    if spec.get("hostNetwork"):
        faults.forbidden(at, "may not be specified when hostNetwork is true")
    if len(name) > _HOSTNAME_MAX:
        faults.too_long(at, _HOSTNAME_MAX)
    faults.each(at, name, names.dns_subdomain(name))


def _update(faults: Faults, spec: Object, old: Object) -> None:
    """Only a few fields of a pod may change once it exists."""
    if spec == old:
        return
    for field in ("containers", "initContainers"):
        if len(spec.get(field) or ()) != len(old.get(field) or ()):
            faults.forbidden(f"spec.{field}", "pod updates may not add or remove containers")
            return
    if not _deadline_update(faults, spec.get("activeDeadlineSeconds"), old.get("activeDeadlineSeconds")):
        return
    _toleration_update(faults, spec.get("tolerations") or [], old.get("tolerations") or [])
    gates = [gate.get("name") for gate in old.get("schedulingGates") or ()]
    for gate in spec.get("schedulingGates") or ():
        if gate.get("name") not in gates:
            detail = f"only deletion is allowed, but found new scheduling gate '{gate.get('name')}'"
            faults.forbidden("spec.schedulingGates", detail)
    munged = _munged(spec, old)
    if munged != old:
        faults.forbidden(
            "spec", f"pod updates may not change fields other than {_UPDATABLE}\n{_diff(old, munged)}"
        )


def _deadline_update(faults: Faults, new: int | None, old: int | None) -> bool:
    path = "spec.activeDeadlineSeconds"
    if new is None:
        if old is not None:
            faults.invalid(path, None, "must not update from a positive integer to nil value")
    elif old is not None and new > old:
        faults.invalid(path, new, "must be less than or equal to previous value")
        return False
    return True


def _toleration_update(faults: Faults, new: list[Object], old: list[Object]) -> None:
    def bare(toleration: Object) -> frozenset[tuple[str, Any]]:
        return frozenset((key, value) for key, value in toleration.items() if key != "tolerationSeconds")

    kept = {bare(toleration) for toleration in new}
    if any(bare(toleration) not in kept for toleration in old):
        detail = "existing toleration can not be modified except its tolerationSeconds"
        faults.forbidden("spec.tolerations", detail)


def _munged(spec: Object, old: Object) -> Object:
    """The new spec with what may change set back to the old."""
    munged = dict(spec)
    for field in ("containers", "initContainers"):
        if spec.get(field):
            munged[field] = [
                {**new, "image": before.get("image")}
                for new, before in zip(spec[field], old[field], strict=True)
            ]
    restored = ["activeDeadlineSeconds", "tolerations", "schedulingGates"]
    was = old.get("terminationGracePeriodSeconds")
    if was is not None and was < 0 and spec.get("terminationGracePeriodSeconds") == 1:
        restored.append("terminationGracePeriodSeconds")
    for field in restored:
        munged.pop(field, None)
        if field in old:
            munged[field] = old[field]
    return munged


def _diff(old: Object, new: Object) -> str:
    before, after = (json.dumps(value, indent=2, sort_keys=True).splitlines() for value in (old, new))
    lines = list(difflib.unified_diff(before, after, n=3, lineterm=""))[2:]
    return "\n".join(lines[:_DIFF_LINES_MAX]) + "\n"
