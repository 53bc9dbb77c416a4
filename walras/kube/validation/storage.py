"""Volumes, storage classes and drivers: rules of pkg/apis/{core,storage}/validation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from walras.core.quantity import parse_milli
from walras.kube.validation import names
from walras.kube.validation.faults import Faults, Verbatim, go
from walras.kube.validation.metadata import label_selector, requirement

Object = Mapping[str, Any]

MODES: Final = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
VOLUME_MODES: Final = ("Block", "Filesystem")
_RECLAIM: Final = ("Delete", "Recycle", "Retain")
# In the order in which upstream looks for the source of a volume.
_SOURCES: Final = (
    "hostPath", "gcePersistentDisk", "awsElasticBlockStore", "glusterfs", "flocker", "nfs", "rbd", "quobyte",
    "cephfs", "iscsi", "cinder", "fc", "flexVolume", "azureFile", "vsphereVolume", "photonPersistentDisk",
    "portworxVolume", "azureDisk", "scaleIO", "local", "storageos", "csi",
)  # fmt: skip
_MOUNT_OPTIONS: Final = "volume.beta.kubernetes.io/mount-options"
# The volumes that are mounted with options.
_MOUNTED: Final = frozenset((
    "gcePersistentDisk", "awsElasticBlockStore", "glusterfs", "nfs", "rbd", "quobyte", "iscsi", "cinder",
    "cephfs", "azureFile", "vsphereVolume", "azureDisk", "photonPersistentDisk",
))  # fmt: skip
_PATH_TYPES: Final = (
    "", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket",
)  # fmt: skip
_GROUP_POLICIES: Final = ("File", "None", "ReadWriteOnceWithFSType")
_LIFECYCLES: Final = ("Persistent", "Ephemeral")
# A token for a driver lives between ten minutes and 2**32 seconds.
_TOKEN_SECONDS: Final = (600, 2**32)


def access_modes(faults: Faults, path: str, modes: Any, detail: str = "") -> None:
    if not modes:
        faults.required(path, detail)
    for mode in modes or ():
        if mode not in MODES:
            faults.not_supported(path, mode, MODES)
    known = {mode for mode in modes or () if mode in MODES}
    if "ReadWriteOncePod" in known and len(known) > 1:
        faults.forbidden(path, "may not use ReadWriteOncePod with other access modes")


def claim_spec(faults: Faults, path: str, spec: Object) -> None:
    """What a claim asks for, by itself or in a template."""
    if spec.get("selector") is not None:
        label_selector(faults, f"{path}.selector", spec["selector"])
    detail = "at least 1 access mode is required"
    access_modes(faults, f"{path}.accessModes", spec.get("accessModes"), detail)
    size = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    if size is None:
        faults.required(f"{path}.resources[storage]")
    elif parse_milli(size) <= 0:
        faults.invalid(f"{path}.resources[storage]", size, "must be greater than zero")
    if spec.get("storageClassName"):
        said = names.dns_subdomain(spec["storageClassName"])
        faults.each(f"{path}.storageClassName", spec["storageClassName"], said)
    mode = spec.get("volumeMode")
    if mode is not None and mode not in VOLUME_MODES:
        faults.not_supported(f"{path}.volumeMode", mode, VOLUME_MODES)


def volume(faults: Faults, obj: Object, old: Object | None) -> None:
    spec = obj.get("spec") or {}
    access_modes(faults, "spec.accessModes", spec.get("accessModes"))
    capacity = spec.get("capacity") or None
    if not capacity:
        faults.required("spec.capacity")
    if capacity is None or "storage" not in capacity or len(capacity) > 1:
        faults.not_supported("spec.capacity", capacity, ("storage",))
    for name, amount in sorted((capacity or {}).items()):
        if parse_milli(amount) <= 0:
            faults.invalid(f"spec.capacity[{name}]", amount, "must be greater than zero")
    policy = spec.get("persistentVolumeReclaimPolicy")
    if policy and policy not in _RECLAIM:
        faults.not_supported("spec.persistentVolumeReclaimPolicy", policy, _RECLAIM)
    if spec.get("nodeAffinity") is not None:
        _affinity(faults, "spec.nodeAffinity", spec["nodeAffinity"])
    _sources(faults, spec)
    if spec.get("storageClassName"):
        said = names.dns_subdomain(spec["storageClassName"])
        faults.each("spec.storageClassName", spec["storageClassName"], said)
    mode = spec.get("volumeMode")
    if mode is not None and mode not in VOLUME_MODES:
        faults.not_supported("spec.volumeMode", mode, VOLUME_MODES)
    if _MOUNT_OPTIONS in (obj["metadata"].get("annotations") or {}) and not _MOUNTED & spec.keys():
        detail = "may not specify mount options for this volume type"
        faults.forbidden(f"metadata.annotations.{_MOUNT_OPTIONS}", detail)
    if old is not None:
        _volume_update(faults, spec, old.get("spec") or {})


def _volume_update(faults: Faults, spec: Object, was: Object) -> None:
    if any(spec.get(name) != was.get(name) for name in _SOURCES):
        detail = "spec.persistentvolumesource is immutable after creation"
        faults.forbidden("spec.persistentvolumesource", detail)
    faults.immutable("volumeMode", spec.get("volumeMode"), was.get("volumeMode"))
    if was.get("nodeAffinity") is not None:
        faults.immutable("nodeAffinity", spec.get("nodeAffinity"), was["nodeAffinity"])
    name = "volumeAttributesClassName"
    if was.get(name) is not None and spec.get(name) is None:
        faults.forbidden(f"spec.{name}", "update from non-nil value to nil is forbidden")


def _affinity(faults: Faults, path: str, affinity: Object) -> None:
    required = affinity.get("required")
    if required is None:
        faults.required(f"{path}.required", "must specify required node constraints")
        return
    terms = required.get("nodeSelectorTerms") or ()
    if not terms:
        faults.required(f"{path}.required.nodeSelectorTerms", "must have at least one node selector term")
    for index, term in enumerate(terms):
        for number, expression in enumerate(term.get("matchExpressions") or ()):
            at = f"{path}.required.nodeSelectorTerms[{index}].matchExpressions[{number}]"
            requirement(faults, at, expression, numeric=True)


def _sources(faults: Faults, spec: Object) -> None:
    found = [name for name in _SOURCES if spec.get(name) is not None]
    if not found:
        faults.required("spec", "must specify a volume type")
        return
    _source(faults, f"spec.{found[0]}", found[0], spec[found[0]], spec)
    for name in found[1:]:
        faults.forbidden(f"spec.{name}", "may not specify more than 1 volume type")


def _source(faults: Faults, path: str, kind: str, source: Object, spec: Object) -> None:
    match kind:
        case "hostPath":
            _host_path(faults, f"{path}.path", source.get("path"))
            if source.get("type", "") not in _PATH_TYPES:
                faults.not_supported(f"{path}.type", source["type"], _PATH_TYPES)
        case "nfs":
            for field in ("server", "path"):
                if not source.get(field):
                    faults.required(f"{path}.{field}")
            if source.get("path") and not source["path"].startswith("/"):
                faults.invalid(f"{path}.path", source["path"], "must be an absolute path")
        case "local":
            _host_path(faults, f"{path}.path", source.get("path"))
            if spec.get("nodeAffinity") is None:
                faults.required("metadata.annotations", "Local volume requires node affinity")
        case "csi":
            driver_name(faults, f"{path}.driver", source.get("driver", ""))
            if not source.get("volumeHandle"):
                faults.required(f"{path}.volumeHandle")


def _host_path(faults: Faults, path: str, at: str | None) -> None:
    if not at:
        faults.required(path)
    elif ".." in at.split("/"):
        faults.invalid(path, at, "must not contain '..'")


def driver_name(faults: Faults, path: str, name: str) -> None:
    if not name:
        faults.required(path)
    if len(name) > 63:
        faults.too_long(path, 63)
    if name:
        faults.each(path, name, names.dns_subdomain(name.lower()))


def storage_class(faults: Faults, obj: Object, old: Object | None) -> None:
    if old is not None:
        for field in ("parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"):
            faults.immutable(field, obj.get(field), old.get(field))
        return
    provisioner = obj.get("provisioner", "")
    if not provisioner:
        faults.required("provisioner")
    else:
        faults.each("provisioner", provisioner, names.qualified_name(provisioner.lower()))
    _parameters(faults, obj.get("parameters"), need=False)
    if obj.get("reclaimPolicy") not in ("Delete", "Retain"):
        faults.not_supported("reclaimPolicy", obj.get("reclaimPolicy", ""), ("Delete", "Retain"))
    mode = obj.get("volumeBindingMode")
    if mode not in ("Immediate", "WaitForFirstConsumer"):
        faults.not_supported("volumeBindingMode", mode, ("Immediate", "WaitForFirstConsumer"))
    for index, term in enumerate(obj.get("allowedTopologies") or ()):
        for number, expression in enumerate(term.get("matchLabelExpressions") or ()):
            at, key = f"allowedTopologies[{index}].matchLabelExpressions[{number}]", expression.get("key", "")
            if not expression.get("values"):
                faults.required(f"{at}.values")
            faults.each(f"{at}.key", key, names.qualified_name(key))


def _parameters(faults: Faults, parameters: Any, *, need: bool) -> None:
    if need and not parameters:
        faults.required("parameters", "must contain at least one key/value pair")
    size = 0
    for key, value in sorted((parameters or {}).items()):
        if not key:
            faults.invalid("parameters", key, "field can not be empty.")
        size += len(key) + len(value)
    if size > 256 * 1024:
        faults.too_long("parameters", 256 * 1024)


def driver(faults: Faults, obj: Object, old: Object | None) -> None:
    spec, was = obj.get("spec") or {}, (old or {}).get("spec") or {}
    if old is None:
        driver_name(faults, "metadata.name", obj["metadata"].get("name", ""))
    if old is not None:
        faults.immutable("spec.attachedRequired", spec.get("attachRequired"), was.get("attachRequired"))
        modes = "volumeLifecycleModes"
        faults.immutable(f"spec.{modes}", spec.get(modes), was.get(modes))
    policy = spec.get("fsGroupPolicy")
    if policy not in _GROUP_POLICIES:
        faults.not_supported("spec.fsGroupPolicy", policy, _GROUP_POLICIES)
    seen: set[str] = set()
    for index, token in enumerate(spec.get("tokenRequests") or ()):
        at, audience, seconds = (
            f"spec.tokenRequests[{index}]",
            token.get("audience", ""),
            token.get("expirationSeconds"),
        )
        if audience in seen:
            faults.duplicate(f"{at}.audience", audience)
            continue
        seen.add(audience)
        if seconds is None:
            continue
        if seconds < _TOKEN_SECONDS[0]:
            faults.invalid(
                f"{at}.expirationSeconds", seconds, "may not specify a duration less than 10 minutes"
            )
        if seconds > _TOKEN_SECONDS[1]:
            detail = "may not specify a duration larger than 2^32 seconds"
            faults.invalid(f"{at}.expirationSeconds", seconds, detail)
    for mode in spec.get("volumeLifecycleModes") or ():
        if mode not in _LIFECYCLES:
            faults.not_supported("spec.volumeLifecycleModes", mode, _LIFECYCLES)


def node_drivers(faults: Faults, obj: Object, old: Object | None) -> None:
    """A CSINode: the drivers of a node, whose names, ids and topology stay."""
    known = {each.get("name"): each for each in ((old or {}).get("spec") or {}).get("drivers") or ()}
    seen: set[str] = set()
    for index, each in enumerate((obj.get("spec") or {}).get("drivers") or ()):
        at, name, node = f"spec.drivers[{index}]", each.get("name", ""), each.get("nodeID", "")
        driver_name_of_node(faults, f"{at}.name", name)
        if not node:
            faults.required(f"{at}.nodeID")
        elif len(node) > 192:
            faults.invalid(f"{at}.nodeID", node, "must be 192 characters or less")
        count = (each.get("allocatable") or {}).get("count")
        faults.nonnegative(f"{at}.allocatable.count", count)
        keys: set[str] = set()
        for key in each.get("topologyKeys") or ():
            if key in keys:
                faults.duplicate(at, key)
            keys.add(key)
            faults.each(at, key, names.qualified_name(key))
        if name in seen:
            faults.duplicate(f"{at}.name", name)
        seen.add(name)
        before = known.get(name)
        if before is not None and any(
            each.get(field) != before.get(field) for field in ("name", "nodeID", "topologyKeys")
        ):
            shown = go(
                Name=name,
                NodeID=node,
                TopologyKeys=each.get("topologyKeys"),
                Allocatable=each.get("allocatable"),
            )
            faults.invalid("spec.drivers", shown, "field is immutable")


def driver_name_of_node(faults: Faults, path: str, name: str) -> None:
    if not name:
        faults.required(path)
    if len(name) > 63:
        faults.too_long(path, 63)
    faults.each(path, name, names.dns_subdomain(name))


def capacity(faults: Faults, obj: Object, old: Object | None) -> None:
    name = obj.get("storageClassName", "")
    if old is not None:
        for field in ("nodeTopology", "storageClassName"):
            faults.immutable(field, obj.get(field), old.get(field))
    else:
        faults.each("storageClassName", name, names.dns_subdomain(name))
    amount = obj.get("capacity")
    if amount is not None and parse_milli(amount) < 0:
        faults.invalid("capacity", amount, "must be greater than or equal to 0")


def attachment(faults: Faults, obj: Object, old: Object | None) -> None:
    spec = obj.get("spec") or {}
    source = spec.get("source") or {}
    attacher = spec.get("attacher", "")
    driver_name(faults, "spec.attacher", attacher)
    volume_name, inline = source.get("persistentVolumeName"), source.get("inlineVolumeSpec")
    if (volume_name is None) == (inline is None):
        detail = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"
        faults.required("spec.source", detail)
    elif volume_name is not None:
        if not volume_name:
            faults.required("spec.source.persistentVolumeName", "must specify non empty persistentVolumeName")
        else:
            faults.each("spec.source.persistentVolumeName", volume_name, names.dns_subdomain(volume_name))
    node = spec.get("nodeName", "")
    faults.each("spec.nodeName", node, names.dns_subdomain(node))
    if old is not None and spec != (old.get("spec") or {}):
        from_ = go(PersistentVolumeName=volume_name, InlineVolumeSpec=inline)
        shown = Verbatim(f'{{"Attacher":"{attacher}","Source":{from_},"NodeName":"{node}"}}')
        faults.invalid("spec", shown, "field is immutable")


def attributes_class(faults: Faults, obj: Object, old: Object | None) -> None:
    if old is not None:
        for field in ("driverName", "parameters"):
            if obj.get(field) != old.get(field):
                faults.forbidden(field, f"updates to {field} are forbidden.")
        return
    name = obj.get("driverName", "")
    if not name:
        faults.required("driverName")
    else:
        faults.each("driverName", name.lower(), names.qualified_name(name.lower()))
    _parameters(faults, obj.get("parameters"), need=True)
