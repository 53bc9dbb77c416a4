"""Content negotiation."""

from __future__ import annotations

import json

import pytest
import yaml

from walras.core.errors import NotAcceptable
from walras.kube.registry_builtin import for_agents
from walras.kube.serve import negotiate
from walras.kube.serve.negotiate import PLAIN, YAML, Representation, representation

KUBECTL_GET = ",".join(
    (
        "application/json;as=Table;v=v1;g=meta.k8s.io",
        "application/json;as=Table;v=v1beta1;g=meta.k8s.io",
        "application/json",
    )
)
CONFIG_MAPS = for_agents()["configmaps"]
ONE = {
    "kind": "ConfigMap",
    "apiVersion": "v1",
    "metadata": {"name": "a", "namespace": "d"},
    "data": {"k": "v"},
}


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("", PLAIN),
        ("*/*", PLAIN),
        ("application/json, */*", PLAIN),
        ("application/vnd.kubernetes.protobuf,application/json", PLAIN),
        ("text/html, application/*;q=0.8", PLAIN),
        ("application/yaml", Representation(YAML)),
        ("application/json;q=0.1, application/yaml", Representation(YAML)),
        (KUBECTL_GET, Representation(as_="Table")),
        ("application/json;as=Table;v=v9;g=meta.k8s.io,application/json", PLAIN),
        (
            "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,"
            "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json",
            Representation(as_="PartialObjectMetadataList"),
        ),
    ],
)
def test_the_first_representation_that_is_served_is_chosen(accept: str, wanted: Representation) -> None:
    assert representation(accept) == wanted


@pytest.mark.parametrize(
    "accept", ["text/html", "application/cbor", "application/json;q=0", "application/json;as=X"]
)
def test_a_representation_that_is_not_served_is_not_acceptable(accept: str) -> None:
    with pytest.raises(NotAcceptable, match="application/json, application/yaml"):
        representation(accept)


def test_a_list_carries_its_kind_and_its_metadata() -> None:
    body = negotiate.many(CONFIG_MAPS, [ONE], {"resourceVersion": "7"}, PLAIN, "", lambda: 0)
    assert json.loads(body) == {
        "kind": "ConfigMapList",
        "apiVersion": "v1",
        "metadata": {"resourceVersion": "7"},
        "items": [{name: ONE[name] for name in ("metadata", "data")}],
    }


def test_a_list_of_metadata_leaves_the_data_out() -> None:
    shape = Representation(as_="PartialObjectMetadataList")
    found = json.loads(negotiate.many(CONFIG_MAPS, [ONE], {"resourceVersion": "7"}, shape, "", lambda: 0))
    assert (found["kind"], found["apiVersion"]) == ("PartialObjectMetadataList", "meta.k8s.io/v1")
    assert found["items"] == [
        {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": ONE["metadata"]}
    ]


def test_a_table_keeps_the_lists_revision() -> None:
    shape = Representation(as_="Table")
    found = json.loads(negotiate.many(CONFIG_MAPS, [ONE], {"resourceVersion": "7"}, shape, "", lambda: 0))
    assert found["metadata"] == {"resourceVersion": "7"}
    assert [column["name"] for column in found["columnDefinitions"]][:2] == ["Name", "Data"]
    assert found["rows"][0]["cells"][:2] == ["a", 1]


def test_yaml_is_the_same_object() -> None:
    assert yaml.safe_load(negotiate.one(CONFIG_MAPS, ONE, Representation(YAML), "", lambda: 0)) == ONE


def test_a_status_is_never_turned_into_a_table() -> None:
    status = {"kind": "Status", "apiVersion": "v1", "status": "Success"}
    assert (
        json.loads(negotiate.one(CONFIG_MAPS, status, Representation(as_="Table"), "", lambda: 0)) == status
    )
