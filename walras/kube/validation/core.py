"""ConfigMaps, Secrets, Namespaces, Services, claims, Nodes and other small types."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Final

from walras.core.quantity import parse_milli
from walras.kube.validation import names
from walras.kube.validation.containers import quantity
from walras.kube.validation.faults import Faults
from walras.kube.validation.metadata import check_labels, label_selector

Object = Mapping[str, Any]

DATA_MAX_BYTES: Final = 1024 * 1024
PRIORITY_MAX: Final = 1_000_000_000
_IMMUTABLE: Final = "field is immutable when `immutable` is set"
_MODES: Final = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
_SERVICE_TYPES: Final = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
_EFFECTS: Final = ("NoSchedule", "PreferNoSchedule", "NoExecute")
# Keys that a Secret of a well-known type must have.
_SECRET_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
}
_BASIC_AUTH: Final = ("username", "password")


def config_map(faults: Faults, obj: Object, old: Object | None) -> None:
    _frozen(faults, obj, old, ("data", "binaryData"))
    text, binary = obj.get("data") or {}, obj.get("binaryData") or {}
    for key in sorted(text):
        faults.each(f"data[{key}]", key, names.config_key(key))
        if key in binary:
            faults.invalid(f"data[{key}]", key, "duplicate of key present in binaryData")
    for key in sorted(binary):
        faults.each(f"binaryData[{key}]", key, names.config_key(key))
    if sum(len(value.encode()) for value in text.values()) + _decoded_size(binary) > DATA_MAX_BYTES:
        faults.too_long("", DATA_MAX_BYTES)


def secret(faults: Faults, obj: Object, old: Object | None) -> None:
    if old is not None:
        faults.immutable("type", obj.get("type"), old.get("type"))
    _frozen(faults, obj, old, ("data",))
    data, kind = obj.get("data") or {}, obj.get("type", "")
    for key in sorted(data):
        faults.each(f"data[{key}]", key, names.config_key(key))
    if _decoded_size(data) > DATA_MAX_BYTES:
        faults.too_long("data", DATA_MAX_BYTES)
    for key in _SECRET_KEYS.get(kind, ()):
        if key not in data:
            faults.required(f"data[{key}]")
    if kind == "kubernetes.io/basic-auth" and not any(key in data for key in _BASIC_AUTH):
        for key in _BASIC_AUTH:
            faults.required(f"data[{key}]")
    account = "kubernetes.io/service-account.name"
    if kind == "kubernetes.io/service-account-token" and not (
        (obj.get("metadata") or {}).get("annotations") or {}
    ).get(account):
        faults.required(f"metadata.annotations[{account}]")


def _decoded_size(data: Mapping[str, str]) -> int:
    return sum(len(base64.b64decode(value)) for value in data.values())


def _frozen(faults: Faults, obj: Object, old: Object | None, fields: tuple[str, ...]) -> None:
    if old is None or not old.get("immutable"):
        return
    if not obj.get("immutable"):
        faults.forbidden("immutable", _IMMUTABLE)
    for field in fields:
        if (obj.get(field) or {}) != (old.get(field) or {}):
            faults.forbidden(field, _IMMUTABLE)


def namespace(faults: Faults, obj: Object, old: Object | None) -> None:
    if old is not None:
        return
    for name in (obj.get("spec") or {}).get("finalizers") or ():
        faults.each("spec.finalizers", name, names.qualified_name(name))
        if "/" not in name and name not in ("kubernetes", "orphan", "foregroundDeletion"):
            detail = "name is neither a standard finalizer name nor is it fully qualified"
            faults.invalid("spec.finalizers", name, detail)


def service(faults: Faults, obj: Object, old: Object | None) -> None:
    spec = obj.get("spec") or {}
    kind, ports = spec.get("type", ""), spec.get("ports") or ()
    if not ports and spec.get("clusterIP") != "None" and kind != "ExternalName":
        faults.required("spec.ports")
    if kind == "ExternalName":
        name = spec.get("externalName", "").removesuffix(".")
        if not name:
            faults.required("spec.externalName")
        else:
            faults.each("spec.externalName", name, names.dns_subdomain(name))
    seen: set[str] = set()
    for index, port in enumerate(ports):
        _service_port(faults, f"spec.ports[{index}]", port, len(ports) > 1, seen)
    check_labels(faults, "spec.selector", spec.get("selector"))
    faults.one_of("spec.sessionAffinity", spec.get("sessionAffinity"), ("ClientIP", "None"))
    faults.one_of("spec.type", kind, _SERVICE_TYPES)
    if kind == "ClusterIP":
        for index, port in enumerate(ports):
            if port.get("nodePort"):
                detail = "may not be used when `type` is 'ClusterIP'"
                faults.forbidden(f"spec.ports[{index}].nodePort", detail)
    before = ((old or {}).get("spec") or {}).get("clusterIP")
    if before and kind != "ExternalName":
        faults.immutable("spec.clusterIP", spec.get("clusterIP"), before)


def _service_port(faults: Faults, path: str, port: Object, named: bool, seen: set[str]) -> None:
    name = port.get("name", "")
    if named and not name:
        faults.required(f"{path}.name")
    elif name:
        faults.each(f"{path}.name", name, names.dns_label(name))
        if name in seen:
            faults.duplicate(f"{path}.name", name)
        seen.add(name)
    faults.each(f"{path}.port", port.get("port", 0), names.port_number(port.get("port", 0)))
    faults.one_of(f"{path}.protocol", port.get("protocol"), ("SCTP", "TCP", "UDP"))
    faults.each(f"{path}.targetPort", port.get("targetPort", 0), names.port(port.get("targetPort", 0)))


def claim(faults: Faults, obj: Object, old: Object | None) -> None:
    spec = obj.get("spec") or {}
    modes = spec.get("accessModes") or ()
    if not modes:
        faults.required("spec.accessModes", "at least 1 access mode is required")
    for mode in modes:
        if mode not in _MODES:
            faults.not_supported("spec.accessModes", mode, _MODES)
    if "ReadWriteOncePod" in modes and len(set(modes)) > 1:
        faults.forbidden("spec.accessModes", "may not use ReadWriteOncePod with other access modes")
    if spec.get("selector") is not None:
        label_selector(faults, "spec.selector", spec["selector"])
    size = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    if size is None:
        faults.required("spec.resources[storage]")
    elif parse_milli(size) <= 0:
        faults.invalid("spec.resources[storage]", size, "must be greater than zero")
    if spec.get("storageClassName"):
        said = names.dns_subdomain(spec["storageClassName"])
        faults.each("spec.storageClassName", spec["storageClassName"], said)
    mode = spec.get("volumeMode")
    if mode is not None and mode not in ("Block", "Filesystem"):
        faults.not_supported("spec.volumeMode", mode, ("Block", "Filesystem"))
    if old is not None:
        _claim_update(faults, obj, old)


def _claim_update(faults: Faults, obj: Object, old: Object) -> None:
    spec, was = dict(obj.get("spec") or {}), dict(old.get("spec") or {})
    bound = (obj.get("status") or {}).get("phase") == "Bound"
    free = ["volumeAttributesClassName", "resources"] if bound else []
    free += [field for field in ("volumeName", "storageClassName") if not was.get(field)]
    for field in free:
        spec.pop(field, None)
        was.pop(field, None)
    if spec != was:
        detail = (
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for "
            "bound claims"
        )
        faults.forbidden("spec", detail)
    size, before = (
        ((each.get("spec") or {}).get("resources") or {}).get("requests", {}).get("storage", 0)
        for each in (obj, old)
    )
    if parse_milli(size) < parse_milli(before):
        faults.forbidden("spec.resources.requests.storage", "field can not be less than status.capacity")


def node(faults: Faults, obj: Object, _old: Object | None) -> None:
    seen: set[tuple[str, str]] = set()
    for index, taint in enumerate((obj.get("spec") or {}).get("taints") or ()):
        path, key, effect = f"metadata.taints[{index}]", taint.get("key", ""), taint.get("effect", "")
        faults.each(f"{path}.key", key, names.qualified_name(key))
        said = names.label_value(taint.get("value", ""))
        if said:
            faults.invalid(f"{path}.value", taint["value"], ";".join(said))
        faults.one_of(f"{path}.effect", effect, _EFFECTS)
        if (key, effect) in seen:
            faults.duplicate(path, {"key": key, "effect": effect})
        seen.add((key, effect))
    status = obj.get("status") or {}
    for field in ("capacity", "allocatable"):
        for name, amount in sorted((status.get(field) or {}).items()):
            quantity(faults, f"status.{field}.{name}", amount)


def priority_class(faults: Faults, obj: Object, old: Object | None) -> None:
    if (obj.get("metadata") or {}).get("name", "").startswith("system-"):
        detail = "priority class names with 'system-' prefix are reserved for system use only."
        faults.forbidden("metadata.name", detail)
    if obj.get("value", 0) > PRIORITY_MAX:
        detail = f"maximum allowed value of a user defined priority is {PRIORITY_MAX}"
        faults.forbidden("value", detail)
    policies = ("PreemptLowerPriority", "Never")
    faults.one_of("preemptionPolicy", obj.get("preemptionPolicy"), policies)
    if old is not None:
        if obj.get("value", 0) != old.get("value", 0):
            faults.forbidden("value", "may not be changed in an update.")
        was = old.get("preemptionPolicy")
        faults.immutable("preemptionPolicy", obj.get("preemptionPolicy"), was)


def lease(faults: Faults, obj: Object, _old: Object | None) -> None:
    spec = obj.get("spec") or {}
    for field in ("leaseDurationSeconds", "leaseTransitions"):
        least = 0 if field == "leaseTransitions" else 1
        if spec.get(field) is not None and spec[field] < least:
            words = "must be greater than or equal to 0" if least == 0 else "must be greater than 0"
            faults.invalid(f"spec.{field}", spec[field], words)


def event(faults: Faults, obj: Object, _old: Object | None) -> None:
    involved = (obj.get("involvedObject") or {}).get("namespace", "")
    own = (obj.get("metadata") or {}).get("namespace", "")
    # Events of cluster-scoped objects live in "default", and so may those of system components.
    if involved and own and involved != own:
        faults.invalid("involvedObject.namespace", involved, "does not match event.namespace")
    if not involved and own not in ("default", "kube-system"):
        faults.invalid("involvedObject.namespace", involved, "does not match event.namespace")
