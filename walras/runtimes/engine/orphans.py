"""Layers that pulls left which never became an image: the engine keeps them for ever, unless it is told.

The files are those of github.com/containers/storage; a layer that is marked as incomplete there is deleted by
whoever of its users reads them next.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from walras.core.clock import parse_rfc3339

# A layer may be there so long before what it is of.
AGE_MIN_S: Final = 120.0
_WRITER_BYTES: Final = 64
_LAYERS: Final = "overlay-layers"


def condemn(storage: Path) -> list[str] | None:
    """Marks the layers that belong to nothing and are not young: their ids. Raises OSError, ValueError.

    None, and nothing done, while the engine is at work on its layers.
    """
    directory = storage / _LAYERS
    before_ms = _now_ms(storage) - round(AGE_MIN_S * 1000)
    with (directory / "layers.lock").open("r+b") as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return None
        layers = _listed(directory / "layers.json")
        found = _orphans(layers, _used(storage), before_ms)
        if found:
            for each in layers:
                if each["id"] in found:
                    each["flags"] = {**(each.get("flags") or {}), "incomplete": True}
            _replace(directory / "layers.json", layers)
            # So its other readers hear of it.
            lock.write(os.urandom(_WRITER_BYTES))
            lock.flush()
    return sorted(found)


def _orphans(layers: list[dict[str, Any]], used: Iterable[str], before_ms: int) -> set[str]:
    parents = {each["id"]: each.get("parent") for each in layers}
    kept: set[str] = set()
    for each in (*used, *(one["id"] for one in layers if _created_ms(one) >= before_ms)):
        layer: str | None = each
        while layer and layer not in kept:
            kept.add(layer)
            layer = parents.get(layer)
    return {each["id"] for each in layers if not (each.get("flags") or {}).get("incomplete")} - kept


def _used(storage: Path) -> Iterator[str]:
    """The topmost layers of all images and containers."""
    for path in (*storage.glob("overlay-images/images.json"), *storage.glob("overlay-containers/*.json")):
        for each in _listed(path):
            yield str(each.get("layer") or "")
            yield from map(str, each.get("mapped-layers") or ())


def _listed(path: Path) -> list[dict[str, Any]]:
    return msgspec.json.decode(path.read_bytes(), type=list[dict[str, Any]]) if path.exists() else []


def _created_ms(layer: dict[str, Any]) -> int:
    return parse_rfc3339(str(layer["created"]))


def _now_ms(storage: Path) -> int:
    """By the clock that layers are stamped with."""
    path = storage / ".walras-looked"
    path.touch()
    return path.stat().st_mtime_ns // 1_000_000


def _replace(path: Path, layers: list[dict[str, Any]]) -> None:
    fresh = path.with_name(".walras-layers.json")
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(msgspec.json.encode(layers))
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
