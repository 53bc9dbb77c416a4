"""What a custom resource with a scale subresource has to have at the paths of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from walras.kube.golang import printed, type_of
from walras.kube.validation.faults import Faults

_MOST: Final = 2**31 - 1
_ABSENT: Final = object()


def scale(faults: Faults, paths: Mapping[str, str], obj: Any, old: Any) -> None:
    """`paths` are those of the subresource. What a write leaves as it was is not looked at."""
    for name in ("specReplicasPath", "statusReplicasPath"):
        path = paths.get(name) or ""
        if path and (old is None or _at(obj, path) != _at(old, path)):
            _count(faults, path, obj)
    path = paths.get("labelSelectorPath") or ""
    if path and (old is None or _at(obj, path) != _at(old, path)):
        found, why = _looked_up(obj, path, str, "string")
        if why:
            faults.invalid(path, found if isinstance(found, str) else "", why)


def _at(obj: Any, path: str) -> Any:
    for name in path.removeprefix(".").split("."):
        if not isinstance(obj, dict):
            return obj, type(obj)
        if name not in obj:
            return _ABSENT
        obj = obj[name]
    return obj, type(obj)


def _count(faults: Faults, path: str, obj: Any) -> None:
    found, why = _looked_up(obj, path, int, "int64")
    if why:
        faults.invalid(path, 0, why)
    elif found is not None and found < 0:
        faults.invalid(path, found, "should be a non-negative integer")
    elif found is not None and found > _MOST:
        faults.invalid(path, found, f"should be less than or equal to {_MOST}")


def _looked_up(obj: Any, path: str, kind: type, called: str) -> tuple[Any, str]:
    """What is at the path, None for nothing, and what is wrong with it."""
    names = path.removeprefix(".").split(".")
    for index, name in enumerate(names):
        if obj is None:
            return None, ""
        if not isinstance(obj, dict):
            where = ".".join(("", *names[: index + 1]))
            what = f"{printed(obj)} is of the type {type_of(obj)}"
            return None, f"{where} accessor error: {what}, expected map[string]interface{{}}"
        if name not in obj:
            return None, ""
        obj = obj[name]
    if isinstance(obj, kind) and not isinstance(obj, bool):
        return obj, ""
    what = f"{printed(obj)} is of the type {type_of(obj)}"
    return None, f".{'.'.join(names)} accessor error: {what}, expected {called}"
