"""The types that every cluster serves: built-in ones with behaviour behind them, and Walras' own kinds."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any, Final

import yaml

from walras.kube.crd import resource_of
from walras.kube.registry import CORE_VERBS, Registry, Resource

_CREATE_ONLY: Final = ("create",)
_NO_COLLECTION: Final = tuple(verb for verb in CORE_VERBS if verb != "deletecollection")
FLEET_KINDS: Final = ("agents", "pools")
AGENT_KINDS: Final = ("bids", "gpuleases")


def _of(group: str, version: str, package: str) -> Any:
    """Rows of one group version: kind, plural, and what differs from a plain namespaced resource."""

    def row(kind: str, plural: str, short: str = "", **more: Any) -> Resource:
        return Resource(
            group=group,
            version=version,
            kind=kind,
            plural=plural,
            singular=kind.lower(),
            namespaced=more.pop("namespaced", True),
            # A reference only: the definitions are read when a schema is first walked.
            raw_schema={"$ref": f"#/$defs/{package}.{kind}"},
            short_names=tuple(short.split()),
            **more,
        )

    return row


_core = _of("", "v1", "io.k8s.api.core.v1")
_batch = _of("batch", "v1", "io.k8s.api.batch.v1")
_apps = _of("apps", "v1", "io.k8s.api.apps.v1")
_coordination = _of("coordination.k8s.io", "v1", "io.k8s.api.coordination.v1")
_scheduling = _of("scheduling.k8s.io", "v1", "io.k8s.api.scheduling.v1")
_devices = _of("resource.k8s.io", "v1", "io.k8s.api.resource.v1")
_authorization = _of("authorization.k8s.io", "v1", "io.k8s.api.authorization.v1")
_authentication = _of("authentication.k8s.io", "v1", "io.k8s.api.authentication.v1")
_extensions = _of("apiextensions.k8s.io", "v1", "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1")

_ALL: Final = ("all",)
_SCALED: Final = ("status", "scale")

BUILTIN: Final[tuple[Resource, ...]] = (
    _core("ConfigMap", "configmaps", "cm"),
    _core("Event", "events", "ev"),
    _core("Namespace", "namespaces", "ns", namespaced=False, verbs=_NO_COLLECTION,
          subresources=("status", "finalize")),
    _core("Node", "nodes", "no", namespaced=False, subresources=("status",)),
    _core("PersistentVolumeClaim", "persistentvolumeclaims", "pvc", subresources=("status",)),
    _core("Pod", "pods", "po", categories=_ALL,
          subresources=("status", "log", "binding", "eviction", "proxy")),
    _core("Secret", "secrets"),
    _core("Service", "services", "svc", categories=_ALL, subresources=("status",)),
    _core("ServiceAccount", "serviceaccounts", "sa"),
    _apps("Deployment", "deployments", "deploy", categories=_ALL, subresources=_SCALED),
    _apps("ReplicaSet", "replicasets", "rs", categories=_ALL, subresources=_SCALED),
    _batch("Job", "jobs", categories=_ALL, subresources=("status",)),
    _coordination("Lease", "leases"),
    _scheduling("PriorityClass", "priorityclasses", "pc", namespaced=False),
    _devices("ResourceSlice", "resourceslices", namespaced=False),
    _extensions("CustomResourceDefinition", "customresourcedefinitions", "crd crds", namespaced=False,
                categories=("api-extensions",), subresources=("status",)),
    _authorization("SelfSubjectAccessReview", "selfsubjectaccessreviews", namespaced=False,
                   verbs=_CREATE_ONLY),
    _authorization("SelfSubjectRulesReview", "selfsubjectrulesreviews", namespaced=False,
                   verbs=_CREATE_ONLY),
    _authentication("SelfSubjectReview", "selfsubjectreviews", namespaced=False, verbs=_CREATE_ONLY),
)  # fmt: skip


def _walras_kind(plural: str) -> Resource:
    text = files("walras.kube").joinpath(f"crds/{plural}.yaml").read_bytes()
    spec = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))["spec"]  # noqa: S506
    return resource_of(spec, spec["versions"][0])


@cache
def walras_kinds() -> tuple[Resource, ...]:
    """Agents, pools, bids and GPU leases, as their files under crds/ describe them."""
    return tuple(_walras_kind(plural) for plural in (*FLEET_KINDS, *AGENT_KINDS))


@cache
def for_fleet() -> Registry:
    """What the operator's cluster serves."""
    return Registry((*BUILTIN, *(kind for kind in walras_kinds() if kind.plural in FLEET_KINDS)))


@cache
def for_agents() -> Registry:
    """What every agent's cluster serves, before its own CRDs."""
    return Registry((*BUILTIN, *(kind for kind in walras_kinds() if kind.plural in AGENT_KINDS)))


@cache
def for_all() -> Registry:
    """Everything that some cluster serves, for reads across all clusters."""
    return Registry((*BUILTIN, *walras_kinds()))
