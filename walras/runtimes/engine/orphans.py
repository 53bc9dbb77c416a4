"""Layers that pulls left which never became an image: the engine keeps them for ever, unless it is told.

The files are those of github.com/containers/storage; a layer that is marked as incomplete there is deleted by
whoever of its users reads them next.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from walras.core.clock import parse_rfc3339

# A layer may be there so long before what it is of.
AGE_MIN_S: Final = 120.0
_WRITER_BYTES: Final = 64
_LAYERS: Final = "overlay-layers"
_IMAGES: Final = "overlay-images"
_IMAGES_FILE: Final = "images.json"
_MANIFEST: Final = "manifest"
_LAYER: Final = re.compile("[0-9a-f]{64}")


def condemn(storage: Path, gone: Path) -> list[str] | None:
    """Marks the layers that belong to nothing and are not young: their ids. Raises OSError, ValueError.

    None, and nothing done, while the engine is at work on its layers. Files of layers that the engine knows
    nothing of go to the folder `gone`, for the caller to delete: it makes and records them in one turn.
    """
    directory = storage / _LAYERS
    before_ms = _now_ms(storage) - round(AGE_MIN_S * 1000)
    with _locked(storage / _IMAGES / "images.lock") as tell:
        if tell is None:
            return None
        images = _listed(storage / _IMAGES / _IMAGES_FILE)
        whole = [each for each in images if _is_whole(each) or _changed_ms(storage, each) >= before_ms]
        if whole != images:
            _replace(storage / _IMAGES / _IMAGES_FILE, whole)
            tell()
    with _locked(directory / "layers.lock") as tell:
        if tell is None:
            return None
        layers = _listed(directory / "layers.json")
        found = _orphans(layers, _used(storage), before_ms)
        if found:
            for each in layers:
                if each["id"] in found:
                    each["flags"] = {**(each.get("flags") or {}), "incomplete": True}
            _replace(directory / "layers.json", layers)
            tell()
        every = (each["id"] for path in directory.glob("*.json") for each in _listed(path))
        _take_away(storage / "overlay", {*every}, gone)
    return sorted(found)


@contextmanager
def _locked(path: Path) -> Iterator[Callable[[], None] | None]:
    """What tells the engine's processes that the files have changed; None when one of them is at work."""
    with path.open("r+b") as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield None
            return

        def tell() -> None:
            lock.write(os.urandom(_WRITER_BYTES))
            lock.flush()

        yield tell


def _is_whole(image: dict[str, Any]) -> bool:
    """Whether it was made to its end: one without a manifest is not even listed by the engine."""
    return bool(image.get("names")) or _MANIFEST in (image.get("big-data-names") or ())


def _take_away(directory: Path, known: set[str], gone: Path) -> None:
    for each in directory.iterdir():
        if _LAYER.fullmatch(each.name) and each.name not in known:
            gone.mkdir(parents=True, exist_ok=True)
            each.rename(gone / each.name)


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


def _changed_ms(storage: Path, image: dict[str, Any]) -> int:
    """When its files were; what it says of itself is whoever made it to say."""
    try:
        return (storage / _IMAGES / str(image["id"])).stat().st_mtime_ns // 1_000_000
    except OSError:
        return 0


def _now_ms(storage: Path) -> int:
    """By the clock that layers are stamped with."""
    path = storage / ".walras-looked"
    path.touch()
    return path.stat().st_mtime_ns // 1_000_000


def _replace(path: Path, entries: list[dict[str, Any]]) -> None:
    fresh = path.with_name(f".walras-{path.name}")
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(msgspec.json.encode(entries))
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
