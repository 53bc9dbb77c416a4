"""JSON patch (RFC 6902) and JSON merge patch (RFC 7386), with the leniencies of Kubernetes' library."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from walras.core.errors import BadRequest, Invalid, RequestEntityTooLarge

Object = dict[str, Any]

OPERATIONS_MAX: Final = 10_000
# So deep are values nested that can be walked and stored.
DEPTH_MAX: Final = 100
# What all `copy` operations of a patch may add together; each could double the document.
COPIED_BYTES_MAX: Final = 3 * 1024 * 1024
_INDEX: Final = re.compile(r"[+-]?\d{1,18}", re.ASCII)


def copied(value: Any) -> Any:
    """A deep copy of a JSON value."""
    if isinstance(value, dict):
        return {key: copied(child) for key, child in value.items()}
    if isinstance(value, list):
        return [copied(child) for child in value]
    return value


class _Refused(Exception):
    """An operation does not apply; the text is the library's."""


def json_patch(doc: Object, operations: Any) -> Object:
    """`doc` after the operations, itself left as it was.

    Raises BadRequest when they are no JSON patch, or nest it deeper than DEPTH_MAX; RequestEntityTooLarge
    beyond OPERATIONS_MAX; Invalid when one does not apply. As in Kubernetes `replace` of an absent field adds
    it and negative indices count from the end.
    """
    if not isinstance(operations, list):
        raise BadRequest(cannot_decode(operations, "jsonpatch.Patch"))
    # Go reads null as an operation that says nothing.
    operations = [{} if operation is None else operation for operation in operations]
    for operation in operations:
        if not isinstance(operation, dict):
            raise BadRequest(cannot_decode(operation, "jsonpatch.Operation"))
    if len(operations) > OPERATIONS_MAX:
        raise RequestEntityTooLarge(
            f"The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {len(operations)}"
        )
    run = _Run(copied(doc))
    try:
        for operation in operations:
            run.apply(operation)
    except _Refused as refused:
        raise Invalid(
            "the server rejected our request due to an error in our request",
        ) from refused
    except RecursionError:
        raise _too_deep() from None
    if not isinstance(run.doc, dict):
        raise Invalid(f"the patch leaves a JSON {json_kind(run.doc)} where an object must be")
    _check_depth(run.doc)
    return run.doc


def _check_depth(doc: Object) -> None:
    """Each operation may add to what others have nested. Raises BadRequest."""
    level: list[Any] = [doc]
    for _ in range(DEPTH_MAX):
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, dict | list)
        ]
        if not level:
            return
    raise _too_deep()


def _too_deep() -> BadRequest:
    return BadRequest(f"the patch makes an object that is nested deeper than {DEPTH_MAX} levels")


class _Run:
    """One patch at work on its own copy of a document."""

    def __init__(self, doc: Any) -> None:
        self.doc = doc
        self.copied_bytes = 0

    def apply(self, operation: Mapping[str, Any]) -> None:
        kind = operation.get("op")
        kind = kind if isinstance(kind, str) else "unknown"
        if kind not in ("add", "remove", "replace", "move", "test", "copy"):
            raise _Refused(f"Unexpected kind: {kind}")
        path = _text(operation, "path", f"{kind} operation failed to decode path: missing value")
        getattr(self, kind)(path, operation)

    def find(self, path: str) -> tuple[Any, str] | None:
        """The container that holds the path's last step, and that step; None when there is none."""
        if "/" not in path:
            return None
        steps = [step.replace("~1", "/").replace("~0", "~") for step in path.split("/")[1:]]
        at = self.doc
        for step in steps[:-1]:
            try:
                at = _get(at, step)
            except _Refused:
                return None
            if not isinstance(at, dict | list):
                return None
        return at, steps[-1]

    def add(self, path: str, operation: Mapping[str, Any]) -> None:
        self.insert(path, copied(operation.get("value")), "add", f'doc is missing path: "{path}"')

    def insert(self, path: str, value: Any, kind: str, missing: str) -> None:
        found = self.find(path)
        if found is None:
            raise _Refused(f"{kind} operation does not apply: {missing}: missing value")
        container, key = found
        if isinstance(container, dict):
            container[key] = value
            return
        where = f"error in {kind} for path: '{path}': "
        if key == "-":
            container.append(value)
            return
        if not _INDEX.fullmatch(key):
            raise _Refused(f"{where}value was not a proper array index: '{key}'")
        # One past the end is a place to add at, so -1 is there.
        container.insert(_position(key, len(container) + 1, where), value)

    def remove(self, path: str, _operation: Mapping[str, Any]) -> None:
        found = self.find(path)
        if found is None:
            raise _Refused(f'remove operation does not apply: doc is missing path: "{path}": missing value')
        _remove(*found, f"error in remove for path: '{path}': ")

    def replace(self, path: str, operation: Mapping[str, Any]) -> None:
        value = copied(operation.get("value"))
        if path == "":
            if not isinstance(value, dict | list):
                raise _Refused("replace operation value must be object or array")
            self.doc = value
            return
        found = self.find(path)
        if found is None:
            raise _Refused(f"replace operation does not apply: doc is missing path: {path}: missing value")
        container, key = found
        if isinstance(container, dict):
            container[key] = value
            return
        where = f"replace operation does not apply: doc is missing key: {path}: "
        container[_position(key, len(container), where)] = value

    def move(self, path: str, operation: Mapping[str, Any]) -> None:
        value = self.source(operation, "move")
        found = self.find(operation["from"])
        assert found is not None
        _remove(*found, f"error in move for path: '{found[1]}': ")
        self.insert(path, value, "move", f"doc is missing destination path: {path}")

    def copy(self, path: str, operation: Mapping[str, Any]) -> None:
        value = self.source(operation, "copy")
        self.copied_bytes += len(msgspec.json.encode(value))
        if self.copied_bytes > COPIED_BYTES_MAX:
            raise _Refused(
                "Unable to complete the copy, the accumulated size increase of copy is "
                f"{self.copied_bytes}, exceeding the limit {COPIED_BYTES_MAX}"
            )
        self.insert(path, copied(value), "copy", f"doc is missing destination path: {path}")

    def source(self, operation: Mapping[str, Any], kind: str) -> Any:
        path = _text(operation, "from", f"{kind} operation failed to decode from: missing value")
        found = self.find(path)
        if found is None:
            raise _Refused(
                f"{kind} operation does not apply: doc is missing from path: {path}: missing value"
            )
        container, key = found
        try:
            return _get(container, key)
        except _Refused as refused:
            raise _Refused(f"error in {kind} for path: '{path}': {refused}") from None

    def test(self, path: str, operation: Mapping[str, Any]) -> None:
        if path == "":
            have = self.doc
        else:
            found = self.find(path)
            if found is None:
                raise _Refused(f"test operation does not apply: is missing path: {path}: missing value")
            have = _get(*found)
        if not same(have, operation.get("value")):
            raise _Refused(f"testing value {path} failed: test failed")


def same(left: Any, right: Any) -> bool:
    """Whether two JSON values are equal; unlike Python's, true is not 1."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(child, right[key]) for key, child in left.items())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)


def _get(container: Any, key: str) -> Any:
    if isinstance(container, dict):
        return container.get(key)
    return container[_position(key, len(container), "")]


def _remove(container: Any, key: str, where: str) -> None:
    if isinstance(container, list):
        del container[_position(key, len(container), where)]
    elif key in container:
        del container[key]
    else:
        raise _Refused(f"{where}Unable to remove nonexistent key: {key}: missing value")


def _position(key: str, length: int, where: str) -> int:
    """The index that a step of a path names in an array of that length."""
    if not _INDEX.fullmatch(key):
        raise _Refused(f'{where}strconv.Atoi: parsing "{key}": invalid syntax')
    index = int(key)
    if not -length <= index < length:
        raise _Refused(f"{where}Unable to access invalid index: {index}: invalid index referenced")
    return index + length if index < 0 else index


def _text(operation: Mapping[str, Any], field: str, missing: str) -> str:
    value = operation.get(field)
    if not isinstance(value, str):
        raise _Refused(missing)
    return value


def json_kind(value: Any) -> str:
    """The name that Go's JSON decoder gives to a value's type."""
    match value:
        case None:
            return "null"
        case bool():
            return "bool"
        case str():
            return "string"
        case list():
            return "array"
        case dict():
            return "object"
    return "number"


def cannot_decode(value: Any, go_type: str) -> str:
    return f"json: cannot unmarshal {json_kind(value)} into Go value of type {go_type}"


def merge_patch(doc: Object, patch: Any) -> Object:
    """`doc` with `patch` merged in, both left as they were; null removes. Raises BadRequest."""
    if not isinstance(patch, dict):
        raise BadRequest(cannot_decode(patch, "map[string]interface {}"))
    merged = _merged(doc, patch)
    assert isinstance(merged, dict)
    return merged


def _merged(doc: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return without_nulls(patch)
    result = copied(doc) if isinstance(doc, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merged(result.get(key), value)
    return result


def without_nulls(value: Any) -> Any:
    """A copy of a JSON value without the fields that are null."""
    if isinstance(value, dict):
        return {key: without_nulls(child) for key, child in value.items() if child is not None}
    return [without_nulls(child) for child in value] if isinstance(value, list) else value
