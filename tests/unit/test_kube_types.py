"""Defaults, validation and allocation of built-in types, in the words of the real kube-apiserver."""

import copy
from typing import Any

import pytest

from walras.kube import defaults, fields, validation
from walras.kube.registry_builtin import for_agents

Object = dict[str, Any]
REGISTRY = for_agents()
TEMPLATE: Object = {
    "metadata": {"labels": {"a": "b"}},
    "spec": {"containers": [{"name": "c", "image": "i"}]},
}


def made(key: str, body: Object, name: str = "x") -> Object:
    resource = REGISTRY[key]
    whole = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": name}, **body}
    obj, unknown = fields.decode(resource.schema, copy.deepcopy(whole))
    assert not unknown
    if resource.namespaced:
        obj["metadata"].setdefault("namespace", "default")
    defaults.apply(resource, obj)
    return obj


def faults(key: str, body: Object, old: Object | None = None) -> list[str]:
    before = None if old is None else made(key, old)
    causes = validation.validate(REGISTRY[key], made(key, body), before)
    return [f"{cause.field}: {cause.message}" for cause in causes]


def job(**spec: Any) -> Object:
    template = {"spec": {**TEMPLATE["spec"], "restartPolicy": "Never"}}
    return {"spec": {"template": template, **spec}}


STATEFUL = {"spec": {"selector": {"matchLabels": {"a": "b"}}, "serviceName": "s", "template": TEMPLATE}}
CLAIM = {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}
HPA = {
    "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}, "maxReplicas": 2}
}
INGRESS = {"spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}}
SLICE = {"addressType": "IPv4", "endpoints": [{"addresses": ["10.1.2.3"]}], "ports": []}


@pytest.mark.parametrize(
    ("key", "body", "path", "expected"),
    [
        ("statefulsets.apps", STATEFUL, "spec.podManagementPolicy", "OrderedReady"),
        ("statefulsets.apps", STATEFUL, "spec.updateStrategy.rollingUpdate.partition", 0),
        ("daemonsets.apps", {"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": TEMPLATE}},
         "spec.updateStrategy.rollingUpdate.maxUnavailable", 1),
        ("persistentvolumeclaims", CLAIM, "spec.volumeMode", "Filesystem"),
        ("persistentvolumeclaims", CLAIM, "status.phase", "Pending"),
        ("services", {"spec": {"ports": [{"port": 80}]}}, "spec.sessionAffinity", "None"),
        ("horizontalpodautoscalers.autoscaling", HPA, "spec.minReplicas", 1),
        ("cronjobs.batch", {"spec": {"schedule": "* * * * *", "jobTemplate": job()}},
         "spec.concurrencyPolicy", "Allow"),
        ("storageclasses.storage.k8s.io", {"provisioner": "p"}, "volumeBindingMode", "Immediate"),
        ("endpointslices.discovery.k8s.io", {**SLICE, "ports": [{"port": 80}]}, "ports.0.protocol", "TCP"),
        ("networkpolicies.networking.k8s.io", {"spec": {"podSelector": {}}}, "spec.policyTypes", ["Ingress"]),
        ("limitranges", {"spec": {"limits": [{"type": "Container", "max": {"cpu": "1"}}]}},
         "spec.limits.0.defaultRequest.cpu", "1"),
    ],
)  # fmt: skip
def test_what_is_left_out_is_filled_in(key: str, body: Object, path: str, expected: Any) -> None:
    value: Any = made(key, body)
    for part in path.split("."):
        value = value[int(part)] if isinstance(value, list) else value[part]
    assert value == expected


@pytest.mark.parametrize(
    ("key", "body"),
    [
        ("statefulsets.apps", STATEFUL), ("persistentvolumeclaims", CLAIM),
        ("horizontalpodautoscalers.autoscaling", HPA), ("ingresses.networking.k8s.io", INGRESS),
        ("endpointslices.discovery.k8s.io", SLICE), ("storageclasses.storage.k8s.io", {"provisioner": "p"}),
        ("networkpolicies.networking.k8s.io", {"spec": {"podSelector": {}}}),
        ("cronjobs.batch", {"spec": {"schedule": "@daily", "jobTemplate": job()}}),
        ("priorityclasses.scheduling.k8s.io", {"value": 5}),
        ("leases.coordination.k8s.io", {"spec": {"holderIdentity": "me", "leaseDurationSeconds": 15}}),
        ("poddisruptionbudgets.policy", {"spec": {"maxUnavailable": "10%", "selector": {}}}),
    ],
)  # fmt: skip
def test_sound_objects_have_no_fault(key: str, body: Object) -> None:
    assert faults(key, body) == []


@pytest.mark.parametrize(
    ("key", "body", "expected"),
    [
        ("persistentvolumeclaims", {"spec": {"resources": {"requests": {"storage": "0"}}}},
         "spec.accessModes: Required value: at least 1 access mode is required"),
        ("horizontalpodautoscalers.autoscaling", {"spec": {**HPA["spec"], "minReplicas": 3}},
         "spec.maxReplicas: Invalid value: 2: must be greater than or equal to `minReplicas`"),
        ("ingresses.networking.k8s.io", {"spec": {}},
         'spec: Invalid value: null: either `defaultBackend` or `rules` must be specified'),
        ("endpointslices.discovery.k8s.io", {**SLICE, "endpoints": [{"addresses": ["127.0.0.1"]}]},
         'endpoints[0].addresses[0]: Invalid value: "127.0.0.1": may not be in the loopback range '
         "(127.0.0.0/8, ::1/128)"),
        ("cronjobs.batch", {"spec": {"schedule": "a * * * *", "jobTemplate": job()}},
         'spec.schedule: Invalid value: "a * * * *": failed to parse int from a: '
         'strconv.Atoi: parsing "a": invalid syntax'),
        ("priorityclasses.scheduling.k8s.io", {"value": 2_000_000_000},
         "value: Forbidden: maximum allowed value of a user defined priority is 1000000000"),
        ("poddisruptionbudgets.policy", {"spec": {"maxUnavailable": 1, "minAvailable": 1, "selector": {}}},
         'spec: Invalid value: {"MinAvailable":1,"Selector":{},"MaxUnavailable":1,'
         '"UnhealthyPodEvictionPolicy":null}: '
         "minAvailable and maxUnavailable cannot be both set"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told(key: str, body: Object, expected: str) -> None:
    assert expected in faults(key, body)


def pod(container: Object | None = None, **spec: Any) -> Object:
    return {"spec": {"containers": [{"name": "c", "image": "i", **(container or {})}], **spec}}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (pod(affinity={"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "t",
                                                                                "matchLabelKeys": ["k"]}]}}),
         "spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].matchLabelKeys: "
         "Forbidden: must not be specified when labelSelector is not set"),
        (pod(topologySpreadConstraints=[{"maxSkew": 0, "topologyKey": "z",
                                         "whenUnsatisfiable": "DoNotSchedule"}]),
         "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero"),
        (pod(dnsPolicy="None"),
         "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"),
        (pod(hostAliases=[{"ip": "01.2.3.4"}]),
         'spec.hostAliases[0].ip: Invalid value: "01.2.3.4": must not have leading 0s'),
        (pod(hostNetwork=True, containers=[{"name": "c", "image": "i",
                                            "ports": [{"containerPort": 80, "hostPort": 81}]}]),
         "spec.containers[0].ports[0].hostPort: Invalid value: 81: must match `containerPort` when "
         "`hostNetwork` is true"),
        (pod(hostUsers=False, hostPID=True), "spec.HostPID: Forbidden: when `hostUsers` is false"),
        (pod(securityContext={"seccompProfile": {"type": "Localhost"}}),
         "spec.securityContext.seccompProfile.localhostProfile: Required value: must be set when "
         "seccomp type is "
         "Localhost"),
        (pod({"securityContext": {"runAsUser": -1}}),
         "spec.containers[0].securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, "
         "inclusive"),
        (pod({"restartPolicyRules": [{"action": "Restart"}]}),
         "spec.containers[0].restartPolicy: Required value: must specify restartPolicy when "
         "restart rules are "
         "used"),
        (pod({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.host.x"}}}]}),
         'spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: "spec.host.x": error '
         "converting fieldPath: field label not supported: spec.host.x"),
        (pod({"volumeDevices": [{"name": "v", "devicePath": "/x"}]}, volumes=[{"name": "v", "emptyDir": {}}]),
         'spec.containers[0].volumeDevices[0].name: Invalid value: "v": can only use volume source type of '
         "PersistentVolumeClaim or Ephemeral for block mode"),
        (pod(volumes=[{"name": "v", "nfs": {"server": "s", "path": "x"}}]),
         'spec.volumes[0].nfs.path: Invalid value: "x": must be an absolute path'),
        (pod(volumes=[{"name": "v", "iscsi": {"targetPortal": "p", "iqn": "x"}}]),
         'spec.volumes[0].iscsi.iqn: Invalid value: "x": must be valid format starting with iqn, '
         'eui, or naa'),
        (pod(volumes=[{"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": {
            "resources": {"requests": {"storage": "1Gi"}}}}}}]),
         "spec.volumes[0].ephemeral.volumeClaimTemplate.spec.accessModes: Required value: at least 1 access "
         "mode is required"),
        (pod({"lifecycle": {"preStop": {"sleep": {"seconds": 100}}}}),
         "spec.containers[0].lifecycle.preStop.sleep: Invalid value: 100: must be non-negative and less than "
         "terminationGracePeriodSeconds (30)"),
        (pod({"resources": {"requests": {"cpu": "3"}}}, resources={"requests": {"cpu": "2"}}),
         'spec.resources.requests[cpu]: Invalid value: "2": must be greater than or equal to '
         'aggregate container '
         "requests of 3"),
        (pod({"resources": {"claims": [{"name": "z"}]}}),
         'spec.containers[0].resources.claims[0]: Not found: "z": must be one of the names in '
         "pod.spec.resourceClaims which is empty"),
        (pod({"image": " i"}),
         'spec.containers[0].image: Invalid value: " i": must not have leading or trailing whitespace'),
        (pod(os={"name": "windows"}, securityContext={"fsGroup": 1}),
         "spec.securityContext.fsGroup: Forbidden: cannot be set for a windows pod"),
        (pod(resourceClaims=[{"name": "a"}]),
         'spec.resourceClaims[0]: Invalid value: {"Name":"a","ResourceClaimName":null,'
         '"ResourceClaimTemplateName":null}: must specify one of: `resourceClaimName`, '
         "`resourceClaimTemplateName`"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_pod(body: Object, expected: str) -> None:
    assert faults("pods", body) == [expected]


@pytest.mark.parametrize(
    ("key", "old", "new", "expected"),
    [
        ("storageclasses.storage.k8s.io", {"provisioner": "p"}, {"provisioner": "q"}, "provisioner"),
        ("configmaps", {"immutable": True, "data": {"a": "b"}}, {"immutable": True, "data": {"a": "c"}},
         "data: Forbidden: field is immutable when `immutable` is set"),
        ("secrets", {"type": "a"}, {"type": "b"}, 'type: Invalid value: "b": field is immutable'),
        ("persistentvolumeclaims", CLAIM, {"spec": {**CLAIM["spec"], "accessModes": ["ReadOnlyMany"]}},
         "spec is immutable after creation except resources.requests and volumeAttributesClassName"),
        ("endpointslices.discovery.k8s.io", SLICE, {**SLICE, "addressType": "FQDN"},
         'addressType: Invalid value: "FQDN": field is immutable'),
        ("priorityclasses.scheduling.k8s.io", {"value": 5}, {"value": 6}, "value: Forbidden"),
        ("runtimeclasses.node.k8s.io", {"handler": "a"}, {"handler": "b"},
         'handler: Invalid value: "b": field is immutable'),
    ],
)  # fmt: skip
def test_what_may_not_change_does_not(key: str, old: Object, new: Object, expected: str) -> None:
    assert any(expected in fault for fault in faults(key, new, old))
    assert faults(key, old, old) == []
