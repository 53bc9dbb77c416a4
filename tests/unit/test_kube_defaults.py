"""Defaults: what the server fills in, as kube-apiserver with its default admission plugins does."""

import copy
from typing import Any

import pytest

from walras.kube import defaults, preparing
from walras.kube.registry_builtin import for_all
from walras.kube.schema import Schema

ALL = for_all()


def filled(key: str, obj: dict[str, Any]) -> dict[str, Any]:
    """The object with defaults and what the server adds; doing either again must change nothing."""
    obj = copy.deepcopy({"metadata": {"name": "x", "uid": "u-1"}, **obj})
    for fill in (defaults.apply, preparing.prepare):
        fill(ALL[key], obj)
        again = copy.deepcopy(obj)
        fill(ALL[key], again)
        assert again == obj
    return obj


def pod(**spec: Any) -> dict[str, Any]:
    return filled("pods", {"spec": {"containers": [{"name": "c", "image": "i"}], **spec}})


def test_a_pod_gets_what_every_pod_has() -> None:
    made = pod()
    spec = made["spec"]
    assert (spec["restartPolicy"], spec["dnsPolicy"]) == ("Always", "ClusterFirst")
    assert (spec["schedulerName"], spec["terminationGracePeriodSeconds"]) == ("default-scheduler", 30)
    assert spec["serviceAccountName"] == spec["serviceAccount"] == "default"
    assert (spec["enableServiceLinks"], spec["securityContext"]) == (True, {})
    assert made["status"] == {"phase": "Pending", "qosClass": "BestEffort"}
    container = spec["containers"][0]
    assert container["terminationMessagePath"] == "/dev/termination-log"
    assert (container["terminationMessagePolicy"], container["resources"]) == ("File", {})


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("python", "Always"),
        ("python:latest", "Always"),
        ("python:3.11", "IfNotPresent"),
        ("host:5000/python", "Always"),
        ("host:5000/python:3.11", "IfNotPresent"),
        ("python@sha256:abc", "IfNotPresent"),
    ],
)
def test_the_pull_policy_follows_the_tag(image: str, policy: str) -> None:
    assert (
        pod(containers=[{"name": "c", "image": image}])["spec"]["containers"][0]["imagePullPolicy"] == policy
    )


def test_requests_are_the_limits_unless_given() -> None:
    limits = {"cpu": "2", "walras.dev/milligpu": "250"}
    made = pod(containers=[{"name": "c", "resources": {"limits": limits, "requests": {"cpu": "1"}}}])
    assert made["spec"]["containers"][0]["resources"]["requests"] == {
        "cpu": "1",
        "walras.dev/milligpu": "250",
    }


@pytest.mark.parametrize(
    ("resources", "quality"),
    [
        ({}, "BestEffort"),
        ({"limits": {"walras.dev/milligpu": "250"}}, "BestEffort"),
        ({"requests": {"cpu": "1"}}, "Burstable"),
        ({"limits": {"cpu": "1"}}, "Burstable"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}}, "Guaranteed"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}, "Burstable"),
    ],
)
def test_the_quality_of_service_follows_cpu_and_memory(resources: Any, quality: str) -> None:
    assert pod(containers=[{"name": "c", "resources": resources}])["status"]["qosClass"] == quality


def test_a_volume_without_a_source_is_an_empty_directory() -> None:
    volumes = pod(volumes=[{"name": "a"}, {"name": "b", "configMap": {"name": "c"}}])["spec"]["volumes"]
    assert volumes == [
        {"name": "a", "emptyDir": {}},
        {"name": "b", "configMap": {"name": "c", "defaultMode": 0o644}},
    ]


def test_a_job_gets_its_counts_and_a_selector_of_its_own() -> None:
    job = filled("jobs.batch", {"spec": {"template": {"spec": {"restartPolicy": "Never"}}}})
    spec = job["spec"]
    assert (spec["completions"], spec["parallelism"], spec["backoffLimit"]) == (1, 1, 6)
    assert (spec["suspend"], spec["completionMode"]) == (False, "NonIndexed")
    assert spec["podReplacementPolicy"] == "TerminatingOrFailed"
    labels = spec["template"]["metadata"]["labels"]
    assert labels["batch.kubernetes.io/controller-uid"] == labels["controller-uid"] == "u-1"
    assert labels["batch.kubernetes.io/job-name"] == labels["job-name"] == "x"
    assert spec["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": "u-1"}}
    # A pod's own defaults stay out of templates.
    assert "tolerations" not in spec["template"]["spec"] and "priority" not in spec["template"]["spec"]


def test_a_work_queue_job_has_no_completions() -> None:
    assert "completions" not in filled("jobs.batch", {"spec": {"parallelism": 3}})["spec"]


def test_a_job_with_a_manual_selector_keeps_it() -> None:
    selector = {"matchLabels": {"mine": "yes"}}
    spec = filled("jobs.batch", {"spec": {"manualSelector": True, "selector": selector}})["spec"]
    assert spec["selector"] == selector and "metadata" not in spec["template"]


def test_a_deployment_rolls_a_quarter_at_a_time() -> None:
    spec = filled("deployments.apps", {"spec": {"template": {"spec": {}}}})["spec"]
    assert (spec["replicas"], spec["revisionHistoryLimit"], spec["progressDeadlineSeconds"]) == (1, 10, 600)
    rolling = {"maxUnavailable": "25%", "maxSurge": "25%"}
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": rolling}
    recreate = filled("deployments.apps", {"spec": {"strategy": {"type": "Recreate"}}})
    assert recreate["spec"]["strategy"] == {"type": "Recreate"}


def test_a_secrets_plain_strings_become_data() -> None:
    secret = filled("secrets", {"data": {"a": "MQ=="}, "stringData": {"a": "two", "b": "é"}})
    assert secret["type"] == "Opaque" and "stringData" not in secret
    assert secret["data"] == {"a": "dHdv", "b": "w6k="}


def test_a_services_port_is_its_target() -> None:
    spec = filled("services", {"spec": {"ports": [{"port": 80}]}})["spec"]
    assert spec["ports"] == [{"port": 80, "protocol": "TCP", "targetPort": 80}]
    assert (spec["type"], spec["sessionAffinity"]) == ("ClusterIP", "None")


def test_small_types() -> None:
    assert filled("namespaces", {})["metadata"]["labels"] == {"kubernetes.io/metadata.name": "x"}
    assert filled("namespaces", {})["status"] == {"phase": "Active"}
    assert filled("persistentvolumeclaims", {})["spec"] == {"volumeMode": "Filesystem"}
    node = filled("nodes", {"status": {"capacity": {"cpu": "2"}}})
    assert node["status"]["allocatable"] == {"cpu": "2"}
    names = filled("customresourcedefinitions.apiextensions.k8s.io", {"spec": {"names": {"kind": "Foo"}}})
    assert names["spec"]["names"] == {"kind": "Foo", "singular": "foo", "listKind": "FooList"}


def test_walras_own_kinds_take_the_defaults_of_their_schemas() -> None:
    agent = filled("agents.walras.dev", {"spec": {"budget": {"income": "12/h"}, "market": {}}})
    assert agent["spec"]["budget"]["weight"] == 1
    assert agent["spec"]["market"] == {"strategy": "fixed"}
    # Nothing is made up where the object says nothing.
    assert "controlPlane" not in agent["spec"]
    packages = filled("bids.walras.dev", {"spec": {"packages": [{"maxPrice": "5"}]}})["spec"]["packages"]
    assert packages == [{"maxPrice": "5", "pool": "default", "devices": 1, "topology": "any", "term": "1m"}]


OWN = Schema(
    {
        "type": "object",
        "properties": {
            "a": {"type": "string", "default": "x"},
            "n": {"type": "string", "nullable": True, "default": "x"},
            "o": {"type": "object", "default": {}, "properties": {"b": {"type": "integer", "default": 2}}},
            "m": {
                "type": "object",
                "additionalProperties": {
                    "type": "object",
                    "properties": {"c": {"default": 3, "type": "integer"}},
                },
            },
        },
    }
)


def test_a_schemas_defaults_fill_gaps_and_forbidden_nulls_at_any_depth() -> None:
    value: dict[str, Any] = {"a": None, "n": None, "m": {"k": {}}}
    defaults.apply_schema(OWN, value)
    assert value == {"a": "x", "n": None, "m": {"k": {"c": 3}}, "o": {"b": 2}}


def test_a_schemas_default_is_not_shared_between_objects() -> None:
    first: dict[str, Any] = {}
    defaults.apply_schema(OWN, first)
    first["o"]["b"] = 9
    second: dict[str, Any] = {}
    defaults.apply_schema(OWN, second)
    assert second["o"] == {"b": 2}
