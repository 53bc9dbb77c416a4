"""Objects walked by their schema: what fields they have, how two differ, merging into one, cutting from one.

The rules are those of sigs.k8s.io/structured-merge-diff: structs, maps, keyed lists and sets are walked into,
scalars and whatever is marked atomic are leaves.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import lru_cache
from typing import Any, Final

from walras.kube.fieldsets import FieldSet, Path, field_element, key_element, text, value_element
from walras.kube.patch import copied, same
from walras.kube.schema import Schema

Object = dict[str, Any]


class Kind(Enum):
    LEAF = auto()
    STRUCT = auto()
    MAP = auto()
    KEYED = auto()
    SET = auto()
    DEDUCED = auto()  # Without a schema: objects are maps, all else is a leaf.


_META: Final = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
# The defaults that key fields of built-in lists have; OpenAPI does not carry them.
_KEY_DEFAULTS: Final = {
    ("io.k8s.api.core.v1.ContainerPort", "protocol"): "TCP",
    ("io.k8s.api.core.v1.ServicePort", "protocol"): "TCP",
    ("io.k8s.apimachinery.pkg.apis.meta.v1.OwnerReference", "uid"): "",
}


_UNSEEN: Final = object()


class Type:
    """A schema node as merging sees it. Children are made when they are first asked for."""

    __slots__ = ("_element", "_fields", "declared", "keys", "kind", "schema")

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.keys: tuple[str, ...] = ()
        self.kind = self._classify()
        self.declared = frozenset(schema.properties) if self.kind is Kind.STRUCT else frozenset()
        self._fields: dict[str, Type | None] = {}
        self._element: Type | None = None

    def _classify(self) -> Kind:
        raw = self.schema.raw
        if "array" in self.schema.types:
            return self._classify_list(raw)
        if raw.get("x-kubernetes-map-type") == "atomic" or self.schema.int_or_string:
            return Kind.LEAF
        if self.schema.properties:
            return Kind.STRUCT
        if self.schema.is_map:
            return Kind.MAP
        if self.schema.types in ((), ("object",)) and not self.schema.ref and "oneOf" not in raw:
            return Kind.DEDUCED
        return Kind.LEAF

    def _classify_list(self, raw: Mapping[str, Any]) -> Kind:
        declared = raw.get("x-kubernetes-list-type")
        if declared == "map":
            self.keys = self.schema.list_map_keys
            return Kind.KEYED
        if declared == "set":
            return Kind.SET
        if declared is None and "merge" in self.schema.patch_strategies:
            self.keys = (self.schema.patch_merge_key,) if self.schema.patch_merge_key else ()
            return Kind.KEYED if self.keys else Kind.SET
        return Kind.LEAF

    def field(self, name: str) -> Type | None:
        """The type of a field or of a map's values; None where the schema knows no such field."""
        if self.kind is Kind.DEDUCED:
            return DEDUCED
        if self.kind is Kind.MAP:
            # Of one type, however many there are.
            name = ""
        # In one look: a step in another thread may clear them at any time.
        known = self._fields.get(name, _UNSEEN)
        if known is _UNSEEN:
            if len(self._fields) > 4096:
                self._fields.clear()
            child = self.schema.child(name)
            known = self._fields[name] = None if child is None else Type(child)
        return known  # type: ignore[return-value]

    @property
    def element(self) -> Type:
        """The type of a list's elements."""
        if self._element is None:
            self._element = Type(self.schema.items or Schema({}))
        return self._element

    def identity(self, item: Any) -> str:
        """The path element of a list's element. Raises ValueError."""
        if self.kind is Kind.SET:
            if isinstance(item, dict | list | None):
                raise ValueError("associative list without keys has an element that's no scalar")
            return value_element(item)
        if not isinstance(item, dict):
            raise ValueError("associative list with keys may not have non-map elements")
        keys = {}
        for key in self.keys:
            value = item.get(key)
            if value is None:
                value = self._key_default(key)
            if value is not None:
                keys[key] = value
        if not keys:
            names = " ".join(f'"{key}"' for key in self.keys)
            raise ValueError(
                f"associative list with keys has an element that omits all key fields [{names}] "
                "(and doesn't have default values for any key fields)"
            )
        return key_element(keys)

    def _key_default(self, key: str) -> Any:
        schema = self.element.schema
        known = _KEY_DEFAULTS.get((schema.ref, key))
        child = schema.child(key)
        return known if known is not None or child is None else child.raw.get("default")

    def walk(self, element: str) -> Type | None:
        """The type that a path element leads to."""
        if self.kind in (Kind.STRUCT, Kind.MAP, Kind.DEDUCED):
            return self.field(element[2:]) if element[0] == "f" else None
        return self.element if self.kind in (Kind.KEYED, Kind.SET) and element[0] in "kvi" else None


DEDUCED: Final = Type(Schema({}))


@lru_cache(maxsize=1024)
def object_type(schema: Schema) -> Type:
    """The type of whole objects; their metadata is Kubernetes' whatever a CRD says of it."""
    root = Type(schema)
    root.kind = Kind.STRUCT
    root._fields["metadata"] = Type(Schema.named(_META))
    for name in ("apiVersion", "kind"):
        root._fields[name] = Type(Schema({"type": "string"}))
    root.declared |= root._fields.keys()
    return root


_ABSENT: Final = object()
_MAPS: Final = (Kind.STRUCT, Kind.MAP, Kind.DEDUCED)
_LISTS: Final = (Kind.KEYED, Kind.SET)


def _is_map(kind: Kind, *values: Any) -> bool:
    """Whether a node with these values (absent ones aside) is walked into by field."""
    return kind in _MAPS and _all(dict, values)


def _is_list(kind: Kind, *values: Any) -> bool:
    return kind in _LISTS and _all(list, values)


def _all(kind: type, values: tuple[Any, ...]) -> bool:
    """Whether there is a value and each that is there is of the kind."""
    found = False
    for value in values:
        if value is not _ABSENT and value is not None:
            if not isinstance(value, kind):
                return False
            found = True
    return found


def fields_of(root: Type, obj: Object, *, strict: bool = False) -> FieldSet:
    """Every leaf and list element that the object mentions.

    Raises ValueError when `strict` and the object has unknown fields or a list with duplicate keys.
    """
    found: set[Path] = set()
    _fields_of(root, (), obj, found, strict)
    return frozenset(found)


def _fields_of(node: Type, path: Path, value: Any, found: set[Path], strict: bool) -> None:
    if _is_map(node.kind, value):
        for name, child in value.items():
            inner, kind = (*path, field_element(name)), node.field(name)
            if kind is None and strict:
                raise ValueError(f"{text(inner)}: field not declared in schema")
            _fields_of(kind or DEDUCED, inner, child, found, strict)
            if child is None or child == {} or name not in node.declared:
                found.add(inner)
    elif _is_list(node.kind, value):
        for inner, items in _grouped(node, path, value).items():
            if len(items) > 1 and strict:
                raise ValueError(f"{text(path)}: duplicate entries for key {text(inner[-1:])}")
            found.add(inner)
            if len(items) == 1:
                _fields_of(node.element, inner, items[0], found, strict)
    elif node.kind in (Kind.KEYED, Kind.SET, Kind.MAP, Kind.STRUCT) and not value:
        if strict and value is not None:
            _check_leaf(node, path, value)
    else:
        if strict:
            _check_leaf(node, path, value)
        found.add(path)


def _check_leaf(node: Type, path: Path, value: Any) -> None:
    """Raises ValueError for a value of another type than the schema's."""
    if node.kind in (Kind.KEYED, Kind.SET) and not isinstance(value, list):
        raise ValueError(f"{text(path)}: expected list, got {_shown(value)}")
    if node.kind in (Kind.MAP, Kind.STRUCT) and not isinstance(value, dict):
        raise ValueError(f"{text(path)}: expected map, got {_shown(value)}")
    form = node.schema.types[0] if len(node.schema.types) == 1 else ""
    if value is None or node.schema.form in ("quantity", "int-or-string"):
        return
    if form == "string" and not isinstance(value, str):
        raise ValueError(f"{text(path)}: expected string, got &value.valueUnstructured{{Value:{_go(value)}}}")
    if form in ("integer", "number") and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise ValueError(f"{text(path)}: expected numeric (int or float), got {_go_type(value)}")
    if form == "boolean" and not isinstance(value, bool):
        raise ValueError(f"{text(path)}: expected boolean, got {_shown(value)}")
    if form == "array" and not isinstance(value, list):
        raise ValueError(f"{text(path)}: expected list, got {_shown(value)}")
    if form == "object" and not isinstance(value, dict):
        raise ValueError(f"{text(path)}: expected map, got {_shown(value)}")


def _shown(value: Any) -> str:
    """A value as Go's %v prints upstream's wrapper of it."""
    return f"&{{{_plain(value)}}}"


def _plain(value: Any) -> str:
    match value:
        case None:
            return "<nil>"
        case bool():
            return str(value).lower()
        case list():
            return f"[{' '.join(map(_plain, value))}]"
        case dict():
            return f"map[{' '.join(f'{key}:{_plain(child)}' for key, child in sorted(value.items()))}]"
    return str(value)


def _go(value: Any) -> str:
    """A value as Go's %#v prints it."""
    match value:
        case bool():
            return str(value).lower()
        case list():
            return f"[]interface {{}}{{{', '.join(map(_go, value))}}}"
        case dict():
            inner = ", ".join(f'"{key}":{_go(child)}' for key, child in sorted(value.items()))
            return f"map[string]interface {{}}{{{inner}}}"
        case str():
            return f'"{value}"'
        case None:
            return "interface {}(nil)"
    return str(value)


def _go_type(value: Any) -> str:
    match value:
        case bool():
            return "bool"
        case list():
            return "[]interface {}"
        case dict():
            return "map[string]interface {}"
    return "string"


def _grouped(node: Type, path: Path, items: list[Any]) -> dict[Path, list[Any]]:
    """The elements by their path, in order of first appearance."""
    groups: dict[Path, list[Any]] = {}
    for index, item in enumerate(items):
        try:
            groups.setdefault((*path, node.identity(item)), []).append(item)
        except ValueError as error:
            raise ValueError(f"{text(path)}: element {index}: {error}") from None
    return groups


@dataclass(slots=True)
class Comparison:
    """What a change added, removed and modified."""

    added: set[Path] = field(default_factory=set)
    removed: set[Path] = field(default_factory=set)
    modified: set[Path] = field(default_factory=set)


def compare(root: Type, old: Object, new: Object) -> Comparison:
    """How `new` differs from `old`. Raises ValueError."""
    result = Comparison()
    _compare(root, (), old, new, result)
    return result


def _compare(node: Type, path: Path, old: Any, new: Any, out: Comparison) -> None:
    if _is_map(node.kind, old, new):
        before, after = _mapping(old), _mapping(new)
        for name in before.keys() | after.keys():
            left, right = before.get(name, _ABSENT), after.get(name, _ABSENT)
            if left == right and same(left, right):
                continue
            child = node.field(name) or DEDUCED
            _compare(child, (*path, field_element(name)), left, right, out)
    elif _is_list(node.kind, old, new):
        _compare_lists(node, path, _sequence(old), _sequence(new), out)
    elif old is not _ABSENT and new is not _ABSENT:
        if node.kind is Kind.DEDUCED:
            _compare_kinds(node, path, old, new, out)
        if not same(old, new):
            out.modified.add(path)
        return
    if old is _ABSENT:
        out.added.add(path)
    elif new is _ABSENT:
        out.removed.add(path)


def _compare_kinds(node: Type, path: Path, old: Any, new: Any, out: Comparison) -> None:
    """What is below a map that becomes something else, or the other way round, goes or comes."""
    if isinstance(old, dict) and new is not None:
        _compare(node, path, old, {}, out)
    elif isinstance(new, dict) and old is not None:
        _compare(node, path, {}, new, out)


def _mapping(value: Any) -> Object:
    return value if isinstance(value, dict) else {}


def _sequence(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _compare_lists(node: Type, path: Path, old: list[Any], new: list[Any], out: Comparison) -> None:
    before, after = _grouped(node, path, old), _grouped(node, path, new)
    for inner in before.keys() | after.keys():
        left, right = before.get(inner, []), after.get(inner, [])
        if len(left) <= 1 and len(right) <= 1:
            before_one = left[0] if left else _ABSENT
            after_one = right[0] if right else _ABSENT
            if before_one != after_one or not same(before_one, after_one):
                _compare(node.element, inner, before_one, after_one, out)
        elif len(left) > 1 and len(right) > 1:
            if not same(left, right):
                out.modified.add(inner)
        elif len(left) > 1:
            # Elements that share a key are owned as one; one that stands alone again is new.
            if right:
                _compare(node.element, inner, _ABSENT, right[0], out)
            out.removed.add(inner)
        else:
            if left:
                _compare(node.element, inner, left[0], _ABSENT, out)
            out.added.add(inner)


def merge(root: Type, live: Object, config: Object) -> Object:
    """`live` with everything that `config` says laid over it; nothing is removed. Raises ValueError."""
    merged = _merge(root, (), live, config)
    assert isinstance(merged, dict)
    return merged


def _merge(node: Type, path: Path, live: Any, config: Any) -> Any:
    if live is _ABSENT or config is _ABSENT:
        return copied(live if config is _ABSENT else config)
    if _is_map(node.kind, live, config):
        before, after = _mapping(live), _mapping(config)
        result = {}
        for name in [*before, *(name for name in after if name not in before)]:
            inner = (*path, field_element(name))
            child = node.field(name) or DEDUCED
            result[name] = _merge(child, inner, before.get(name, _ABSENT), after.get(name, _ABSENT))
        return result
    if _is_list(node.kind, live, config):
        return list(_merge_lists(node, path, _sequence(live), _sequence(config)))
    return copied(config)


def _merge_lists(node: Type, path: Path, live: list[Any], config: list[Any]) -> Iterator[Any]:
    """Elements in the config's order, what only the live list has near where it was."""
    before, after = _grouped(node, path, live), _grouped(node, path, config)
    old = [(*path, node.identity(item)) for item in live]
    new = list(after)
    shared = deque(inner for inner in new if inner in before)
    done: set[Path] = set()

    def laid_over(inner: Path) -> Any:
        done.add(inner)
        if shared and shared[0] == inner:
            shared.popleft()
        below = before.get(inner, [])
        return _merge(node.element, inner, below[0] if len(below) == 1 else _ABSENT, after[inner][0])

    left = right = 0
    while left < len(old) or right < len(new):
        if left < len(old) and right < len(new):
            if old[left] == new[right]:
                yield laid_over(new[right])
                left, right = left + 1, right + 1
                continue
            if old[left] in after and shared and shared[0] != old[left]:
                left += 1
                continue
        if left < len(old):
            if old[left] not in after:
                yield copied(live[left])
                left += 1
                continue
            if old[left] in done:
                left += 1
        if right < len(new):
            yield laid_over(new[right])
            right += 1


def remove(root: Type, obj: Object, doomed: FieldSet) -> Object:
    """A copy of the object without the fields and elements of the set, and without what is empty thereby."""
    tree: dict[str, Any] = {}
    for path in doomed:
        node = tree
        for element in path:
            node = node.setdefault(element, {})
        node[""] = True
    result = _remove(root, obj, tree)
    assert isinstance(result, dict)
    return result


def _remove(node: Type, value: Any, tree: Mapping[str, Any]) -> Any:
    if _is_map(node.kind, value):
        kept = {}
        for name, child in value.items():
            cut = tree.get(field_element(name))
            if cut is None:
                kept[name] = copied(child)
            elif "" not in cut:
                rest = _remove(node.field(name) or DEDUCED, child, cut)
                if rest not in ({}, []) or rest == child:
                    kept[name] = rest
        return kept
    if _is_list(node.kind, value):
        return [
            copied(item) if cut is None else _remove(node.element, item, cut)
            for item in value
            if "" not in ((cut := tree.get(node.identity(item))) or ())
        ]
    return copied(value)


def with_named_prefixes(root: Type, fields: FieldSet) -> FieldSet:
    """The set and every struct field on the way to one of its paths."""
    types: dict[Path, Type | None] = {(): root}
    found = set(fields)
    for path in fields:
        for end in range(1, len(path)):
            prefix = path[:end]
            above = types[prefix[:-1]]
            if prefix not in types:
                types[prefix] = above.walk(prefix[-1]) if above else None
            # The metadata of an object is never left out, whatever of it is.
            named = prefix[-1][0] == "f" and prefix != ("f:metadata",)
            if above and named and prefix[-1][2:] in above.declared:
                found.add(prefix)
    return frozenset(found)
