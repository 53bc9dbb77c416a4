"""Discovery documents."""

from __future__ import annotations

import json
from typing import Any

import pytest

from walras.core.errors import NotAcceptable, NotFound
from walras.kube.registry_builtin import for_agents, for_fleet
from walras.kube.serve import discovery

AGGREGATED = (
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,"
    "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json"
)


def groups(body: bytes) -> dict[str, Any]:
    return {item["metadata"].get("name", ""): item["versions"] for item in json.loads(body)["items"]}


def test_clients_that_ask_for_the_aggregated_document_get_it_with_its_exact_media_type() -> None:
    version = discovery.wants_aggregated(AGGREGATED)
    answer = discovery.aggregated(for_agents(), True, version, "")
    assert answer.content_type == b"application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    (core,) = groups(answer.body)[""]
    pods = next(each for each in core["resources"] if each["resource"] == "pods")
    # What is in the list's own version says no version, as upstream has it.
    assert pods["responseKind"] == {"group": "", "version": "", "kind": "Pod"}
    assert (pods["scope"], pods["shortNames"], pods["categories"]) == ("Namespaced", ["po"], ["all"])
    eviction = next(each for each in pods["subresources"] if each["subresource"] == "eviction")
    assert eviction["responseKind"] == {"group": "policy", "version": "v1", "kind": "Eviction"}
    assert eviction["verbs"] == ["create"]


def test_an_unchanged_document_is_answered_304_to_its_etag() -> None:
    first = discovery.aggregated(for_agents(), False, "v2", "")
    etag = dict(first.headers)[b"etag"].decode()
    again = discovery.aggregated(for_agents(), False, "v2", etag)
    assert (again.status, again.body) == (304, b"")
    assert discovery.aggregated(for_agents(), False, "v2", '"other"').status == 200
    assert dict(first.headers)[b"vary"] == b"Accept"


@pytest.mark.parametrize(
    ("accept", "version"), [("", ""), ("*/*", ""), ("application/json", ""), (AGGREGATED, "v2")]
)
def test_old_clients_get_the_plain_documents(accept: str, version: str) -> None:
    assert discovery.wants_aggregated(accept) == version


def test_what_nobody_can_read_is_not_acceptable() -> None:
    with pytest.raises(NotAcceptable):
        discovery.wants_aggregated(
            "application/vnd.kubernetes.protobuf;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
        )


def test_the_fleet_has_agents_and_pools_and_an_agent_has_bids_and_leases() -> None:
    def kinds(registry: Any) -> set[str]:
        (version,) = groups(discovery.aggregated(registry, False, "v2", "").body)["walras.dev"]
        return {each["resource"] for each in version["resources"]}

    assert kinds(for_fleet()) == {"agents", "pools"}
    assert kinds(for_agents()) == {"bids", "gpuleases"}


def test_the_plain_documents_say_the_same_as_the_aggregated_one() -> None:
    registry = for_agents()
    aggregated = groups(discovery.aggregated(registry, False, "v2", "").body)
    plain = json.loads(discovery.group_list(registry).body)["groups"]
    assert [each["name"] for each in plain] == list(aggregated)
    for group, versions in aggregated.items():
        for version in versions:
            rows = json.loads(discovery.resource_list(registry, group, version["version"]).body)["resources"]
            # KubeVirt's acts are subresources of what is in another group.
            names = {each["resource"] for each in version["resources"] if each["verbs"]}
            names |= {
                f"{each['resource']}/{sub['subresource']}"
                for each in version["resources"]
                for sub in each.get("subresources", ())
            }
            assert {row["name"] for row in rows} == names


def test_a_version_that_is_not_served_is_not_found() -> None:
    with pytest.raises(NotFound):
        discovery.resource_list(for_agents(), "apps", "v9")
    assert discovery.group(for_agents(), "nonsense.io") is None
