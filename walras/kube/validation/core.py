"""ConfigMaps, Secrets, Namespaces, claims, Nodes and other small types."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Final

from walras.core.errors import Cause
from walras.core.quantity import parse_milli
from walras.kube.record import parse
from walras.kube.validation import names
from walras.kube.validation.amounts import quantity
from walras.kube.validation.faults import Faults, go
from walras.kube.validation.storage import claim_spec

Object = Mapping[str, Any]

DATA_MAX_BYTES: Final = 1024 * 1024
PRIORITY_MAX: Final = 1_000_000_000
_IMMUTABLE: Final = "field is immutable when `immutable` is set"
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
        elif key.startswith(".docker") and (detail := _json_fault(data[key])):
            faults.invalid(f"data[{key}]", "<secret contents redacted>", detail)
    if kind == "kubernetes.io/basic-auth" and not any(key in data for key in _BASIC_AUTH):
        for key in _BASIC_AUTH:
            faults.required(f"data[{key}]")
    account = "kubernetes.io/service-account.name"
    if kind == "kubernetes.io/service-account-token" and not (
        (obj.get("metadata") or {}).get("annotations") or {}
    ).get(account):
        faults.required(f"metadata.annotations[{account}]")


def _json_fault(encoded: str) -> str:
    """Why the content is no JSON object, in the words of Go's encoding/json; "" where it is one."""
    # Go reads what is no UTF-8 all the same.
    content = base64.b64decode(encoded).decode("utf-8", "replace")
    try:
        value = parse(content)
    except ValueError:
        first = content.strip()[:1]
        if not first or first in '{["-0123456789tfn':
            return "unexpected end of JSON input"
        return f"invalid character '{first}' looking for beginning of value"
    kind = type(value).__name__
    return "" if isinstance(value, dict) else f"json: cannot unmarshal {kind} into Go value of type map"


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
        _phase(faults, obj, old)
        return
    for name in (obj.get("spec") or {}).get("finalizers") or ():
        faults.each("spec.finalizers", name, names.qualified_name(name))
        if "/" not in name and name not in ("kubernetes", "orphan", "foregroundDeletion"):
            detail = "name is neither a standard finalizer name nor is it fully qualified"
            faults.invalid("spec.finalizers", name, detail)


def _phase(faults: Faults, obj: Object, old: Object) -> None:
    phase = (obj.get("status") or {}).get("phase", "")
    going = "deletionTimestamp" in old["metadata"]
    right = "Terminating" if going else "Active"
    if phase != right:
        when = "is not empty" if going else "is empty"
        faults.invalid("status.Phase", phase, f"may only be '{right}' if `deletionTimestamp` {when}")


def claim(faults: Faults, obj: Object, old: Object | None) -> None:
    spec = obj.get("spec") or {}
    claim_spec(faults, "spec", spec)
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
    capacity = ((old.get("status") or {}).get("capacity") or {}).get("storage", 0)
    if parse_milli(size) < parse_milli(before) and parse_milli(size) <= parse_milli(capacity):
        faults.forbidden("spec.resources.requests.storage", "field can not be less than status.capacity")


def node(faults: Faults, obj: Object, old: Object | None) -> None:
    before = ((old or {}).get("spec") or {}).get("providerID")
    if before and (obj.get("spec") or {}).get("providerID") != before:
        detail = 'node updates may not change providerID except from "" to valid'
        faults.forbidden("spec.providerID", detail)
    seen: set[tuple[str, str]] = set()
    for index, taint in enumerate((obj.get("spec") or {}).get("taints") or ()):
        path, key, effect = f"metadata.taints[{index}]", taint.get("key", ""), taint.get("effect", "")
        faults.each(f"{path}.key", key, names.qualified_name(key))
        said = names.label_value(taint.get("value", ""))
        if said:
            faults.invalid(f"{path}.value", taint["value"], ";".join(said))
        faults.one_of(f"{path}.effect", effect, _EFFECTS)
        if (key, effect) in seen:
            shown = go(Key=key, Value=taint.get("value", ""), Effect=effect, TimeAdded=taint.get("timeAdded"))
            detail = "taints must be unique by key and effect pair"
            faults.append(Cause("FieldValueDuplicate", f"Duplicate value: {shown}: {detail}", path))
        seen.add((key, effect))
    status = obj.get("status") or {}
    for field in ("capacity", "allocatable"):
        for name, amount in sorted((status.get(field) or {}).items()):
            quantity(faults, f"status.{field}.{name}", amount)


def priority_class(faults: Faults, obj: Object, old: Object | None) -> None:
    if (obj.get("metadata") or {}).get("name", "").startswith("system-"):
        name = obj["metadata"]["name"]
        detail = (
            "priority class names with 'system-' prefix are reserved for system use only. error: "
            f"{name} is not a known system priority class"
        )
        faults.forbidden("metadata.name", detail)
    elif obj.get("value", 0) > PRIORITY_MAX:
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
