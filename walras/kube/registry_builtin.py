"""The types that every cluster serves: all of Kubernetes, and Walras' own kinds.

builtin_types.json says which: scripts/generate-types asks a real kube-apiserver for it.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any, Final

import msgspec
import yaml

from walras.kube import machines
from walras.kube.crd import resource_of
from walras.kube.registry import Registry, Resource

FLEET_KINDS: Final = ("agents", "pools")
AGENT_KINDS: Final = ("bids", "gpuleases")
# Of the operator's cluster too, Knative's.
CLAIM_KINDS: Final = ("clusterdomainclaims",)
# KubeVirt's.
MACHINE_KINDS: Final = ("virtualmachines", "virtualmachineinstances")
# Knative Serving, in one file.
SERVING_KINDS: Final = ("services", "configurations", "revisions", "routes", "domainmappings")
_PACKAGES: Final = {
    "apiextensions.k8s.io": "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions",
    "apiregistration.k8s.io": "io.k8s.kube-aggregator.pkg.apis.apiregistration",
}
# (group, version, plural) of types whose objects are stored in another version: (group, version) of that.
_STORED: Final = {
    ("autoscaling", "v1", "horizontalpodautoscalers"): ("autoscaling", "v2"),
    ("events.k8s.io", "v1", "events"): ("", "v1"),
}


def _builtin() -> tuple[Resource, ...]:
    text = files("walras.kube").joinpath("builtin_types.json").read_bytes()
    rows: list[dict[str, Any]] = msgspec.json.decode(text)
    made: dict[tuple[str, str, str], Resource] = {}
    # What is stored in another version comes after it, and goes back to its place.
    for row in sorted(rows, key=lambda row: _place(row) in _STORED):
        made[_place(row)] = _resource(row, made)
    return tuple(made[_place(row)] for row in rows)


def _place(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["group"], row["version"], row["plural"]


def _resource(row: dict[str, Any], made: dict[tuple[str, str, str], Resource]) -> Resource:
    group, version, kind = row["group"], row["version"], row["kind"]
    package = _PACKAGES.get(group) or f"io.k8s.api.{group.partition('.')[0] or 'core'}"
    stored = _STORED.get(_place(row))
    said: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in row.items()
    }
    return Resource(
        singular=kind.lower(),
        # A reference only: the definitions are read when a schema is first walked.
        raw_schema={"$ref": f"#/$defs/{package}.{version}.{kind}"},
        stored=made[(*stored, row["plural"])] if stored else None,
        **said,
    )


BUILTIN: Final[tuple[Resource, ...]] = _builtin()


def _definition(name: str) -> dict[str, Any]:
    text = files("walras.kube").joinpath(f"crds/{name}.yaml").read_bytes()
    read: dict[str, Any] = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    return read


def _resource_of(definition: dict[str, Any]) -> Resource:
    return resource_of(definition["spec"], definition["spec"]["versions"][0])


@cache
def walras_kinds() -> tuple[Resource, ...]:
    """Agents, pools, bids and GPU leases, as their files under crds/ describe them."""
    return tuple(_resource_of(_definition(plural)) for plural in (*FLEET_KINDS, *AGENT_KINDS))


@cache
def serving_kinds() -> tuple[Resource, ...]:
    """Knative's kinds of functions, routes and domains, as crds/serving.yaml describes them."""
    return tuple(_resource_of(each) for each in _definition("serving")["items"])


@cache
def claim_kinds() -> tuple[Resource, ...]:
    """Knative's ClusterDomainClaim, as its file under crds/ describes it."""
    return tuple(_resource_of(_definition(plural)) for plural in CLAIM_KINDS)


@cache
def machine_kinds() -> tuple[Resource, ...]:
    """KubeVirt's VirtualMachine and VirtualMachineInstance, as their files under crds/ describe them."""
    return tuple(_resource_of(_definition(plural)) for plural in MACHINE_KINDS)


@cache
def for_fleet() -> Registry:
    """What the operator's cluster serves."""
    own = (kind for kind in walras_kinds() if kind.plural in FLEET_KINDS)
    return Registry((*BUILTIN, *own, *claim_kinds()))


@cache
def for_agents() -> Registry:
    """What every agent's cluster serves, before its own CRDs."""
    own = (kind for kind in walras_kinds() if kind.plural in AGENT_KINDS)
    return Registry((*BUILTIN, *own, *serving_kinds(), *machine_kinds(), *machines.resources()))


@cache
def for_all() -> Registry:
    """Everything that some cluster serves, for reads across all clusters."""
    own = (*walras_kinds(), *claim_kinds(), *serving_kinds(), *machine_kinds())
    return Registry((*BUILTIN, *own, *machines.resources()))
