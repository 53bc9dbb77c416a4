"""What an instance of a revision is: the template of its pods. Pure."""

from __future__ import annotations

from typing import Final

from walras.functions.words import (
    CLASS,
    CONFIGURATION,
    DEFAULT_PORT,
    GENERATION,
    H2C,
    REVISION,
    REVISION_UID,
    SERVICE,
    USER_CONTAINER,
)
from walras.kube import fields, validation
from walras.kube.record import copy
from walras.kube.registry_builtin import for_agents
from walras.tenants.objects import PODS, Object, labels, uid
from walras.tenants.workloads import new_pod

# Fields of a revision's spec that are no pod's.
_OWN: Final = (
    "containerConcurrency", "timeoutSeconds", "responseStartTimeoutSeconds", "idleTimeoutSeconds",
)  # fmt: skip
_ANY_SUFFIX: Final = "xxxxx"
_HANDLERS: Final = ("httpGet", "tcpSocket", "grpc")


def new_instance(revision: Object) -> Object:
    """A pod of the revision, with every default filled in. Raises BadRequest, Invalid.

    Nobody has looked at what of a pod the schema of revisions leaves open before.
    """
    kind, template = for_agents()[PODS], pod_template(revision)
    template, _ = fields.decode(kind.schema, {"apiVersion": "v1", "kind": "Pod", **template})
    pod = new_pod(revision, template)
    name = f"{revision['metadata']['name']}-{_ANY_SUFFIX}"
    named = {**pod, "metadata": {**pod["metadata"], "name": name, "uid": uid(revision)}}
    if causes := validation.validate(kind, named, None):
        raise validation.invalid(kind, name, causes)
    return pod


def serving_container(revision: Object) -> Object:
    """The container that answers requests: the one with ports, or the only one."""
    containers: list[Object] = revision["spec"]["containers"]
    return next((each for each in containers if each.get("ports")), containers[0])


def port_of(revision: Object) -> int:
    """The port on which instances answer."""
    ports = serving_container(revision).get("ports") or [{}]
    return int(ports[0].get("containerPort") or DEFAULT_PORT)


def is_http2(revision: Object) -> bool:
    """Whether instances speak HTTP/2 from the first byte, as gRPC does: their port is named h2c."""
    ports = serving_container(revision).get("ports") or [{}]
    return bool(ports[0].get("name") == H2C)


def is_probed(pod: Object) -> bool:
    """Whether an instance is ready when probes say so, and not when it accepts connections."""
    return any(each.get("readinessProbe") or each.get("startupProbe") for each in pod["spec"]["containers"])


def pod_template(revision: Object) -> Object:
    """The template, as a Deployment would have it."""
    spec = copy({key: value for key, value in revision["spec"].items() if key not in _OWN})
    serving, port = serving_container({"spec": spec}), port_of(revision)
    for number, each in enumerate(spec["containers"]):
        is_serving = each is serving
        each.setdefault("name", USER_CONTAINER if is_serving else f"{USER_CONTAINER}-{number}")
        each["env"] = [*_environment(revision, port if is_serving else 0), *(each.get("env") or ())]
    name = H2C if is_http2(revision) else "user-port"
    serving["ports"] = [{"name": name, "containerPort": port, "protocol": "TCP"}]
    _set_probes(serving, port)
    metadata = revision["metadata"]
    return {
        "metadata": {
            "labels": {**labels(revision), **_labels(revision)},
            "annotations": {CLASS: "latency", **(metadata.get("annotations") or {})},
        },
        "spec": spec,
    }


def _labels(revision: Object) -> dict[str, str]:
    name = revision["metadata"]["name"]
    kept = {key: labels(revision).get(key, "") for key in (SERVICE, CONFIGURATION, GENERATION)}
    return {
        "app": name,
        **{key: value for key, value in kept.items() if value},
        REVISION: name,
        REVISION_UID: uid(revision),
    }


def _environment(revision: Object, port: int) -> list[Object]:
    said = labels(revision)
    values = {
        "K_REVISION": revision["metadata"]["name"],
        "K_CONFIGURATION": said.get(CONFIGURATION, ""),
        "K_SERVICE": said.get(SERVICE, ""),
        **({"PORT": str(port)} if port else {}),
    }
    return [{"name": name, "value": value} for name, value in values.items()]


def _set_probes(container: Object, port: int) -> None:
    """Gives probes the port that they do not name, and looks every second for an instance to be ready.

    That it accepts connections is found out by connecting: no probe is needed for it.
    """
    readiness = container.get("readinessProbe")
    if readiness is not None and not any(readiness.get(each) for each in ("httpGet", "grpc", "exec")):
        del container["readinessProbe"]
    for kind in ("readinessProbe", "livenessProbe", "startupProbe"):
        probe = container.get(kind)
        if probe is None:
            continue
        for handler in _HANDLERS:
            said = probe.get(handler, 0) or {}
            if handler in probe and isinstance(said, dict):
                probe[handler] = {**said, "port": said.get("port") or port}
        if kind == "readinessProbe":
            probe["periodSeconds"] = probe.get("periodSeconds") or 1
