"""An instance's volumes as those of its pod: disks, shared directories, and cloud-init's data. Pure."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from walras.core.errors import Invalid, WalrasError
from walras.core.quantity import parse_quantity
from walras.tenants.objects import Object, uid
from walras.tenants.virtual.words import DISKS, DISKS_VARIABLE, SEED, SEED_ANNOTATION, SEED_APART

# A claim's capacity in bytes; None while there is none of that name, or it is not bound.
Claims = Callable[[str], int | None]

CLOUD_INIT: Final = ("cloudInitNoCloud", "cloudInitConfigDrive")
_DISKS_BYTES_MAX: Final = 1 << 44
_FILES: Final = ("configMap", "secret", "downwardAPI", "serviceAccount", "persistentVolumeClaim")
_NOT_OFFERED: Final = {
    "hostDisk": "files of the node are nobody's to take",
    "dataVolume": "there is no importer of disks: use emptyDisk or persistentVolumeClaim",
    "ephemeral": "use emptyDisk",
}
_PLACE: Final = "seed"


@dataclass
class PodVolumes:
    """What the pod gets. `annotations` carry cloud-init's data, `pull_secrets` lead to images of disks."""

    volumes: list[Object] = field(default_factory=list)
    mounts: list[Object] = field(default_factory=list)
    env: list[Object] = field(default_factory=list)
    annotations: dict[str, str] = field(default_factory=dict)
    pull_secrets: list[Object] = field(default_factory=list)


def translated(instance: Object, claims: Claims) -> PodVolumes:
    """Raises Invalid for what is not offered, or not there."""
    spec, made = instance["spec"], PodVolumes()
    devices = spec["domain"]["devices"]
    shared = {each["name"] for each in devices.get("filesystems") or ()}
    attached = {each["name"] for each in devices.get("disks") or ()}
    known = {each["name"] for each in spec.get("volumes") or ()}
    for disk in devices.get("disks") or ():
        if disk.get("bootOrder") is not None:
            raise Invalid(f"{disk['name']}: bootOrder: a guest boots this server's Linux, and no disk")
    for name in sorted((attached | shared) - known):
        raise Invalid(f"spec.domain.devices.disks: no volume is named {name}")
    sizes: dict[str, int] = {}
    for volume in spec.get("volumes") or ():
        name = volume["name"]
        if name not in attached | shared:
            raise Invalid(f"spec.volumes: nothing attaches {name}: name it in spec.domain.devices.disks")
        kind = next((key for key in volume if key != "name"), "")
        if kind in CLOUD_INIT:
            _seed(made, instance, volume[kind])
        elif name in shared:
            _directory(made, volume, kind)
        else:
            sizes[name] = _disk(made, volume, kind, claims)
    if sizes:
        made.env.append({"name": DISKS_VARIABLE, "value": msgspec.json.encode(sizes).decode()})
    return made


def _refused(name: str, kind: str, why: str = "it is not offered as a disk") -> Invalid:
    return Invalid(f"volume {name} ({kind or 'of no type'}): {_NOT_OFFERED.get(kind, why)}")


def _disk(made: PodVolumes, volume: Object, kind: str, claims: Claims) -> int:
    """Its size in bytes, 0 for one that has its own."""
    name = volume["name"]
    if kind == "emptyDisk":
        size = _bytes(volume["emptyDisk"]["capacity"], name)
        source: Object = {"emptyDir": {}}
    elif kind == "persistentVolumeClaim":
        claim = str(volume[kind]["claimName"])
        found = claims(claim)
        if found is None:
            raise Invalid(f'persistentvolumeclaim "{claim}" is not there, or not bound')
        size, source = found, {"persistentVolumeClaim": {"claimName": claim}}
    elif kind == "containerDisk":
        size, source = 0, _of_image(made, name, volume[kind])
    else:
        raise _refused(name, kind)
    made.volumes.append({"name": name, **source})
    made.mounts.append({"name": name, "mountPath": f"{DISKS}/{name}"})
    return size


def _of_image(made: PodVolumes, name: str, disk: Object) -> Object:
    if disk.get("path"):
        raise Invalid(f"volume {name} (containerDisk): path: it is the one file in the image's /disk")
    if secret := disk.get("imagePullSecret"):
        made.pull_secrets.append({"name": str(secret)})
    policy = disk.get("imagePullPolicy")
    return {"image": {"reference": str(disk["image"]), **({"pullPolicy": policy} if policy else {})}}


def _bytes(capacity: Any, name: str) -> int:
    try:
        size = int(parse_quantity(capacity if isinstance(capacity, int) else str(capacity)))
    except WalrasError as error:
        raise Invalid(f"volume {name}: {error.message}") from error
    if not 0 < size <= _DISKS_BYTES_MAX:
        raise Invalid(f"volume {name}: capacity {capacity} must be between 1 and 16Ti")
    return size


def _directory(made: PodVolumes, volume: Object, kind: str) -> None:
    name = volume["name"]
    if kind not in _FILES:
        raise _refused(name, kind, "it is not offered as a file system")
    source = volume[kind]
    if kind == "serviceAccount":
        token: Object = {"serviceAccountToken": {"path": "token"}}
        made.volumes.append({"name": name, "projected": {"sources": [token]}})
    else:
        made.volumes.append({"name": name, kind: source})
    made.mounts.append({"name": name, "mountPath": f"/mnt/{name}"})


def _seed(made: PodVolumes, instance: Object, source: Object) -> None:
    """NoCloud's files: what is said in the instance by way of annotations, a secret as it is."""
    if any(each["name"] == _PLACE for each in made.volumes):
        raise Invalid("spec.volumes: cloud-init's data may be given once")
    metadata = instance["metadata"]
    hostname = instance["spec"].get("hostname") or metadata["name"]
    files = {"meta-data": f"instance-id: {uid(instance)}\nlocal-hostname: {hostname}\n"}
    for name, key in (("user-data", "userData"), ("network-data", "networkData")):
        if (text := _text(source, key)) is not None:
            files[name] = text
    made.annotations |= {f"{SEED_ANNOTATION}{name}": text for name, text in files.items()}
    items = [
        {"path": name, "fieldRef": {"fieldPath": f"metadata.annotations['{SEED_ANNOTATION}{name}']"}}
        for name in files
    ]
    made.volumes.append({"name": _PLACE, "downwardAPI": {"items": items}})
    made.mounts.append({"name": _PLACE, "mountPath": SEED})
    secret = source.get("secretRef")
    if isinstance(secret, Mapping) and secret.get("name"):
        made.volumes.append({"name": f"{_PLACE}-secret", "secret": {"secretName": str(secret["name"])}})
        made.mounts.append({"name": f"{_PLACE}-secret", "mountPath": SEED_APART})


def _text(source: Object, key: str) -> str | None:
    if (encoded := source.get(f"{key}Base64")) is not None:
        try:
            return base64.b64decode(str(encoded), validate=True).decode()
        except (binascii.Error, ValueError) as error:
            raise Invalid(f"spec.volumes: {key}Base64 is not text in base64") from error
    return None if source.get(key) is None else str(source[key])
