"""Strategic merge patch: a merge patch that knows from the schema which lists merge, and by which key.

Follows sig-api-machinery's strategic-merge-patch.md. The directives in a patch are `$patch: replace|delete`,
`$retainKeys`, `$setElementOrder/FIELD` and `$deleteFromPrimitiveList/FIELD`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Final

from walras.core.errors import BadRequest, Invalid, Unclassified
from walras.kube.patch import copied
from walras.kube.schema import Schema

Object = dict[str, Any]

_PATCH: Final = "$patch"
_RETAIN: Final = "$retainKeys"
_ORDER: Final = "$setElementOrder/"
_DELETE: Final = "$deleteFromPrimitiveList/"

Identity = Callable[[Any], Hashable]


def strategic_merge(schema: Schema, doc: Object, patch: Any) -> Object:
    """`doc` with `patch` merged in, both left as they were. Raises BadRequest or Invalid."""
    if not isinstance(patch, dict):
        raise BadRequest("invalid JSON document")
    return _merge_map(schema, copied(doc), patch)


def _merge_map(schema: Schema | None, target: Object, patch: Object) -> Object:
    """`target`, changed in place, or what replaces it."""
    if _PATCH in patch:
        return _by_directive(patch)
    _retain(target, patch)
    done = _merge_ordered_lists(schema, target, patch)
    for key, value in patch.items():
        if key == _RETAIN or key.startswith(_ORDER) or key in done:
            continue
        if key.startswith(_DELETE):
            _delete_primitives(target, key.removeprefix(_DELETE), value)
        elif value is None:
            target.pop(key, None)
        else:
            _merge_field(schema, target, key, value)
    return target


def _by_directive(patch: Object) -> Object:
    match patch[_PATCH]:
        case "replace":
            added: Object = _plain({key: value for key, value in patch.items() if key != _PATCH})
            return added
        case "delete":
            return {}
    raise Unclassified(f"unknown patch type: {_go(patch[_PATCH])} in map: {_go(patch)}")


def _merge_field(schema: Schema | None, target: Object, key: str, value: Any) -> None:
    field = schema.child(key) if schema else None
    strategies = field.patch_strategies if field else ()
    have = target.get(key)
    if isinstance(have, dict) and isinstance(value, dict) and "replace" not in strategies:
        target[key] = _merge_map(field, have, value)
    elif field and isinstance(have, list) and isinstance(value, list) and "merge" in strategies:
        target[key] = _merge_list(field, have, value)
    elif isinstance(value, dict) and _PATCH in value:
        target.pop(key, None)
    else:
        target[key] = _plain(value)


def _retain(target: Object, patch: Object) -> None:
    """Drops the fields that `$retainKeys` does not list, as a union needs when its member changes."""
    if _RETAIN not in patch:
        return
    keys = patch[_RETAIN]
    sent = {
        key
        for key, value in patch.items()
        if value is not None and key != _RETAIN and not key.startswith((_DELETE, _ORDER))
    }
    kept = {key for key in keys if isinstance(key, str)} if isinstance(keys, list) else None
    if kept is None or not sent <= kept:
        raise BadRequest("invalid patch format of retainKeys")
    for key in target.keys() - kept:
        del target[key]


def _delete_primitives(target: Object, key: str, doomed: Any) -> None:
    have = target.get(key)
    if not isinstance(doomed, list):
        raise BadRequest("invalid patch format of primitive list")
    if isinstance(have, list):
        gone = {_scalar(item) for item in doomed}
        target[key] = [item for item in have if _scalar(item) not in gone]


def _merge_ordered_lists(schema: Schema | None, target: Object, patch: Object) -> set[str]:
    """Merges the lists whose order the patch sets; returns the fields that are thereby done."""
    done = set()
    for directive, order in patch.items():
        if not directive.startswith(_ORDER):
            continue
        key = directive.removeprefix(_ORDER)
        have, sent = target.get(key), patch.get(key)
        for value in (order, *([have] if key in target else ()), *([sent] if key in patch else ())):
            if not isinstance(value, list):
                raise Unclassified(f"expected a []interface {{}}, but received a {_go_type(value)}")
        field = schema.child(key) if schema else None
        if field is None:
            kind = schema.ref.rpartition(".")[2] if schema else ""
            raise Unclassified(f'unable to find api field in struct {kind} for the json field "{key}"')
        _check_order(field, sent or [], order)
        if key not in patch and key not in target:
            continue
        if sent is None:
            merged = have or []
        elif have is None or "merge" not in field.patch_strategies:
            merged = _plain(sent)
        else:
            merged = _merge_list(field, have, sent)
        server_order = _places(field, have or [], sent or [])
        target[key] = _in_order(merged, order, server_order, _identity(field))
        done.add(key)
    return done


def _places(field: Schema, have: Sequence[Any], sent: Sequence[Any]) -> Sequence[Any]:
    """The server's order; as in Kubernetes new elements take the places that deleted ones leave."""
    doomed = [item for item in sent if isinstance(item, dict) and item.get(_PATCH) == "delete"]
    if not doomed:
        return have
    identity = _identity(field)
    gone = {identity(item) for item in doomed}
    kept = [item for item in have if identity(item) not in gone]
    known = {identity(item) for item in kept}
    added = [item for item in sent if _PATCH not in item and identity(item) not in known]
    return (kept + added)[: len(have)]


def _check_order(field: Schema, sent: Sequence[Any], order: Sequence[Any]) -> None:
    """What the patch sends must stand in the order that it sets."""
    if not sent or not order:
        return
    identity = _identity(field)
    names = iter([identity(item) for item in order])
    kept = [item for item in sent if not (isinstance(item, dict) and _PATCH in item)]
    if not all(any(identity(item) == name for name in names) for item in kept):
        raise Unclassified(
            f"The order in patch list:\n{_go(sent)}\n doesn't match $setElementOrder list:\n{_go(order)}\n"
        )


def _identity(field: Schema) -> Identity:
    """What makes two elements of the list the same."""
    merge_key = field.patch_merge_key
    if not merge_key:
        return _scalar

    def identity(item: Any) -> Hashable:
        if not isinstance(item, dict):
            raise Unclassified(f"expected a map[string]interface {{}}, but received a {_go_type(item)}")
        if merge_key not in item:
            raise Unclassified(f"map: {_go(item)} does not contain declared merge key: {merge_key}")
        return _scalar(item[merge_key])

    return identity


def _scalar(value: Any) -> Hashable:
    """A key under which equal JSON scalars meet; true is not 1."""
    return (isinstance(value, bool), value) if isinstance(value, str | int | float | None) else _go(value)


def _merge_list(field: Schema, have: list[Any], sent: list[Any]) -> list[Any]:
    if not have and not sent:
        return have
    kinds = {_go_type(item) for item in (*have, *sent)}
    if "[]interface {}" in kinds:
        raise Invalid("lists of lists are not supported")
    if len(kinds) > 1:
        raise Unclassified(f"list element types are not identical: {_go([have, sent])}")
    identity = _identity(field)
    if kinds != {"map[string]interface {}"}:
        known = {identity(item) for item in have}
        merged = have + [item for item in _unique(sent) if identity(item) not in known]
        return _in_order(_unique(merged), sent, have, identity)
    if not field.patch_merge_key:
        raise Unclassified(f"cannot merge lists without merge key for {field.ref.rpartition('.')[2]}")
    return _merge_maps(field, have, sent, identity)


def _unique(items: Iterable[Any]) -> list[Any]:
    return list({_scalar(item): item for item in items}.values())


def _merge_maps(field: Schema, have: list[Object], sent: list[Object], identity: Identity) -> list[Object]:
    plain = []
    doomed = set()
    replace = False
    for item in sent:
        match item.get(_PATCH):
            case None:
                plain.append(item)
            case "delete":
                doomed.add(identity(item))
            case "replace":
                replace = True
            case "merge":
                raise Unclassified("merging lists cannot yet be specified in the patch")
            case directive:
                raise Unclassified(f"unknown patch type: {_go(directive)} in map: {_go(item)}")
    if replace:
        return [_plain(item) for item in plain]
    kept = [item for item in have if field.patch_merge_key not in item or identity(item) not in doomed]
    merged: list[Object] = list(kept)
    places: dict[Hashable, int] = {}
    for place, item in enumerate(kept):
        if field.patch_merge_key in item:
            places.setdefault(identity(item), place)
    for item in plain:
        name = identity(item)
        if name in places:
            merged[places[name]] = _merge_map(field.items, merged[places[name]], item)
        else:
            places[name] = len(merged)
            merged.append(_plain(item))
    return _in_order(merged, plain, kept, identity)


def _in_order(
    merged: list[Any], order: Sequence[Any], server_order: Sequence[Any], identity: Identity
) -> list[Any]:
    """`merged` with the elements of `order` in that order, and the others where the server had them.

    Where one of two elements is only the server's they keep the server's order towards each other; an element
    that is new goes before what it has no order towards.
    """
    wanted, known = _ranks(order, identity), _ranks(server_order, identity)
    end = len(merged) + len(known)
    ours = sorted((i for i in merged if identity(i) in wanted), key=lambda item: wanted[identity(item)])
    theirs = sorted(
        (i for i in merged if identity(i) not in wanted), key=lambda item: known.get(identity(item), end)
    )
    result = []
    left, right = 0, 0
    while left < len(theirs) and right < len(ours):
        mine, other = known.get(identity(theirs[left])), known.get(identity(ours[right]))
        if mine is not None and other is not None and mine < other:
            result.append(theirs[left])
            left += 1
        else:
            result.append(ours[right])
            right += 1
    return result + theirs[left:] + ours[right:]


def _ranks(items: Sequence[Any], identity: Identity) -> dict[Hashable, int]:
    ranks: dict[Hashable, int] = {}
    for rank, item in enumerate(items):
        ranks.setdefault(identity(item), rank)
    return ranks


def _plain(value: Any) -> Any:
    """A copy of what a patch adds, without its nulls and what directives upstream drops."""
    if isinstance(value, dict):
        return {
            key: _plain(child)
            for key, child in value.items()
            if child is not None
            and not (isinstance(child, dict) and _PATCH in child)
            and not key.startswith((_ORDER, _DELETE))
        }
    if isinstance(value, list):
        return [_plain(child) for child in value if not (isinstance(child, dict) and _PATCH in child)]
    return value


def _go(value: Any) -> str:
    """A JSON value as Go's `%v` prints it."""
    match value:
        case None:
            return "<nil>"
        case bool():
            return "true" if value else "false"
        case dict():
            return "map[" + " ".join(f"{key}:{_go(value[key])}" for key in sorted(value)) + "]"
        case list():
            return "[" + " ".join(map(_go, value)) + "]"
    return str(value)


def _go_type(value: Any) -> str:
    match value:
        case None:
            return "<nil>"
        case bool():
            return "bool"
        case dict():
            return "map[string]interface {}"
        case list():
            return "[]interface {}"
        case str():
            return "string"
        case int():
            return "int64"
    return "float64"
