"""The schema view, the table of types, and the registry that clusters share."""

import subprocess
import sys

import pytest

from walras.core.errors import NotFound
from walras.kube import machines
from walras.kube.registry import Registry, Resource
from walras.kube.registry_builtin import (
    BUILTIN,
    claim_kinds,
    for_agents,
    for_all,
    for_fleet,
    machine_kinds,
    serving_kinds,
    walras_kinds,
)
from walras.kube.schema import Schema, definitions

POD = Schema.named("io.k8s.api.core.v1.Pod")


def own_kind(plural: str = "gadgets", group: str = "example.com") -> Resource:
    schema = {"type": "object"}
    return Resource(group, "v1", "Gadget", plural, "gadget", True, schema, builtin=False)


def test_importing_the_table_reads_no_definitions() -> None:
    program = (
        "import walras.kube.registry_builtin as r, walras.kube.schema as s\n"
        "r.for_agents(); assert s.definitions.cache_info().currsize == 0"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize("resource", BUILTIN, ids=lambda resource: resource.key)
def test_every_builtin_kind_has_upstreams_definition(resource: Resource) -> None:
    listed = definitions()[resource.schema.ref]["x-kubernetes-group-version-kind"]
    wanted = {"group": resource.group, "kind": resource.kind, "version": resource.version}
    assert wanted in listed


def test_a_node_is_made_once_however_often_it_is_walked() -> None:
    spec = POD.child("spec")
    assert spec is not None and POD.child("spec") is spec
    containers = spec.child("containers")
    assert containers is not None and containers.patch_merge_key == "name"
    assert containers.list_map_keys == ("name",)


def test_types_that_contain_themselves_have_finitely_many_nodes() -> None:
    node = Schema.named("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps")
    seen = set()
    for _ in range(50):
        below = node.child("not")
        assert below is not None
        node = below
        seen.add(id(node))
    assert len(seen) <= 2


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("spec", "struct"),
        ("metadata.labels", "map"),
        ("spec.containers", "list"),
        ("metadata.name", "string"),
        ("spec.priority", "integer"),
        ("spec.hostNetwork", "boolean"),
        ("metadata.creationTimestamp", "time"),
        ("spec.overhead.cpu", "quantity"),
    ],
)
def test_each_value_is_decoded_by_its_form(path: str, form: str) -> None:
    node: Schema | None = POD
    for name in path.split("."):
        assert node is not None
        node = node.child(name)
    assert node is not None and node.form == form


def test_fields_that_a_type_does_not_have_are_none() -> None:
    assert POD.child("spce") is None


def test_the_fleet_has_agents_and_pools_and_agents_have_bids_leases_functions_and_machines() -> None:
    fleet, agent = for_fleet(), for_agents()
    assert "agents.walras.dev" in fleet and "pools.walras.dev" in fleet
    assert "bids.walras.dev" not in fleet and "agents.walras.dev" not in agent
    assert "bids.walras.dev" in agent and "gpuleases.walras.dev" in agent
    assert "revisions.serving.knative.dev" in agent and "revisions.serving.knative.dev" not in fleet
    assert "virtualmachines.kubevirt.io" in agent and "virtualmachines.kubevirt.io" not in fleet
    claims = "clusterdomainclaims.networking.internal.knative.dev"
    assert claims in fleet and claims not in agent
    own = (walras_kinds(), claim_kinds(), serving_kinds(), machine_kinds(), machines.resources())
    assert len(for_all()) == len(BUILTIN) + sum(map(len, own))


def test_resources_are_found_by_key_by_path_and_by_kind() -> None:
    registry = for_agents()
    jobs = registry["jobs.batch"]
    assert registry.find("batch", "v1", "jobs") is jobs
    assert registry.by_kind("batch", "v1", "Job") is jobs
    assert registry.by_kind("batch", "v2", "Job") is None
    assert jobs.api_version == "batch/v1" and registry["pods"].api_version == "v1"
    assert jobs in registry.of("batch", "v1")
    with pytest.raises(NotFound, match="could not find the requested resource"):
        registry["cronjobs.example.com"]


def test_a_type_with_two_versions_has_one_place_in_the_store() -> None:
    registry = for_agents()
    events, scaling = registry.find("events.k8s.io", "v1", "events"), registry.of("autoscaling", "v1")[0]
    assert events is not None and events.storage is registry["events"]
    assert scaling.storage is registry["horizontalpodautoscalers.autoscaling"]
    assert scaling.storage.version == "v2" and registry["pods"].storage is registry["pods"]


def test_a_cluster_adds_its_own_kinds_without_a_copy_of_the_base() -> None:
    base = for_agents()
    mine = base.with_crds([own_kind()])
    assert mine["pods"] is base["pods"] and mine["gadgets.example.com"].kind == "Gadget"
    assert "gadgets.example.com" not in base
    assert len(mine) == len(base) + 1 and [r.key for r in mine.additions] == ["gadgets.example.com"]
    assert ("example.com", "v1") in mine.group_versions()
    # The next set of additions replaces this one, and none of them leads back to the shared base.
    assert "gadgets.example.com" not in mine.with_crds([own_kind("widgets")])
    assert mine.with_crds([]) is base


def test_a_clusters_own_kind_does_not_hide_a_builtin_one() -> None:
    registry = for_agents().with_crds([own_kind("jobs", "batch")])
    assert registry["jobs.batch"].kind == "Job"
    assert isinstance(registry, Registry)
