"""Defaults of the built-in types that hold no pods. In place, as in defaults.py."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from walras.kube import defaults_volumes
from walras.kube.versions_builtin import CPU_PERCENT_DEFAULT

Object = dict[str, Any]

_RBAC: Final = "rbac.authorization.k8s.io"
_HTTPS: Final = 443
_SCALE_UP: Final = {
    "stabilizationWindowSeconds": 0,
    "selectPolicy": "Max",
    "policies": [
        {"type": "Pods", "value": 4, "periodSeconds": 15},
        {"type": "Percent", "value": 100, "periodSeconds": 15},
    ],
}
_SCALE_DOWN: Final = {
    "selectPolicy": "Max",
    "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}],
}


def _each(value: Any) -> Iterable[Object]:
    return (item for item in value or () if isinstance(item, dict))


def _spec(obj: Object) -> Object:
    if obj.get("spec") is None:
        obj["spec"] = {}
    spec: Object = obj["spec"]
    return spec


def _unless(obj: Object, **values: Any) -> None:
    """Sets what is absent or, for texts and numbers that Go cannot tell from absent ones, empty."""
    for name, value in values.items():
        if obj.get(name) in (None, "") or (obj[name] == 0 and obj[name] is not False and value):
            obj[name] = value


def _service(obj: Object) -> None:
    spec = _spec(obj)
    _unless(spec, type="ClusterIP", sessionAffinity="None")
    if spec["sessionAffinity"] == "None":
        spec.pop("sessionAffinityConfig", None)
    if spec["sessionAffinity"] == "ClientIP":
        timeout = ((spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}).get("timeoutSeconds")
        if timeout is None:
            spec["sessionAffinityConfig"] = {"clientIP": {"timeoutSeconds": 10800}}
    kind = spec["type"]
    if kind in ("ClusterIP", "NodePort", "LoadBalancer"):
        spec.setdefault("internalTrafficPolicy", "Cluster")
    if kind in ("NodePort", "LoadBalancer") or (kind == "ClusterIP" and spec.get("externalIPs")):
        _unless(spec, externalTrafficPolicy="Cluster")
    if kind == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)
        for point in _each(((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress")):
            if point.get("ip"):
                point.setdefault("ipMode", "VIP")
    for port in _each(spec.get("ports")):
        _unless(port, protocol="TCP")
        if port.get("targetPort") in (None, 0, ""):
            port["targetPort"] = port.get("port", 0)


def _secret(obj: Object) -> None:
    _unless(obj, type="Opaque")
    # Write-only: it is merged into data and never read back.
    plain = obj.pop("stringData", None)
    if plain:
        encoded = {key: base64.b64encode(text.encode()).decode() for key, text in plain.items()}
        obj["data"] = {**(obj.get("data") or {}), **encoded}


def claim(obj: Object) -> None:
    """A PersistentVolumeClaim, or the template of one."""
    _spec(obj).setdefault("volumeMode", "Filesystem")
    if obj.get("status") is None:
        obj["status"] = {}
    _unless(obj["status"], phase="Pending")


def _volume(obj: Object) -> None:
    _unless(_spec(obj), persistentVolumeReclaimPolicy="Retain", volumeMode="Filesystem")
    if obj.get("status") is None:
        obj["status"] = {}
    _unless(obj["status"], phase="Pending")
    defaults_volumes.source(obj["spec"])


def _namespace(obj: Object) -> None:
    if obj["metadata"].get("name"):
        labels = obj["metadata"].get("labels") or {}
        obj["metadata"]["labels"] = {**labels, "kubernetes.io/metadata.name": obj["metadata"]["name"]}
    if obj.get("status") is None:
        obj["status"] = {}
    _unless(obj["status"], phase="Active")


def _node(obj: Object) -> None:
    status = obj.get("status") or {}
    if status.get("capacity") and not status.get("allocatable"):
        status["allocatable"] = dict(status["capacity"])


def _endpoints(obj: Object) -> None:
    for subset in _each(obj.get("subsets")):
        for port in _each(subset.get("ports")):
            _unless(port, protocol="TCP")


def _limit_range(obj: Object) -> None:
    for item in _each(_spec(obj).get("limits")):
        if item.get("type") != "Container":
            continue
        limits = {**(item.get("max") or {}), **(item.get("default") or {})}
        requests = {**(item.get("min") or {}), **limits, **(item.get("defaultRequest") or {})}
        item.update({"default": limits} if limits else {})
        item.update({"defaultRequest": requests} if requests else {})


def _autoscaler(obj: Object) -> None:
    spec = _spec(obj)
    spec.setdefault("minReplicas", 1)
    if not spec.get("metrics"):
        target = {"type": "Utilization", "averageUtilization": CPU_PERCENT_DEFAULT}
        spec["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    behavior = spec.get("behavior")
    if behavior is not None:
        behavior["scaleUp"] = {**_SCALE_UP, **(behavior.get("scaleUp") or {})}
        behavior["scaleDown"] = {**_SCALE_DOWN, **(behavior.get("scaleDown") or {})}


def _network_policy(obj: Object) -> None:
    spec = _spec(obj)
    for rule in (*_each(spec.get("ingress")), *_each(spec.get("egress"))):
        for port in _each(rule.get("ports")):
            port.setdefault("protocol", "TCP")
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress", *(["Egress"] if spec.get("egress") else [])]


def _ingress_class(obj: Object) -> None:
    if _spec(obj).get("parameters") is not None:
        _unless(obj["spec"]["parameters"], scope="Cluster")


def _slice(obj: Object) -> None:
    for port in _each(obj.get("ports")):
        port.setdefault("name", "")
        port.setdefault("protocol", "TCP")


def _role_binding(obj: Object) -> None:
    if obj.get("roleRef") is None:
        obj["roleRef"] = {}
    _unless(obj["roleRef"], apiGroup=_RBAC)
    for subject in _each(obj.get("subjects")):
        if subject.get("kind") in ("User", "Group"):
            _unless(subject, apiGroup=_RBAC)


def _storage_class(obj: Object) -> None:
    obj.setdefault("reclaimPolicy", "Delete")
    obj.setdefault("volumeBindingMode", "Immediate")


def _driver(obj: Object) -> None:
    spec = _spec(obj)
    spec.setdefault("attachRequired", True)
    for name in ("podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount"):
        spec.setdefault(name, False)
    spec.setdefault("fsGroupPolicy", "ReadWriteOnceWithFSType")
    if not spec.get("volumeLifecycleModes"):
        spec["volumeLifecycleModes"] = ["Persistent"]


def _webhooks(obj: Object) -> None:
    for hook in _each(obj.get("webhooks")):
        hook.setdefault("failurePolicy", "Fail")
        hook.setdefault("timeoutSeconds", 10)
        if obj.get("kind") == "MutatingWebhookConfiguration":
            hook.setdefault("reinvocationPolicy", "Never")
        _match(hook)
        for rule in _each(hook.get("rules")):
            rule.setdefault("scope", "*")
        service = (hook.get("clientConfig") or {}).get("service")
        if service is not None:
            service.setdefault("port", _HTTPS)


def _match(obj: Object) -> None:
    obj.setdefault("matchPolicy", "Equivalent")
    obj.setdefault("namespaceSelector", {})
    obj.setdefault("objectSelector", {})


def _match_resources(resources: Any) -> None:
    if isinstance(resources, dict):
        _match(resources)
        for rule in (*_each(resources.get("resourceRules")), *_each(resources.get("excludeResourceRules"))):
            rule.setdefault("scope", "*")


def _admission_policy(obj: Object) -> None:
    _spec(obj).setdefault("failurePolicy", "Fail")
    _match_resources(obj["spec"].get("matchConstraints"))


def _admission_binding(obj: Object) -> None:
    _match_resources(_spec(obj).get("matchResources"))


def _flow_schema(obj: Object) -> None:
    _unless(_spec(obj), matchingPrecedence=1000)


def _priority_level(obj: Object) -> None:
    spec = _spec(obj)
    for part, shares in (("limited", 30), ("exempt", 0)):
        if spec.get(part) is not None:
            spec[part].setdefault("nominalConcurrencyShares", shares)
            spec[part].setdefault("lendablePercent", 0)
    queues = ((spec.get("limited") or {}).get("limitResponse") or {}).get("queuing")
    if queues is not None:
        _unless(queues, handSize=8, queues=64, queueLengthLimit=50)


def _device_claim(spec: Object) -> None:
    for request in _each((spec.get("devices") or {}).get("requests")):
        for each in (request.get("exactly"), *_each(request.get("firstAvailable"))):
            if isinstance(each, dict):
                _unless(each, allocationMode="ExactCount")
                if each["allocationMode"] == "ExactCount":
                    _unless(each, count=1)


def _api_service(obj: Object) -> None:
    if _spec(obj).get("service") is not None:
        obj["spec"]["service"].setdefault("port", _HTTPS)


def _definition(obj: Object) -> None:
    spec = _spec(obj)
    if spec.get("names") is None:
        spec["names"] = {}
    names = spec["names"]
    if names.get("kind"):
        names.setdefault("singular", names["kind"].lower())
        names.setdefault("listKind", f"{names['kind']}List")
    if spec.get("conversion") is None:
        spec["conversion"] = {"strategy": "None"}
    client = (spec["conversion"].get("webhook") or {}).get("clientConfig") or {}
    if client.get("service") is not None:
        client["service"].setdefault("port", _HTTPS)


FILLS: Final[Mapping[str, Callable[[Object], None]]] = {
    "endpoints": _endpoints,
    "limitranges": _limit_range,
    "namespaces": _namespace,
    "nodes": _node,
    "persistentvolumeclaims": claim,
    "persistentvolumes": _volume,
    "secrets": _secret,
    "services": _service,
    "apiservices.apiregistration.k8s.io": _api_service,
    "horizontalpodautoscalers.autoscaling": _autoscaler,
    "ingressclasses.networking.k8s.io": _ingress_class,
    "networkpolicies.networking.k8s.io": _network_policy,
    "endpointslices.discovery.k8s.io": _slice,
    "clusterrolebindings.rbac.authorization.k8s.io": _role_binding,
    "rolebindings.rbac.authorization.k8s.io": _role_binding,
    "csidrivers.storage.k8s.io": _driver,
    "storageclasses.storage.k8s.io": _storage_class,
    "mutatingadmissionpolicies.admissionregistration.k8s.io": _admission_policy,
    "mutatingadmissionpolicybindings.admissionregistration.k8s.io": _admission_binding,
    "mutatingwebhookconfigurations.admissionregistration.k8s.io": _webhooks,
    "validatingadmissionpolicies.admissionregistration.k8s.io": _admission_policy,
    "validatingadmissionpolicybindings.admissionregistration.k8s.io": _admission_binding,
    "validatingwebhookconfigurations.admissionregistration.k8s.io": _webhooks,
    "customresourcedefinitions.apiextensions.k8s.io": _definition,
    "priorityclasses.scheduling.k8s.io": lambda obj: _unless(obj, preemptionPolicy="PreemptLowerPriority"),
    "resourceclaims.resource.k8s.io": lambda obj: _device_claim(_spec(obj)),
    "resourceclaimtemplates.resource.k8s.io": lambda obj: _device_claim(_spec(obj).get("spec") or {}),
    "flowschemas.flowcontrol.apiserver.k8s.io": _flow_schema,
    "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io": _priority_level,
}
