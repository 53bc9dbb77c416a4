"""The small plugins that a kube-apiserver has on: tolerations, default classes, finalizers and taints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from walras.kube.admission.call import Call
from walras.kube.amounts import equal, value
from walras.kube.policy import forbidden
from walras.kube.record import Object

NODES: Final = "nodes"
VOLUMES: Final = "persistentvolumes"
CLAIMS: Final = "persistentvolumeclaims"
STORAGE_CLASSES: Final = "storageclasses.storage.k8s.io"
INGRESSES: Final = "ingresses.networking.k8s.io"
INGRESS_CLASSES: Final = "ingressclasses.networking.k8s.io"
RUNTIME_CLASSES: Final = "runtimeclasses.node.k8s.io"
_LOST: Final = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
LOST_S: Final = 300
_DEFAULT_STORAGE: Final = (
    "storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class",
)  # fmt: skip
_DEFAULT_INGRESS: Final = "ingressclass.kubernetes.io/is-default-class"


def tolerations(call: Call) -> None:
    """DefaultTolerationSeconds: how long a pod stays on a node that is lost."""
    if call.operation not in ("CREATE", "UPDATE") or call.subresource:
        return
    given = call.object["spec"].setdefault("tolerations", [])
    for taint in _LOST:
        if not any(_tolerates(toleration, taint) for toleration in given):
            given.append(
                {"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": LOST_S}
            )


def _tolerates(toleration: Mapping[str, Any], taint: str) -> bool:
    return toleration.get("key", "") in ("", taint) and toleration.get("effect", "") in ("", "NoExecute")


def new_nodes(call: Call) -> None:
    """TaintNodesByCondition: a node that somebody else adds is not ready before it says so."""
    if call.operation != "CREATE":
        return
    spec = call.object.setdefault("spec", {})
    taints = spec.get("taints") or []
    if not any(taint.get("key") == _LOST[0] for taint in taints):
        spec["taints"] = [*taints, {"key": _LOST[0], "effect": "NoSchedule"}]


def storage_class(call: Call) -> None:
    """DefaultStorageClass: the newest class that is marked as default."""
    if call.operation != "CREATE":
        return
    claim = call.object
    annotated = (claim["metadata"].get("annotations") or {}).get("volume.beta.kubernetes.io/storage-class")
    if claim["spec"].get("storageClassName") is not None or annotated is not None:
        return
    found = _default(call, STORAGE_CLASSES, _DEFAULT_STORAGE)
    if found is not None:
        claim["spec"]["storageClassName"] = found["metadata"]["name"]


def _default(call: Call, resource: str, annotations: tuple[str, ...]) -> Object | None:
    """The newest that is marked, of several of an age the first by name."""
    marked = [
        each
        for each in call.api.list(call.ctx.cluster, resource)
        if any((each["metadata"].get("annotations") or {}).get(name) == "true" for name in annotations)
    ]
    newest = max((each["metadata"]["creationTimestamp"] for each in marked), default="")
    return next((each for each in marked if each["metadata"]["creationTimestamp"] == newest), None)


def ingress_class(call: Call) -> None:
    """DefaultIngressClass."""
    if call.operation != "CREATE":
        return
    ingress = call.object
    spec = ingress.setdefault("spec", {})
    if spec.get("ingressClassName") is not None:
        return
    if "kubernetes.io/ingress.class" in (ingress["metadata"].get("annotations") or {}):
        return
    found = _default(call, INGRESS_CLASSES, (_DEFAULT_INGRESS,))
    if found is not None:
        spec["ingressClassName"] = found["metadata"]["name"]


def in_use(call: Call) -> None:
    """StorageObjectInUseProtection: volumes and claims stay until nothing uses them."""
    if call.operation != "CREATE":
        return
    finalizer = f"kubernetes.io/{'pvc' if call.key == CLAIMS else 'pv'}-protection"
    metadata = call.object["metadata"]
    if finalizer not in (metadata.get("finalizers") or ()):
        metadata["finalizers"] = [*(metadata.get("finalizers") or ()), finalizer]


def runtime_class(call: Call) -> None:
    """RuntimeClass: what a pod's class adds to it."""
    if call.operation != "CREATE" or call.subresource:
        return
    spec = call.object["spec"]
    name = spec.get("runtimeClassName")
    if not name:
        if spec.get("overhead"):
            why = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"
            raise forbidden(call.key, call.name, why)
        return
    found = call.tx.peek(call.ctx.cluster, RUNTIME_CLASSES, "", name)
    if found is None:
        why = f'pod rejected: RuntimeClass "{name}" not found'
        raise forbidden(call.key, call.name, why)
    overhead = (found.get("overhead") or {}).get("podFixed") or {}
    if spec.get("overhead") and not equal(spec["overhead"], overhead):
        why = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"
        raise forbidden(call.key, call.name, why)
    if overhead:
        spec["overhead"] = dict(overhead)
    _scheduling(call, spec, found.get("scheduling") or {})


def _scheduling(call: Call, spec: Object, scheduling: Mapping[str, Any]) -> None:
    wanted = scheduling.get("nodeSelector") or {}
    given = spec.get("nodeSelector") or {}
    for key, label in wanted.items():
        if given.get(key, label) != label:
            why = f"conflict: runtimeClass.scheduling.nodeSelector[{key}] = {label}; "
            why += f"pod.spec.nodeSelector[{key}] = {given[key]}"
            raise forbidden(call.key, call.name, why)
    if wanted:
        spec["nodeSelector"] = {**given, **wanted}
    tolerated = spec.get("tolerations") or ()
    more = [each for each in scheduling.get("tolerations") or () if each not in tolerated]
    if more:
        spec["tolerations"] = [*tolerated, *more]


def resized_claims(call: Call) -> None:
    """PersistentVolumeClaimResize: only classes that allow it let a bound claim grow."""
    if call.operation != "UPDATE" or call.subresource or call.old is None:
        return
    old, new = _storage(call.old), _storage(call.object)
    if old is None or new is None or value(new) <= value(old):
        return
    if (call.old.get("status") or {}).get("phase") != "Bound":
        raise forbidden(call.key, call.name, "Only bound persistent volume claims can be expanded")
    name = call.old["spec"].get("storageClassName") or ""
    found = call.tx.peek(call.ctx.cluster, STORAGE_CLASSES, "", name) if name else None
    if found is None or not found.get("allowVolumeExpansion"):
        why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc"
        raise forbidden(call.key, call.name, f"{why} must support resize")


def _storage(claim: Object) -> str | None:
    requests = (claim["spec"].get("resources") or {}).get("requests") or {}
    return requests.get("storage")
