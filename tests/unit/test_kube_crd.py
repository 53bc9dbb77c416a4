"""CustomResourceDefinitions: what they serve, what they refuse, and CEL rules."""

import copy
from importlib.resources import files
from typing import Any

import pytest
import yaml

from walras.kube import crd, defaults, fields, validation
from walras.kube.registry import Resource
from walras.kube.registry_builtin import AGENT_KINDS, FLEET_KINDS, SERVING_KINDS, for_agents

Object = dict[str, Any]
CRDS = for_agents()["customresourcedefinitions.apiextensions.k8s.io"]
NOW = "2024-01-01T00:00:00Z"


def definition(schema: Object | None = None, **version: Any) -> Object:
    """A definition of Gadget with a schema for its spec."""
    root = {"type": "object", "properties": {"spec": schema or {"type": "object"}}}
    versions = [
        {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": root}, **version}
    ]
    made = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "gadgets.example.com", "uid": "u"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"kind": "Gadget", "plural": "gadgets", "shortNames": ["gd"]},
            "versions": versions,
        },
    }
    decoded, unknown = fields.decode(CRDS.schema, made)
    assert unknown == []
    defaults.apply(CRDS, decoded)
    return decoded


def definition_faults(obj: Object, old: Object | None = None) -> list[str]:
    return [f"{cause.field}: {cause.message}" for cause in validation.validate(CRDS, obj, old)]


def served(schema: Object) -> Resource:
    made = definition(schema)
    assert definition_faults(made) == []
    made["status"] = crd.establish(made, NOW)
    (resource,) = crd.resources(made)
    return resource


def faults(resource: Resource, spec: Any, old: Any = None) -> list[str]:
    def gadget(spec: Any) -> Object:
        obj = {"apiVersion": "example.com/v1", "kind": "Gadget", "spec": copy.deepcopy(spec)}
        obj = fields.prune(resource.schema, obj)
        obj["metadata"] = {"name": "g", "namespace": "default", "uid": "u"}
        defaults.apply(resource, obj)
        return obj

    causes = validation.validate(resource, gadget(spec), None if old is None else gadget(old))
    return [f"{cause.field}: {cause.message}" for cause in causes]


def test_a_definition_serves_its_kind_once_it_is_established() -> None:
    made = definition(subresources={"status": {}}, selectableFields=[{"jsonPath": ".spec.colour"}])
    assert crd.resources(made) == []
    made["status"] = crd.establish(made, NOW)
    (resource,) = crd.resources(made)
    assert (resource.key, resource.api_version, resource.kind) == (
        "gadgets.example.com",
        "example.com/v1",
        "Gadget",
    )
    assert resource.namespaced and resource.has_status and not resource.builtin
    assert resource.short_names == ("gd",) and resource.selectable_fields == ("spec.colour",)
    registry = for_agents().with_crds([resource])
    assert registry.by_kind("example.com", "v1", "Gadget") is resource


def test_who_asks_for_a_deprecated_version_is_told_so_in_the_definitions_words_if_it_has_any() -> None:
    def told(**version: Any) -> str:
        made = definition(**version)
        made["status"] = crd.establish(made, NOW)
        return crd.resources(made)[0].deprecation

    assert told() == ""
    assert told(deprecated=True) == "example.com/v1 Gadget is deprecated"
    assert told(deprecated=True, deprecationWarning="go away") == "go away"


def test_clusters_with_the_same_definition_share_one_resource() -> None:
    first, second, other = (served(schema) for schema in (SHAPE, copy.deepcopy(SHAPE), {"type": "object"}))
    assert first is second and first is not other


def test_the_status_says_that_it_is_served_and_keeps_its_times() -> None:
    made = definition()
    made["status"] = crd.establish(made, NOW)
    conditions = {each["type"]: each for each in made["status"]["conditions"]}
    assert conditions["NamesAccepted"]["reason"] == "NoConflicts"
    assert conditions["Established"]["status"] == "True"
    assert made["status"]["storedVersions"] == ["v1"]
    assert made["status"]["acceptedNames"]["listKind"] == "GadgetList"
    assert crd.establish(made, "2025-01-01T00:00:00Z") == made["status"]


def test_names_must_fit() -> None:
    made = definition()
    made["metadata"]["name"] = "things.example.com"
    assert definition_faults(made) == [
        'metadata.name: Invalid value: "things.example.com": must be spec.names.plural+"."+spec.group'
    ]
    ours = definition()
    ours["metadata"]["name"], ours["spec"]["group"] = "gadgets.walras.dev", "walras.dev"
    assert definition_faults(ours) == [
        "spec.group: Forbidden: the group walras.dev is served by Walras itself"
    ]


def test_one_version_is_stored() -> None:
    made = definition(storage=False)
    (found,) = definition_faults(made)
    assert found.endswith("must have exactly one version marked as storage version")


@pytest.mark.parametrize("plural", [*FLEET_KINDS, *AGENT_KINDS])
def test_walras_own_definitions_are_sound(plural: str) -> None:
    text = files("walras.kube").joinpath(f"crds/{plural}.yaml").read_text()
    decoded, unknown = fields.decode(CRDS.schema, yaml.safe_load(text))
    assert unknown == []
    defaults.apply(CRDS, decoded)
    assert definition_faults(decoded) == [
        "spec.group: Forbidden: the group walras.dev is served by Walras itself"
    ]


@pytest.mark.parametrize("number", range(len(SERVING_KINDS)))
def test_the_definitions_of_knatives_kinds_are_sound(number: int) -> None:
    text = files("walras.kube").joinpath("crds/serving.yaml").read_text()
    decoded, unknown = fields.decode(CRDS.schema, yaml.safe_load(text)["items"][number])
    assert unknown == []
    defaults.apply(CRDS, decoded)
    assert definition_faults(decoded) == []
    assert decoded["spec"]["names"]["plural"] == SERVING_KINDS[number]


# With one version its schema is that of the whole spec.
AT = "spec.validation.openAPIV3Schema.properties[spec]"


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"properties": {}}, f"{AT}.type: Required value: must not be empty for specified object fields"),
        ({"type": "array"}, f"{AT}.items: Required value: must be specified"),
        (
            {"type": "text"},
            f'{AT}.type: Unsupported value: "text": supported values: "array", "boolean", "integer", '
            '"number", "object", "string"',
        ),
        ({"type": "object", "$ref": "#/x"}, f"{AT}.$ref: Forbidden: $ref is not supported"),
        # A default is a value by the schema, so that nothing is said of it where there is none.
        (
            {"type": "object", "$ref": "#/$defs/no-such", "default": {"a": 1}},
            f"{AT}.$ref: Forbidden: $ref is not supported",
        ),
        (
            {"type": "object", "properties": {"a": {"type": "object", "$ref": "#/x"}}, "default": {"a": 1}},
            f"{AT}.properties[a].$ref: Forbidden: $ref is not supported",
        ),
        (
            {"type": "object", "anyOf": [{"type": "object"}]},
            f"{AT}.anyOf[0].type: Forbidden: must be empty to be structural",
        ),
        (
            {"type": "integer", "default": "x"},
            f'{AT}.default: Invalid value: "string": in body must be of type integer: "string"',
        ),
        (
            {"type": "object", "x-kubernetes-validations": [{"rule": "1"}]},
            f'{AT}.x-kubernetes-validations[0].rule: Invalid value: {{"Rule":"1","Message":"",'
            '"MessageExpression":"","Reason":null,"FieldPath":"","OptionalOldSelf":null}: '
            "cel expression must evaluate to a bool",
        ),
        (
            {"type": "object", "x-kubernetes-validations": [{"rule": ""}]},
            f"{AT}.x-kubernetes-validations[0].rule: Required value: rule is not specified",
        ),
    ],
)
def test_schemas_must_be_structural(schema: Object, expected: str) -> None:
    assert definition_faults(definition(schema)) == [expected]


@pytest.mark.parametrize("rule", ["self.foo(", "nothere == 1", "self.size() > 'a'", "x" * 20_000])
def test_a_rule_that_does_not_compile_is_refused(rule: str) -> None:
    schema = {"type": "object", "x-kubernetes-validations": [{"rule": rule}]}
    (found,) = definition_faults(definition(schema))
    assert found.startswith(f"{AT}.x-kubernetes-validations[0].rule: Invalid value: ")
    assert "compilation failed: " in found


def test_a_pattern_that_is_none_is_refused() -> None:
    (found,) = definition_faults(definition({"type": "string", "pattern": "("}))
    assert found.startswith(f'{AT}.pattern: Invalid value: "(": must be a valid regular expression')


def test_a_schema_of_endless_depth_is_refused() -> None:
    schema: Object = {"type": "string"}
    for _ in range(80):
        schema = {"type": "object", "properties": {"a": schema}}
    assert any("schemas have at most 64 levels" in fault for fault in definition_faults(definition(schema)))


def test_what_a_definition_may_not_change_once_it_serves() -> None:
    old = definition()
    old["status"] = crd.establish(old, NOW)
    new = copy.deepcopy(old)
    new["spec"]["scope"] = "Cluster"
    assert definition_faults(new, old) == ['spec.scope: Invalid value: "Cluster": field is immutable']
    renamed = copy.deepcopy(old)
    renamed["spec"]["versions"][0]["name"] = "v2"
    (found,) = definition_faults(renamed, old)
    assert found.startswith('status.storedVersions[0]: Invalid value: "v1": missing from spec.versions')


SHAPE = {
    "type": "object",
    "required": ["size"],
    "properties": {
        "size": {"type": "integer", "minimum": 1, "maximum": 10, "multipleOf": 2},
        "name": {"type": "string", "minLength": 2, "maxLength": 4, "pattern": "^[a-z]+$"},
        "when": {"type": "string", "format": "date-time"},
        "kind": {"type": "string", "enum": ["a", "b"]},
        "list": {"type": "array", "minItems": 1, "maxItems": 2, "items": {"type": "string"}},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "by": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["k"],
            "items": {"type": "object", "required": ["k"], "properties": {"k": {"type": "string"}}},
        },
        "map": {"type": "object", "additionalProperties": {"type": "integer"}},
        "port": {"x-kubernetes-int-or-string": True},
        "none": {"type": "string", "nullable": True},
        "one": {"type": "integer", "oneOf": [{"minimum": 5}, {"maximum": 2}]},
    },
}


# Each message as kube-apiserver 1.36 gives it.
@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (
            {"size": "2"},
            'spec.size: Invalid value: "string": spec.size in body must be of type integer: "string"',
        ),
        ({"size": 0}, "spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1"),
        ({"size": 12}, "spec.size: Invalid value: 12: spec.size in body should be less than or equal to 10"),
        ({"size": 3}, "spec.size: Invalid value: 3: spec.size in body should be a multiple of 2"),
        ({"name": "a"}, 'spec.name: Invalid value: "a": spec.name in body should be at least 2 chars long'),
        ({"name": "abcde"}, "spec.name: Too long: may not be more than 4 bytes"),
        ({"name": "AB"}, "spec.name: Invalid value: \"AB\": spec.name in body should match '^[a-z]+$'"),
        (
            {"when": "now"},
            'spec.when: Invalid value: "now": spec.when in body must be of type date-time: "now"',
        ),
        ({"kind": "c"}, 'spec.kind: Unsupported value: "c": supported values: "a", "b"'),
        ({"list": []}, "spec.list: Invalid value: 0: spec.list in body should have at least 1 items"),
        ({"list": ["a", "b", "c"]}, "spec.list: Too many: 3: must have at most 2 items"),
        (
            {"list": [1]},
            'spec.list[0]: Invalid value: "integer": spec.list[0] in body must be of type string: "integer"',
        ),
        ({"set": ["a", "b", "a"]}, 'spec.set[2]: Duplicate value: "a"'),
        ({"by": [{"k": "a"}, {"k": "a"}]}, 'spec.by[1]: Duplicate value: {"k":"a"}'),
        ({"by": [{}]}, "spec.by[0].k: Required value"),
        (
            {"map": {"a": "b"}},
            'spec.map.a: Invalid value: "string": spec.map.a in body must be of type integer: "string"',
        ),
        (
            {"port": True},
            'spec.port: Invalid value: "boolean": '
            'spec.port in body must be of type integer,string: "boolean"',
        ),
        (
            {"one": 3},
            'spec.one: Invalid value: "": "spec.one" must validate one and only one schema (oneOf). '
            "Found none valid",
        ),
    ],
)
def test_objects_are_checked_by_their_schema(more: Object, expected: str) -> None:
    assert faults(served(SHAPE), {"size": 2, **more}) == [expected]


def test_sound_objects_have_no_fault() -> None:
    sound = {
        "size": 2, "name": "ab", "when": NOW, "kind": "a", "list": ["x"], "set": ["a", "b"],
        "by": [{"k": "a"}], "map": {"a": 1}, "port": "http", "none": None, "one": 9,
    }  # fmt: skip
    assert faults(served(SHAPE), sound) == []
    assert faults(served(SHAPE), {"size": 2.0, "port": 80}) == []
    assert faults(served(SHAPE), {}) == ["spec.size: Required value"]


def test_what_was_wrong_before_a_rule_came_may_stay_as_it_is() -> None:
    resource = served(SHAPE)
    assert faults(resource, {"size": 2, "name": "A"}, {"size": 4, "name": "A"}) == []
    assert faults(resource, {"size": 2, "name": "B"}, {"size": 4, "name": "A"}) != []


def test_a_hostile_pattern_takes_linear_time() -> None:
    resource = served({"type": "object", "properties": {"s": {"type": "string", "pattern": "^(a+)+$"}}})
    assert len(faults(resource, {"s": "a" * 5000 + "!"})) == 1


def ruled(*rules: Object, **properties: Any) -> Resource:
    fields = {name: kind if isinstance(kind, dict) else {"type": kind} for name, kind in properties.items()}
    return served({"type": "object", "properties": fields, "x-kubernetes-validations": list(rules)})


def test_rules_hold_across_fields() -> None:
    resource = ruled({"rule": "self.low <= self.high"}, low="integer", high="integer")
    assert faults(resource, {"low": 1, "high": 2}) == []
    assert faults(resource, {"low": 3, "high": 2}) == [
        "spec: Invalid value: failed rule: self.low <= self.high"
    ]


def test_rules_have_messages_reasons_and_places() -> None:
    resource = ruled(
        {"rule": "self.a < 5", "message": " too big ", "fieldPath": ".a", "reason": "FieldValueForbidden"},
        {"rule": "self.a < 6", "messageExpression": "'a is %d'.format([self.a])"},
        {"rule": "self.a < 7", "messageExpression": "self.b", "message": "fallback"},
        a="integer",
        b={"type": "string", "maxLength": 99},
    )
    assert faults(resource, {"a": 9}) == [
        "spec.a: Forbidden: too big",
        "spec: Invalid value: a is 9",
        "spec: Invalid value: fallback",
    ]


def test_rules_run_for_every_item() -> None:
    items: Object = {"type": "object", "properties": {"n": {"type": "integer"}}}
    items["x-kubernetes-validations"] = [{"rule": "self.n > 0", "message": "must be positive"}]
    resource = ruled(list={"type": "array", "items": items})
    assert faults(resource, {"list": [{"n": 1}, {"n": 0}]}) == [
        "spec.list[1]: Invalid value: must be positive"
    ]


def test_transition_rules_hold_on_update_only() -> None:
    resource = ruled({"rule": "self.n >= oldSelf.n", "message": "must not shrink"}, n="integer")
    assert faults(resource, {"n": 1}) == []
    assert faults(resource, {"n": 2}, {"n": 1}) == []
    assert faults(resource, {"n": 1}, {"n": 2}) == ["spec: Invalid value: must not shrink"]


def test_an_optional_old_self_is_there_on_create_too() -> None:
    rule = {"rule": "oldSelf.hasValue() || self.n == 1", "message": "begin at 1", "optionalOldSelf": True}
    resource = ruled(rule, n="integer")
    assert faults(resource, {"n": 2}) == ["spec: Invalid value: begin at 1"]
    assert faults(resource, {"n": 2}, {"n": 3}) == []


def test_a_rule_that_fails_to_run_is_a_fault_not_a_crash() -> None:
    (found,) = faults(ruled({"rule": "self.n > 1", "message": "m"}, n="integer"), {})
    assert found.startswith('spec: Invalid value: "object": ') and found.endswith(" evaluating rule: m")


def test_rules_see_escaped_names_times_and_optional_fields() -> None:
    resource = ruled(
        {"rule": "self.max__dash__size == 1 && self.__in__ == 2"},
        {"rule": "timestamp(self.start) < timestamp('2030-01-01T00:00:00Z')"},
        {"rule": "duration(self.wait) > duration('1m')"},
        {"rule": "self.?missing.orValue('x') == 'x'"},
        {"rule": "self.list.isSorted() && self.list.sum() == 6 && self.list.max() == 3"},
        **{"max-size": "integer", "in": "integer", "missing": "string"},
        start={"type": "string", "format": "date-time"},
        wait={"type": "string", "format": "duration"},
        list={"type": "array", "items": {"type": "integer"}},
    )
    spec = {"max-size": 1, "in": 2, "start": NOW, "wait": "5m", "list": [1, 2, 3]}
    assert faults(resource, spec) == []


def test_a_rule_cannot_run_for_ever() -> None:
    # As a definition has it that was stored before there were estimates.
    rule = {"rule": "self.l.all(a, self.l.all(b, self.l.all(c, a + b + c >= 0)))"}
    many = {"type": "array", "items": {"type": "integer"}}
    spec = {"type": "object", "properties": {"l": many}, "x-kubernetes-validations": [rule]}
    given = definition(spec)["spec"]
    found = faults(crd.resource_of(given, given["versions"][0]), {"l": list(range(1000))})
    assert "call cost exceeds limit" in found[0]


@pytest.mark.parametrize(
    "rule",
    [
        "self.l.all(a, self.l.all(b, a == b))",
        "self.l.exists(a, a.contains(self.s))",
        "self.s.matches(self.s)",
        "self.l.map(a, a + self.s).join('').size() > 0",
    ],
)
def test_a_rule_that_could_cost_too_much_is_refused_before_it_runs(rule: str) -> None:
    text = {"type": "string"}
    properties = {"s": text, "l": {"type": "array", "items": text}}
    schema = {"type": "object", "properties": properties, "x-kubernetes-validations": [{"rule": rule}]}
    assert any(
        "estimated rule cost exceeds budget by factor" in each
        for each in definition_faults(definition(schema))
    )
    bounded = {"type": "string", "maxLength": 10}
    schema["properties"] = {"s": bounded, "l": {"type": "array", "maxItems": 10, "items": bounded}}
    assert definition_faults(definition(schema)) == []


def test_rules_of_what_has_not_changed_are_not_held_against_other_changes() -> None:
    part: Object = {"type": "object", "properties": {"n": {"type": "integer"}}}
    part["x-kubernetes-validations"] = [{"rule": "self.n > 5"}]
    resource = ruled(a=part, b=part)
    assert faults(resource, {"a": {"n": 1}, "b": {"n": 7}}, {"a": {"n": 1}, "b": {"n": 6}}) == []
    assert len(faults(resource, {"a": {"n": 2}, "b": {"n": 7}}, {"a": {"n": 1}, "b": {"n": 6}})) == 1


def test_a_comparison_with_the_old_value_needs_to_know_which_it_is() -> None:
    item: Object = {"type": "object", "properties": {"n": {"type": "integer"}, "k": {"type": "string"}}}
    item["x-kubernetes-validations"] = [{"rule": "self.n >= oldSelf.n"}]
    loose = {"type": "array", "items": item, "maxItems": 5}
    keyed = {**loose, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"]}
    keyed["items"] = {**item, "required": ["k"]}
    assert (
        "uncorrelatable" in definition_faults(definition({"type": "object", "properties": {"l": loose}}))[0]
    )
    assert definition_faults(definition({"type": "object", "properties": {"l": keyed}})) == []
