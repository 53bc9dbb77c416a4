"""What the files of a volume are made from that the server writes: their bytes and modes, by path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from walras.runtimes.environment import (
    ConfigError,
    EnvSource,
    field_value,
    resource_value,
    source_data,
)

Object = Mapping[str, Any]
TOKEN_S: Final = 3600


@dataclass(frozen=True, slots=True)
class File:
    data: bytes
    mode: int


def files_of(source: EnvSource, volume: Object) -> dict[str, File]:
    """Files of a volume that the server writes, by relative path. Raises ConfigError."""
    if (config := volume.get("configMap")) is not None:
        return _from_data(source, "configmaps", config, str(config.get("name", "")), 0o644)
    if (secret := volume.get("secret")) is not None:
        return _from_data(source, "secrets", secret, str(secret.get("secretName", "")), 0o644)
    if (downward := volume.get("downwardAPI")) is not None:
        return _from_fields(source, downward, int(downward.get("defaultMode") or 0o644))
    if (projected := volume.get("projected")) is not None:
        return _projected(source, projected)
    kind = next((key for key in volume if key != "name"), "nothing")
    raise ConfigError(f'volume "{volume["name"]}" is of type {kind}, which the process runtime does not have')


def _projected(source: EnvSource, projected: Object) -> dict[str, File]:
    mode = int(projected.get("defaultMode") or 0o644)
    files: dict[str, File] = {}
    for each in projected.get("sources") or ():
        if (config := each.get("configMap")) is not None:
            files |= _from_data(source, "configmaps", config, str(config.get("name", "")), mode)
        elif (secret := each.get("secret")) is not None:
            files |= _from_data(source, "secrets", secret, str(secret.get("name", "")), mode)
        elif (downward := each.get("downwardAPI")) is not None:
            files |= _from_fields(source, downward, mode)
        elif (token := each.get("serviceAccountToken")) is not None:
            files |= _from_token(source, token, mode)
        else:
            kind = next(iter(each), "nothing")
            raise ConfigError(f"a projected volume from {kind} is not offered by the process runtime")
    return files


def _from_token(source: EnvSource, wanted: Object, mode: int) -> dict[str, File]:
    if source.token is None:
        raise ConfigError("no tokens of service accounts are to be had from this runtime")
    token = source.token(str(wanted.get("audience") or ""), lifetime_s(wanted))
    return {str(wanted["path"]): File(token.encode(), mode)}


def lifetime_s(wanted: Object) -> int:
    """For how many seconds a serviceAccountToken source wants its token."""
    return int(wanted.get("expirationSeconds") or TOKEN_S)


def token_lifetime_s(pod: Object) -> int:
    """The shortest lifetime of a token in the pod's volumes; 0 when it has none."""
    sources = [
        source["serviceAccountToken"]
        for volume in pod["spec"].get("volumes") or ()
        for source in (volume.get("projected") or {}).get("sources") or ()
        if source.get("serviceAccountToken")
    ]
    return min(map(lifetime_s, sources), default=0)


def _from_data(source: EnvSource, resource: str, wanted: Object, name: str, mode: int) -> dict[str, File]:
    mode = int(wanted.get("defaultMode") or mode)
    data = source_data(source.lookup, resource, name, bool(wanted.get("optional")))
    if data is None:
        return {}
    items = wanted.get("items")
    if not items:
        return {key: File(value, mode) for key, value in data.items()}
    files = {}
    for item in items:
        if item["key"] not in data:
            if wanted.get("optional"):
                continue
            raise ConfigError(f"references non-existent config key: {item['key']}")
        files[str(item["path"])] = File(data[item["key"]], int(item.get("mode") or mode))
    return files


def _from_fields(source: EnvSource, wanted: Object, mode: int) -> dict[str, File]:
    files = {}
    for item in wanted.get("items") or ():
        if reference := item.get("fieldRef"):
            text = field_value(source.pod, str(reference.get("fieldPath")), source.address)
        else:
            reference = item.get("resourceFieldRef") or {}
            text = resource_value(
                source.pod, source.pod["spec"]["containers"][0], reference, source.allocatable
            )
        files[str(item["path"])] = File(text.encode(errors="surrogateescape"), int(item.get("mode") or mode))
    return files
