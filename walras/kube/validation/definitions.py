"""CustomResourceDefinitions: names, versions, structural schemas, CEL rules that compile."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from walras.core.errors import Cause
from walras.kube import fields
from walras.kube.cel import regex
from walras.kube.schema import Schema
from walras.kube.validation import conversion, names, rulechecks, rules, structural
from walras.kube.validation.faults import Faults

Object = Mapping[str, Any]

DEPTH_MAX: Final = 64
NODES_MAX: Final = 20_000
SELECTABLE_MAX: Final = 8
DEPRECATION_CHARACTERS_MAX: Final = 256
_UNSUPPORTED: Final = ("id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref")
_TYPES: Final = ("array", "boolean", "integer", "number", "object", "string")
_COLUMN_TYPES: Final = ("boolean", "date", "integer", "number", "string")
_COMBINED: Final = ("allOf", "anyOf", "oneOf")
# What a schema below allOf, anyOf, oneOf or not must leave to the schema outside.
_NOT_NESTED: Final = (
    "type", "additionalProperties", "default", "nullable", "description", "title",
    "x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource", "x-kubernetes-int-or-string",
)  # fmt: skip
# Served by the server itself: a definition here would never be seen.
_PROTECTED: Final = (".k8s.io", ".kubernetes.io")
_OURS: Final = "walras.dev"


def definition(faults: Faults, obj: Object, old: Object | None) -> None:
    spec = obj.get("spec") or {}
    _names(faults, obj, spec)
    _versions(faults, spec, (old or {}).get("spec") or {})
    conversion.conversion(faults, obj, old)
    if spec.get("preserveUnknownFields") and not ((old or {}).get("spec") or {}).get("preserveUnknownFields"):
        detail = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in "
        faults.invalid("spec.preserveUnknownFields", True, f"{detail}spec.versions[*].schema instead")
    if old is not None:
        was = old.get("spec") or {}
        established = bool((old.get("status") or {}).get("storedVersions"))
        faults.immutable("spec.group", spec.get("group"), was.get("group"))
        before, now = was.get("names") or {}, spec.get("names") or {}
        faults.immutable("spec.names.plural", now.get("plural"), before.get("plural"))
        if established:
            faults.immutable("spec.scope", spec.get("scope"), was.get("scope"))
            faults.immutable("spec.names.kind", now.get("kind"), before.get("kind"))
        _stored(faults, old, spec)


def _stored(faults: Faults, old: Object, spec: Object) -> None:
    known = [version.get("name") for version in spec.get("versions") or ()]
    for index, name in enumerate((old.get("status") or {}).get("storedVersions") or ()):
        if name not in known:
            detail = (
                f"missing from spec.versions; {name} was previously a storage version, and must remain in "
            )
            detail += "spec.versions until a storage migration ensures no data remains persisted in "
            detail += f"{name} and removes {name} from status.storedVersions"
            faults.invalid(f"status.storedVersions[{index}]", name, detail)


def _names(faults: Faults, obj: Object, spec: Object) -> None:
    group, given = spec.get("group", ""), spec.get("names") or {}
    name = (obj.get("metadata") or {}).get("name", "")
    if name != f"{given.get('plural', '')}.{group}":
        faults.invalid("metadata.name", name, 'must be spec.names.plural+"."+spec.group')
    _group(faults, obj, group)
    faults.one_of("spec.scope", spec.get("scope"), ("Cluster", "Namespaced"))
    for field in ("plural", "singular", "kind", "listKind"):
        value = given.get(field, "")
        mixed = "may have mixed case, but should otherwise match: " if field in ("kind", "listKind") else ""
        said = names.dns1035_label(value.lower() if mixed else value)
        if not value:
            faults.required(f"spec.names.{field}")
        elif said:
            faults.invalid(f"spec.names.{field}", value, mixed + ",".join(said))
    if given.get("kind") and given.get("kind") == given.get("listKind"):
        faults.invalid("spec.names.listKind", given["listKind"], "kind and listKind may not be the same")
    for field in ("shortNames", "categories"):
        for index, value in enumerate(given.get(field) or ()):
            said = names.dns1035_label(value)
            if said:
                faults.invalid(f"spec.names.{field}[{index}]", value, ",".join(said))


def _group(faults: Faults, obj: Object, group: str) -> None:
    said = names.dns_subdomain(group)
    if not group:
        faults.required("spec.group")
    elif said:
        faults.invalid("spec.group", group, ",".join(said))
    elif "." not in group:
        faults.invalid("spec.group", group, "should be a domain with at least one dot")
    elif group == _OURS:
        faults.forbidden("spec.group", f"the group {_OURS} is served by Walras itself")
    elif f".{group}".endswith(_PROTECTED):
        _approval(faults, obj)


def _approval(faults: Faults, obj: Object) -> None:
    name = "api-approved.kubernetes.io"
    if not ((obj.get("metadata") or {}).get("annotations") or {}).get(name):
        detail = "protected groups must have approval annotation "
        detail += f'"{name}", see https://github.com/kubernetes/enhancements/pull/1111'
        faults.required(f"metadata.annotations[{name}]", detail)


def _schema_of(version: Object) -> Any:
    return (version.get("schema") or {}).get("openAPIV3Schema")


def _versions(faults: Faults, spec: Object, was: Object) -> None:
    versions = spec.get("versions") or ()
    before = {version.get("name"): _schema_of(version) for version in was.get("versions") or ()}
    if len({version.get("name") for version in versions}) != len(versions):
        faults.invalid("spec.versions", _shown(versions), "must contain unique version names")
    if sum(bool(version.get("storage")) for version in versions) != 1:
        detail = "must have exactly one version marked as storage version"
        faults.invalid("spec.versions", _shown(versions), detail)
    alone = len(versions) == 1
    # What all versions have in common is of the whole spec, as it is inside upstream's server.
    common = _same(versions, _schema_of)
    subresources = _same(versions, lambda each: each.get("subresources"))
    columns = alone or _same(versions, lambda each: each.get("additionalPrinterColumns"))
    for index, version in enumerate(versions):
        path, name = f"spec.versions[{index}]", version.get("name", "")
        said = names.dns1035_label(name)
        if said:
            faults.invalid(f"{path}.name", name, ",".join(said))
        _deprecation(faults, path, version)
        if not index or not common:
            place = "spec.validation" if common else f"{path}.schema"
            _schema(faults, f"{place}.openAPIV3Schema", _schema_of(version), before.get(name))
        where = "spec" if subresources else path
        _subresources(faults, f"{where}.subresources", version.get("subresources") or {})
        where = "spec" if columns else path
        for number, column in enumerate(version.get("additionalPrinterColumns") or ()):
            _column(faults, f"{where}.additionalPrinterColumns[{number}]", column)
        _selectable(faults, f"{'spec' if alone else path}.selectableFields", version)


def _same(versions: Any, part: Callable[[Object], Any]) -> bool:
    return all(part(each) == part(versions[0]) for each in versions)


def _schema(faults: Faults, path: str, schema: Any, before: Any) -> None:
    if schema is None:
        faults.required(path)
        return
    found = Faults()
    _SchemaCheck(found).root(schema, path)
    if not found:
        rulechecks.check(found, schema, path, unchanged=schema == before)
    faults.extend(found)


def _deprecation(faults: Faults, path: str, version: Object) -> None:
    warning = version.get("deprecationWarning")
    if warning is None:
        return
    said = []
    if not version.get("deprecated"):
        said.append("can only be set for deprecated versions")
    elif len(warning) > DEPRECATION_CHARACTERS_MAX:
        said.append(f"must be <= {DEPRECATION_CHARACTERS_MAX} characters long")
    elif not warning:
        said.append("must not be an empty string")
    elif not warning.isprintable():
        at = next(place for place, letter in enumerate(warning) if not letter.isprintable())
        said.append(
            f"must only contain printable UTF-8 characters; non-printable character found at index {at}"
        )
    faults.each(f"{path}.deprecationWarning", warning, said)


def _selectable(faults: Faults, path: str, version: Object) -> None:
    """At most so many fields, each a scalar of the schema."""
    fields_given = version.get("selectableFields") or ()
    if len(fields_given) > SELECTABLE_MAX:
        faults.too_many(path, len(fields_given), SELECTABLE_MAX)
    seen = set()
    for index, each in enumerate(fields_given):
        text = each.get("jsonPath", "")
        at = f"{path}[{index}].jsonPath"
        if not text:
            faults.required(at)
            continue
        node: Any = _schema_of(version) or {}
        for name in text.removeprefix(".").split("."):
            node = (node.get("properties") or {}).get(name) if isinstance(node, dict) else None
        if not text.startswith(".") or not isinstance(node, dict):
            faults.invalid(at, text, "is an invalid path: does not refer to a valid field")
        elif node.get("type") not in ("string", "boolean", "integer"):
            detail = (
                "must point to a field of type string, boolean or integer. Enum string fields and strings "
            )
            faults.invalid(at, text, detail + "with formats are allowed.")
        elif text.startswith(".metadata"):
            faults.invalid(at, text, "must not point to fields in metadata")
        if text in seen:
            faults.duplicate(at, text)
        seen.add(text)


def _shown(versions: Any) -> list[str]:
    return [version.get("name", "") for version in versions]


def _subresources(faults: Faults, path: str, given: Object) -> None:
    scale = given.get("scale")
    if scale is None:
        return
    for field, start in (("specReplicasPath", ".spec."), ("statusReplicasPath", ".status.")):
        value = scale.get(field, "")
        if not value:
            faults.required(f"{path}.scale.{field}")
        elif not value.startswith(start):
            faults.invalid(f"{path}.scale.{field}", value, f"should be a json path under {start[:-1]}")


def _column(faults: Faults, path: str, column: Object) -> None:
    if not column.get("name"):
        faults.required(f"{path}.name")
    if not column.get("type"):
        supported = ",".join(_COLUMN_TYPES)
        faults.required(f"{path}.type", f"must be one of {supported}")
    elif column["type"] not in _COLUMN_TYPES:
        faults.invalid(f"{path}.type", column["type"], f"must be one of {','.join(_COLUMN_TYPES)}")
    if not column.get("jsonPath"):
        faults.required(f"{path}.JSONPath")


def _leads_somewhere(schema: Object, path: str) -> bool:
    """Whether a rule's fieldPath names a field below its schema."""
    if rules.STEP.sub("", path):
        return False
    node: Any = schema
    for plain, quoted in rules.STEP.findall(path):
        node = (node.get("properties") or {}).get(plain or quoted) or node.get("additionalProperties")
        if not isinstance(node, dict):
            return False
    return True


class _SchemaCheck:
    """A walk through one version's schema: is it structural, and do its parts mean something."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.nodes = 0
        self.rules = 0
        self.defaults: list[tuple[Object, str]] = []

    def root(self, schema: Object, path: str) -> None:
        if schema.get("type", "object") != "object":
            self.faults.invalid(f"{path}.type", schema["type"], "must be object at the root")
        if schema.get("additionalProperties") is not None:
            self.faults.forbidden(f"{path}.additionalProperties", "must not be used at the root")
        metadata = (schema.get("properties") or {}).get("metadata")
        if metadata is not None and set(metadata.get("properties") or ()) - {"name", "generateName"}:
            detail = "must not specify anything other than name and generateName, but metadata is implicitly "
            self.faults.forbidden(f"{path}.properties[metadata]", detail + "specified")
        self.node(schema, path, "at the root", 0)
        if not self.faults:
            # They are values by the schema, so it has to be one.
            for each, at in self.defaults:
                self._default(each, at)

    def node(self, schema: Object, path: str, place: str, depth: int) -> None:
        self.nodes += 1
        if depth > DEPTH_MAX or self.nodes > NODES_MAX:
            if self.nodes <= NODES_MAX + 1:
                self.faults.forbidden(path, f"schemas have at most {DEPTH_MAX} levels and {NODES_MAX} parts")
            return
        self._keywords(schema, path)
        kind = schema.get("type", "")
        free = schema.get("x-kubernetes-int-or-string") or schema.get("x-kubernetes-preserve-unknown-fields")
        if not kind and not free:
            self.faults.required(f"{path}.type", f"must not be empty {place}")
        elif kind and kind not in _TYPES:
            self.faults.not_supported(f"{path}.type", kind, _TYPES)
        if kind == "array" and not isinstance(schema.get("items"), dict):
            self.faults.required(f"{path}.items", "must be specified")
        self._list_type(schema, path)
        self._below(schema, path, depth)
        self._rules(schema, path)
        if "default" in schema:
            self.defaults.append((schema, path))

    def _below(self, schema: Object, path: str, depth: int) -> None:
        for name, child in sorted((schema.get("properties") or {}).items()):
            self.node(child, f"{path}.properties[{name}]", "for specified object fields", depth + 1)
        if isinstance(schema.get("items"), dict):
            self.node(schema["items"], f"{path}.items", "for specified array items", depth + 1)
        extra = schema.get("additionalProperties")
        if isinstance(extra, dict):
            self.node(extra, f"{path}.additionalProperties", "for specified object fields", depth + 1)
        if extra and schema.get("properties"):
            detail = "additionalProperties and properties are mutual exclusive"
            self.faults.forbidden(f"{path}.additionalProperties", detail)
        for keyword in _COMBINED:
            for index, child in enumerate(schema.get(keyword) or ()):
                self.nested(child, f"{path}.{keyword}[{index}]", schema, depth + 1)
        if isinstance(schema.get("not"), dict):
            self.nested(schema["not"], f"{path}.not", schema, depth + 1)

    def nested(self, schema: Object, path: str, outer: Object, depth: int) -> None:
        """A schema below allOf and the like, which may only constrain values."""
        self.nodes += 1
        if depth > DEPTH_MAX or self.nodes > NODES_MAX:
            return
        self._keywords(schema, path)
        for keyword in _NOT_NESTED:
            # The pattern of int-or-string names both types, as upstream's own generators write it.
            if schema.get(keyword) and not (keyword == "type" and outer.get("x-kubernetes-int-or-string")):
                self.faults.forbidden(f"{path}.{keyword}", "must be empty to be structural")
        for name, child in sorted((schema.get("properties") or {}).items()):
            self.nested(child, f"{path}.properties[{name}]", outer, depth + 1)
        if isinstance(schema.get("items"), dict):
            self.nested(schema["items"], f"{path}.items", outer, depth + 1)
        for keyword in _COMBINED:
            for index, child in enumerate(schema.get(keyword) or ()):
                self.nested(child, f"{path}.{keyword}[{index}]", outer, depth + 1)
        if isinstance(schema.get("not"), dict):
            self.nested(schema["not"], f"{path}.not", outer, depth + 1)

    def _keywords(self, schema: Object, path: str) -> None:
        for keyword in _UNSUPPORTED:
            if schema.get(keyword):
                self.faults.forbidden(f"{path}.{keyword}", f"{keyword} is not supported")
        if schema.get("uniqueItems"):
            detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
            self.faults.forbidden(f"{path}.uniqueItems", detail)
        if schema.get("pattern"):
            try:
                regex.pattern(schema["pattern"])
            except regex.PatternError as error:
                detail = f"must be a valid regular expression, but isn't: {error}"
                self.faults.invalid(f"{path}.pattern", schema["pattern"], detail)

    def _list_type(self, schema: Object, path: str) -> None:
        kind, keys = schema.get("x-kubernetes-list-type"), schema.get("x-kubernetes-list-map-keys") or ()
        if kind is not None and kind not in ("atomic", "set", "map"):
            self.faults.not_supported(f"{path}.x-kubernetes-list-type", kind, ("atomic", "map", "set"))
        if kind is not None and schema.get("type") != "array":
            detail = "must be array if x-kubernetes-list-type is specified"
            self.faults.invalid(f"{path}.type", schema.get("type", ""), detail)
        if kind == "map" and not keys:
            detail = "must not be empty if x-kubernetes-list-type is map"
            self.faults.required(f"{path}.x-kubernetes-list-map-keys", detail)
        declared = (schema.get("items") or {}).get("properties") or {}
        for name in keys:
            if name not in declared:
                at = f"{path}.x-kubernetes-list-map-keys"
                self.faults.invalid(at, list(keys), "entries must all be names of item properties")

    def _rules(self, schema: Object, path: str) -> None:
        for index, rule in enumerate(schema.get("x-kubernetes-validations") or ()):
            self.rules += 1
            at = f"{path}.x-kubernetes-validations[{index}]"
            if self.rules > rulechecks.RULES_MAX:
                self.faults.forbidden(at, f"a schema has at most {rulechecks.RULES_MAX} rules")
                return
            rulechecks.words(self.faults, rule, at)
            place = rule.get("fieldPath")
            if place and not _leads_somewhere(schema, place):
                self.faults.invalid(f"{at}.fieldPath", place, "must be a valid path")

    def _default(self, schema: Object, path: str) -> None:
        node, found = Schema(schema), Faults()
        structural.check_value(found, node, schema["default"], "")
        for cause in found:
            at = f"{path}.default.{cause.field}" if cause.field else f"{path}.default"
            self.faults.append(Cause(cause.reason, cause.message.replace(":  in body", ": in body"), at))
        value = schema["default"]
        if isinstance(value, dict) and fields.prune(node, value) != value:
            self.faults.invalid(f"{path}.default", value, "must not have unknown fields")
