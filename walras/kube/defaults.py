"""What the API server fills in: defaults of built-in types, and those that a custom resource's schema gives.

In place, and idempotent: applying them to an object that has been through them changes nothing.
"""

from __future__ import annotations

import base64
import copy
from collections.abc import Callable, Mapping
from typing import Any, Final

from walras.kube.registry import Resource
from walras.kube.schema import Schema

Object = dict[str, Any]

GRACE_SECONDS: Final = 30
_INT32_MAX: Final = 2**31 - 1


def apply(resource: Resource, obj: Object) -> None:
    """Fills in what the object leaves out. It has the shape of its type, as `fields.decode` returns it."""
    if not resource.builtin:
        apply_schema(resource.schema, obj)
        return
    fill = _BUILTIN.get(resource.key)
    if fill is not None:
        fill(obj)


def apply_schema(schema: Schema, value: Any) -> None:
    """Defaults of a structural schema, below whatever the value already has."""
    if isinstance(value, list):
        items = schema.items
        if items is not None:
            for item in value:
                apply_schema(items, item)
        return
    if not isinstance(value, dict) or schema.ref:
        return
    for name in schema.properties:
        node = schema.child(name)
        assert node is not None
        present = value.get(name)
        if present is None and "default" in node.raw and (name not in value or not node.raw.get("nullable")):
            value[name] = present = copy.deepcopy(node.raw["default"])
        if isinstance(present, dict | list):
            apply_schema(node, present)
    if isinstance(schema.raw.get("additionalProperties"), Mapping) and schema.values is not None:
        for name, present in value.items():
            if name not in schema.properties:
                apply_schema(schema.values, present)


def _sub(obj: Object, name: str) -> Object:
    """The struct under `name`, made when it is missing."""
    if obj.get(name) is None:
        obj[name] = {}
    value: Object = obj[name]
    return value


# ---- pods and what holds a pod template


def _pod(obj: Object) -> None:
    spec = _sub(obj, "spec")
    for container in (*spec.get("containers", ()), *spec.get("initContainers", ())):
        resources = _sub(container, "resources")
        if resources.get("limits"):
            resources["requests"] = {**resources["limits"], **(resources.get("requests") or {})}
    spec.setdefault("enableServiceLinks", True)
    if spec.get("hostNetwork"):
        for container in (*spec.get("containers", ()), *spec.get("initContainers", ())):
            for port in container.get("ports", ()):
                if not port.get("hostPort"):
                    port["hostPort"] = port.get("containerPort", 0)
    pod_spec(spec)


def pod_spec(spec: Object) -> None:
    """The defaults that a pod and a pod template share."""
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("schedulerName", "default-scheduler")
    spec.setdefault("terminationGracePeriodSeconds", GRACE_SECONDS)
    spec.setdefault("securityContext", {})
    account = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if account:
        spec["serviceAccountName"] = spec["serviceAccount"] = account
    for container in (*spec.get("containers", ()), *spec.get("initContainers", ())):
        _container(container)
    for volume in spec.get("volumes", ()):
        _volume(volume)
    for constraint in spec.get("topologySpreadConstraints", ()):
        constraint.setdefault("nodeAffinityPolicy", "Honor")
        constraint.setdefault("nodeTaintsPolicy", "Ignore")


def _container(container: Object) -> None:
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    if not container.get("imagePullPolicy"):
        container["imagePullPolicy"] = "Always" if _is_latest(container.get("image", "")) else "IfNotPresent"
    container.setdefault("resources", {})
    for port in container.get("ports", ()):
        port.setdefault("protocol", "TCP")
    for variable in container.get("env", ()):
        _field_ref(variable.get("valueFrom") or {})
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if container.get(name) is not None:
            _probe(container[name])
    for hook in (container.get("lifecycle") or {}).values():
        if isinstance(hook, dict):
            _http_get(hook)


def _is_latest(image: str) -> bool:
    """Whether the image names the tag "latest" or neither tag nor digest."""
    if "@" in image:
        return False
    _, colon, tag = image.rpartition("/")[2].partition(":")
    return not colon or tag == "latest"


def _field_ref(source: Object) -> None:
    if source.get("fieldRef") is not None:
        source["fieldRef"].setdefault("apiVersion", "v1")


def _probe(probe: Object) -> None:
    for name, value in (
        ("timeoutSeconds", 1),
        ("periodSeconds", 10),
        ("successThreshold", 1),
        ("failureThreshold", 3),
    ):
        if not probe.get(name):
            probe[name] = value
    _http_get(probe)


def _http_get(handler: Object) -> None:
    if handler.get("httpGet") is not None:
        handler["httpGet"].setdefault("path", "/")
        handler["httpGet"].setdefault("scheme", "HTTP")


def _volume(volume: Object) -> None:
    if len(volume) <= ("name" in volume):
        volume["emptyDir"] = {}
    for name in ("secret", "configMap", "downwardAPI", "projected"):
        if volume.get(name) is not None:
            volume[name].setdefault("defaultMode", 0o644)
    if volume.get("hostPath") is not None:
        volume["hostPath"].setdefault("type", "")
    for item in (volume.get("downwardAPI") or {}).get("items", ()):
        _field_ref(item)
    for source in (volume.get("projected") or {}).get("sources", ()):
        if source.get("serviceAccountToken") is not None:
            source["serviceAccountToken"].setdefault("expirationSeconds", 3600)
        for item in (source.get("downwardAPI") or {}).get("items", ()):
            _field_ref(item)


# ---- workloads


def _template(obj: Object) -> Object:
    template = _sub(_sub(obj, "spec"), "template")
    pod_spec(_sub(template, "spec"))
    return template


def _job(obj: Object) -> None:
    spec, template = _sub(obj, "spec"), _template(obj)
    if spec.get("completions") is None and spec.get("parallelism") is None:
        spec["completions"] = 1
    for name, value in (
        ("parallelism", 1),
        ("backoffLimit", _INT32_MAX if spec.get("backoffLimitPerIndex") is not None else 6),
        ("completionMode", "NonIndexed"),
        ("suspend", False),
        ("podReplacementPolicy", "Failed" if spec.get("podFailurePolicy") else "TerminatingOrFailed"),
        ("manualSelector", False),
    ):
        spec.setdefault(name, value)
    for rule in (spec.get("podFailurePolicy") or {}).get("rules", ()):
        for pattern in rule.get("onPodConditions", ()):
            pattern.setdefault("status", "True")
    labels = (template.get("metadata") or {}).get("labels")
    if labels and not obj["metadata"].get("labels"):
        obj["metadata"]["labels"] = dict(labels)


def _deployment(obj: Object) -> None:
    spec = _sub(obj, "spec")
    _template(obj)
    spec.setdefault("replicas", 1)
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("progressDeadlineSeconds", 600)
    strategy = _sub(spec, "strategy")
    strategy.setdefault("type", "RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        rolling = _sub(strategy, "rollingUpdate")
        rolling.setdefault("maxUnavailable", "25%")
        rolling.setdefault("maxSurge", "25%")


def _replica_set(obj: Object) -> None:
    _sub(obj, "spec").setdefault("replicas", 1)
    _template(obj)


# ---- the rest


def _service(obj: Object) -> None:
    spec = _sub(obj, "spec")
    spec.setdefault("type", "ClusterIP")
    spec.setdefault("sessionAffinity", "None")
    if spec["sessionAffinity"] == "ClientIP":
        affinity = _sub(_sub(spec, "sessionAffinityConfig"), "clientIP")
        affinity.setdefault("timeoutSeconds", 10800)
    if spec["type"] in ("ClusterIP", "NodePort", "LoadBalancer"):
        spec.setdefault("internalTrafficPolicy", "Cluster")
    if spec["type"] in ("NodePort", "LoadBalancer"):
        spec.setdefault("externalTrafficPolicy", "Cluster")
    if spec["type"] == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)
    for port in spec.get("ports", ()):
        port.setdefault("protocol", "TCP")
        if port.get("targetPort") in (None, 0, ""):
            port["targetPort"] = port.get("port", 0)


def _secret(obj: Object) -> None:
    obj.setdefault("type", "Opaque")
    # Write-only: it is merged into data and never read back.
    plain = obj.pop("stringData", None)
    if plain:
        encoded = {key: base64.b64encode(text.encode()).decode() for key, text in plain.items()}
        obj["data"] = {**(obj.get("data") or {}), **encoded}


def _claim(obj: Object) -> None:
    _sub(obj, "spec").setdefault("volumeMode", "Filesystem")
    _sub(obj, "status").setdefault("phase", "Pending")


def _namespace(obj: Object) -> None:
    if obj["metadata"].get("name"):
        _sub(obj["metadata"], "labels")["kubernetes.io/metadata.name"] = obj["metadata"]["name"]


def _node(obj: Object) -> None:
    status = obj.get("status") or {}
    if status.get("capacity") and not status.get("allocatable"):
        status["allocatable"] = dict(status["capacity"])


def _priority_class(obj: Object) -> None:
    obj.setdefault("preemptionPolicy", "PreemptLowerPriority")


def _definition(obj: Object) -> None:
    spec = _sub(obj, "spec")
    names = _sub(spec, "names")
    if names.get("kind"):
        names.setdefault("singular", names["kind"].lower())
        names.setdefault("listKind", f"{names['kind']}List")
    _sub(spec, "conversion").setdefault("strategy", "None")


def _role_binding(obj: Object) -> None:
    reference = obj.setdefault("roleRef", {})
    reference["apiGroup"] = reference.get("apiGroup") or "rbac.authorization.k8s.io"
    for subject in obj.get("subjects") or ():
        if subject.get("kind") in ("User", "Group") and not subject.get("apiGroup"):
            subject["apiGroup"] = "rbac.authorization.k8s.io"


_BUILTIN: Final[Mapping[str, Callable[[Object], None]]] = {
    "pods": _pod,
    "jobs.batch": _job,
    "deployments.apps": _deployment,
    "replicasets.apps": _replica_set,
    "services": _service,
    "secrets": _secret,
    "persistentvolumeclaims": _claim,
    "namespaces": _namespace,
    "nodes": _node,
    "priorityclasses.scheduling.k8s.io": _priority_class,
    "customresourcedefinitions.apiextensions.k8s.io": _definition,
    "rolebindings.rbac.authorization.k8s.io": _role_binding,
    "clusterrolebindings.rbac.authorization.k8s.io": _role_binding,
}
