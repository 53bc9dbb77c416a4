"""Volumes that follow what they are made from while their pod runs, as kubelet's volume manager sees to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from walras.runtimes.environment import ConfigError, EnvSource
from walras.runtimes.logs import path_part
from walras.runtimes.volumefiles import files_of
from walras.runtimes.volumes import Places, put

Object = Mapping[str, Any]
# Every pod has it, and it is never changed.
_AUTHORITY: Final = "kube-root-ca.crt"
_CHANGING: Final = ("metadata.labels", "metadata.annotations")


def _sources(volume: Object) -> Iterator[Object]:
    """What a volume that the server writes is made from, tokens aside."""
    each: Object
    for each in (volume.get("projected") or {}).get("sources") or (volume,):
        if each.get("serviceAccountToken") is None:
            yield each


def _changes(source: Object) -> bool:
    if (config := source.get("configMap")) is not None:
        return bool(config.get("name") != _AUTHORITY)
    if source.get("secret") is not None:
        return True
    fields = (source.get("downwardAPI") or {}).get("items") or ()
    paths = [str((each.get("fieldRef") or {}).get("fieldPath", "")) for each in fields]
    return any(path.startswith(_CHANGING) for path in paths)


def followed(pod: Object) -> list[Object]:
    """The pod's volumes whose files change with ConfigMaps, Secrets, or its own labels and annotations."""
    return [volume for volume in pod["spec"].get("volumes") or () if any(map(_changes, _sources(volume)))]


def refresh(places: Places, cluster: str, source: EnvSource) -> None:
    """Makes the files of such volumes what they should be, each at once. Raises OSError.

    A volume of which something is missing that has to be there stays as it is, as do tokens.
    """
    base = places.pod(cluster, str(source.pod["metadata"]["uid"])) / "volumes"
    owner = places.owner_of(cluster)
    for volume in followed(source.pod):
        directory, tokens = base / path_part(str(volume["name"])), _tokens(volume)
        try:
            files = files_of(source, _without_tokens(volume))
        except ConfigError:
            continue
        for path in [*directory.rglob("*")]:
            name = path.relative_to(directory).as_posix()
            if path.is_file() and name not in files and name not in tokens:
                path.unlink()
        for name, file in files.items():
            if not _is(directory / name, file.data):
                put(directory, name, file, owner)


def _tokens(volume: Object) -> set[str]:
    sources = (volume.get("projected") or {}).get("sources") or ()
    return {str(each["serviceAccountToken"]["path"]) for each in sources if each.get("serviceAccountToken")}


def _without_tokens(volume: Object) -> Object:
    if volume.get("projected") is None:
        return volume
    return {**volume, "projected": {**volume["projected"], "sources": list(_sources(volume))}}


def _is(path: Path, data: bytes) -> bool:
    try:
        return path.stat().st_size == len(data) and path.read_bytes() == data
    except OSError:
        return False
