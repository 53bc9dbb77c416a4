"""The pod in which an instance runs. Pure."""

from __future__ import annotations

from typing import Any, Final

from walras.core.errors import Invalid, WalrasError
from walras.core.quantity import parse_milli, parse_quantity
from walras.tenants.objects import Object, owner_reference, uid
from walras.tenants.virtual.networks import check_networks
from walras.tenants.virtual.volumes import Claims, translated
from walras.tenants.virtual.words import (
    APP_LABEL,
    COMPUTE,
    CREATED_BY,
    DOMAIN,
    FIRST_PROGRAM,
    LAUNCHER,
    NAME_LABEL,
    RUNTIME_CLASS,
    UNPAUSED,
    label_value,
)

IMAGE: Final = "virt-launcher"
GRACE_S: Final = 30
_CPUS_MAX: Final = 512
# As much of each virtual processor is asked of a node as KubeVirt asks.
_RATIO: Final = 10
_PLACED: Final = ("nodeSelector", "affinity", "tolerations", "priorityClassName", "schedulerName")
# Where the first program puts what stops the machine.
_ENV: Final = ({"name": "PATH", "value": "/run/bin:$(PATH)"},)
_PROBES: Final = ("livenessProbe", "readinessProbe")


def launcher(instance: Object, claims: Claims) -> Object:
    """The pod, with a generated name. Raises Invalid for what is not offered."""
    metadata, spec = instance["metadata"], instance["spec"]
    check_networks(spec)
    volumes = translated(instance, claims)
    hostname = _label(spec.get("hostname") or metadata["name"])
    container: Object = {
        "name": COMPUTE,
        "image": IMAGE,
        "command": list(FIRST_PROGRAM),
        "resources": resources(spec["domain"]),
        "volumeMounts": volumes.mounts,
        "env": [*_ENV, {"name": "HOSTNAME", "value": hostname}, *volumes.env],
        **{name: spec[name] for name in _PROBES if spec.get(name)},
    }
    grace_s = spec.get("terminationGracePeriodSeconds")
    return {
        "metadata": {
            "generateName": f"{LAUNCHER}-{metadata['name'][:200]}-",
            "namespace": metadata["namespace"],
            "ownerReferences": [owner_reference(instance)],
            "labels": {
                **(metadata.get("labels") or {}),
                APP_LABEL: LAUNCHER,
                CREATED_BY: uid(instance),
                NAME_LABEL: label_value(metadata["name"]),
            },
            "annotations": {
                **(metadata.get("annotations") or {}),
                DOMAIN: metadata["name"],
                "kubectl.kubernetes.io/default-container": COMPUTE,
                **volumes.annotations,
            },
        },
        "spec": {
            "restartPolicy": "Never",
            "readinessGates": [{"conditionType": UNPAUSED}],
            "runtimeClassName": RUNTIME_CLASS,
            "hostname": hostname,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": GRACE_S if grace_s is None else grace_s,
            "containers": [container],
            "volumes": volumes.volumes,
            **({"imagePullSecrets": volumes.pull_secrets} if volumes.pull_secrets else {}),
            **{name: spec[name] for name in _PLACED if spec.get(name)},
        },
    }


def _label(name: str) -> str:
    """A host's name of an object's: dots end it."""
    return str(name).partition(".")[0][:63].rstrip("-")


def processors(domain: Object) -> int:
    """How many virtual processors are asked for; 0 when it is not said. Raises Invalid."""
    cpu = domain.get("cpu") or {}
    said = [int(cpu[name]) for name in ("sockets", "cores", "threads") if cpu.get(name)]
    count = 1 if said else 0
    for each in said:
        count *= each
    if count > _CPUS_MAX:
        raise Invalid(f"spec.domain.cpu: {count} virtual processors are more than {_CPUS_MAX}")
    return count


def resources(domain: Object) -> Object:
    """The container's requests and limits: memory and processors of the guest, and a unit for each GPU.

    Raises Invalid.
    """
    said = domain.get("resources") or {}
    requests, limits = dict(said.get("requests") or {}), dict(said.get("limits") or {})
    memory = (domain.get("memory") or {}).get("guest") or limits.get("memory") or requests.get("memory")
    if memory is not None:
        _checked("memory", memory, parse_quantity)
        requests["memory"] = limits["memory"] = memory
    if count := processors(domain):
        limits.setdefault("cpu", str(count))
        requests.setdefault("cpu", f"{count * 1000 // _RATIO}m")
    for gpu in domain["devices"].get("gpus") or ():
        name = gpu["deviceName"]
        held = limits.get(name, 0)
        limits[name] = requests[name] = str(_checked(name, held, parse_quantity) + 1)
    if "cpu" in limits:
        _checked("cpu", limits["cpu"], parse_milli)
    return {key: value for key, value in (("requests", requests), ("limits", limits)) if value}


def _checked(name: str, amount: Any, parse: Any) -> int:
    try:
        return int(parse(amount if isinstance(amount, int) else str(amount)))
    except WalrasError as error:
        raise Invalid(f"spec.domain.resources: {name}: {error.message}") from error
