"""Sets of field paths as `metadata.managedFields` writes them (FieldsV1).

A path is a tuple of elements, each in its FieldsV1 spelling: `f:NAME` for a field or map key, `k:{...}` for
an element of a list by its key fields, `v:VALUE` for an element of a set, `i:N` for one by its index.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

import msgspec

from walras.kube.record import parse

Path = tuple[str, ...]
FieldSet = frozenset[Path]
Fields = dict[str, Any]

EMPTY: Final[FieldSet] = frozenset()
_RANK: Final = {"f": 0, "k": 1, "v": 2, "i": 3}
DEPTH_MAX: Final = 256
# Beside the paths below one that is of the set too.
_SELF: Final = "."


def _json(value: Any) -> str:
    return msgspec.json.encode(value, order="sorted").decode()


def field_element(name: str) -> str:
    return f"f:{name}"


def key_element(keys: Mapping[str, Any]) -> str:
    return f"k:{_json(keys)}"


def value_element(value: Any) -> str:
    return f"v:{_json(value)}"


def decode(fields: Mapping[str, Any]) -> FieldSet:
    """The set that a `fieldsV1` object stands for. Raises ValueError."""
    found: set[Path] = set()
    _decode((), fields, found)
    return frozenset(found)


def _decode(prefix: Path, fields: Mapping[str, Any], found: set[Path]) -> None:
    if len(prefix) > DEPTH_MAX:
        raise ValueError("fields are nested too deeply")
    for text, children in fields.items():
        if text == _SELF:
            continue
        element = _canonical(text)
        if element is None:
            continue
        if not isinstance(children, Mapping):
            raise ValueError(f"{text!r} is not followed by an object")
        path = (*prefix, element)
        if not children or _SELF in children:
            found.add(path)
        _decode(path, children, found)


def _canonical(text: str) -> str | None:
    """The element's one spelling; None for a type of element that is not known. Raises ValueError."""
    if text[1:2] != ":":
        raise ValueError(f"missing colon: {text}")
    kind, content = text[0], text[2:]
    if kind == "f":
        return text
    if kind not in _RANK:
        return None
    try:
        value = parse(content)
    except ValueError:
        raise ValueError(f"not a path element: {text}") from None
    if kind == "k" and not isinstance(value, dict):
        raise ValueError(f"not a path element: {text}")
    return f"{kind}:{_json(value)}"


def encode(fields: FieldSet) -> Fields:
    """The `fieldsV1` object of a set, sorted as Kubernetes sorts it."""
    root: Fields = {}
    for path in fields:
        node = root
        for element in path:
            node = node.setdefault(element, {})
        node[_SELF] = {}
    return _ordered(root)


def _ordered(node: Fields) -> Fields:
    """A level of the set: itself, where there is more below it, and what is below it, in order."""
    is_one = node.pop(_SELF, None) is not None
    below = {element: _ordered(node[element]) for element in sorted(node, key=_element_key)}
    return {_SELF: {}, **below} if is_one and below else below


# A few hundred field names make up nearly every path.
@lru_cache(maxsize=8192)
def _element_key(element: str) -> tuple[int, str]:
    return _RANK[element[0]], element[2:]


def sort_key(path: Path) -> tuple[tuple[int, str], ...]:
    return tuple(map(_element_key, path))


def iteration_key(path: Path) -> tuple[tuple[int, tuple[int, str]], ...]:
    """Orders paths as Kubernetes lists conflicts: at each level what ends there, then what goes deeper."""
    last = len(path) - 1
    return tuple((int(index < last), _element_key(element)) for index, element in enumerate(path))


def without(fields: FieldSet, prefixes: Iterable[Path]) -> FieldSet:
    """The paths that neither are one of the prefixes nor lie below one."""
    for end in prefixes:
        length = len(end)
        fields = frozenset(path for path in fields if path[:length] != end)
    return fields


def text(path: Path) -> str:
    """The path as people read it: `.spec.containers[name="app"].image`."""
    return "".join(map(_element_text, path))


def _element_text(element: str) -> str:
    kind, content = element[0], element[2:]
    if kind == "f":
        return f".{content}"
    if kind == "k":
        keys = msgspec.json.decode(content)
        return "[" + ",".join(f"{name}={_json(keys[name])}" for name in sorted(keys)) + "]"
    return f"[={content}]" if kind == "v" else f"[{content}]"
