"""What a volume is made of beyond the cluster's own objects: disks, network filesystems, drivers, images."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from walras.kube.validation import names
from walras.kube.validation.faults import Faults
from walras.kube.validation.metadata import check_annotations, check_labels
from walras.kube.validation.storage import claim_spec, driver_name

Object = Mapping[str, Any]

_PARTITION: Final = "must be between 1 and 255, inclusive"
_PAIR: Final = "must be a host:port pair or multiple pairs separated by commas"
_PULL_POLICIES: Final = ("Always", "IfNotPresent", "Never")
_BYTE_MAX: Final = 255
_TENANT_MAX: Final = 64
_INITIATORS: Final = {
    "iqn": re.compile(r".*iqn\.\d{4}-\d{2}\.([A-Za-z0-9.-]+)(:[^,;*&$|\s]+)", re.ASCII),
    "eui": re.compile(r"eui.[A-Za-z0-9]{16}", re.ASCII),
    "naa": re.compile(r"naa.[A-Za-z0-9]{32}", re.ASCII),
}
# What may not be left out, in the order in which it is asked for.
_REQUIRED: Final[Mapping[str, tuple[str, ...]]] = {
    "nfs": ("server", "path"),
    "iscsi": ("targetPortal", "iqn"),
    "rbd": ("monitors", "image"),
    "glusterfs": ("endpoints", "path"),
    "cephfs": ("monitors",),
    "azureFile": ("secretName", "shareName"),
    "azureDisk": ("diskName", "diskURI"),
    "gcePersistentDisk": ("pdName",),
    "awsElasticBlockStore": ("volumeID",),
    "cinder": ("volumeID",),
    "vsphereVolume": ("volumePath",),
    "flexVolume": ("driver",),
    "gitRepo": ("repository",),
    "portworxVolume": ("volumeID",),
    "scaleIO": ("gateway", "system", "volumeName"),
    "storageos": ("volumeName",),
    "photonPersistentDisk": ("pdID",),
}
_CACHING: Final = ("None", "ReadOnly", "ReadWrite")
_KINDS: Final = ("Dedicated", "Managed", "Shared")
_MANAGED: Final = (
    "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}"
)
_BLOB: Final = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"


def check(faults: Faults, path: str, kind: str, source: Object, *, is_pod: bool) -> None:
    """The source of a volume of one of these kinds; of others nothing is said."""
    # The one kind whose path has another name than its field.
    path = path.replace(".gcePersistentDisk", ".persistentDisk")
    for field in _REQUIRED.get(kind, ()):
        if not source.get(field):
            faults.required(f"{path}.{field}")
    if kind == "image":
        if is_pod and not source.get("reference"):
            faults.required(f"{path}.reference")
        faults.one_of(f"{path}.pullPolicy", source.get("pullPolicy"), _PULL_POLICIES)
    own = _MORE.get(kind)
    if own is not None:
        own(faults, path, source)


def _nfs(faults: Faults, path: str, source: Object) -> None:
    if not source.get("path", "").startswith("/"):
        faults.invalid(f"{path}.path", source.get("path", ""), "must be an absolute path")


def _iscsi(faults: Faults, path: str, source: Object) -> None:
    for field in ("iqn", "initiatorName"):
        if source.get(field):
            _initiator(faults, f"{path}.{field.lower()}", source[field])
    if not 0 <= source.get("lun", 0) <= _BYTE_MAX:
        faults.invalid(f"{path}.lun", source["lun"], f"must be between 0 and {_BYTE_MAX}, inclusive")
    secure = source.get("chapAuthDiscovery") or source.get("chapAuthSession")
    if secure and source.get("secretRef") is None:
        faults.required(f"{path}.secretRef")


def _initiator(faults: Faults, path: str, name: str) -> None:
    form = _INITIATORS.get(name[:3])
    if form is None:
        faults.invalid(path, name, "must be valid format starting with iqn, eui, or naa")
    elif not form.fullmatch(name):
        faults.invalid(path, name, "must be valid format")


def _fibre_channel(faults: Faults, path: str, source: Object) -> None:
    targets, others, lun = source.get("targetWWNs") or [], source.get("wwids") or [], source.get("lun")
    if not targets and not others:
        faults.required(f"{path}.targetWWNs", "must specify either targetWWNs or wwids, but not both")
    if targets and others:
        detail = "targetWWNs and wwids can not be specified simultaneously"
        faults.invalid(f"{path}.targetWWNs", targets, detail)
    if targets and lun is None:
        faults.required(f"{path}.lun", "lun is required if targetWWNs is specified")
    elif targets and not 0 <= (lun or 0) <= _BYTE_MAX:
        faults.invalid(f"{path}.lun", lun, f"must be between 0 and {_BYTE_MAX}, inclusive")


def _disk(faults: Faults, path: str, source: Object) -> None:
    if not 0 <= source.get("partition", 0) <= _BYTE_MAX:
        faults.invalid(f"{path}.partition", source["partition"], _PARTITION)


def _azure_disk(faults: Faults, path: str, source: Object) -> None:
    kind, where = source.get("kind"), source.get("diskURI", "")
    if source.get("cachingMode") is not None and source["cachingMode"] not in _CACHING:
        faults.not_supported(f"{path}.cachingMode", source["cachingMode"], _CACHING)
    if kind is not None and kind not in _KINDS:
        faults.not_supported(f"{path}.kind", kind, _KINDS)
    if kind == "Managed" and not where.startswith("/subscriptions/"):
        faults.not_supported(f"{path}.diskURI", where, (_MANAGED,))
    elif kind is not None and kind != "Managed" and not where.startswith("https://"):
        faults.not_supported(f"{path}.diskURI", where, (_BLOB,))


def _secret(faults: Faults, path: str, source: Object) -> None:
    if source.get("secretRef") is not None and not source["secretRef"].get("name"):
        faults.required(f"{path}.secretRef.name")


def _flex(faults: Faults, path: str, source: Object) -> None:
    for option in source.get("options") or {}:
        if f".{option.partition('/')[0].lower()}".endswith((".kubernetes.io", ".k8s.io")):
            detail = "kubernetes.io and k8s.io namespaces are reserved"
            faults.invalid(f"{path}.options[{option}]", option, detail)


def _flocker(faults: Faults, path: str, source: Object) -> None:
    name, uuid = source.get("datasetName", ""), source.get("datasetUUID", "")
    if not name and not uuid:
        faults.required(path, "one of datasetName and datasetUUID is required")
    if name and uuid:
        faults.invalid(path, "resource", "datasetName and datasetUUID can not be specified simultaneously")
    if "/" in name:
        faults.invalid(f"{path}.datasetName", name, "must not contain '/'")


def _git(faults: Faults, path: str, source: Object) -> None:
    directory = source.get("directory", "")
    faults.each(f"{path}.directory", directory, names.relative_path(directory))


def _storage_os(faults: Faults, path: str, source: Object) -> None:
    for field in ("volumeName", "volumeNamespace"):
        if source.get(field):
            faults.each(f"{path}.{field}", source[field], names.dns_label(source[field]))
    _secret(faults, path, source)


def _quobyte(faults: Faults, path: str, source: Object) -> None:
    registry = source.get("registry", "")
    if not registry:
        faults.required(f"{path}.registry", _PAIR)
    elif len(source.get("tenant", "")) > _TENANT_MAX:
        detail = f"must be a UUID and may not exceed a length of {_TENANT_MAX} characters"
        faults.required(f"{path}.tenant", detail)
    else:
        for pair in registry.split(","):
            if ":" not in pair:
                faults.invalid(f"{path}.registry", registry, _PAIR)
    if not source.get("volume"):
        faults.required(f"{path}.volume")


def _csi(faults: Faults, path: str, source: Object) -> None:
    driver_name(faults, f"{path}.driver", source.get("driver", ""))
    secret = source.get("nodePublishSecretRef")
    if secret is not None and not secret.get("name"):
        faults.required(f"{path}.nodePublishSecretRef.name")
    elif secret is not None:
        faults.each(f"{path}.name", secret["name"], names.dns_subdomain(secret["name"]))


def _ephemeral(faults: Faults, path: str, source: Object) -> None:
    template, at = source.get("volumeClaimTemplate"), f"{path}.volumeClaimTemplate"
    if template is None:
        faults.required(at)
        return
    metadata = template.get("metadata") or {}
    check_annotations(faults, f"{at}.metadata.annotations", metadata.get("annotations"))
    check_labels(faults, f"{at}.metadata.labels", metadata.get("labels"))
    for field in sorted(metadata.keys() - {"annotations", "labels", "creationTimestamp"}):
        faults.forbidden(f"{at}.metadata.{field}", "cannot be set")
    claim_spec(faults, f"{at}.spec", template.get("spec") or {})


_MORE: Final[Mapping[str, Callable[[Faults, str, Object], None]]] = {
    "nfs": _nfs,
    "iscsi": _iscsi,
    "fc": _fibre_channel,
    "gcePersistentDisk": _disk,
    "awsElasticBlockStore": _disk,
    "azureDisk": _azure_disk,
    "cinder": _secret,
    "flexVolume": _flex,
    "flocker": _flocker,
    "gitRepo": _git,
    "storageos": _storage_os,
    "quobyte": _quobyte,
    "csi": _csi,
    "ephemeral": _ephemeral,
}
