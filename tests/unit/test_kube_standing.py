"""What every cluster has from its first moment."""

from typing import Any

from walras.kube import services, standing
from walras.kube.registry_builtin import for_agents

CREATED = "2026-01-02T03:04:05Z"
TABLE = standing.records(CREATED)


def objects(resource: str) -> dict[str, Any]:
    return {name: record.object for (_, name), record in TABLE[resource].items()}


def test_there_is_an_api_service_for_each_group_version_that_is_served() -> None:
    found = objects("apiservices.apiregistration.k8s.io")
    served = {f"{version}.{group}" for group, version in for_agents().group_versions()}
    assert served - found.keys() == {"v1.apiregistration.k8s.io"}, "which kube-apiserver does not list either"
    core, scaling, own = found["v1."], found["v2.autoscaling"], found["v1alpha1.walras.dev"]
    assert core["spec"] == {"version": "v1", "groupPriorityMinimum": 18000, "versionPriority": 1}
    assert (scaling["spec"]["groupPriorityMinimum"], scaling["spec"]["versionPriority"]) == (17500, 30)
    assert (own["spec"]["groupPriorityMinimum"], own["spec"]["versionPriority"]) == (1000, 100)
    assert {each["status"]["conditions"][0]["reason"] for each in found.values()} == {"Local"}


def test_system_priorities_and_the_range_of_services_are_there() -> None:
    assert objects("priorityclasses.scheduling.k8s.io")["system-node-critical"]["value"] == 2_000_001_000
    assert objects("servicecidrs.networking.k8s.io")["kubernetes"]["spec"]["cidrs"] == [str(services.RANGE)]


def test_there_is_a_class_for_each_runtime_that_the_server_has() -> None:
    handlers = {"process": {}, "vm": {"memory": "256Mi"}}
    table = standing.records(CREATED, handlers)["runtimeclasses.node.k8s.io"]
    assert table["", "vm"].object["overhead"] == {"podFixed": {"memory": "256Mi"}}
    assert "overhead" not in table["", "process"].object
    assert {name: record.object["handler"] for (_, name), record in table.items()} == {
        "process": "process",
        "vm": "vm",
    }
    assert "runtimeclasses.node.k8s.io" not in TABLE


def test_each_is_as_if_it_had_been_stored() -> None:
    registry = for_agents()
    for key, table in TABLE.items():
        resource = registry[key]
        for record in table.values():
            obj = record.object
            assert (obj["apiVersion"], obj["kind"]) == (resource.api_version, resource.kind)
            assert obj["metadata"]["uid"] and obj["metadata"]["creationTimestamp"] == CREATED


def test_every_cluster_has_the_service_by_which_its_pods_find_the_api() -> None:
    service = objects("services")["kubernetes"]
    assert service["metadata"]["labels"] == {"component": "apiserver", "provider": "kubernetes"}
    assert service["spec"]["clusterIP"] == str(services.RANGE[1])
    assert service["spec"]["ports"][0]["targetPort"] == 6443
    assert "endpoints" not in TABLE, "an endpoint has to have an address that others can reach"
    for host in ("127.0.0.1", "0.0.0.0", "a.example.com", "169.254.1.1"):
        assert "endpoints" not in standing.records(CREATED, server=(host, 443))
    known = standing.records(CREATED, server=("10.1.2.3", 443))
    (endpoints,) = known["endpoints"].values()
    (slice_,) = known["endpointslices.discovery.k8s.io"].values()
    assert endpoints.object["subsets"][0]["addresses"] == [{"ip": "10.1.2.3"}]
    assert slice_.object["endpoints"][0]["addresses"] == ["10.1.2.3"]
    assert slice_.object["metadata"]["labels"] == {"kubernetes.io/service-name": "kubernetes"}
