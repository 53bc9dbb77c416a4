"""What the API server fills in: defaults of built-in types, and those that a custom resource's schema gives.

In place, and idempotent: applying them to an object that has been through them changes nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, Final

from walras.kube import defaults_types as types
from walras.kube import defaults_volumes
from walras.kube.registry import Resource
from walras.kube.schema import Schema

Object = dict[str, Any]

GRACE_SECONDS: Final = 30
TEMPLATE_GENERATION: Final = "deprecated.daemonset.template.generation"
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
    for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
        resources = _sub(container, "resources")
        if resources.get("limits"):
            resources["requests"] = {**resources["limits"], **(resources.get("requests") or {})}
    spec.setdefault("enableServiceLinks", True)
    if spec.get("hostNetwork"):
        for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
            for port in container.get("ports") or ():
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
    for kind in ("containers", "initContainers", "ephemeralContainers"):
        for container in spec.get(kind) or ():
            _container(container)
    for volume in spec.get("volumes") or ():
        defaults_volumes.volume(volume)


def _container(container: Object) -> None:
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    if not container.get("imagePullPolicy"):
        container["imagePullPolicy"] = (
            "Always" if defaults_volumes.is_latest(container.get("image", "")) else "IfNotPresent"
        )
    container.setdefault("resources", {})
    for port in container.get("ports") or ():
        port.setdefault("protocol", "TCP")
    for variable in container.get("env") or ():
        defaults_volumes.field_ref(variable.get("valueFrom") or {})
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if container.get(name) is not None:
            _probe(container[name])
    for hook in (container.get("lifecycle") or {}).values():
        if isinstance(hook, dict):
            _http_get(hook)


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


# ---- workloads


def _template(obj: Object) -> Object:
    template = _sub(_sub(obj, "spec"), "template")
    pod_spec(_sub(template, "spec"))
    return template


def _job(obj: Object) -> None:
    spec = _sub(obj, "spec")
    _template(obj)
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
    for rule in (spec.get("podFailurePolicy") or {}).get("rules") or ():
        for pattern in rule.get("onPodConditions") or ():
            pattern["status"] = pattern.get("status") or "True"
    _labelled(obj)


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


def _labelled(obj: Object) -> None:
    """A workload without labels has those of its pods."""
    labels = (_template(obj).get("metadata") or {}).get("labels")
    if labels and not obj["metadata"].get("labels"):
        obj["metadata"]["labels"] = dict(labels)


def _replica_set(obj: Object) -> None:
    _sub(obj, "spec").setdefault("replicas", 1)
    _template(obj)


def _replication_controller(obj: Object) -> None:
    spec = _sub(obj, "spec")
    spec.setdefault("replicas", 1)
    if spec.get("template") is None:
        return
    _labelled(obj)
    labels = (spec["template"].get("metadata") or {}).get("labels")
    if labels and not spec.get("selector"):
        spec["selector"] = dict(labels)


def _daemon_set(obj: Object) -> None:
    spec = _sub(obj, "spec")
    _sub(obj["metadata"], "annotations").setdefault(TEMPLATE_GENERATION, "0")
    _template(obj)
    spec.setdefault("revisionHistoryLimit", 10)
    strategy = _sub(spec, "updateStrategy")
    strategy.setdefault("type", "RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        rolling = _sub(strategy, "rollingUpdate")
        rolling.setdefault("maxUnavailable", 1)
        rolling.setdefault("maxSurge", 0)


def _stateful_set(obj: Object) -> None:
    spec = _sub(obj, "spec")
    _template(obj)
    spec.setdefault("podManagementPolicy", "OrderedReady")
    strategy = _sub(spec, "updateStrategy")
    if not strategy.get("type"):
        strategy["type"] = "RollingUpdate"
        _sub(strategy, "rollingUpdate")
    if strategy["type"] == "RollingUpdate" and strategy.get("rollingUpdate") is not None:
        strategy["rollingUpdate"].setdefault("partition", 0)
    kept = _sub(spec, "persistentVolumeClaimRetentionPolicy")
    kept.setdefault("whenDeleted", "Retain")
    kept.setdefault("whenScaled", "Retain")
    spec.setdefault("replicas", 1)
    spec.setdefault("revisionHistoryLimit", 10)
    for claim in spec.get("volumeClaimTemplates") or ():
        claim["apiVersion"], claim["kind"] = "v1", "PersistentVolumeClaim"
        types.claim(claim)


def _cron_job(obj: Object) -> None:
    spec = _sub(obj, "spec")
    spec.setdefault("concurrencyPolicy", "Allow")
    spec.setdefault("suspend", False)
    spec.setdefault("successfulJobsHistoryLimit", 3)
    spec.setdefault("failedJobsHistoryLimit", 1)
    job = _sub(_sub(spec, "jobTemplate"), "spec")
    pod_spec(_sub(_sub(job, "template"), "spec"))
    for rule in (job.get("podFailurePolicy") or {}).get("rules") or ():
        for pattern in rule.get("onPodConditions") or ():
            pattern["status"] = pattern.get("status") or "True"


def _pod_template(obj: Object) -> None:
    pod_spec(_sub(_sub(obj, "template"), "spec"))


_BUILTIN: Final[Mapping[str, Callable[[Object], None]]] = {
    "pods": _pod,
    "podtemplates": _pod_template,
    "replicationcontrollers": _replication_controller,
    "cronjobs.batch": _cron_job,
    "jobs.batch": _job,
    "daemonsets.apps": _daemon_set,
    "deployments.apps": _deployment,
    "replicasets.apps": _replica_set,
    "statefulsets.apps": _stateful_set,
    **types.FILLS,
}
