"""Volumes of a pod, and how containers mount them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from walras.core.quantity import parse_milli
from walras.kube.validation import downward, names, sources
from walras.kube.validation.faults import Faults

Object = Mapping[str, Any]

_PROPAGATIONS: Final = ("Bidirectional", "HostToContainer", "None")
_TOKEN_SECONDS_MIN: Final = 600
_MODE: Final = "must be a number between 0 and 0777 (octal), both inclusive"


def volumes(faults: Faults, path: str, given: Any, *, is_pod: bool = False) -> dict[str, Object]:
    """Checks the list; returns the volumes without fault by name, which mounts may name."""
    good: dict[str, Object] = {}
    for index, volume in enumerate(given):
        at, own = f"{path}[{index}]", Faults()
        _source(own, at, volume, is_pod=is_pod)
        name = volume.get("name", "")
        if not name:
            own.required(f"{at}.name")
        else:
            own.each(f"{at}.name", name, names.dns_label(name))
        if name in good:
            own.duplicate(f"{at}.name", name)
        if not own:
            good[name] = volume
        faults.extend(own)
    return good


def _source(faults: Faults, path: str, volume: Object, *, is_pod: bool) -> None:
    kinds = [kind for kind in volume if kind != "name"]
    if not kinds:
        faults.required(path, "must specify a volume type")
    for kind in kinds[1:]:
        faults.forbidden(f"{path}.{kind}", "may not specify more than 1 volume type")
    for kind in kinds[:1]:
        check = _SOURCES.get(kind)
        if check is not None:
            check(faults, f"{path}.{kind}", volume[kind])
        else:
            sources.check(faults, f"{path}.{kind}", kind, volume[kind], is_pod=is_pod)


def _empty_dir(faults: Faults, path: str, source: Object) -> None:
    if "sizeLimit" in source and parse_milli(source["sizeLimit"]) < 0:
        faults.forbidden(f"{path}.sizeLimit", "SizeLimit field must be a valid resource quantity")


def _secret(faults: Faults, path: str, source: Object) -> None:
    if not source.get("secretName"):
        faults.required(f"{path}.secretName")
    _files(faults, path, source)


def _config_map(faults: Faults, path: str, source: Object) -> None:
    if not source.get("name"):
        faults.required(f"{path}.name")
    _files(faults, path, source)


def _files(faults: Faults, path: str, source: Object) -> None:
    _mode(faults, f"{path}.defaultMode", source.get("defaultMode"))
    for index, item in enumerate(source.get("items") or ()):
        at = f"{path}.items[{index}]"
        for name in ("key", "path"):
            if not item.get(name):
                faults.required(f"{at}.{name}")
        _inner_path(faults, f"{at}.path", item.get("path", ""))
        _mode(faults, f"{at}.mode", item.get("mode"))


def _mode(faults: Faults, path: str, mode: int | None) -> None:
    if mode is not None and not 0 <= mode <= 0o777:
        faults.invalid(path, mode, _MODE)


def _inner_path(faults: Faults, path: str, target: str) -> None:
    faults.each(path, target, names.relative_path(target))
    if target.startswith("..") and not target.startswith("../") and target != "..":
        faults.invalid(path, target, "must not start with '..'")


def _claim(faults: Faults, path: str, source: Object) -> None:
    if not source.get("claimName"):
        faults.required(f"{path}.claimName")


def _host_path(faults: Faults, path: str, source: Object) -> None:
    if not source.get("path"):
        faults.required(f"{path}.path")
    elif ".." in source["path"].split("/"):
        faults.invalid(f"{path}.path", source["path"], "must not contain '..'")


def _downward(faults: Faults, path: str, source: Object) -> None:
    _mode(faults, f"{path}.defaultMode", source.get("defaultMode"))
    # Upstream's paths do not say which of the items it is.
    for item in source.get("items") or ():
        if not item.get("path"):
            faults.required(f"{path}.path")
        _inner_path(faults, f"{path}.path", item.get("path", ""))
        if item.get("fieldRef") is not None:
            downward.field(faults, f"{path}.fieldRef", item["fieldRef"], downward.IN_FILES)
            if item.get("resourceFieldRef") is not None:
                detail = "fieldRef and resourceFieldRef can not be specified simultaneously"
                faults.invalid(path, "resource", detail)
        elif item.get("resourceFieldRef") is not None:
            downward.resource(faults, f"{path}.resourceFieldRef", item["resourceFieldRef"], in_file=True)
        else:
            faults.required(path, "one of fieldRef and resourceFieldRef is required")
        _mode(faults, f"{path}.mode", item.get("mode"))


def _projected(faults: Faults, path: str, source: Object) -> None:
    _mode(faults, f"{path}.defaultMode", source.get("defaultMode"))
    checks = {"secret": _config_map, "configMap": _config_map, "downwardAPI": _downward}
    taken: set[str] = set()
    for index, projection in enumerate(source.get("sources") or ()):
        at = f"{path}.sources[{index}]"
        for kind, given in projection.items():
            if kind in checks:
                checks[kind](faults, f"{at}.{kind}", given)
            for item in given.get("items") or () if kind in checks else ():
                inner = item.get("path", "")
                if inner and inner in taken:
                    named = inner if kind == "downwardAPI" else given.get("name", "")
                    faults.invalid(path, named, "conflicting duplicate paths")
                taken.add(inner)
            if kind == "serviceAccountToken":
                _token(faults, path, f"{at}.{kind}", given)
        if len(projection) > 1:
            faults.forbidden(at, "may not specify more than 1 volume type per source")


def _token(faults: Faults, volume: str, path: str, source: Object) -> None:
    seconds, inner = source.get("expirationSeconds", 0), source.get("path", "")
    if seconds < _TOKEN_SECONDS_MIN:
        faults.invalid(
            f"{path}.expirationSeconds", seconds, "may not specify a duration less than 10 minutes"
        )
    elif seconds > 1 << 32:
        detail = "may not specify a duration larger than 2^32 seconds"
        faults.invalid(f"{path}.expirationSeconds", seconds, detail)
    if not inner:
        faults.required(f"{volume}.path")
    else:
        _inner_path(faults, f"{volume}.path", inner)


_SOURCES: Final[Mapping[str, Callable[[Faults, str, Object], None]]] = {
    "emptyDir": _empty_dir,
    "secret": _secret,
    "configMap": _config_map,
    "persistentVolumeClaim": _claim,
    "hostPath": _host_path,
    "downwardAPI": _downward,
    "projected": _projected,
}


def mounts(faults: Faults, path: str, container: Object, known: Mapping[str, Object]) -> None:
    """A container's volumeMounts and volumeDevices against the pod's volumes."""
    devices = {d.get("name"): d.get("devicePath") for d in container.get("volumeDevices") or ()}
    seen: set[str] = set()
    for index, mount in enumerate(container.get("volumeMounts") or ()):
        at, name, target = f"{path}.volumeMounts[{index}]", mount.get("name", ""), mount.get("mountPath", "")
        if not name:
            faults.required(f"{at}.name")
        if name not in known:
            faults.not_found(f"{at}.name", name)
        if not target:
            faults.required(f"{at}.mountPath")
        if target in seen:
            faults.invalid(f"{at}.mountPath", target, "must be unique")
        seen.add(target)
        if name in devices:
            faults.invalid(f"{at}.name", name, "must not already exist in volumeDevices")
        if target in devices.values():
            detail = "must not already exist as a path in volumeDevices"
            faults.invalid(f"{at}.mountPath", target, detail)
        # Upstream leaves the index out of these paths.
        if mount.get("subPath"):
            faults.each(
                f"{path}.volumeMounts.subPath", mount["subPath"], names.relative_path(mount["subPath"])
            )
        if mount.get("subPathExpr"):
            if mount.get("subPath"):
                detail = "subPathExpr and subPath are mutually exclusive"
                faults.invalid(f"{at}.subPathExpr", mount["subPathExpr"], detail)
            said = names.relative_path(mount["subPathExpr"])
            faults.each(f"{path}.volumeMounts.subPathExpr", mount["subPathExpr"], said)
        _propagation(faults, f"{path}.volumeMounts", mount, container)
    _devices(faults, f"{path}.volumeDevices", container, known)


def _propagation(faults: Faults, path: str, mount: Object, container: Object) -> None:
    how, recursive = mount.get("mountPropagation"), mount.get("recursiveReadOnly")
    if how is not None and how not in _PROPAGATIONS:
        faults.not_supported(f"{path}.mountPropagation", how, _PROPAGATIONS)
    if how == "Bidirectional" and not (container.get("securityContext") or {}).get("privileged"):
        detail = "Bidirectional mount propagation is available only to privileged containers"
        faults.forbidden(f"{path}.mountPropagation", detail)
    if recursive in ("Enabled", "IfPossible"):
        if not mount.get("readOnly"):
            faults.forbidden(f"{path}.recursiveReadOnly", "may only be specified when readOnly is true")
        if how not in (None, "None"):
            detail = "may only be specified when mountPropagation is None or not specified"
            faults.forbidden(f"{path}.recursiveReadOnly", detail)
    elif recursive not in (None, "Disabled"):
        faults.not_supported(f"{path}.recursiveReadOnly", recursive, ("Disabled", "Enabled", "IfPossible"))


def _devices(faults: Faults, path: str, container: Object, known: Mapping[str, Object]) -> None:
    mounted = {each.get("name"): each.get("mountPath", "") for each in container.get("volumeMounts") or ()}
    seen: set[str] = set()
    paths: set[str] = set()
    for index, device in enumerate(container.get("volumeDevices") or ()):
        at, name, target = f"{path}[{index}]", device.get("name", ""), device.get("devicePath", "")
        if not name:
            faults.required(f"{at}.name")
        if name in seen:
            faults.invalid(f"{at}.name", name, "must be unique")
        if name not in known:
            faults.not_found(f"{at}.name", name)
        elif not {"persistentVolumeClaim", "ephemeral"} & known[name].keys():
            detail = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode"
            faults.invalid(f"{at}.name", name, detail)
        if not target:
            faults.required(f"{at}.devicePath")
        if target in paths:
            faults.invalid(f"{at}.devicePath", target, "must be unique")
        if ".." in target.split("/"):
            faults.invalid(f"{at}.devicePath", target, "can not contain backsteps ('..')")
        else:
            paths.add(target)
        if name in mounted:
            faults.invalid(f"{at}.name", name, "must not already exist in volumeMounts")
        if target in mounted.values():
            faults.invalid(f"{at}.devicePath", target, "must not already exist as a path in volumeMounts")
        if name:
            seen.add(name)
