"""Rules of ObjectMeta, labels, selectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from walras.kube.objects import FINALIZERS
from walras.kube.registry import Resource
from walras.kube.validation import names
from walras.kube.validation.faults import Faults

Object = Mapping[str, Any]

ANNOTATIONS_MAX_BYTES = 256 * 1024
# Types whose finalizers anybody may name.
_LENIENT = frozenset(("leases.coordination.k8s.io",))
# Types that an update is judged of as if they were new: by their Validate beside their ValidateUpdate.
_WHOLE = frozenset((
    "configmaps", "secrets", "pods", "serviceaccounts", "persistentvolumeclaims", "namespaces",
    "jobs.batch", "runtimeclasses.node.k8s.io", "ipaddresses.networking.k8s.io",
    "resourceclaimtemplates.resource.k8s.io", "csistoragecapacities.storage.k8s.io",
    "storageclasses.storage.k8s.io", "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io",
))  # fmt: skip
_FIXED = ("name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds")


def metadata(
    faults: Faults, resource: Resource, obj: Object, old: Object | None, check: names.NameCheck
) -> None:
    """ObjectMeta of any object; `check` is the type's rule for names."""
    meta = obj.get("metadata") or {}
    if old is None:
        if meta.get("generateName"):
            said = names.generated(check, meta["generateName"])
            faults.each("metadata.generateName", meta["generateName"], said)
        if not meta.get("name"):
            faults.required("metadata.name", "name or generateName is required")
        else:
            faults.each("metadata.name", meta["name"], check(meta["name"]))
        _namespace(faults, resource, meta)
    else:
        # Upstream judges the form of finalizers first where something changes, and of none twice.
        _finalizers(faults, meta.get("finalizers") or ())
        _update(faults, meta, old.get("metadata") or {})
        if resource.key in _WHOLE and meta.get("generateName"):
            said = names.generated(check, meta["generateName"])
            faults.each("metadata.generateName", meta["generateName"], said)
    faults.nonnegative("metadata.generation", meta.get("generation"))
    check_labels(faults, "metadata.labels", meta.get("labels"))
    check_annotations(faults, "metadata.annotations", meta.get("annotations"))
    _owners(faults, meta.get("ownerReferences") or ())
    if old is None:
        _finalizers(faults, meta.get("finalizers") or ())
    if resource.builtin and resource.key not in _LENIENT:
        _known_finalizers(faults, meta.get("finalizers") or ())
    _managed_fields(faults, meta.get("managedFields") or ())


def _namespace(faults: Faults, resource: Resource, meta: Object) -> None:
    namespace = meta.get("namespace")
    if not resource.namespaced:
        if namespace:
            faults.forbidden("metadata.namespace", "not allowed on this type")
    elif not namespace:
        faults.required("metadata.namespace")
    else:
        faults.each("metadata.namespace", namespace, names.dns_label(namespace))


def _update(faults: Faults, meta: Object, old: Object) -> None:
    for name in _FIXED:
        # What a client leaves out is filled in from the stored object.
        if meta.get(name) is not None:
            faults.immutable(f"metadata.{name}", meta[name], old.get(name))
    if old.get("deletionTimestamp"):
        extra = sorted(set(meta.get("finalizers") or ()) - set(old.get("finalizers") or ()))
        if extra:
            shown = ", ".join(f'"{name}"' for name in extra)
            faults.forbidden(
                "metadata.finalizers",
                "no new finalizers can be added if the object is being deleted, found new finalizers "
                f"[]string{{{shown}}}",
            )


def check_labels(faults: Faults, path: str, given: Object | None) -> None:
    for key, value in sorted((given or {}).items()):
        faults.each(path, key, names.qualified_name(key))
        faults.each(path, value, names.label_value(value))


def check_annotations(faults: Faults, path: str, given: Object | None) -> None:
    size = 0
    for key, value in sorted((given or {}).items()):
        faults.each(path, key, names.qualified_name(key.lower()))
        size += len(key.encode()) + len(value.encode())
    if size > ANNOTATIONS_MAX_BYTES:
        faults.too_long(path, ANNOTATIONS_MAX_BYTES)


def _owners(faults: Faults, owners: Any) -> None:
    path, controller = "metadata.ownerReferences", ""
    for owner in owners:
        if not str(owner.get("apiVersion", "")).rpartition("/")[2]:
            faults.invalid(f"{path}.apiVersion", owner.get("apiVersion", ""), "version must not be empty")
        for name in ("kind", "name", "uid"):
            if not owner.get(name):
                faults.invalid(f"{path}.{name}", "", "must not be empty")
        if owner.get("controller"):
            current = f"{owner.get('kind')}/{owner.get('name')}"
            if controller:
                faults.invalid(
                    path,
                    list(owners),
                    'Only one reference can have Controller set to true. Found "true" in references for '
                    f"{controller} and {current}",
                )
            controller = controller or current


def _finalizers(faults: Faults, finalizers: Any) -> None:
    for name in finalizers:
        faults.each("metadata.finalizers", name, names.qualified_name(name))
    if "orphan" in finalizers and "foregroundDeletion" in finalizers:
        detail = "finalizer orphan and foregroundDeletion cannot be both set"
        faults.invalid("metadata.finalizers", list(finalizers), detail)


def _known_finalizers(faults: Faults, finalizers: Any) -> None:
    for index, name in enumerate(finalizers):
        if "/" not in name and name not in FINALIZERS:
            detail = "name is neither a standard finalizer name nor is it fully qualified"
            faults.invalid(f"metadata.finalizers[{index}]", name, detail)


def _managed_fields(faults: Faults, entries: Any) -> None:
    for index, entry in enumerate(entries):
        path = f"metadata.managedFields[{index}]"
        if entry.get("operation") not in ("Apply", "Update"):
            faults.invalid(f"{path}.operation", entry.get("operation", ""), "must be `Apply` or `Update`")
        if entry.get("fieldsType", "FieldsV1") != "FieldsV1":
            faults.invalid(f"{path}.fieldsType", entry["fieldsType"], "must be `FieldsV1`")


def label_selector(faults: Faults, path: str, selector: Object) -> None:
    check_labels(faults, f"{path}.matchLabels", selector.get("matchLabels"))
    for index, expression in enumerate(selector.get("matchExpressions") or ()):
        requirement(faults, f"{path}.matchExpressions[{index}]", expression)


def requirement(
    faults: Faults, path: str, expression: Object, *, numeric: bool = False, any_value: bool = False
) -> None:
    """One label requirement; `numeric` allows Gt and Lt, `any_value` what no label can have."""
    operator, values = expression.get("operator", ""), expression.get("values") or ()
    if operator in ("In", "NotIn"):
        if not values:
            faults.required(f"{path}.values", "must be specified when `operator` is 'In' or 'NotIn'")
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            faults.forbidden(f"{path}.values", detail)
    elif numeric and operator in ("Gt", "Lt"):
        if len(values) != 1:
            detail = "must be specified single value when `operator` is 'Lt' or 'Gt'"
            faults.required(f"{path}.values", detail)
    else:
        faults.invalid(f"{path}.operator", operator, "not a valid selector operator")
    faults.each(f"{path}.key", expression.get("key", ""), names.qualified_name(expression.get("key", "")))
    for index, value in enumerate(() if any_value else values):
        faults.each(f"{path}.values[{index}]", value, names.label_value(value))


def selects(selector: Object, given: Object) -> bool:
    """Whether a label selector matches labels; an unknown operator matches nothing."""
    if any(given.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    for expression in selector.get("matchExpressions") or ():
        key, operator = expression.get("key"), expression.get("operator")
        holds = {
            "In": given.get(key) in (expression.get("values") or ()) and key in given,
            "NotIn": given.get(key) not in (expression.get("values") or ()),
            "Exists": key in given,
            "DoesNotExist": key not in given,
        }
        if not holds.get(operator, False):
            return False
    return True
