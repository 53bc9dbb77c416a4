"""Validation of pods, of what may change of them, and of their subresources."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
from support.validation import ALL, CONTAINER, Object, container, faults, pod, ready

from walras.kube import validation

LABEL = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric "
    "characters or '-', and must start and end "
    "with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)


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
