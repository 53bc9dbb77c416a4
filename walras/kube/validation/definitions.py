"""CustomResourceDefinitions: names, versions, structural schemas, CEL rules that compile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from walras.core.errors import Cause
from walras.kube import cel, fields
from walras.kube.schema import Schema
from walras.kube.validation import names, structural
from walras.kube.validation.faults import Faults

Object = Mapping[str, Any]

DEPTH_MAX: Final = 64
NODES_MAX: Final = 20_000
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
    _versions(faults, spec)
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
            detail += "spec.versions until a storage migration ensures no data remains persisted in it"
            faults.invalid(
                f"status.storedVersions[{index}]", name, f"{detail} and removes it from status.storedVersions"
            )


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
    strategy = (spec.get("conversion") or {}).get("strategy", "None")
    if strategy != "None":
        faults.not_supported("spec.conversion.strategy", strategy, ("None",))


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


def _versions(faults: Faults, spec: Object) -> None:
    versions = spec.get("versions") or ()
    if len({version.get("name") for version in versions}) != len(versions):
        faults.invalid("spec.versions", _shown(versions), "must contain unique version names")
    if sum(bool(version.get("storage")) for version in versions) != 1:
        detail = "must have exactly one version marked as storage version"
        faults.invalid("spec.versions", _shown(versions), detail)
    for index, version in enumerate(versions):
        path, name = f"spec.versions[{index}]", version.get("name", "")
        said = names.dns1035_label(name)
        if said:
            faults.invalid(f"{path}.name", name, ",".join(said))
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        if schema is None:
            faults.required(f"{path}.schema.openAPIV3Schema")
        else:
            _SchemaCheck(faults).root(schema, f"{path}.schema.openAPIV3Schema")
        _subresources(faults, f"{path}.subresources", version.get("subresources") or {})
        for place, column in enumerate(version.get("additionalPrinterColumns") or ()):
            _column(faults, f"{path}.additionalPrinterColumns[{place}]", column)


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


class _SchemaCheck:
    """A walk through one version's schema: is it structural, and do its parts mean something."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.nodes = 0
        self.rules = 0

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
        self._default(schema, path)

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
                cel.matches(schema["pattern"], "")
            except cel.RuleError as error:
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
            at, text = f"{path}.x-kubernetes-validations[{index}]", rule.get("rule", "")
            if self.rules > cel.RULES_MAX:
                self.faults.forbidden(at, f"a schema has at most {cel.RULES_MAX} rules")
                return
            if not text.strip():
                self.faults.required(f"{at}.rule", "rule is not specified")
            else:
                optional = rule.get("optionalOldSelf") and cel.uses_old_self(text)
                whole = f"cel.bind(oldSelf, optional.of(oldSelf), {text})" if optional else text
                self._compiles(f"{at}.rule", text, whole, "BOOL")
            if rule.get("messageExpression"):
                said = rule["messageExpression"]
                self._compiles(f"{at}.messageExpression", said, said, "STRING")

    def _compiles(self, path: str, shown: str, text: str, wanted: str) -> None:
        try:
            found = cel.result_type(text)
        except cel.RuleError as error:
            self.faults.invalid(path, shown, f"compilation failed: {error}")
            return
        if found not in (wanted, "DYN"):
            what = "a bool" if wanted == "BOOL" else "a string"
            self.faults.invalid(path, shown, f"must evaluate to {what}")

    def _default(self, schema: Object, path: str) -> None:
        if "default" not in schema:
            return
        node, found = Schema(schema), Faults()
        structural.check_value(found, node, schema["default"], "")
        for cause in found:
            at = f"{path}.default.{cause.field}" if cause.field else f"{path}.default"
            self.faults.append(Cause(cause.reason, cause.message.replace(":  in body", ": in body"), at))
        value = schema["default"]
        if isinstance(value, dict) and fields.prune(node, value) != value:
            self.faults.invalid(f"{path}.default", value, "must not have unknown fields")
