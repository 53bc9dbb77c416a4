"""Validation of built-in and Walras' types: paths, reasons and words as kube-apiserver 1.36 has them."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from walras.core.errors import Cause
from walras.kube import defaults, fields, preparing, validation
from walras.kube.registry_builtin import for_all

ALL = for_all()
Object = dict[str, Any]


def ready(key: str, obj: Object) -> Object:
    """The object as the server has it when validation begins."""
    resource = ALL[key]
    name = "default" if key == "pools.walras.dev" else "x"
    name = obj.get("metadata", {}).get("name", name)
    obj = fields.prune(resource.schema, {"apiVersion": resource.api_version, "kind": resource.kind, **obj})
    obj["metadata"] = {"uid": "u-1", **obj.get("metadata", {}), "name": name}
    if resource.namespaced:
        obj["metadata"].setdefault("namespace", "default")
    defaults.apply(resource, obj)
    preparing.prepare(resource, obj)
    return obj


def faults(key: str, obj: Object, old: Object | None = None) -> list[str]:
    """'path: message' of every fault."""
    causes = validation.validate(ALL[key], ready(key, obj), None if old is None else ready(key, old))
    return [f"{cause.field}: {cause.message}" for cause in causes]


CONTAINER = {"name": "c", "image": "i"}


def pod(metadata: Object | None = None, **spec: Any) -> Object:
    return {"metadata": metadata or {}, "spec": {"containers": [CONTAINER], **spec}}


def container(**more: Any) -> Object:
    return pod(containers=[{**CONTAINER, **more}])


LABEL = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric "
    "characters or '-', and must start and end "
    "with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)


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
    ("given", "expected"),
    [
        (pod(containers=[]), "spec.containers: Required value"),
        (pod(containers=[{"name": "c"}]), "spec.containers[0].image: Required value"),
        (pod(containers=[{"image": "i"}]), "spec.containers[0].name: Required value"),
        (container(name="C"), f'spec.containers[0].name: Invalid value: "C": {LABEL}'),
        (container(name="a.b"), 'spec.containers[0].name: Invalid value: "a.b": must not contain dots'),
        (pod(containers=[CONTAINER, CONTAINER]), 'spec.containers[1].name: Duplicate value: "c"'),
        (pod(initContainers=[CONTAINER]), 'spec.initContainers[0].name: Duplicate value: "c"'),
        (
            pod(restartPolicy="Sometimes"),
            'spec.restartPolicy: Unsupported value: "Sometimes": supported values: '
            '"Always", "OnFailure", "Never"',
        ),
        (
            pod(activeDeadlineSeconds=0),
            "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
        ),
        (
            container(env=[{"name": "A=B"}]),
            'spec.containers[0].env[0].name: Invalid value: "A=B": a valid environment variable name must '
            "consist only of printable ASCII characters other than '='",
        ),
        (
            container(
                env=[{"name": "A", "value": "1", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
            ),
            'spec.containers[0].env[0].valueFrom: Invalid value: "": may not be '
            "specified when `value` is not empty",
        ),
        (
            container(ports=[{"containerPort": 0}]),
            "spec.containers[0].ports[0].containerPort: Required value",
        ),
        (
            container(ports=[{"containerPort": 70000}]),
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must "
            "be between 1 and 65535, inclusive",
        ),
        (
            container(volumeMounts=[{"name": "v", "mountPath": "/v"}]),
            'spec.containers[0].volumeMounts[0].name: Not found: "v"',
        ),
        (
            pod(volumes=[{"name": "v", "emptyDir": {}, "configMap": {"name": "m"}}]),
            "spec.volumes[0].configMap: Forbidden: may not specify more than 1 volume type",
        ),
        (
            pod(volumes=[{"name": "v"}, {"name": "v"}]),
            'spec.volumes[1].name: Duplicate value: "v"',
        ),
        (
            pod(volumes=[{"name": "v", "secret": {}}]),
            "spec.volumes[0].secret.secretName: Required value",
        ),
        (
            container(livenessProbe={}),
            "spec.containers[0].livenessProbe: Required value: must specify a handler type",
        ),
        (
            pod(tolerations=[{"key": "a", "operator": "Exists", "value": "b"}]),
            'spec.tolerations[0].operator: Invalid value: "b": value must be '
            "empty when `operator` is 'Exists'",
        ),
        (
            pod(nodeSelector={"a": "-"}),
            'spec.nodeSelector: Invalid value: "-": a valid label must be an empty string or consist of '
            "alphanumeric characters, '-', '_' or '.', and must start and end with "
            "an alphanumeric character (e.g. "
            "'MyValue',  or 'my_value',  or '12345', regex used for validation is "
            "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
        ),
        (
            pod(ephemeralContainers=[{"name": "e", "image": "i"}]),
            "spec.ephemeralContainers: Forbidden: cannot be set on create",
        ),
    ],
)
def test_a_pods_faults(given: Object, expected: str) -> None:
    assert faults("pods", given) == [expected]


def test_requests_fit_below_limits_and_devices_are_whole_and_promised_once() -> None:
    def asks(requests: Object, most: Object) -> list[str]:
        return faults("pods", container(resources={"requests": requests, "limits": most}))

    at = "spec.containers[0].resources"
    assert asks({"cpu": "2"}, {"cpu": "1"}) == [
        f'{at}.requests: Invalid value: "2": must be less than or equal to cpu limit of 1'
    ]
    assert asks({"nvidia.com/gpu": "1"}, {"nvidia.com/gpu": "2"}) == [
        f'{at}.requests: Invalid value: "1": must be equal to nvidia.com/gpu limit of 2'
    ]
    assert asks({"nvidia.com/gpu": "1"}, {}) == [
        f"{at}.limits: Required value: Limit must be set for non overcommitable resources"
    ]
    assert f'{at}.limits[nvidia.com/gpu]: Invalid value: "500m": must be an integer' in asks(
        {}, {"nvidia.com/gpu": "0.5"}
    )
    assert asks({}, {"gpu": "1"})[:2] == [
        f'{at}.limits[gpu]: Invalid value: "gpu": must be a standard resource type or fully qualified',
        f'{at}.limits[gpu]: Invalid value: "gpu": must be a standard resource for containers',
    ]
    assert f'{at}.limits[cpu]: Invalid value: "-1": must be greater than or equal to 0' in asks(
        {}, {"cpu": "-1"}
    )


@pytest.mark.parametrize(
    ("most", "complaint"),
    [
        ({"walras.dev/milligpu": "1500"}, "1500 is more than one device but no whole number of devices"),
        ({"walras.dev/milligpu": "100", "nvidia.com/gpu": "1"}, "not both"),
        ({"walras.dev/gpu-memory-mib": "100"}, "walras.dev/gpu-memory-mib needs walras.dev/milligpu"),
        ({"nvidia.com/gpu": "2000"}, "2k devices are more than"),
    ],
)
def test_a_gpu_request_that_no_lease_can_have_is_refused(most: Object, complaint: str) -> None:
    complaint = complaint.replace("2k", "2000")
    (found,) = faults("pods", container(resources={"limits": most}))
    assert found.startswith("spec.containers: Invalid value: {") and complaint in found


@pytest.mark.parametrize(
    ("annotation", "value", "reason"),
    [
        ("walras.dev/class", "urgent", "FieldValueNotSupported"),
        ("walras.dev/max-price", "-1", "FieldValueInvalid"),
        ("walras.dev/max-price", "much", "FieldValueInvalid"),
        ("walras.dev/restart-cost", "1.2345678", "FieldValueInvalid"),
        ("walras.dev/term", "soon", "FieldValueInvalid"),
        ("walras.dev/term", "0s", "FieldValueInvalid"),
        ("walras.dev/deadline", "2030-01-31", "FieldValueInvalid"),
        ("walras.dev/decay-from", "soon", "FieldValueInvalid"),
        ("walras.dev/topology", "rack", "FieldValueNotSupported"),
        ("walras.dev/slo", "fast", "FieldValueInvalid"),
        ("walras.dev/slo", "0s", "FieldValueInvalid"),
        ("walras.dev/slo", "25h", "FieldValueInvalid"),
        ("walras.dev/slo-bad", "1s", "FieldValueInvalid"),
    ],
)
def test_the_terms_of_a_bid_in_annotations_are_checked(annotation: str, value: str, reason: str) -> None:
    causes = validation.validate(ALL["pods"], ready("pods", pod({"annotations": {annotation: value}})), None)
    assert [(cause.reason, cause.field) for cause in causes] == [
        (reason, f"metadata.annotations[{annotation}]")
    ]
    spec = {"containers": [CONTAINER], "restartPolicy": "Never"}
    template = {"metadata": {"annotations": {annotation: value}}, "spec": spec}
    (cause,) = validation.validate(
        ALL["jobs.batch"], ready("jobs.batch", {"spec": {"template": template}}), None
    )
    assert cause.field == f"spec.template.metadata.annotations[{annotation}]"


def test_sound_terms_of_a_bid_are_taken() -> None:
    terms = {
        "walras.dev/class": "latency", "walras.dev/max-price": "2.50", "walras.dev/restart-cost": "0.1",
        "walras.dev/term": "10m", "walras.dev/deadline": "2030-01-31T12:00:00Z",
        "walras.dev/decay-from": "2030-01-31T11:59:59Z", "walras.dev/topology": "nvlink",
        "walras.dev/slo": "200ms", "walras.dev/slo-bad": "1s",
    }  # fmt: skip
    assert faults("pods", pod({"annotations": terms})) == []
    terms["walras.dev/decay-from"] = terms["walras.dev/deadline"]
    assert faults("pods", pod({"annotations": terms})) == [
        'metadata.annotations[walras.dev/decay-from]: Invalid value: "2030-01-31T12:00:00Z": '
        "must be before the deadline"
    ]


def test_an_objective_has_its_bad_end_beyond_the_good_one() -> None:
    for good, bad in (("1s", "1s"), ("1s", "999ms")):
        terms = {"walras.dev/slo": good, "walras.dev/slo-bad": bad}
        (found,) = faults("pods", pod({"annotations": terms}))
        assert found.startswith("metadata.annotations[walras.dev/slo-bad]") and "longer" in found


@pytest.mark.parametrize("kind", ["jobs.batch", "deployments.apps", "replicasets.apps"])
def test_what_is_measured_of_a_workload_is_checked(kind: str) -> None:
    field = "metadata.annotations[walras.dev/latency]"

    def found(said: str) -> list[str]:
        obj = ready(kind, {"spec": {"template": {"spec": {"containers": [CONTAINER]}}}})
        obj["metadata"]["annotations"] = {"walras.dev/latency": said}
        return [cause.field for cause in validation.validate(ALL[kind], obj, None)]

    assert field not in found("450ms")
    for said in ("slow", "-1s", "0s", "25h"):
        assert field in found(said)


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


def test_what_a_pod_may_change_once_it_exists() -> None:
    old = ready("pods", pod())

    def changed(change: Callable[[Object], Any]) -> list[str]:
        new = copy.deepcopy(old)
        change(new["spec"])
        return faults("pods", new, old)

    assert changed(lambda spec: spec["containers"][0].update(image="other")) == []
    assert changed(lambda spec: spec.update(activeDeadlineSeconds=5)) == []
    assert (
        changed(lambda spec: spec.setdefault("tolerations", []).append({"key": "a", "operator": "Exists"}))
        == []
    )
    (found,) = changed(lambda spec: spec["containers"][0].update(command=["sh"]))
    assert found.startswith(
        "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"
        "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to "
        "existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was "
        "previously negative)\n"
    )
    assert '+        "sh"' in found
    assert changed(lambda spec: spec["containers"].append({**CONTAINER, "name": "d"})) == [
        "spec.containers: Forbidden: pod updates may not add or remove containers"
    ]
    assert changed(lambda spec: spec.update(nodeName="elsewhere"))[0].startswith("spec: Forbidden")
    patient = pod(tolerations=[{"key": "a", "operator": "Exists"}])
    assert faults("pods", pod(), patient) == [
        "spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"
    ]


def test_a_stored_pod_without_defaults_does_not_read_as_changed() -> None:
    bare = {
        "metadata": {"name": "x", "namespace": "default", "uid": "u-1"},
        **{"spec": {"containers": [CONTAINER]}},
    }
    new = ready("pods", pod({"labels": {"a": "b"}}))
    assert validation.validate(ALL["pods"], new, bare) == []


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


@pytest.mark.parametrize("name", ["fleet", "*", "A", "a.b", "-a", "a" * 64])
def test_names_that_no_agent_may_have(name: str) -> None:
    agent = {"metadata": {"name": name}, "spec": {"budget": {"income": "12/h"}}}
    assert {fault.partition(":")[0] for fault in faults("agents.walras.dev", agent)} == {"metadata.name"}


@pytest.mark.parametrize(
    ("key", "spec", "field"),
    [
        ("agents.walras.dev", {}, "spec.budget"),
        ("agents.walras.dev", {"budget": {}}, "spec.budget.income"),
        ("agents.walras.dev", {"budget": {"income": "12"}}, "spec.budget.income"),
        ("agents.walras.dev", {"budget": {"income": 12}}, "spec.budget.income"),
        ("agents.walras.dev", {"budget": {"income": "1/h", "balance": "-3"}}, "spec.budget.balance"),
        ("agents.walras.dev", {"budget": {"income": "1/h", "weight": 0}}, "spec.budget.weight"),
        ("pools.walras.dev", {"reservePrice": "free"}, "spec.reservePrice"),
        ("pools.walras.dev", {"tick": "0s"}, "spec.tick"),
        ("pools.walras.dev", {"tick": "1ms"}, "spec.tick"),
        ("pools.walras.dev", {"tick": "365d"}, "spec.tick"),
        ("pools.walras.dev", {"minimumQuantum": "365d"}, "spec.minimumQuantum"),
        ("pools.walras.dev", {"notice": "365d"}, "spec.notice"),
        ("pools.walras.dev", {"mechanism": "lottery"}, "spec.mechanism"),
        ("bids.walras.dev", {"class": "urgent", "packages": [{"maxPrice": "1"}]}, "spec.class"),
        ("bids.walras.dev", {"class": "batch", "packages": []}, "spec.packages"),
        ("bids.walras.dev", {"class": "batch", "packages": [{}]}, "spec.packages[0].maxPrice"),
        (
            "bids.walras.dev",
            {"class": "batch", "packages": [{"maxPrice": "1", "memory": "-1Gi"}]},
            "spec.packages[0].memory",
        ),
        (
            "bids.walras.dev",
            {"class": "batch", "packages": [{"maxPrice": "1", "devices": 0}]},
            "spec.packages[0].devices",
        ),
        *(
            ("bids.walras.dev", {"class": "batch", "packages": [{"maxPrice": "1", **package}]}, field)
            for package, field in (
                ({"devices": 4, "devicesMin": 5}, "spec.packages[0].devicesMin"),
                ({"devicesMin": 2}, "spec.packages[0].devicesMin"),
                ({"topology": "rack"}, "spec.packages[0].topology"),
                ({"migProfile": "big"}, "spec.packages[0].migProfile"),
                ({"migProfile": "1g.10gb", "milliGPU": 1000}, "spec.packages[0].milliGPU"),
                ({"migProfile": "1g.10gb", "memory": "1Gi"}, "spec.packages[0].memory"),
            )
        ),
        *(
            ("bids.walras.dev", {"class": "batch", "packages": [{"maxPrice": "1"}], **times}, field)
            for times, field in (
                ({"decayFrom": "2030-01-31T12:00:00Z"}, "spec.deadline"),
                ({"decayFrom": "2030-01-31T12:00:00Z", "deadline": "2030-01-31T12:00:00Z"}, "spec.decayFrom"),
                ({"decayFrom": "soon", "deadline": "2030-01-31T12:00:00Z"}, "spec.decayFrom"),
            )
        ),
        ("pools.walras.dev", {"payments": "first"}, "spec.payments"),
        ("pools.walras.dev", {"reservePriceMax": "much"}, "spec.reservePriceMax"),
        ("pools.walras.dev", {"reservePrice": "1", "reservePriceMax": "0.99"}, "spec.reservePriceMax"),
        ("pools.walras.dev", {"speeds": {"H100": 0}}, "spec.speeds.H100"),
        ("pools.walras.dev", {"speeds": {"H100": "fast"}}, "spec.speeds.H100"),
        ("pools.walras.dev", {"speeds": {"x" * 65: 1000}}, "spec.speeds"),
    ],
)
def test_walras_kinds(key: str, spec: Object, field: str) -> None:
    assert {fault.partition(":")[0] for fault in faults(key, {"spec": spec})} == {field}


def test_a_pool_that_nobody_would_clear_is_refused() -> None:
    second = {"metadata": {"name": "second"}, "spec": {}}
    assert faults("pools.walras.dev", second) == [
        'metadata.name: Invalid value: "second": there is one pool, "default": change its spec instead'
    ]


def test_a_negative_balance_is_told_in_plain_words() -> None:
    agent = {"spec": {"budget": {"income": "12/h", "balance": "-3"}}}
    assert faults("agents.walras.dev", agent) == [
        'spec.budget.balance: Invalid value: "-3": "-3" is negative; an amount '
        "of credits must be zero or more"
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


def below(spec: Object, old: Object) -> list[str]:
    """The faults of a write of a pod's ephemeral containers."""
    causes = validation.validate(
        ALL["pods"], ready("pods", spec), ready("pods", old), subresource="ephemeralcontainers"
    )
    return [f"{cause.field}: {cause.message}" for cause in causes]


def _asking(requests: Object, limits: Object | None = None, **more: Object) -> Object:
    resources = {"requests": requests, **({"limits": limits} if limits else {})}
    return pod(containers=[{"name": "c", "image": "i", "resources": resources}], **more)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (_asking({"cpu": "1"}), _asking({"cpu": "2"}), []),
        (_asking({"cpu": "1"}), _asking({"cpu": "1", "memory": "1Gi"}, {"cpu": "2"}), []),
        (
            _asking({"cpu": "1", "memory": "1Gi"}),
            _asking({"cpu": "1"}),
            ["spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed"],
        ),
        (
            _asking({"cpu": "1", "memory": "1Gi"}, {"cpu": "1", "memory": "1Gi"}),
            _asking({"cpu": "1", "memory": "1Gi"}, {"cpu": "2", "memory": "1Gi"}),
            ['spec: Invalid value: "Burstable": Pod QOS Class may not change as a result of resizing'],
        ),
        (
            _asking({"cpu": "1"}),
            _asking({"cpu": "1", "ephemeral-storage": "1Gi"}),
            ["spec: Forbidden: only cpu and memory resources are mutable"],
        ),
        (
            _asking({"cpu": "2"}),
            _asking({"cpu": "2"}, {"cpu": "1"}),
            ['spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu '
             "limit of 1"],
        ),
    ],
)  # fmt: skip
def test_a_resize_changes_cpu_and_memory_and_nothing_else(
    before: Object, after: Object, expected: list[str]
) -> None:
    causes = validation.validate(
        ALL["pods"], ready("pods", after), ready("pods", before), subresource="resize"
    )
    assert [f"{cause.field}: {cause.message}" for cause in causes] == expected


def test_an_ephemeral_container_is_added_by_its_subresource_and_stays_as_it_is() -> None:
    one, two = ({"name": name, "image": "i", "targetContainerName": "c"} for name in ("e", "f"))
    assert below(pod(ephemeralContainers=[one]), pod()) == []
    assert below(pod(ephemeralContainers=[two, one]), pod(ephemeralContainers=[one])) == []
    at = "spec.ephemeralContainers: Forbidden: existing ephemeral containers"
    assert below(pod(), pod(ephemeralContainers=[one])) == [f'{at} "e" may not be removed\n']
    other = pod(ephemeralContainers=[{**one, "image": "j"}])
    assert below(other, pod(ephemeralContainers=[one])) == [f'{at} "e" may not be changed\n']
    assert faults("pods", pod(ephemeralContainers=[one]), pod())[0].startswith("spec: Forbidden: pod updates")


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"name": "c"}, ['name: Duplicate value: "c"']),
        ({"name": ""}, ["name: Required value"]),
        ({"image": " i"}, ['image: Invalid value: " i": must not have leading or trailing whitespace']),
        ({"targetContainerName": "x"}, ['targetContainerName: Not found: "x"']),
        (
            {"ports": [{"containerPort": 1}]},
            ["ports: Forbidden: cannot be set for an Ephemeral Container"],
        ),
        (
            {"resources": {"limits": {"cpu": "1"}}},
            ["resources: Forbidden: cannot be set for an Ephemeral Container"],
        ),
        (
            {"volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": "s"}]},
            ["volumeMounts[0].subPath: Forbidden: cannot be set for an Ephemeral Container"],
        ),
    ],
)
def test_an_ephemeral_container_is_nothing_that_a_pod_stands_on(more: Object, expected: list[str]) -> None:
    volumes = [{"name": "v", "emptyDir": {}}]
    found = below(
        pod(volumes=volumes, ephemeralContainers=[{"name": "e", "image": "i", **more}]), pod(volumes=volumes)
    )
    assert found == [f"spec.ephemeralContainers[0].{each}" for each in expected]
