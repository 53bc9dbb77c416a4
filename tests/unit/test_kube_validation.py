"""Validation of built-in types: paths, reasons and words as kube-apiserver 1.36 has them."""

import copy
from typing import Any

import pytest
from support.validation import ALL, CONTAINER, Object, faults, pod

from walras.core.errors import Cause
from walras.kube import validation


def test_sound_objects_have_no_fault() -> None:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [CONTAINER]}}
    job = {"spec": {"template": {"spec": {"containers": [CONTAINER], "restartPolicy": "Never"}}}}
    sound: list[tuple[str, Object]] = [
        ("pods", pod()),
        ("jobs.batch", job),
        ("deployments.apps", {"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}}),
        ("replicasets.apps", {"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}}),
        ("configmaps", {"data": {"key": "value"}}),
        ("secrets", {"stringData": {"key": "value"}}),
        ("namespaces", {}),
        ("nodes", {}),
        ("serviceaccounts", {}),
        ("services", {"spec": {"ports": [{"port": 80}]}}),
        ("priorityclasses.scheduling.k8s.io", {"value": 5}),
        ("leases.coordination.k8s.io", {"spec": {"leaseDurationSeconds": 15}}),
        ("agents.walras.dev", {"spec": {"budget": {"income": "12/h", "balance": "97.20"}}}),
        ("pools.walras.dev", {"spec": {}}),
        ("pools.walras.dev", {"spec": {"speeds": {"A100": 600}, "reservePriceMax": "0.10"}}),
        (
            "bids.walras.dev",
            {
                "spec": {
                    "class": "batch",
                    "decayFrom": "2030-01-31T11:00:00Z",
                    "deadline": "2030-01-31T12:00:00Z",
                    "packages": [
                        {"maxPrice": "5", "devices": 4, "devicesMin": 4, "topology": "spread"},
                        {"maxPrice": "5", "migProfile": "1g.10gb+me", "devices": 2},
                    ],
                }
            },
        ),
        ("bids.walras.dev", {"spec": {"class": "batch", "packages": [{"maxPrice": "5", "memory": "10Gi"}]}}),
        (
            "persistentvolumeclaims",
            {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}},
        ),
    ]
    for key, obj in sound:
        assert faults(key, obj) == [], key
        assert faults(key, obj, obj) == [], key


@pytest.mark.parametrize(
    ("metadata", "field"),
    [
        ({"name": ""}, "metadata.name"),
        ({"name": "X"}, "metadata.name"),
        ({"name": "a" * 254}, "metadata.name"),
        ({"labels": {"a b": "c"}}, "metadata.labels"),
        ({"labels": {"a": "c" * 64}}, "metadata.labels"),
        ({"annotations": {"a": "x" * 262_144}}, "metadata.annotations"),
        ({"finalizers": ["a b/c"]}, "metadata.finalizers"),
        ({"finalizers": ["plain"]}, "metadata.finalizers[0]"),
        (
            {"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "x", "uid": ""}]},
            "metadata.ownerReferences.uid",
        ),
    ],
)
def test_metadata(metadata: Object, field: str) -> None:
    assert {fault.partition(":")[0] for fault in faults("pods", pod(metadata))} == {field}


def test_metadata_that_names_the_object_never_changes() -> None:
    new = pod({"uid": "u-2"})
    assert faults("pods", new, pod()) == ['metadata.uid: Invalid value: "u-2": field is immutable']
    leaving = pod({"deletionTimestamp": "2024-01-01T00:00:00Z", "finalizers": ["a/b"]})
    more = pod({"deletionTimestamp": "2024-01-01T00:00:00Z", "finalizers": ["a/b", "a/c"]})
    assert faults("pods", more, leaving) == [
        "metadata.finalizers: Forbidden: no new finalizers can be added if the "
        "object is being deleted, found "
        'new finalizers []string{"a/c"}'
    ]
    assert faults("pods", leaving, more) == []


def job(**spec: Any) -> Object:
    template = {"spec": {"containers": [CONTAINER], "restartPolicy": "Never"}}
    return {"spec": {"template": template, **spec}}


def test_jobs() -> None:
    always = {"spec": {"containers": [CONTAINER]}}
    assert faults("jobs.batch", job(template=always)) == [
        'spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"'
    ]
    assert faults("jobs.batch", job(parallelism=-1)) == [
        "spec.parallelism: Invalid value: -1: must be greater than or equal to 0"
    ]
    assert faults("jobs.batch", job(completionMode="Indexed", parallelism=1)) == [
        "spec.completions: Required value: when completion mode is Indexed"
    ]
    stolen = copy.deepcopy(job())
    stolen["spec"]["template"]["metadata"] = {"labels": {"controller-uid": "other"}}
    assert faults("jobs.batch", stolen) == [
        "spec.template.metadata.labels[controller-uid]: Invalid value: \"other\": must be 'u-1'"
    ]


def test_what_a_job_may_change_once_it_exists() -> None:
    old = job()
    assert faults("jobs.batch", job(parallelism=3, completions=1), old) == []
    assert faults("jobs.batch", job(suspend=True), old) == []
    assert faults("jobs.batch", job(completions=2), old)[0].startswith(
        "spec.completions: Invalid value: 2: field is immutable"
    )
    other = copy.deepcopy(job())
    other["spec"]["template"]["spec"]["containers"][0] = {**CONTAINER, "image": "other"}
    (found,) = faults("jobs.batch", other, old)
    assert found.startswith("spec.template: Invalid value: {") and found.endswith(": field is immutable")


def test_workloads_select_their_own_pods() -> None:
    template = {"metadata": {"labels": {"a": "c"}}, "spec": {"containers": [CONTAINER]}}
    for key in ("deployments.apps", "replicasets.apps"):
        assert faults(key, {"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}}) == [
            'spec.template.metadata.labels: Invalid value: {"a":"c"}: `selector` '
            "does not match template `labels`"
        ]
        assert faults(key, {"spec": {"template": template}}) == [
            "spec.selector: Required value",
            'spec.template.metadata.labels: Invalid value: {"a":"c"}: '
            "`selector` does not match template `labels`",
        ]
    fixed = {"spec": {"selector": {"matchLabels": {"a": "c"}}, "template": template}}
    labels = {"a": "c", "b": "d"}
    wider = {"metadata": {"labels": labels}, "spec": {"containers": [CONTAINER]}}
    moved = {"spec": {"selector": {"matchLabels": labels}, "template": wider}}
    (found,) = faults("deployments.apps", moved, fixed)
    assert found.startswith("spec.selector: Invalid value") and found.endswith("field is immutable")


@pytest.mark.parametrize(
    ("key", "obj", "expected"),
    [
        (
            "configmaps",
            {"data": {"a/b": "x"}},
            'data[a/b]: Invalid value: "a/b": a valid config key must consist of '
            "alphanumeric characters, '-', "
            "'_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is "
            "'[-._a-zA-Z0-9]+')",
        ),
        ("configmaps", {"data": {"..a": "x"}}, "data[..a]: Invalid value: \"..a\": must not start with '..'"),
        ("configmaps", {"data": {"a": "x" * 1_048_577}}, ": Too long: may not be more than 1048576 bytes"),
        (
            "secrets",
            {"type": "kubernetes.io/tls", "data": {"tls.crt": "eA=="}},
            "data[tls.key]: Required value",
        ),
        ("services", {"spec": {}}, "spec.ports: Required value"),
        (
            "priorityclasses.scheduling.k8s.io",
            {"value": 2_000_000_000},
            "value: Forbidden: maximum allowed value of a user defined priority is 1000000000",
        ),
        (
            "persistentvolumeclaims",
            {"spec": {"resources": {"requests": {"storage": "1Gi"}}}},
            "spec.accessModes: Required value: at least 1 access mode is required",
        ),
        (
            "nodes",
            {"spec": {"taints": [{"key": "a", "effect": "Sometimes"}]}},
            'metadata.taints[0].effect: Unsupported value: "Sometimes": supported values: "NoSchedule", '
            '"PreferNoSchedule", "NoExecute"',
        ),
    ],
)
def test_small_types(key: str, obj: Object, expected: str) -> None:
    assert faults(key, obj) == [expected]


def test_immutable_config_stays() -> None:
    old = {"immutable": True, "data": {"a": "1"}}
    assert faults("configmaps", {"immutable": True, "data": {"a": "2"}}, old) == [
        "data: Forbidden: field is immutable when `immutable` is set"
    ]
    assert faults("configmaps", {"data": {"a": "1"}}, old) == [
        "immutable: Forbidden: field is immutable when `immutable` is set"
    ]


def test_the_error_reads_as_kubernetes_writes_it() -> None:
    one = [Cause("FieldValueRequired", "Required value", "spec.containers")]
    error = validation.invalid(ALL["pods"], "x", one)
    assert (error.code, error.message) == (422, 'Pod "x" is invalid: spec.containers: Required value')
    assert error.causes == tuple(one) and error.details == {"name": "x", "kind": "Pod"}
    two = [*one, Cause("FieldValueForbidden", "Forbidden: no", "spec.a")]
    error = validation.invalid(ALL["jobs.batch"], "x", two)
    assert error.message == (
        'Job.batch "x" is invalid: [spec.containers: Required value, spec.a: Forbidden: no]'
    )
    assert error.details == {"name": "x", "group": "batch", "kind": "Job"}


def test_decoded_nonsense_is_refused_without_an_exception() -> None:
    """Whatever decodes must validate: every built-in kind with nothing in it but empty parts."""
    for resource in ALL:
        if "get" not in resource.verbs:
            continue
        empties: list[Object] = [{}, {"spec": {}}, {"spec": {"template": {}}}, {"spec": {"containers": [{}]}}]
        for empty in empties:
            found = faults(resource.key, copy.deepcopy(empty))
            assert all(": " in fault for fault in found)


def test_a_stateful_sets_containers_may_mount_the_claims_that_its_templates_make() -> None:
    labels = {"app": "db"}
    mounting = {**CONTAINER, "volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    spec: Object = {
        "serviceName": "db",
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [mounting]}},
    }
    made: Object = {"metadata": {"name": "db", "namespace": "default"}, "spec": spec}
    assert any("volumeMounts[0].name" in each for each in faults("statefulsets.apps", made))
    spec["volumeClaimTemplates"] = [{"metadata": {"name": "data"}, "spec": claim}]
    assert faults("statefulsets.apps", made) == []
