"""Custom resources against their schema: OpenAPI v3 keywords in kube-openapi's words, then CEL rules.

Unchanged parts of an object are not checked again on update (ratcheting, KEP-4008).
"""

from __future__ import annotations

import ipaddress
import json
import re
import uuid
from collections.abc import Callable, Mapping
from datetime import date
from typing import Any, Final
from urllib.parse import urlsplit

from walras.core.clock import parse_rfc3339
from walras.core.errors import Invalid
from walras.core.quantity import parse_duration_ms
from walras.kube.cel import regex
from walras.kube.schema import Schema
from walras.kube.validation import replicas, rules
from walras.kube.validation.faults import Faults
from walras.kube.validation.rules import below

Object = Mapping[str, Any]

_MISSING: Final = rules.MISSING


def validate(
    faults: Faults, schema: Schema, obj: Object, old: Object | None, paths: Mapping[str, str] | None = None
) -> None:
    """Faults of a custom resource by its schema and the `paths` of its scale, if it has one.

    Rules run only where the shape is right, which other faults may have shown not to be the case.
    """
    before: Any = _MISSING if old is None else old
    _properties(faults, schema, obj, before, "", root=True)
    if paths is not None:
        replicas.scale(faults, paths, obj, old)
    if not rules.has_rules(schema):
        return
    if any(fault.reason in _BLOCKING for fault in faults):
        detail = (
            "some validation rules were not checked because the object was invalid; correct the existing "
        )
        faults.invalid("<nil>", None, f"{detail}errors to complete validation")
    else:
        rules.run(faults, schema, obj, before)


# Faults that leave rules without what they are about.
_BLOCKING: Final = frozenset(
    f"FieldValue{each}" for each in ("NotSupported", "Required", "TooLong", "TooMany", "TypeInvalid")
)


def check_value(faults: Faults, schema: Schema, value: Any, path: str) -> None:
    """Faults of a value by its schema alone, such as those of a default."""
    _value(faults, schema, value, _MISSING, path)


def _value(faults: Faults, schema: Schema, value: Any, old: Any, path: str) -> None:
    if schema.ref or (old is not _MISSING and value == old):
        return
    raw = schema.raw
    if value is None and raw.get("nullable"):
        return
    if not _type(faults, schema, value, path):
        if isinstance(value, float) and "integer" in schema.types:
            form = f"with format {raw['format']}" if raw.get("format") else "(default format)"
            faults.invalid("<nil>", "", f"Checked value must be of type integer {form} in {path}")
            _number(faults, raw, value, path)
        _enumerated(faults, schema, value, path)
        return
    _enumerated(faults, schema, value, path)
    if isinstance(value, str):
        _string(faults, raw, value, path)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        _number(faults, raw, value, path)
    elif isinstance(value, list):
        _list(faults, schema, value, old, path)
    elif isinstance(value, dict):
        _properties(faults, schema, value, old, path)
    _combined(faults, schema, value, path)


def _enumerated(faults: Faults, schema: Schema, value: Any, path: str) -> None:
    enum = schema.raw.get("enum")
    if enum is not None and not faults.full and not _is_allowed(schema, value):
        shown = [each if isinstance(each, str) else json.dumps(each) for each in enum]
        faults.not_supported(path, value, shown)


def _is_allowed(schema: Schema, value: Any) -> bool:
    if isinstance(value, dict | list):
        return any(_same(value, allowed) for allowed in schema.raw["enum"])
    return (isinstance(value, bool), value) in schema.scalars


def _same(value: Any, allowed: Any) -> bool:
    return isinstance(value, bool) == isinstance(allowed, bool) and value == allowed


def json_type(value: Any) -> str:
    """The value's type in JSON Schema's words."""
    if isinstance(value, bool):
        return "boolean"
    if value is None:
        return "null"
    kinds = ((str, "string"), (int, "integer"), (float, "number"), (list, "array"))
    return next((name for kind, name in kinds if isinstance(value, kind)), "object")


def _type(faults: Faults, schema: Schema, value: Any, path: str) -> bool:
    actual = json_type(value)
    if schema.int_or_string:
        wanted: tuple[str, ...] = ("integer", "string")
    else:
        wanted = schema.types
    exact = isinstance(value, float) and value.is_integer() and abs(value) < _EXACT
    whole_float = exact and "integer" in wanted
    if not wanted or actual in wanted or whole_float or (actual == "integer" and "number" in wanted):
        return True
    said = f'{path} in body must be of type {",".join(wanted)}: "{actual}"'
    faults.wrong_type(path, actual, said)
    return False


def _string(faults: Faults, raw: Object, value: str, path: str) -> None:
    if "maxLength" in raw and len(value) > raw["maxLength"]:
        faults.too_long(path, raw["maxLength"])
    if "minLength" in raw and len(value) < raw["minLength"]:
        faults.invalid(path, value, f"{path} in body should be at least {raw['minLength']} chars long")
    if raw.get("pattern"):
        try:
            fits = regex.matches(raw["pattern"], value)
        except regex.PatternError:
            fits = False
        if not fits:
            faults.invalid(path, value, f"{path} in body should match '{raw['pattern']}'")
    check = _FORMATS.get(raw.get("format", ""))
    if check is not None and not _well_formed(check, value):
        detail = f'{path} in body must be of type {raw["format"]}: "{value}"'
        faults.invalid(path, value, detail)


def _well_formed(check: Callable[[str], Any], value: str) -> bool:
    try:
        return check(value) is not False
    except (ValueError, OverflowError, Invalid):
        return False


# From here on a float stands for several integers.
_EXACT: Final = 2**53


def _regex(pattern: str) -> Callable[[str], bool]:
    wanted = re.compile(pattern, re.ASCII)
    return lambda text: wanted.fullmatch(text) is not None


_FORMATS: Final[Mapping[str, Callable[[str], Any]]] = {
    "date-time": parse_rfc3339,
    "datetime": parse_rfc3339,
    "date": date.fromisoformat,
    "duration": parse_duration_ms,
    "ipv4": ipaddress.IPv4Address,
    "ipv6": ipaddress.IPv6Address,
    "cidr": lambda text: ipaddress.ip_network(text, strict=False) if "/" in text else False,
    "uuid": lambda text: uuid.UUID(text) if len(text) in (32, 36) else False,
    "uri": lambda text: bool(urlsplit(text).path or urlsplit(text).netloc),
    "email": _regex(r"[^@\s]+@[^@\s]+"),
    "hostname": _regex(r"[A-Za-z0-9]([-A-Za-z0-9]{0,62})(\.[A-Za-z0-9]([-A-Za-z0-9]{0,62}))*"),
    "mac": _regex(r"[0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}"),
    "byte": _regex(r"([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"),
}


def _number(faults: Faults, raw: Object, value: float, path: str) -> None:
    least, most, step = raw.get("minimum"), raw.get("maximum"), raw.get("multipleOf")
    if least is not None and (value <= least if raw.get("exclusiveMinimum") else value < least):
        words = "greater than" if raw.get("exclusiveMinimum") else "greater than or equal to"
        faults.invalid(path, value, f"{path} in body should be {words} {_plain(least)}")
    if most is not None and (value >= most if raw.get("exclusiveMaximum") else value > most):
        words = "less than" if raw.get("exclusiveMaximum") else "less than or equal to"
        faults.invalid(path, value, f"{path} in body should be {words} {_plain(most)}")
    if step and abs(value / step - round(value / step)) > 1e-9:
        faults.invalid(path, value, f"{path} in body should be a multiple of {_plain(step)}")
    bits = {"int32": 31, "int64": 63}.get(raw.get("format", "int64" if isinstance(value, int) else ""))
    if bits is not None and not -(2**bits) <= value < 2**bits:
        faults.invalid(path, value, f'{path} in body must be of type int{bits + 1}: "{value}"')


def _plain(number: float) -> str:
    return str(int(number)) if float(number).is_integer() else str(number)


def _list(faults: Faults, schema: Schema, value: list[Any], old: Any, path: str) -> None:
    raw = schema.raw
    if "maxItems" in raw and len(value) > raw["maxItems"]:
        faults.too_many(path, len(value), raw["maxItems"])
    if "minItems" in raw and len(value) < raw["minItems"]:
        faults.invalid(path, len(value), f"{path} in body should have at least {raw['minItems']} items")
    keys = schema.list_map_keys if schema.list_type == "map" else ()
    before = by_keys(old, keys) if keys else {}
    items = schema.items
    if items is not None:
        for index, item in enumerate(value):
            _value(faults, items, item, before.get(_key(item, keys), _MISSING), f"{path}[{index}]")
    _unique(faults, schema.list_type, keys, value, path)


def by_keys(old: Any, keys: tuple[str, ...]) -> dict[str, Any]:
    """The items of a list of type map by their keys; empty for what is no list."""
    return {_key(item, keys): item for item in old} if isinstance(old, list) else {}


def _key(item: Any, keys: tuple[str, ...]) -> str:
    if not keys or not isinstance(item, dict):
        return ""
    return json.dumps([item.get(name) for name in keys], sort_keys=True)


def _unique(faults: Faults, kind: str, keys: tuple[str, ...], value: list[Any], path: str) -> None:
    if kind not in ("set", "map"):
        return
    seen: dict[str, int] = {}
    for index, item in enumerate(value):
        shown: Any = item
        if kind == "map":
            if not isinstance(item, dict):
                faults.invalid(f"{path}[{index}]", item, "must be an object for an array of list-type map")
                continue
            shown = {name: item[name] for name in keys if name in item}
        text = json.dumps(shown, sort_keys=True)
        seen[text] = seen.get(text, 0) + 1
        if seen[text] == 2:
            faults.duplicate(f"{path}[{index}]", shown)


def _properties(
    faults: Faults, schema: Schema, value: Object, old: Any, path: str, root: bool = False
) -> None:
    raw, before = schema.raw, old if isinstance(old, dict) else {}
    if "maxProperties" in raw and len(value) > raw["maxProperties"]:
        faults.too_many(path, len(value), raw["maxProperties"])
    if "minProperties" in raw and len(value) < raw["minProperties"]:
        least = raw["minProperties"]
        faults.invalid(path, len(value), f"{path} in body should have at least {least} properties")
    for name in schema.required:
        if name not in value:
            faults.required(below(path, name))
    for name, item in value.items():
        node = schema.child(name)
        if node is not None and not (root and name == "metadata"):
            _value(faults, node, item, before.get(name, _MISSING), below(path, name))


def _combined(faults: Faults, schema: Schema, value: Any, path: str) -> None:
    """allOf, anyOf, oneOf, not: their sub-schemas constrain values without declaring fields."""
    raw = schema.raw

    def failures(sub: Mapping[str, Any]) -> Faults:
        found = Faults()
        _value(found, Schema(sub), value, _MISSING, path)
        return found

    for sub in raw.get("allOf") or ():
        found = failures(sub)
        if found:
            faults.invalid(path, "", f'"{path}" must validate all the schemas (allOf)')
            faults.extend(found)
    if raw.get("anyOf") and all(failures(sub) for sub in raw["anyOf"]):
        faults.invalid(path, "", f'"{path}" must validate at least one schema (anyOf)')
    if raw.get("oneOf"):
        valid = sum(not failures(sub) for sub in raw["oneOf"])
        if valid != 1:
            how = f"Found {valid} valid alternatives" if valid else "Found none valid"
            faults.invalid(path, "", f'"{path}" must validate one and only one schema (oneOf). {how}')
    if raw.get("not") is not None and not failures(raw["not"]):
        faults.invalid(path, "", f'"{path}" must not validate the schema (not)')
