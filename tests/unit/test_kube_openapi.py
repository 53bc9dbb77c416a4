"""OpenAPI v3: documents that are complete in themselves, and hashes that change with them."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from support import gnostic

from walras.kube import openapi
from walras.kube.registry import Resource
from walras.kube.registry_builtin import for_agents, for_all, for_fleet

GROUP_VERSIONS = for_all().group_versions()


def own_kind(properties: dict[str, Any]) -> Resource:
    schema = {"type": "object", "properties": properties}
    return Resource("example.com", "v1", "Gadget", "gadgets", "gadget", True, schema, builtin=False)


def document(group: str, version: str) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(openapi.document(for_all(), (group, version)))
    return parsed


def every_schema(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
        for child in node.values():
            yield from every_schema(child)
    elif isinstance(node, list):
        for child in node:
            yield from every_schema(child)


def test_the_index_names_a_document_for_each_group_version() -> None:
    paths = json.loads(openapi.index(for_agents()))["paths"]
    assert {"api/v1", "apis/apps/v1", "apis/batch/v1", "apis/walras.dev/v1alpha1"} <= paths.keys()
    # But for the one that has acts and no kinds.
    assert len(paths) == len(for_agents().group_versions()) - 1
    for path, where in paths.items():
        assert where["serverRelativeURL"].startswith(f"/openapi/v3/{path}?hash=")


def test_hashes_agree_where_documents_do_and_differ_where_they_differ() -> None:
    def paths(registry: Any) -> Any:
        return json.loads(openapi.index(registry))["paths"]

    agent, fleet = paths(for_agents()), paths(for_fleet())
    assert agent["api/v1"] == fleet["api/v1"]
    assert agent["apis/walras.dev/v1alpha1"] != fleet["apis/walras.dev/v1alpha1"]
    first = for_agents().with_crds([own_kind({"a": {"type": "string"}})])
    second = for_agents().with_crds([own_kind({"a": {"type": "integer"}})])
    assert paths(first)["apis/example.com/v1"] != paths(second)["apis/example.com/v1"]
    assert paths(first)["api/v1"] == agent["api/v1"]


def test_the_documents_of_shared_kinds_are_the_same_bytes_for_every_cluster() -> None:
    first = for_agents().with_crds([own_kind({})])
    shared = openapi.document(for_agents(), ("", "v1"))
    assert openapi.document(first, ("", "v1")) is shared


def test_kinds_of_the_same_name_in_two_clusters_have_their_own_documents() -> None:
    for kind in ("string", "integer"):
        registry = for_agents().with_crds([own_kind({"a": {"type": kind}})])
        parsed = json.loads(openapi.document(registry, ("example.com", "v1")))
        gadget = parsed["components"]["schemas"]["com.example.v1.Gadget"]
        assert gadget["properties"]["a"] == {"type": kind}
        assert gadget["x-kubernetes-group-version-kind"] == [
            {"group": "example.com", "kind": "Gadget", "version": "v1"}
        ]


@pytest.mark.parametrize("group_version", GROUP_VERSIONS, ids="/".join)
def test_every_reference_leads_somewhere_and_every_type_is_single(group_version: tuple[str, str]) -> None:
    parsed = document(*group_version)
    schemas = parsed["components"]["schemas"]
    for schema in every_schema(parsed):
        if isinstance(schema.get("$ref"), str):
            assert schema["$ref"].removeprefix("#/components/schemas/") in schemas
            assert len(schema) == 1
        if "type" in schema:
            # A field may itself be called "type"; then it is a schema.
            assert isinstance(schema["type"], str | dict)


@pytest.mark.parametrize(
    "resource", [each for each in for_all() if each.verbs], ids=lambda resource: resource.key
)
def test_kubectl_finds_each_kind_and_that_its_fields_are_checked(resource: Resource) -> None:
    parsed = document(resource.group, resource.version)
    wanted = {"group": resource.group, "kind": resource.kind, "version": resource.version}
    kinds = parsed["components"]["schemas"].values()
    assert any(wanted in schema.get("x-kubernetes-group-version-kind", ()) for schema in kinds)
    patches = [path["patch"] for path in parsed["paths"].values() if "patch" in path]
    mine = [patch for patch in patches if patch["x-kubernetes-group-version-kind"] == wanted]
    assert bool(mine) == ("patch" in resource.verbs)
    for patch in mine:
        strategic = "application/strategic-merge-patch+json" in patch["requestBody"]["content"]
        assert strategic == resource.builtin, "kubectl apply sends that to what is said to take it"
        assert "fieldValidation" in [parameter["name"] for parameter in patch["parameters"]]


def test_merge_keys_are_kept() -> None:
    spec = document("", "v1")["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"]
    assert spec["properties"]["containers"]["x-kubernetes-patch-merge-key"] == "name"


def test_only_what_the_kinds_need_is_in_a_document() -> None:
    schemas = document("scheduling.k8s.io", "v1")["components"]["schemas"]
    assert "io.k8s.api.scheduling.v1.PriorityClass" in schemas
    assert "io.k8s.api.core.v1.PodSpec" not in schemas


def test_a_document_tells_how_each_path_is_asked_and_what_it_answers() -> None:
    paths = document("apps", "v1")["paths"]
    items = paths["/apis/apps/v1/namespaces/{namespace}/deployments"]
    assert items["get"]["x-kubernetes-action"] == "list"
    assert items["get"]["operationId"] == "listAppsV1NamespacedDeployment"
    assert "labelSelector" in {parameter["name"] for parameter in items["get"]["parameters"]}
    assert items["post"]["responses"].keys() == {"200", "201", "202", "401"}
    scale = paths["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"]
    assert scale["get"]["x-kubernetes-group-version-kind"] == {
        "group": "autoscaling", "kind": "Scale", "version": "v1"
    }  # fmt: skip
    assert "delete" not in scale


def version_2(*properties: dict[str, Any]) -> dict[str, Any]:
    registry = for_agents().with_crds([own_kind(each) for each in properties])
    parsed: dict[str, Any] = json.loads(openapi.document_v2(registry), object_pairs_hook=_unique)
    return parsed


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """As Go reads JSON: no name may come twice in an object."""
    assert len({name for name, _ in pairs}) == len(pairs)
    return dict(pairs)


def test_version_2_is_one_document_of_everything_that_leads_nowhere_else() -> None:
    parsed = version_2({"a": {"type": "string"}})
    defined = parsed["definitions"]
    assert {
        "io.k8s.api.core.v1.Pod",
        "io.k8s.api.apps.v1.Deployment",
        "com.example.v1.Gadget",
    } <= defined.keys()
    assert {"/api/v1/nodes/{name}", "/apis/example.com/v1/gadgets"} <= parsed["paths"].keys()
    for schema in every_schema(parsed):
        if isinstance(schema.get("$ref"), str):
            assert schema["$ref"].removeprefix("#/definitions/") in defined
        assert "requestBody" not in schema
    for path in parsed["paths"].values():
        for verb, operation in path.items():
            if verb in ("post", "put", "patch") and operation["x-kubernetes-action"] != "connect":
                assert [each["in"] for each in operation["parameters"]].count("body") == 1


def test_version_2_says_nothing_of_a_kind_that_may_have_any_fields() -> None:
    schema = {**own_kind({"a": {"type": "string"}}).raw_schema, "x-kubernetes-preserve-unknown-fields": True}
    kind = replace(own_kind({}), raw_schema=schema)
    parsed = json.loads(openapi.document_v2(for_agents().with_crds([kind])))
    assert parsed["definitions"]["com.example.v1.Gadget"].keys() == {
        "type",
        "x-kubernetes-group-version-kind",
    }


def test_version_2_leaves_out_what_it_has_no_words_for() -> None:
    gadget = version_2({
        "a": {"type": "string", "nullable": True},
        "b": {"type": "string", "oneOf": [{"minLength": 1}]},
        "c": {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "properties": {"d": {}}},
    })["definitions"]["com.example.v1.Gadget"]["properties"]  # fmt: skip
    assert gadget["a"] == {}
    assert gadget["b"] == {"type": "string"}
    assert gadget["c"] == {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def test_version_2_is_the_same_in_protobuf() -> None:
    registry = for_agents()
    plain = json.loads(openapi.document_v2(registry))
    found = gnostic.document(openapi.document_v2_protobuf(registry))
    assert found["info"] == plain["info"]
    assert found["security"] == plain["security"]
    assert found["securityDefinitions"] == plain["securityDefinitions"]
    for part in ("paths", "definitions"):
        assert found[part].keys() == plain[part].keys()
    pod = "io.k8s.api.core.v1.Pod"
    kinds = "x-kubernetes-group-version-kind"
    assert found["definitions"][pod][kinds] == plain["definitions"][pod][kinds]
    assert found["definitions"][pod]["properties"].keys() == plain["definitions"][pod]["properties"].keys()
    path = "/api/v1/namespaces/{namespace}/pods"
    (body,) = (each for each in found["paths"][path]["post"]["parameters"] if each["in"] == "body")
    assert body["schema"]["$ref"] == f"#/definitions/{pod}"


def test_types_of_a_clusters_own_are_in_its_protobuf() -> None:
    own = for_agents().with_crds([own_kind({"a": {"type": "integer", "minimum": 0.5, "enum": [1, 2]}})])
    found = gnostic.document(openapi.document_v2_protobuf(own))
    gadget = found["definitions"]["com.example.v1.Gadget"]
    assert gadget["properties"]["a"] == {"type": ["integer"], "minimum": 0.5, "enum": [1, 2]}
    assert "/apis/example.com/v1/namespaces/{namespace}/gadgets" in found["paths"]
