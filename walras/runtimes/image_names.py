"""Names of images, and which of a pod's credentials go with them. Pure."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, Final

from walras.kube.record import parse
from walras.runtimes.environment import secret_data

Object = Mapping[str, Any]
# As in regexp.go of github.com/distribution/reference.
_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_DOMAIN: Final = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?"
_PATH: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_ALGORITHM: Final = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*"
_NAME: Final = re.compile(
    rf"(?P<name>(?:{_DOMAIN}/)?{_PATH}(?:/{_PATH})*)"
    rf"(?::(?P<tag>\w[\w.-]{{0,127}}))?(?:@(?P<digest>{_ALGORITHM}:[0-9a-fA-F]{{32,}}))?",
    re.ASCII,
)
_NAME_MAX: Final = 255
HUB: Final = "docker.io"


def tagged(image: str) -> str:
    """The name with a tag or digest, ":latest" where it has none; "" for what is no image's name."""
    match = _NAME.fullmatch(image)
    if match is None or len(match["name"]) > _NAME_MAX or re.fullmatch("[0-9a-f]{64}", image):
        return ""
    return image if match["tag"] or match["digest"] else f"{image}:latest"


def invalid(image: str) -> str:
    """Why the name is none, as the kubelet says it."""
    lower = _NAME.fullmatch(image.lower()) is not None and image != image.lower()
    why = "repository name must be lowercase" if lower else "invalid reference format"
    return f'Failed to apply default image tag "{image}": couldn\'t parse image name "{image}": {why}'


def repository(image: str) -> str:
    """The registry and path that credentials are looked up by, such as "docker.io/library/busybox"."""
    match = _NAME.fullmatch(image)
    name = match["name"] if match else image
    first, slash, rest = name.partition("/")
    if not slash or not (set(first) & set(".:") or first == "localhost" or first != first.lower()):
        return f"{HUB}/{name}" if slash else f"{HUB}/library/{name}"
    return f"{first}/{rest}"


def keys(secrets: Iterable[Object], image: str) -> tuple[dict[str, str], ...]:
    """{"username", "password"} of each credential for the image's repository, the most particular first.

    As k8s.io/kubernetes/pkg/credentialprovider: a registry may have `*` in its parts and a path behind.
    """
    wanted = repository(image)
    found = [(place, key) for secret in secrets for place, key in _auths(secret) if _matches(place, wanted)]
    found.sort(key=lambda each: each[0], reverse=True)
    unique: list[dict[str, str]] = []
    for _, key in found:
        if key not in unique:
            unique.append(key)
    return tuple(unique)


def _auths(secret: Object) -> Iterator[tuple[str, dict[str, str]]]:
    data = secret_data(secret)
    if secret.get("type") == "kubernetes.io/dockerconfigjson":
        table = _object(_decoded(data.get(".dockerconfigjson", b""))).get("auths")
    elif secret.get("type") == "kubernetes.io/dockercfg":
        table = _decoded(data.get(".dockercfg", b""))
    else:
        return
    for place, told in _object(table).items():
        entry = _object(told)
        user, password = entry.get("username"), entry.get("password")
        if entry.get("auth"):
            try:
                text = base64.b64decode(str(entry["auth"])).decode()
            except (binascii.Error, ValueError):
                continue
            user, _, password = text.partition(":")
        if user:
            name = re.sub(r"^https?://", "", str(place)).rstrip("/")
            for version in ("/v1", "/v2"):
                name = name.removesuffix(version)
            yield name, {"username": str(user), "password": str(password or "")}


def _matches(place: str, wanted: str) -> bool:
    if place in ("index.docker.io", "registry-1.docker.io"):
        place = HUB
    host, _, path = place.partition("/")
    wanted_host, _, wanted_path = wanted.partition("/")
    parts, wanted_parts = host.split("."), wanted_host.split(".")
    return (
        len(parts) == len(wanted_parts)
        and all(fnmatchcase(is_, glob) for glob, is_ in zip(parts, wanted_parts, strict=True))
        and wanted_path.startswith(path)
    )


def _decoded(text: bytes) -> Any:
    try:
        # As the API server reads it, and Go: what is no UTF-8 is read all the same.
        return parse(text.decode("utf-8", "replace"))
    except ValueError:
        return {}


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
