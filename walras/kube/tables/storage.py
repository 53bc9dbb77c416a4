"""The rows of volumes, claims and their classes and drivers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from walras.kube.tables.columns import UNSET, Cells, age, name, spec, status

Object = dict[str, Any]

_MODES: Final = {
    "ReadWriteOnce": "RWO",
    "ReadOnlyMany": "ROX",
    "ReadWriteMany": "RWX",
    "ReadWriteOncePod": "RWOP",
}
_CLASS: Final = "volume.beta.kubernetes.io/storage-class"
_DEFAULTS: Final = (
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
)


def _modes(held: Any) -> str:
    return ",".join(short for mode, short in _MODES.items() if mode in (held or ()))


def _phase(obj: Object) -> str:
    deleted = (obj.get("metadata") or {}).get("deletionTimestamp")
    return "Terminating" if deleted else str(status(obj).get("phase", ""))


def _class(obj: Object) -> str:
    annotated = ((obj.get("metadata") or {}).get("annotations") or {}).get(_CLASS)
    return str(spec(obj).get("storageClassName", "") if annotated is None else annotated)


def _volume(volume: Object, now_ms: int) -> list[Any]:
    wants, claim = spec(volume), spec(volume).get("claimRef")
    return [
        name(volume),
        str((wants.get("capacity") or {}).get("storage", "0")),
        _modes(wants.get("accessModes")),
        wants.get("persistentVolumeReclaimPolicy", ""),
        _phase(volume),
        "" if claim is None else f"{claim.get('namespace', '')}/{claim.get('name', '')}",
        _class(volume),
        wants.get("volumeAttributesClassName", UNSET),
        status(volume).get("reason", ""),
        age(volume, now_ms),
        wants.get("volumeMode", UNSET),
    ]


def _claim(claim: Object, now_ms: int) -> list[Any]:
    wants, has = spec(claim), status(claim)
    bound = bool(wants.get("volumeName"))
    return [
        name(claim),
        _phase(claim),
        wants.get("volumeName", ""),
        str((has.get("capacity") or {}).get("storage", "0")) if bound else "",
        _modes(has.get("accessModes")) if bound else "",
        _class(claim),
        wants.get("volumeAttributesClassName", UNSET),
        age(claim, now_ms),
        wants.get("volumeMode", UNSET),
    ]


def _storage_class(obj: Object, now_ms: int) -> list[Any]:
    annotations = (obj.get("metadata") or {}).get("annotations") or {}
    default = any(annotations.get(key) == "true" for key in _DEFAULTS)
    return [
        f"{name(obj)} (default)" if default else name(obj),
        obj.get("provisioner", ""),
        obj.get("reclaimPolicy", "Delete"),
        obj.get("volumeBindingMode", "Immediate"),
        bool(obj.get("allowVolumeExpansion")),
        age(obj, now_ms),
    ]


def _driver(obj: Object, now_ms: int) -> list[Any]:
    wants, tokens = spec(obj), spec(obj).get("tokenRequests")
    return [
        name(obj),
        wants.get("attachRequired", True),
        wants.get("podInfoOnMount", False),
        wants.get("storageCapacity", False),
        UNSET if tokens is None else ",".join(each.get("audience", "") for each in tokens),
        wants.get("requiresRepublish", False),
        ",".join(wants.get("volumeLifecycleModes") or ()) or "<none>",
        age(obj, now_ms),
    ]


def _attachment(obj: Object, now_ms: int) -> list[Any]:
    return [
        name(obj),
        spec(obj).get("attacher", ""),
        (spec(obj).get("source") or {}).get("persistentVolumeName", ""),
        spec(obj).get("nodeName", ""),
        bool(status(obj).get("attached")),
        age(obj, now_ms),
    ]


CELLS: Final[Mapping[str, Cells]] = {
    "persistentvolumes": _volume,
    "persistentvolumeclaims": _claim,
    "storageclasses.storage.k8s.io": _storage_class,
    "csidrivers.storage.k8s.io": _driver,
    "csinodes.storage.k8s.io": lambda obj, now_ms: [
        name(obj),
        len(spec(obj).get("drivers") or ()),
        age(obj, now_ms),
    ],
    "volumeattachments.storage.k8s.io": _attachment,
    "volumeattributesclasses.storage.k8s.io": lambda obj, now_ms: [
        name(obj),
        obj.get("driverName", ""),
        age(obj, now_ms),
    ],
}
