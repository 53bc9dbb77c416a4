"""Decoding by schema: what Kubernetes' own Go types make of a JSON document, and what they refuse.

Built-in types are decoded as client-go's structs are: unknown fields dropped, nulls and what is zero and
optional left out, quantities and times in canonical form, a value of the wrong type refused. Custom resources
are pruned by their structural schema; their types are validation's business, save for their metadata.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, Final

from walras.core.errors import BadRequest
from walras.kube import structs
from walras.kube.fieldpaths import Path, Told
from walras.kube.scalars import CannotDecode, Mismatch, base64_fault, json_type, quantity, time
from walras.kube.schema import JSON_SCHEMA, Schema

Object = dict[str, Any]

# Structs whose uid has a type of its own.
_WITH_UID: Final = ("ObjectMeta", "OwnerReference", "Preconditions")
_ALWAYS: Final = frozenset(("apiVersion", "kind", "metadata"))
_STRING: Final = Schema({"type": "string"})
_INT_MAX: Final = {"int32": 2**31 - 1, "int64": 2**63 - 1}
_ZERO: Final[dict[str, Any]] = {
    "string": "", "integer": 0, "boolean": False, "number": 0, "quantity": "0", "bytes": "",
}  # fmt: skip


class Undecodable(BadRequest):
    """A document that is not of its type; `why` is what Go's decoder says."""

    def __init__(self, kind: str, version: str, why: str, into: str = "") -> None:
        super().__init__(f'{kind} in version "{version}" cannot be handled as a {into or kind}: {why}')
        self.why = why


def decode(schema: Schema, obj: Object, applied: bool = False) -> tuple[Object, list[str]]:
    """A new object as the server holds it, and the paths of the fields that its type does not know.

    Nulls that stand for nothing are left out of a custom resource, unless it is `applied`. Raises BadRequest,
    in Kubernetes' words, for a value that the type cannot hold.
    """
    walk = _Walk(keeps_nulls=applied)
    try:
        if schema.ref:
            found = walk.struct(schema, obj, None)
        else:
            found = walk.structural(schema, obj, None, root=True)
        if walk.mismatch is not None:
            raise walk.mismatch
        return found, walk.unknown.paths
    except CannotDecode as error:
        api_version, kind = obj.get("apiVersion"), obj.get("kind") or schema.ref.rpartition(".")[2]
        package = schema.ref.rpartition(".")[0].rpartition(".")[2]
        version = str(api_version or package).rpartition("/")[2]
        raise Undecodable(str(kind), version, str(error)) from None


def check(schema: Schema, obj: Object) -> list[str]:
    """The paths of fields that the type does not know ("spec.containers[0].img"). Raises BadRequest."""
    return decode(schema, obj)[1]


def prune(schema: Schema, obj: Object) -> Object:
    """The object without unknown fields, in the form in which it is stored. Raises BadRequest."""
    return decode(schema, obj)[0]


class _Walk:
    __slots__ = ("keeps_nulls", "mismatch", "unknown")

    def __init__(self, *, keeps_nulls: bool = False) -> None:
        self.keeps_nulls = keeps_nulls
        self.unknown = Told()
        self.mismatch: Mismatch | None = None

    def struct(self, schema: Schema, value: Any, path: Path) -> Object:
        result: Object = {}
        name, dropped = schema.ref.rpartition(".")[2], structs.of(schema.ref).dropped
        for key, item in value.items():
            node = schema.child(key)
            if node is None:
                self.unknown.note((path, key))
            elif item is not None:
                # Most fields are texts, which are what they are.
                if type(item) is str and node.form == "string":
                    decoded = item
                else:
                    try:
                        decoded = self.value(node, item, (path, key), name)
                    except Mismatch as mismatch:
                        self.mismatch = self.mismatch or mismatch
                        continue
                # An empty list of managers says something: that nobody is to be remembered.
                if decoded or key not in dropped or key == "managedFields":
                    result[key] = decoded
        return result

    def value(self, schema: Schema, value: Any, path: Path, struct: str) -> Any:
        """One value of a built-in type; `struct` is the Go struct that it is a field of, for messages."""
        form = schema.form
        if form == "any":
            return value
        if form == "struct":
            if not isinstance(value, dict):
                raise _mismatch(value, schema, path, struct)
            return self.struct(schema, value, path)
        if form == "list":
            return self.list(schema, value, path, struct)
        if form == "map":
            if not isinstance(value, dict):
                raise _mismatch(value, schema, path, struct)
            node = schema.values
            assert node is not None
            if node.form == "string" and all(type(item) is str for item in value.values()):
                return dict(value)
            return {
                key: _zero(node) if item is None else self.value(node, item, (path, (key,)), struct)
                for key, item in value.items()
            }
        if form.startswith("schema-or-"):
            return _schema_or(form, value)
        return _scalar(form, schema, value, path, struct)

    def list(self, schema: Schema, value: Any, path: Path, struct: str) -> list[Any]:
        node = schema.items
        if not isinstance(value, list):
            raise _mismatch(value, schema, path, struct)
        if node is None:
            return value
        return [
            _zero(node) if item is None else self.value(node, item, (path, index), struct)
            for index, item in enumerate(value)
        ]

    def metadata(self, value: Any, path: Path) -> Any:
        """The metadata of a custom resource, which upstream decodes apart from the rest."""
        if not isinstance(value, dict):
            raise CannotDecode(
                f"json: cannot unmarshal {json_type(value)} into Go value of type v1.ObjectMeta"
            )
        walk = _Walk()
        decoded = walk.struct(object_meta(), value, None)
        if walk.mismatch is not None:
            raise walk.mismatch
        for each in walk.unknown.paths:
            self.unknown.note((path, each))
        return decoded

    def structural(self, schema: Schema, value: Any, path: Path, root: bool = False) -> Any:
        """A custom resource's value, pruned. A value of another type than the schema's is left alone."""
        if schema.ref:
            return self.value(schema, value, path, "") if isinstance(value, dict) else value
        if isinstance(value, list):
            node = schema.items
            if node is None:
                return value
            return [self.structural(node, item, (path, index)) for index, item in enumerate(value)]
        if not isinstance(value, dict) or schema.int_or_string or not (root or schema.raw):
            return value
        result: Object = {}
        embedded = root or bool(schema.raw.get("x-kubernetes-embedded-resource"))
        for key, item in value.items():
            below: Path = (path, key)
            node = schema.child(key)
            if node is not None and not (embedded and key == "metadata"):
                if item is None and not self.keeps_nulls and schema.declares(key) and _is_dropped(node):
                    continue
                result[key] = self.structural(node, item, below)
            elif embedded and key in _ALWAYS:
                if key != "metadata":
                    result[key] = item
                elif item is not None:
                    result[key] = self.metadata(item, below)
            else:
                self.unknown.note(below)
        return result


def _schema_or(form: str, value: Any) -> Any:
    """A schema within a schema, or what may be in its place (JSONSchemaPropsOrBool and its like).

    Upstream decodes them apart from the rest: what they do not know is not told.
    """
    if form == "schema-or-bool":
        if not isinstance(value, bool | dict):
            raise CannotDecode("boolean or JSON schema expected")
    elif not isinstance(value, list | dict):
        return None
    walk, node = _Walk(), Schema.named(JSON_SCHEMA)
    if isinstance(value, dict):
        decoded: Any = walk.struct(node, value, None)
    elif isinstance(value, list):
        item = _STRING if form == "schema-or-strings" else node
        decoded = [_zero(item) if each is None else walk.value(item, each, None, "") for each in value]
    else:
        return value
    if walk.mismatch is not None:
        raise walk.mismatch
    return decoded


def _is_dropped(schema: Schema) -> bool:
    """Whether null stands for nothing: of what may not be null, and has no default in its place."""
    return not schema.raw.get("nullable") and "default" not in schema.raw


def object_meta() -> Schema:
    """ObjectMeta, which every type has however little its own schema says of it."""
    return Schema.named("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")


def _zero(schema: Schema) -> Any:
    return {} if schema.form in ("struct", "map") else _ZERO.get(schema.form)


def _scalar(form: str, schema: Schema, value: Any, path: Path, struct: str) -> Any:
    if form == "string":
        if not isinstance(value, str):
            raise _mismatch(value, schema, path, struct)
        return value
    if form == "boolean":
        if not isinstance(value, bool):
            raise _mismatch(value, schema, path, struct)
        return value
    if form == "integer":
        limit = _INT_MAX.get(str(schema.raw.get("format")), _INT_MAX["int64"])
        if type(value) is not int or not -limit - 1 <= value <= limit:
            raise _mismatch(value, schema, path, struct)
        return value
    if form == "number":
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _mismatch(value, schema, path, struct)
        return value
    if form == "int-or-string":
        if isinstance(value, str) or (type(value) is int and abs(value) <= _INT_MAX["int32"]):
            return value
        raise CannotDecode(f"json: cannot unmarshal {json_type(value)} into Go value of type int32")
    if form == "quantity":
        return quantity(value)
    if form == "bytes":
        return _bytes(value, schema, path, struct)
    return time(value, micro=form == "microtime")


def _bytes(value: Any, schema: Schema, path: Path, struct: str) -> str:
    if not isinstance(value, str):
        raise _mismatch(value, schema, path, struct)
    # Go's decoder skips line breaks, which a key file wrapped by `base64` has.
    text = value.replace("\n", "").replace("\r", "")
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Mismatch(f"illegal base64 data at input byte {base64_fault(value)}") from None
    return text


def _go_type(schema: Schema) -> str:
    form, items, values = schema.form, schema.items, schema.values
    if form == "list" and items is not None:
        return f"[]{_go_type(items)}"
    if form == "map" and values is not None:
        return f"map[string]{_go_type(values)}"
    if form == "integer":
        return str(schema.raw.get("format") or "int64")
    simple = {"boolean": "bool", "number": "float64", "bytes": "[]uint8", "string": "string"}
    if form in simple:
        return simple[form]
    package, _, name = schema.ref.rpartition(".")
    return f"{package.rpartition('.')[2]}.{name}"


def _mismatch(value: Any, schema: Schema, path: Path, struct: str) -> Mismatch:
    """Go's `json.UnmarshalTypeError`: the innermost struct's name, then field names without list indices."""
    names: list[str] = []
    node = path
    while node is not None:
        node, step = node[0], node[1]
        if isinstance(step, str):
            names.append(step)
    said = json_type(value)
    if said == "number" and schema.form == "integer":
        said = f"number {value}"
    field = ".".join(reversed(names))
    where = f"Go struct field {struct}.{field}" if struct else "Go value"
    of = "types.UID" if names[:1] == ["uid"] and struct in _WITH_UID else _go_type(schema)
    return Mismatch(f"json: cannot unmarshal {said} into {where} of type {of}")
