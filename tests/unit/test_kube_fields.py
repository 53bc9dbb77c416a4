"""Decoding: unknown fields, wrong types in Go's words, canonical forms."""

import re
from contextlib import suppress
from typing import Any

import pytest

from walras.core.errors import BadRequest
from walras.core.quantity import canonical
from walras.kube import fields
from walras.kube.crd import with_metadata
from walras.kube.fieldpaths import TOLD_MAX
from walras.kube.registry_builtin import for_all
from walras.kube.schema import Schema

PODS = for_all()["pods"].schema
SECRETS = for_all()["secrets"].schema


def pod(**spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "x"},
        "spec": {"containers": [{"name": "c", "image": "i"}], **spec},
    }


def test_a_well_formed_pod_is_unchanged() -> None:
    assert fields.decode(PODS, pod()) == (pod(), [])


def test_unknown_fields_are_named_by_their_path_and_dropped() -> None:
    given = pod(containers=[{"name": "c", "img": "i"}], nodename="n")
    given["extra"] = 1
    assert fields.check(PODS, given) == ["spec.containers[0].img", "spec.nodename", "extra"]
    assert fields.prune(PODS, given) == {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {"containers": [{"name": "c"}]}
    }  # fmt: skip


def test_the_list_of_unknown_fields_is_bounded() -> None:
    given = pod(**{f"field{i}": 1 for i in range(500)})
    assert len(fields.check(PODS, given)) == TOLD_MAX


def test_a_long_key_over_many_unknown_fields_is_not_told_again_for_each() -> None:
    many = {f"field{number}": 1 for number in range(2000)}
    inner = {"type": "object", "properties": {"known": {"type": "string"}}}
    schema = Schema(
        {"type": "object", "properties": {"m": {"type": "object", "additionalProperties": inner}}}
    )
    given = {"apiVersion": "v1", "kind": "A", "m": {"k" * 100_000: many}}
    assert 0 < sum(map(len, fields.check(schema, given))) < 2 * 100_100


# Each message as kube-apiserver 1.36 gives it.
@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"containers": "c"}, "string into Go struct field PodSpec.spec.containers of type []v1.Container"),
        ({"containers": [1]}, "number into Go struct field PodSpec.spec.containers of type v1.Container"),
        (
            {"containers": [{"env": [{"name": "A", "value": 1}]}]},
            "number into Go struct field EnvVar.spec.containers.env.value of type string",
        ),
        ({"hostNetwork": "yes"}, "string into Go struct field PodSpec.spec.hostNetwork of type bool"),
        ({"priority": 1.5}, "number 1.5 into Go struct field PodSpec.spec.priority of type int32"),
        ({"priority": 2**31}, "number 2147483648 into Go struct field PodSpec.spec.priority of type int32"),
        ({"priority": True}, "bool into Go struct field PodSpec.spec.priority of type int32"),
        ({"nodeSelector": {"a": 1}}, "number into Go struct field PodSpec.spec.nodeSelector of type string"),
        (
            {"nodeSelector": []},
            "array into Go struct field PodSpec.spec.nodeSelector of type map[string]string",
        ),
    ],
)
def test_wrong_types_are_refused_in_gos_words(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest) as refused:
        fields.check(PODS, pod(**spec))
    start = 'Pod in version "v1" cannot be handled as a Pod: json: cannot unmarshal '
    assert refused.value.message == start + message


def test_what_is_no_quantity_is_refused() -> None:
    limits = {"resources": {"limits": {"cpu": "two"}}}
    with pytest.raises(BadRequest, match="quantities must match the regular expression"):
        fields.check(PODS, pod(containers=[limits]))
    with pytest.raises(BadRequest, match="unable to parse quantity's suffix"):
        fields.check(PODS, pod(containers=[{"resources": {"limits": {"cpu": "1kk"}}}]))


def test_what_is_no_time_is_refused() -> None:
    given = pod()
    given["metadata"]["creationTimestamp"] = "yesterday"
    with pytest.raises(BadRequest, match='parsing time "yesterday" as "2006-01-02T15:04:05Z07:00"'):
        fields.check(PODS, given)


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ("2024-13-01T00:00:00Z", "month out of range"),
        ("0000-00-00T00:00:00Z", "month out of range"),
        ("2024-02-30T00:00:00Z", "day out of range"),
        ("2024-02-30T25:61:61Z", "hour out of range"),
        ("2024-01-01T00:60:00Z", "minute out of range"),
        ("2024-01-01T23:59:60Z", "second out of range"),
        # Where it is UTC there is no such day of four digits.
        ("9999-12-31T23:59:59-23:59", "day out of range"),
        ("0001-01-01T00:00:00+23:59", "day out of range"),
    ],
)
def test_a_time_that_there_cannot_be_is_refused(given: str, fault: str) -> None:
    made = pod()
    made["metadata"]["creationTimestamp"] = given
    with pytest.raises(BadRequest, match=re.escape(f'parsing time "{given}": {fault}')):
        fields.check(PODS, made)
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": {}}
    lease["spec"] = {"renewTime": f"{given[:19]}.000000{given[19:]}"}
    with pytest.raises(BadRequest, match=fault):
        fields.check(for_all()["leases.coordination.k8s.io"].schema, lease)


@pytest.mark.parametrize(
    ("inner", "fault"),
    [
        (
            {"additionalProperties": {"properties": "a"}},
            "string into Go struct field JSONSchemaProps.properties",
        ),
        ({"items": {"required": 3}}, "number into Go struct field JSONSchemaProps.required"),
        ({"items": [{"type": []}]}, "array into Go struct field JSONSchemaProps.type"),
        ({"dependencies": {"a": [3]}}, "number into Go value of type string"),
        ({"additionalProperties": "yes"}, "boolean or JSON schema expected"),
    ],
)
def test_schemas_within_schemas_are_of_their_type_too(inner: dict[str, Any], fault: str) -> None:
    kind = "CustomResourceDefinition"
    versions = [{"name": "v1", "schema": {"openAPIV3Schema": {"properties": {"a": inner}}}}]
    given = {"apiVersion": "apiextensions.k8s.io/v1", "kind": kind, "spec": {"versions": versions}}
    schema = for_all()["customresourcedefinitions.apiextensions.k8s.io"].schema
    with pytest.raises(BadRequest, match=re.escape(fault)):
        fields.check(schema, given)
    known = {"items": {"type": "string", "x-nobody-knows": 1}, "additionalProperties": False}
    versions[0]["schema"] = {"openAPIV3Schema": {"properties": {"a": known}}}
    pruned = fields.prune(schema, given)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert pruned["properties"]["a"] == {"items": {"type": "string"}, "additionalProperties": False}


def test_what_is_no_base64_is_refused() -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "data": {"k": "pass word"}}
    with pytest.raises(BadRequest, match="illegal base64 data at input byte 4"):
        fields.check(SECRETS, secret)
    secret["data"] = {"k": "cGFz\ncw==\n"}
    assert fields.prune(SECRETS, secret)["data"] == {"k": "cGFzcw=="}


@pytest.mark.parametrize(
    "document", [{"spec": 3}, {"metadata": []}, {"apiVersion": 1}, {"kind": {}}, {"spec": {}}]
)
def test_hostile_documents_are_refused_or_read_but_never_crash(document: dict[str, Any]) -> None:
    for resource in for_all():
        with suppress(BadRequest):
            assert isinstance(fields.prune(resource.schema, document), dict)


def test_nulls_and_empty_lists_are_left_out_as_go_does() -> None:
    given = pod(nodeSelector={}, tolerations=[], volumes=None, securityContext={})
    given["metadata"] |= {"creationTimestamp": None, "labels": {"a": None}}
    decoded = fields.prune(PODS, given)
    assert decoded["metadata"] == {"name": "x", "labels": {"a": ""}}
    # An empty struct says something, such as emptyDir or securityContext; an empty list does not.
    assert decoded["spec"] == {"containers": [{"name": "c", "image": "i"}], "securityContext": {}}


def test_values_get_their_canonical_form() -> None:
    limits = {"cpu": 2, "memory": "1024Mi", "walras.dev/milligpu": "0.5k"}
    given = pod(containers=[{"name": "c", "resources": {"limits": limits}}])
    given["metadata"]["creationTimestamp"] = "2024-01-01T02:00:00+02:00"
    decoded = fields.prune(PODS, given)
    assert decoded["metadata"]["creationTimestamp"] == "2024-01-01T00:00:00Z"
    assert decoded["spec"]["containers"][0]["resources"]["limits"] == {
        "cpu": "2", "memory": "1Gi", "walras.dev/milligpu": "500"
    }  # fmt: skip


# From the documentation of resource.Quantity.
@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ("1000m", "1"), ("0.5", "500m"), ("1024Mi", "1Gi"), ("0.5Gi", "512Mi"), ("1.5Gi", "1536Mi"),
        ("1000", "1k"), ("0", "0"), ("0Ki", "0"), ("1e3", "1e3"), ("5e-1", "500e-3"), ("100Ki", "100Ki"),
        ("512", "512"), ("-1500m", "-1500m"), ("0.1n", "1n"), ("9e99", "9223372036854775807"),
    ],
)  # fmt: skip
def test_quantities_are_stored_in_canonical_form(written: str, stored: str) -> None:
    assert canonical(written) == stored
    assert canonical(stored) == stored


def test_managed_fields_are_kept_word_for_word() -> None:
    owned: dict[str, Any] = {"f:metadata": {"f:labels": {".": {}, "f:a": {}}}}
    given = pod()
    given["metadata"]["managedFields"] = [{"manager": "m", "operation": "Apply", "fieldsV1": owned}]
    assert fields.prune(PODS, given)["metadata"]["managedFields"][0]["fieldsV1"] == owned


OWN = Schema(
    with_metadata(
        {
            "type": "object",
            "properties": {
                "spec": {
                    "type": "object",
                    "properties": {
                        "size": {"type": "integer"},
                        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                        "by": {
                            "type": "object",
                            "additionalProperties": {
                                "type": "object",
                                "properties": {"a": {"type": "string"}},
                            },
                        },
                        "list": {"type": "array", "items": {"type": "object", "properties": {"a": {}}}},
                    },
                }
            },
        }
    )
)


def test_custom_resources_are_pruned_by_their_schema() -> None:
    given = {
        "apiVersion": "example.com/v1", "kind": "Own", "metadata": {"name": "x", "colour": "red"},
        "spec": {"size": 1, "other": 2, "free": {"any": {"thing": 1}},
                 "by": {"k": {"a": "b", "c": 1}}, "list": [{"a": 1, "z": 1}]},
    }  # fmt: skip
    decoded, unknown = fields.decode(OWN, given)
    assert unknown == ["metadata.colour", "spec.other", "spec.by.k.c", "spec.list[0].z"]
    assert decoded["spec"] == {
        "size": 1, "free": {"any": {"thing": 1}}, "by": {"k": {"a": "b"}}, "list": [{"a": 1}]
    }  # fmt: skip
    assert decoded["metadata"] == {"name": "x"}


def test_types_of_custom_resources_are_left_to_validation_but_not_their_metadata() -> None:
    wrong = {"apiVersion": "example.com/v1", "kind": "Own", "spec": {"size": "big"}}
    assert fields.prune(OWN, wrong)["spec"] == {"size": "big"}
    with pytest.raises(BadRequest, match='Own in version "v1" cannot be handled as a Own'):
        fields.prune(OWN, {**wrong, "metadata": {"labels": {"a": 1}}})
