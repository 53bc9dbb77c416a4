"""Defaults of volumes, those of pods and those that stand for themselves. In place, as in defaults.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

Object = dict[str, Any]

# By kind of volume.
_SOURCES: Final[Mapping[str, Mapping[str, Any]]] = {
    "hostPath": {"type": ""},
    "iscsi": {"iscsiInterface": "default"},
    "rbd": {"pool": "rbd", "user": "admin", "keyring": "/etc/ceph/keyring"},
    "azureDisk": {"cachingMode": "ReadWrite", "fsType": "ext4", "readOnly": False, "kind": "Shared"},
    "scaleIO": {"storageMode": "ThinProvisioned", "fsType": "xfs"},
}
_MODE: Final = 0o644
_TOKEN_SECONDS: Final = 3600


def source(volume: Object) -> None:
    """What the volume is made of, in a pod or in a PersistentVolume's spec."""
    for kind, fields in _SOURCES.items():
        given: Object | None = volume.get(kind)
        if given is None:
            continue
        for field, value in fields.items():
            if given.get(field) in (None, ""):
                given[field] = value


def volume(volume: Object) -> None:
    """A volume of a pod."""
    if len(volume) <= ("name" in volume):
        volume["emptyDir"] = {}
    for name in ("secret", "configMap", "downwardAPI", "projected"):
        if volume.get(name) is not None:
            volume[name].setdefault("defaultMode", _MODE)
    image = volume.get("image")
    if image is not None and not image.get("pullPolicy"):
        image["pullPolicy"] = "Always" if is_latest(image.get("reference", "")) else "IfNotPresent"
    template = (volume.get("ephemeral") or {}).get("volumeClaimTemplate")
    if template is not None:
        if template.get("spec") is None:
            template["spec"] = {}
        template["spec"].setdefault("volumeMode", "Filesystem")
    source(volume)
    for item in (volume.get("downwardAPI") or {}).get("items") or ():
        field_ref(item)
    for projection in (volume.get("projected") or {}).get("sources") or ():
        if projection.get("serviceAccountToken") is not None:
            projection["serviceAccountToken"].setdefault("expirationSeconds", _TOKEN_SECONDS)
        for item in (projection.get("downwardAPI") or {}).get("items") or ():
            field_ref(item)


def is_latest(image: str) -> bool:
    """Whether the image names the tag "latest" or neither tag nor digest."""
    if "@" in image:
        return False
    _, colon, tag = image.rpartition("/")[2].partition(":")
    return not colon or tag == "latest"


def field_ref(holder: Object) -> None:
    if holder.get("fieldRef") is not None:
        holder["fieldRef"].setdefault("apiVersion", "v1")
