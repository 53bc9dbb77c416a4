"""The kinds that are asked for, and objects of them as a client would write them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from differential.steps import SELF

Object = dict[str, Any]
GROUP: Final = "differential.example.com"


@dataclass(frozen=True, slots=True)
class Kind:
    """A resource at one version, and `spec`, which makes the rest of an object beside its metadata."""

    api_version: str
    kind: str
    plural: str
    rest: Callable[[Random], Object]
    namespaced: bool = True
    subresources: tuple[str, ...] = ()
    builtin: bool = True
    weight: int = 2
    # Subresources that are posted to.
    acts: tuple[str, ...] = ()

    @property
    def prefix(self) -> str:
        return f"/apis/{self.api_version}" if "/" in self.api_version else f"/api/{self.api_version}"

    @property
    def collection(self) -> str:
        return f"{self.prefix}/namespaces/{SELF}/{self.plural}" if self.namespaced else self.everywhere

    @property
    def everywhere(self) -> str:
        return f"{self.prefix}/{self.plural}"

    def name(self, short: str) -> str:
        """The full name of an object: those of no namespace carry the scenario's."""
        return short if self.namespaced else f"{SELF}-{short}"

    def make(self, rng: Random, short: str) -> Object:
        """A valid object, with some of what its metadata may have."""
        metadata: Object = {"name": self.name(short)}
        if rng.random() < 0.7:
            metadata["labels"] = {"scenario": SELF, **labels(rng)}
        if rng.random() < 0.3:
            metadata["annotations"] = labels(rng)
        if rng.random() < 0.12:
            metadata["finalizers"] = rng.choice([["example.com/one"], ["example.com/one", "example.com/two"]])
        return {"apiVersion": self.api_version, "kind": self.kind, "metadata": metadata, **self.rest(rng)}


def labels(rng: Random) -> dict[str, str]:
    keys = rng.sample(["app", "tier", "example.com/role", "x"], rng.randint(0, 3))
    return {key: rng.choice(["a", "b", "web", "v1.2_x", ""]) for key in keys}


def _some(rng: Random, **parts: Any) -> Object:
    """Each part with an even chance."""
    return {name: value for name, value in parts.items() if rng.random() < 0.5}


def _config_map(rng: Random) -> Object:
    keys = rng.sample(["a", "b", "c", "d.txt", "e-f"], rng.randint(0, 4))
    return {
        **({"data": {key: rng.choice(["1", "2", "", "line\nline\n", "ü"]) for key in keys}} if keys else {}),
        **({"binaryData": {"bin": "AAEC"}} if rng.random() < 0.2 else {}),
        **({"immutable": rng.random() < 0.5} if rng.random() < 0.15 else {}),
    }


def _secret(rng: Random) -> Object:
    return _some(rng, data={"k": rng.choice(["YQ==", "Yg=="])}, stringData={"s": rng.choice(["x", "y"])},
                 type=rng.choice(["Opaque", "example.com/t"]))  # fmt: skip


def container(rng: Random, name: str = "main") -> Object:
    return {
        "name": name,
        "image": rng.choice(["nginx", "nginx:1.25", "example.com/a/b@sha256:" + "0" * 64]),
        **_some(
            rng,
            command=["sleep", "1"],
            env=[{"name": "A", "value": "1"}, {"name": "B", "value": rng.choice(["", "2"])}],
            ports=[{"containerPort": 80}, {"containerPort": 81, "protocol": "UDP", "name": "dns"}],
            resources={"requests": {"cpu": rng.choice(["100m", "0.5", "1"]), "memory": "64Mi"}},
        ),
    }


def _pod_spec(rng: Random) -> Object:
    names = ["main", "side"][: rng.randint(1, 2)]
    return {
        "containers": [container(rng, name) for name in names],
        "automountServiceAccountToken": False,
        **_some(
            rng,
            terminationGracePeriodSeconds=rng.choice([0, 5, 30]),
            nodeSelector={"disk": "ssd"},
            tolerations=[{"key": "a", "operator": "Exists", "effect": "NoSchedule"}],
            volumes=[{"name": "v", "emptyDir": {}}, {"name": "w", "configMap": {"name": "c"}}],
        ),
    }


def _pod(rng: Random) -> Object:
    return {"spec": {**_pod_spec(rng), **_some(rng, restartPolicy=rng.choice(["Always", "Never"]))}}


def _template(rng: Random, **spec: Any) -> Object:
    return {
        "metadata": {"labels": {**labels(rng), "app": "a"}},
        "spec": {**_pod_spec(rng), **spec},
    }


def _deployment(rng: Random) -> Object:
    spec = {"selector": {"matchLabels": {"app": "a"}}, "template": _template(rng)}
    strategy = rng.choice([{"type": "Recreate"}, {"rollingUpdate": {"maxSurge": "50%"}}])
    more = _some(rng, replicas=rng.randint(0, 3), paused=True, minReadySeconds=3, strategy=strategy)
    return {"spec": {**spec, **more}}


def _replica_set(rng: Random) -> Object:
    spec = {"selector": {"matchLabels": {"app": "a"}}, "template": _template(rng)}
    return {"spec": {**spec, **_some(rng, replicas=rng.randint(0, 3))}}


def _job(rng: Random) -> Object:
    more = _some(rng, completions=2, parallelism=2, backoffLimit=1, suspend=True, ttlSecondsAfterFinished=9)
    return {"spec": {"template": {"spec": {**_pod_spec(rng), "restartPolicy": "Never"}}, **more}}


def _service(rng: Random) -> Object:
    ports = [
        {"port": 80, "name": "http"},
        {"port": 53, "protocol": "UDP", "name": "dns", "targetPort": "dns"},
    ]
    return {"spec": {"clusterIP": "None", "selector": {"app": "a"}, "ports": ports[: rng.randint(1, 2)]}}


def _lease(rng: Random) -> Object:
    return {
        "spec": _some(
            rng,
            holderIdentity=rng.choice(["me", "you"]),
            leaseDurationSeconds=rng.choice([1, 15]),
            renewTime=rng.choice(["2020-01-01T00:00:00.000000Z", "2020-01-01T00:00:00.5Z"]),
        )
    }


def _claim(rng: Random) -> Object:
    return {"spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "fast",
                     "resources": {"requests": {"storage": rng.choice(["1Gi", "2G"])}}}}  # fmt: skip


def _gadget(rng: Random) -> Object:
    spec = _some(
        rng,
        replicas=rng.randint(0, 5),
        colour=rng.choice(["red", "green"]),
        parts=[{"name": "a", "size": 1}, {"name": "b", "size": rng.randint(0, 9)}],
        tags=rng.choice([["x", "y"], ["x"], []]),
        list=[1, 2, 3],
        free={"any": {"thing": [1, "two", None]}},
        nested={"on": True},
        port=rng.choice([80, "http"]),
        map={"k": "v", "l": "w"},
    )
    return {"spec": spec, **_some(rng, status={"replicas": 1, "phase": "Up"})}


KINDS: Final[tuple[Kind, ...]] = (
    Kind("v1", "ConfigMap", "configmaps", _config_map, weight=6),
    Kind("v1", "Secret", "secrets", _secret),
    Kind("v1", "Pod", "pods", _pod, subresources=("status", "ephemeralcontainers", "resize"), weight=4,
         acts=("binding", "eviction")),
    Kind("v1", "Service", "services", _service, subresources=("status",)),
    Kind("v1", "ServiceAccount", "serviceaccounts", lambda rng: _some(rng, secrets=[{"name": "s"}]),
         acts=("token",)),
    Kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims", _claim, subresources=("status",)),
    Kind("v1", "Namespace", "namespaces", lambda _: {}, namespaced=False, subresources=("status", "finalize"),
         weight=1),
    Kind("apps/v1", "Deployment", "deployments", _deployment, subresources=("status", "scale"), weight=4),
    Kind("apps/v1", "ReplicaSet", "replicasets", _replica_set, subresources=("status", "scale")),
    Kind("batch/v1", "Job", "jobs", _job, subresources=("status",)),
    Kind("coordination.k8s.io/v1", "Lease", "leases", _lease),
    Kind("scheduling.k8s.io/v1", "PriorityClass", "priorityclasses", lambda rng: {"value": rng.randint(0, 9)},
         namespaced=False, weight=1),
    Kind(f"{GROUP}/v1", "Gadget", "gadgets", _gadget, subresources=("status", "scale"), builtin=False,
         weight=6),
    Kind(f"{GROUP}/v1", "Bauble", "baubles", lambda rng: {"spec": {"size": rng.randint(0, 3)}},
         namespaced=False, builtin=False, weight=1),
)  # fmt: skip


def _binding(rng: Random, name: str) -> Object:
    target = rng.choice([{"kind": "Node", "name": "n"}, {"name": "n"}, {"kind": "Pod", "name": "n"}, {}])
    return {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target}


def _eviction(rng: Random, name: str) -> Object:
    options: Object = rng.choice(
        [{}, {"deleteOptions": {"gracePeriodSeconds": 0}}, {"deleteOptions": {"dryRun": ["All"]}}]
    )
    return {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}, **options}


def _token(rng: Random, _name: str) -> Object:
    spec = _some(rng, audiences=["a"], expirationSeconds=rng.choice([600, 900, 1, -1, 2**33]))
    return {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}


# What is posted to the subresources that act.
ACTS: Final[dict[str, Callable[[Random, str], Object]]] = {
    "binding": _binding, "eviction": _eviction, "token": _token,
}  # fmt: skip


def _definition(kind: str, scope: str, schema: Object, **version: Any) -> Object:
    plural = f"{kind.lower()}s"
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": scope,
            "names": {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": f"{kind}List"},
            "versions": [{"name": "v1", "served": True, "storage": True,
                          "schema": {"openAPIV3Schema": schema}, **version}],
        },
    }  # fmt: skip


def _of(**properties: Any) -> Object:
    return {"type": "object", "properties": properties}


_TEXT: Final = {"type": "string"}
_NUMBER: Final = {"type": "integer", "minimum": 0}
_GADGET: Final = _of(
    spec={
        **_of(
            replicas={**_NUMBER, "default": 1, "maximum": 100},
            colour={**_TEXT, "enum": ["red", "green", "blue"], "default": "blue"},
            parts={"type": "array", "items": {**_of(name=_TEXT, size={**_NUMBER, "default": 3}),
                                              "required": ["name"]},
                   "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
            tags={"type": "array", "items": _TEXT, "x-kubernetes-list-type": "set"},
            list={"type": "array", "items": {"type": "integer"}},
            free={"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            nested=_of(on={"type": "boolean", "default": False}, note={**_TEXT, "nullable": True}),
            port={"x-kubernetes-int-or-string": True},
            map={"type": "object", "additionalProperties": _TEXT},
        ),
        "x-kubernetes-validations": [
            {"rule": "!has(self.list) || self.list.size() < 5", "message": "the list is too long"}
        ],
    },
    status=_of(replicas=_NUMBER, phase=_TEXT, selector=_TEXT),
)  # fmt: skip

DEFINITIONS: Final[tuple[Object, ...]] = (
    _definition(
        "Gadget", "Namespaced", _GADGET,
        subresources={"status": {}, "scale": {"specReplicasPath": ".spec.replicas",
                                              "statusReplicasPath": ".status.replicas",
                                              "labelSelectorPath": ".status.selector"}},
        additionalPrinterColumns=[{"name": "Colour", "type": "string", "jsonPath": ".spec.colour"}],
        selectableFields=[{"jsonPath": ".spec.colour"}],
    ),
    _definition("Bauble", "Cluster", _of(spec=_of(size=_NUMBER))),
)  # fmt: skip
