"""What objects count for in quotas (kubernetes/pkg/quota/v1): by type, by scope, and all of a namespace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from walras.kube import amounts
from walras.kube.amounts import Amounts, containers, of_pod
from walras.kube.objects import PODS
from walras.kube.preparing import qos_class
from walras.kube.record import Object
from walras.kube.selectors import from_label_selector

if TYPE_CHECKING:
    from walras.kube.api import API

CLAIMS: Final = "persistentvolumeclaims"
SERVICES: Final = "services"
DEVICE_CLAIMS: Final = "resourceclaims.resource.k8s.io"
_CLASS: Final = ".storageclass.storage.k8s.io/"
_DEVICES: Final = ".deviceclass.resource.k8s.io/devices"
# As many devices as a request for all of them can get.
_ALL_DEVICES: Final = 32
# Types that quotas also count under a name of old.
_ALIASES: Final = ("configmaps", "replicationcontrollers", "resourcequotas", "secrets")
_NATIVE: Final = ("cpu", "memory", "ephemeral-storage")
_POD_NAMES: Final = frozenset(
    (
        "count/pods",
        "pods",
        *_NATIVE,
        *(f"{kind}.{name}" for kind in ("requests", "limits") for name in _NATIVE),
    )
)
# What every container must say where a quota bounds it.
_SAID: Final = ("cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory")


def of(key: str, obj: Object) -> Amounts:
    """What an object counts for, by the names that quotas bound."""
    count = {f"count/{key}": "1"}
    if key == PODS:
        return count | (_pod(obj) if _runs(obj) else {})
    if key == CLAIMS:
        return count | _claim(obj)
    if key == SERVICES:
        return count | _service(obj)
    if key == DEVICE_CLAIMS:
        return count | _devices(obj)
    return count | ({key: "1"} if key in _ALIASES else {})


def _runs(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") not in ("Failed", "Succeeded")


def _pod(pod: Object) -> Amounts:
    return _resources(of_pod(pod["spec"], "requests"), of_pod(pod["spec"], "limits"))


def _resources(requests: Mapping[str, str], limits: Mapping[str, str]) -> Amounts:
    found: Amounts = {"pods": "1"}
    for name in _NATIVE:
        if name in requests:
            found[name] = found[f"requests.{name}"] = requests[name]
        if name in limits:
            found[f"limits.{name}"] = limits[name]
    for name, amount in requests.items():
        if name.startswith("hugepages-"):
            found[name] = amount
        if name.startswith("hugepages-") or "/" in name:
            found[f"requests.{name}"] = amount
    return found


def _claim(claim: Object) -> Amounts:
    spec = claim["spec"]
    found: Amounts = {CLAIMS: "1"}
    storage = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    annotations = claim["metadata"].get("annotations") or {}
    of_class = annotations.get("volume.beta.kubernetes.io/storage-class") or spec.get("storageClassName")
    if storage is not None:
        found["requests.storage"] = amounts.shown(storage)
    if of_class:
        found[f"{of_class}{_CLASS}{CLAIMS}"] = "1"
        if storage is not None:
            found[f"{of_class}{_CLASS}requests.storage"] = amounts.shown(storage)
    return found


def _devices(claim: Object) -> Amounts:
    """The devices that a claim asks for, by class; of alternatives the most of each class."""
    found: Counter[str] = Counter()
    for request in ((claim.get("spec") or {}).get("devices") or {}).get("requests") or ():
        most: Counter[str] = Counter()
        for each in request.get("firstAvailable") or (request.get("exactly") or {},):
            count = _ALL_DEVICES if each.get("allocationMode") == "All" else int(each.get("count") or 1)
            most |= Counter({str(each.get("deviceClassName", "")): count})
        found += most
    return {f"{name}{_DEVICES}": str(count) for name, count in found.items()}


def _service(service: Object) -> Amounts:
    spec = service.get("spec") or {}
    ports = spec.get("ports") or ()
    nodeports, balancers = 0, 0
    if spec.get("type") == "NodePort":
        nodeports = len(ports)
    elif spec.get("type") == "LoadBalancer":
        balancers, nodeports = 1, len(ports)
        if spec.get("allocateLoadBalancerNodePorts") is False:
            nodeports = sum(bool(port.get("nodePort")) for port in ports)
    return {SERVICES: "1", "services.loadbalancers": str(balancers), "services.nodeports": str(nodeports)}


def matching(key: str, names: Iterable[str]) -> list[str]:
    """Of the names that a quota bounds those that objects of the type count for."""
    if key == PODS:
        prefixes = ("hugepages-", "requests.hugepages-")
        return [
            name
            for name in names
            if name in _POD_NAMES
            or name.startswith(prefixes)
            or (name.startswith("requests.") and "/" in name)
        ]
    if key == CLAIMS:
        known = {f"count/{key}", CLAIMS, "requests.storage"}
        return [name for name in names if name in known or _CLASS in name]
    if key == SERVICES:
        known = {f"count/{key}", SERVICES, "services.loadbalancers", "services.nodeports"}
        return [name for name in names if name in known]
    if key == DEVICE_CLAIMS:
        return [name for name in names if name == f"count/{key}" or name.endswith(_DEVICES)]
    return [name for name in names if name == f"count/{key}" or (name == key and key in _ALIASES)]


def unsaid(key: str, obj: Object, bounded: Iterable[str]) -> str:
    """Why a pod cannot be counted: what its containers do not say though a quota bounds it; "" if nothing."""
    if key != PODS or (obj["spec"].get("resources") or {}):
        return ""
    missing: dict[str, list[str]] = {}
    wanted = [name for name in _SAID if name in set(bounded)]
    for container in containers(obj["spec"]):
        resources = container.get("resources") or {}
        said = _resources(resources.get("requests") or {}, resources.get("limits") or {})
        for name in wanted:
            if name not in said:
                missing.setdefault(name, []).append(container["name"])
    if not missing:
        return ""
    told = [f"{name} for: {','.join(sorted(set(missing[name])))}" for name in sorted(missing)]
    return f"must specify {'; '.join(told)}"


# Scopes


def is_terminating(pod: Mapping[str, Any]) -> bool:
    deadline = (pod.get("spec") or {}).get("activeDeadlineSeconds")
    return deadline is not None and deadline >= 0


def in_scope(quota: Object, key: str, obj: Object) -> bool:
    """Whether the quota counts the object: it bounds something of its type, and every scope holds."""
    spec = quota.get("spec") or {}
    hard = (quota.get("status") or {}).get("hard") or spec.get("hard") or {}
    if not matching(key, hard):
        return False
    scopes: list[Mapping[str, Any]] = [
        {"scopeName": scope, "operator": "Exists"} for scope in spec.get("scopes") or ()
    ]
    scopes += (spec.get("scopeSelector") or {}).get("matchExpressions") or ()
    return all(_holds(scope, key, obj) for scope in scopes)


def _holds(scope: Mapping[str, Any], key: str, obj: Object) -> bool:
    name = scope.get("scopeName")
    if key == CLAIMS and name == "VolumeAttributesClass":
        return _selected(scope, obj["spec"].get("volumeAttributesClassName") or "")
    if key != PODS:
        return False
    match name:
        case "Terminating":
            return is_terminating(obj)
        case "NotTerminating":
            return not is_terminating(obj)
        case "BestEffort":
            return qos_class(obj["spec"]) == "BestEffort"
        case "NotBestEffort":
            return qos_class(obj["spec"]) != "BestEffort"
        case "PriorityClass":
            return _selected(scope, obj["spec"].get("priorityClassName") or "")
        case "CrossNamespacePodAffinity":
            return _crosses(obj["spec"].get("affinity") or {})
    return False


def _selected(scope: Mapping[str, Any], value: str) -> bool:
    if scope.get("operator") == "Exists":
        return bool(value)
    name = str(scope.get("scopeName"))
    expression = {"key": name, "operator": scope.get("operator"), "values": scope.get("values") or []}
    return from_label_selector({"matchExpressions": [expression]}).matches({name: value} if value else {})


def _crosses(affinity: Mapping[str, Any]) -> bool:
    for kind in ("podAffinity", "podAntiAffinity"):
        given = affinity.get(kind) or {}
        terms = list(given.get("requiredDuringSchedulingIgnoredDuringExecution") or ())
        preferred = given.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
        terms += [each.get("podAffinityTerm") or {} for each in preferred]
        if any(term.get("namespaces") or term.get("namespaceSelector") is not None for term in terms):
            return True
    return False


# All of a namespace


def types_counted(names: Iterable[str]) -> set[str]:
    """The types whose objects count for one of these names."""
    found = set()
    for name in names:
        if name.startswith("count/"):
            found.add(name.removeprefix("count/"))
        elif name in _ALIASES:
            found.add(name)
        elif name.startswith("services"):
            found.add(SERVICES)
        elif name in (CLAIMS, "requests.storage") or _CLASS in name:
            found.add(CLAIMS)
        elif name.endswith(_DEVICES):
            found.add(DEVICE_CLAIMS)
        else:
            found.add(PODS)
    return found


def counted(api: API, cluster: str, quota: Object) -> Amounts:
    """What is used of everything that the quota bounds, counted anew from the objects there are."""
    hard = (quota.get("spec") or {}).get("hard") or {}
    bare = {**quota, "status": {}}
    total: Amounts = dict.fromkeys(hard, amounts.ZERO)
    namespace = quota["metadata"]["namespace"]
    for key in types_counted(hard):
        for obj in api.list(cluster, key, namespace):
            if not in_scope(bare, key, obj):
                continue
            for name, amount in of(key, obj).items():
                if name in total:
                    total[name] = amounts.added({name: total[name]}, {name: amount})[name]
    return total
