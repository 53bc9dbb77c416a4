"""What the writer of a built-in type is warned of, though it is valid: the strategies' warnings upstream."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, Final

from walras.core.quantity import canonical, exact
from walras.kube.advice import parts, pods
from walras.kube.registry import Resource
from walras.kube.validation.names import dns_label

Object = Mapping[str, Any]

# More than an answer's headers hold: see `walras.kube.serve.answers.warnings`.
WARNINGS_MAX: Final = 512
_HOSTNAME: Final = "which can result in surprising behavior; a DNS label is recommended: "
_STATIC: Final = ".static.k8s.io"
_INGRESS_CLASS: Final = "kubernetes.io/ingress.class"
_MOUNTABLE: Final = "kubernetes.io/enforce-mountable-secrets"
_TOPOLOGY: Final = "service.kubernetes.io/topology-aware-hints"
_STORAGE_CLASS: Final = "volume.beta.kubernetes.io/storage-class"
_STORAGE_CLASS_SAID: Final = 'deprecated since v1.8; use "storageClassName" attribute instead'
_MOUNT_OPTIONS: Final = "volume.beta.kubernetes.io/mount-options"
_MANAGED_BY: Final = ("endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io")
# Where a workload has its template of pods, and whether its name becomes part of hostnames.
_TEMPLATES: Final[Mapping[str, tuple[str, bool]]] = {
    "podtemplates": ("template", False),
    "replicationcontrollers": ("spec.template", True),
    "replicasets.apps": ("spec.template", True),
    "deployments.apps": ("spec.template", True),
    "daemonsets.apps": ("spec.template", False),
    "statefulsets.apps": ("spec.template", False),
    "jobs.batch": ("spec.template", True),
    "cronjobs.batch": ("spec.jobTemplate.spec.template", True),
}
_COMPLETIONS, _PARALLELISM = 100_000, 10_000


def warnings(resource: Resource, new: Object, old: Object | None, subresource: str) -> list[str]:
    """What to tell who creates `new`, or makes it of `old`; the first WARNINGS_MAX of it."""
    # A scale is a change of its object's spec.
    if not resource.builtin or subresource not in ("", "scale"):
        return []
    return list(islice(_told(resource, new, old), WARNINGS_MAX))


def _told(resource: Resource, new: Object, old: Object | None) -> Iterator[str]:
    if resource.key in _TEMPLATES:
        yield from _workload(resource.key, new, old)
    if resource.group == "admissionregistration.k8s.io" and new["metadata"]["name"].endswith(_STATIC):
        said = "are reserved for static manifest-based configurations and cannot be managed via the API"
        yield f'metadata.name: names ending with "{_STATIC}" {said}'
    if resource.key in _OF_OBJECTS:
        yield from _OF_OBJECTS[resource.key](new)
    elif resource.key in _OF_CHANGES:
        yield from _OF_CHANGES[resource.key](new, old)


def _hostname(what: str, new: Object) -> Iterator[str]:
    faults = dns_label(new["metadata"]["name"])
    if faults:
        yield f"metadata.name: this is used in {what}, {_HOSTNAME}[{' '.join(faults)}]"


def _workload(key: str, new: Object, old: Object | None) -> Iterator[str]:
    path, named = _TEMPLATES[key]
    if old is None and named:
        yield from _hostname("Pod names and hostnames", new)
    part = path.partition(".")[0]
    # A Deployment's annotations are a change of it, too, that counts as a generation.
    annotated = key == "deployments.apps" and old is not None and _annotations(new) != _annotations(old)
    if old is None or annotated or _at(new, part) != _at(old, part):
        if key in ("jobs.batch", "cronjobs.batch"):
            yield from _job(_at(new, path.rpartition(".")[0]), path.rpartition(".")[0])
        yield from pods.pod(_at(new, path), path)


def _at(obj: Object, path: str) -> Any:
    found: Any = obj
    for name in path.split("."):
        found = found.get(name) or {}
    return found


def _job(spec: Object, path: str) -> Iterator[str]:
    many = (spec.get("completions") or 0) > _COMPLETIONS and (spec.get("parallelism") or 0) > _PARALLELISM
    if spec.get("completionMode") == "Indexed" and many:
        yield (
            f"{path}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher "
            "than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes "
            "fail"
        )


def _pod(new: Object, old: Object | None) -> Iterator[str]:
    if old is None:
        yield from _hostname("the Pod's hostname", new)
        yield from pods.pod(new)


def _stateful_set(new: Object, old: Object | None) -> Iterator[str]:
    spec = new.get("spec") or {}
    for index, template in enumerate(spec.get("volumeClaimTemplates") or ()):
        path = f"spec.volumeClaimTemplates[{index}]" + (".Spec" if old is not None else "")
        yield from parts.claim(template.get("spec") or {}, path)
    if (spec.get("revisionHistoryLimit") or 0) < 0:
        said = "a negative value retains all historical revisions; a value >= 0 is recommended"
        yield f"spec.revisionHistoryLimit: {said}"


def _service(new: Object) -> Iterator[str]:
    spec, kind = new.get("spec") or {}, (new.get("spec") or {}).get("type")
    external, balancer = spec.get("externalIPs") or (), spec.get("loadBalancerIP", "")
    headless = kind == "ClusterIP" and spec.get("clusterIP") == "None"
    if _TOPOLOGY in _annotations(new):
        yield f"annotation {_TOPOLOGY} is deprecated, please use service.kubernetes.io/topology-mode instead"
    for index, address in enumerate(spec.get("clusterIPs") or ()):
        yield from parts.ip(f"spec.clusterIPs[{index}]", address)
    if headless:
        yield from _headless(spec)
    for index, address in enumerate(external):
        yield from parts.ip(f"spec.externalIPs[{index}]", address)
    if external and not headless and kind != "ExternalName":
        yield "spec.externalIPs is deprecated and may no longer be implemented in some clusters"
    yield from parts.ip("spec.loadBalancerIP", balancer)
    for index, text in enumerate(spec.get("loadBalancerSourceRanges") or ()):
        yield from parts.cidr(f"spec.loadBalancerSourceRanges[{index}]", text)
    if kind == "ExternalName" and external:
        yield 'spec.externalIPs is ignored when spec.type is "ExternalName"'
    if kind != "ExternalName" and spec.get("externalName"):
        yield 'spec.externalName is ignored when spec.type is not "ExternalName"'
    if spec.get("trafficDistribution") == "PreferClose":
        yield 'spec.trafficDistribution: "PreferClose" is deprecated; use "PreferSameZone"'


def _headless(spec: Object) -> Iterator[str]:
    ignored = {
        "loadBalancerIP": spec.get("loadBalancerIP"),
        "externalIPs": spec.get("externalIPs"),
        "SessionAffinity": spec.get("sessionAffinity") != "None",
    }
    return (f"spec.{name} is ignored for headless services" for name, given in ignored.items() if given)


def _annotations(obj: Object) -> Object:
    return obj["metadata"].get("annotations") or {}


def _claim(new: Object) -> Iterator[str]:
    if _STORAGE_CLASS in _annotations(new):
        yield f"metadata.annotations[{_STORAGE_CLASS}]: {_STORAGE_CLASS_SAID}"
    yield from parts.claim(new.get("spec") or {}, "spec")


def _volume(new: Object) -> Iterator[str]:
    spec = new.get("spec") or {}
    if _STORAGE_CLASS in _annotations(new):
        yield f"metadata.annotations[{_STORAGE_CLASS}]: {_STORAGE_CLASS_SAID}"
    if _MOUNT_OPTIONS in _annotations(new):
        said = 'deprecated since v1.31; use "mountOptions" attribute instead'
        yield f"metadata.annotations[{_MOUNT_OPTIONS}]: {said}"
    if spec.get("persistentVolumeReclaimPolicy") == "Recycle":
        yield (
            "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the "
            "recommended approach is to use dynamic provisioning."
        )
    terms = ((spec.get("nodeAffinity") or {}).get("required") or {}).get("nodeSelectorTerms") or ()
    for index, term in enumerate(terms):
        yield from parts.node_term(term, f"spec.nodeAffinity.required.nodeSelectorTerms[{index}]")
    for kind in ("cephfs", "photonPersistentDisk", "scaleIO", "storageos", "glusterfs", "rbd"):
        if spec.get(kind) is not None:
            yield f"spec.{parts.VOLUME_PATHS.get(kind, kind)}: {parts.VOLUMES[kind]}"


def _quota(new: Object, old: Object | None) -> Iterator[str]:
    hard = (new.get("spec") or {}).get("hard") or {}
    for name in ("cpu", "memory", "storage", "ephemeral-storage") if old is None else ():
        requests, limits = f"requests.{name}", f"limits.{name}"
        if requests not in hard and name in ("cpu", "memory"):
            requests = name
        if requests in hard and limits in hard and exact(str(hard[requests])) > exact(str(hard[limits])):
            wanted, most = canonical(str(hard[requests])), canonical(str(hard[limits]))
            yield f"ResourceQuota {requests} ({wanted}) should be less than {limits} ({most})"


def _account(new: Object, old: Object | None) -> Iterator[str]:
    if _MOUNTABLE in _annotations(new) and (old is None or _MOUNTABLE not in _annotations(old)):
        said = "deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets"
        yield f"metadata.annotations[{_MOUNTABLE}]: {said}"


def _ingress(new: Object, old: Object | None) -> Iterator[str]:
    if old is None and _INGRESS_CLASS in _annotations(new) and not new["spec"].get("ingressClassName"):
        yield f"annotation \"{_INGRESS_CLASS}\" is deprecated, please use 'spec.ingressClassName' instead"


def _network_policy(new: Object) -> Iterator[str]:
    for way, peers in (("ingress", "from"), ("egress", "to")):
        for index, rule in enumerate((new.get("spec") or {}).get(way) or ()):
            for place, peer in enumerate(rule.get(peers) or ()):
                block, path = peer.get("ipBlock") or {}, f"spec.{way}[{index}].{peers}[{place}].ipBlock"
                yield from parts.cidr(f"{path}.cidr", block.get("cidr", ""))
                for number, text in enumerate(block.get("except") or ()):
                    yield from parts.cidr(f"{path}.except[{number}]", text)


def _slice(new: Object, old: Object | None) -> Iterator[str]:
    if old is None and new.get("addressType") == "FQDN":
        yield "spec.addressType: FQDN endpoints are deprecated"
    labels = new["metadata"].get("labels") or {}
    if labels.get("endpointslice.kubernetes.io/managed-by") in _MANAGED_BY:
        return
    for index, endpoint in enumerate(new.get("endpoints") or ()):
        for place, address in enumerate(endpoint.get("addresses") or ()):
            yield from parts.ip(f"endpoints[{index}].addresses[{place}]", address)


def _endpoints(new: Object) -> Iterator[str]:
    for index, subset in enumerate(new.get("subsets") or ()):
        for kind in ("addresses", "notReadyAddresses"):
            for place, address in enumerate(subset.get(kind) or ()):
                yield from parts.ip(f"subsets[{index}].{kind}[{place}].ip", address.get("ip", ""))


def _runtime_class(new: Object) -> Iterator[str]:
    for key in (new.get("scheduling") or {}).get("nodeSelector") or {}:
        if key in parts.NODE_LABELS:
            yield f"scheduling.nodeSelector: {parts.NODE_LABELS[key]}"


def _storage_class(new: Object) -> Iterator[str]:
    for index, topology in enumerate(new.get("allowedTopologies") or ()):
        for place, expression in enumerate(topology.get("matchLabelExpressions") or ()):
            said = parts.NODE_LABELS.get(expression.get("key", ""))
            if said:
                yield f"allowedTopologies[{index}].matchLabelExpressions[{place}].key: {said}"


def _driver(new: Object, old: Object | None) -> Iterator[str]:
    spec = new.get("spec") or {}
    wanted = spec.get("tokenRequests")
    changed = old is None or (old.get("spec") or {}).get("tokenRequests") != wanted
    if wanted and changed and spec.get("serviceAccountTokenInSecrets") is None:
        yield (
            "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to "
            "prevent possible logging of tokens in volume attributes"
        )


def _device_slice(new: Object) -> Iterator[str]:
    driver = (new.get("spec") or {}).get("driver", "")
    if driver != driver.lower():
        yield f'spec.driver: driver names should be lowercase; "{driver}" contains uppercase characters'


_OF_OBJECTS: Final[Mapping[str, Callable[[Object], Iterator[str]]]] = {
    "services": _service,
    "persistentvolumeclaims": _claim,
    "persistentvolumes": _volume,
    "endpoints": _endpoints,
    "networkpolicies.networking.k8s.io": _network_policy,
    "runtimeclasses.node.k8s.io": _runtime_class,
    "storageclasses.storage.k8s.io": _storage_class,
    "resourceslices.resource.k8s.io": _device_slice,
}
_OF_CHANGES: Final[Mapping[str, Callable[[Object, Object | None], Iterator[str]]]] = {
    "pods": _pod,
    "statefulsets.apps": _stateful_set,
    "resourcequotas": _quota,
    "serviceaccounts": _account,
    "ingresses.networking.k8s.io": _ingress,
    "endpointslices.discovery.k8s.io": _slice,
    "csidrivers.storage.k8s.io": _driver,
}
