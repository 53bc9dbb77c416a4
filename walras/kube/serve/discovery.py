"""Discovery: which groups, versions and resources a cluster serves, aggregated (KEP-3352) and plain."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from walras.core.errors import NotFound
from walras.kube import machines
from walras.kube.registry import Registry, Resource
from walras.kube.serve.answers import Answer, encode, json_answer
from walras.kube.serve.negotiate import clauses, unavailable
from walras.kube.serve.status import NOT_SERVED

Object = dict[str, Any]

_AGGREGATED: Final = ("v2", "v2beta1")
_VARY: Final = ((b"vary", b"Accept"),)
_OBJECT_VERBS: Final = ("get", "patch", "update")
# Subresources whose verbs or kinds are not those of their object.
_VERBS: Final[Mapping[str, tuple[str, ...]]] = {
    "attach": ("create", "get"),
    "binding": ("create",),
    "eviction": ("create",),
    "exec": ("create", "get"),
    "finalize": ("update",),
    "log": ("get",),
    "portforward": ("create", "get"),
    "proxy": ("create", "delete", "get", "patch", "update"),
    "token": ("create",),
    **{act: (verb,) for act, verb in machines.VERBS.items() if act != "portforward"},
}
_KINDS: Final[Mapping[str, tuple[str, str, str]]] = {
    "binding": ("", "v1", "Binding"),
    "eviction": ("policy", "v1", "Eviction"),
    "scale": ("autoscaling", "v1", "Scale"),
    "token": ("authentication.k8s.io", "v1", "TokenRequest"),
}
# Subresources that take options of the kind that their object's is part of: PodExecOptions.
_OPTIONS: Final = {"attach": "Attach", "exec": "Exec", "portforward": "PortForward", "proxy": "Proxy"}


def subresource_verbs(subresource: str) -> tuple[str, ...]:
    """The verbs of a subresource: those of a view of the object, but for the ones that act."""
    return _VERBS.get(subresource, _OBJECT_VERBS)


def _response_kind(resource: Resource, subresource: str) -> tuple[str, str, str]:
    """Group, version and kind of what a subresource answers."""
    suffix = _OPTIONS.get(subresource)
    kind = f"{resource.kind}{suffix}Options" if suffix else resource.kind
    return _KINDS.get(subresource, (resource.group, resource.version, kind))


def wants_aggregated(accept: str) -> str:
    """The version of apidiscovery.k8s.io that the Accept header prefers; "" for the plain documents.

    Raises NotAcceptable.
    """
    if not accept:
        return ""
    for media, options in clauses(accept):
        if media not in ("application/json", "application/*", "*/*"):
            continue
        kind = options.get("as", "")
        if not kind:
            return ""
        if (
            kind == "APIGroupDiscoveryList"
            and options.get("g") == "apidiscovery.k8s.io"
            and options.get("v") in _AGGREGATED
        ):
            return options["v"]
    raise unavailable()


def aggregated(registry: Registry, core: bool, version: str, if_none_match: str) -> Answer:
    """`/api` or `/apis` as one APIGroupDiscoveryList, with an ETag that its bytes decide."""
    body = _aggregated(tuple(r for r in registry if (r.group == "") == core), version)
    etag = f'"{hashlib.sha256(body).hexdigest().upper()}"'
    headers = (*_VARY, (b"etag", etag.encode()))
    media = f"application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList".encode()
    if etag in if_none_match:
        return Answer(b"", 304, media, headers)
    return Answer(body, 200, media, headers)


@lru_cache(maxsize=256)
def _aggregated(resources: tuple[Resource, ...], version: str) -> bytes:
    groups: dict[str, dict[str, list[Object]]] = {}
    for resource in resources:
        versions = groups.setdefault(resource.group, {})
        versions.setdefault(resource.version, []).append(_described(resource))
    items = [
        {
            "metadata": {"name": group} if group else {},
            "versions": [
                {"version": each, "resources": described, "freshness": "Current"}
                for each, described in versions.items()
            ],
        }
        for group, versions in groups.items()
    ]
    kind = {"kind": "APIGroupDiscoveryList", "apiVersion": f"apidiscovery.k8s.io/{version}"}
    return encode({**kind, "metadata": {}, "items": items})


def _described(resource: Resource) -> Object:
    if not resource.verbs:
        return _parentless(resource)

    def kind_of(subresource: str) -> Object:
        """Without group and version where they are those of the list."""
        group, version, kind = _response_kind(resource, subresource)
        same = resource.builtin and (group, version) == (resource.group, resource.version)
        return {"group": "" if same else group, "version": "" if same else version, "kind": kind}

    found: Object = {
        "resource": resource.plural,
        "responseKind": kind_of(""),
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "singularResource": resource.singular,
        "verbs": list(resource.verbs),
    }
    if resource.short_names:
        found["shortNames"] = list(resource.short_names)
    if resource.categories:
        found["categories"] = list(resource.categories)
    if resource.subresources:
        found["subresources"] = [
            {
                "subresource": each,
                "responseKind": kind_of(each),
                "verbs": list(subresource_verbs(each)),
            }
            for each in resource.subresources
        ]
    return found


def _parentless(resource: Resource) -> Object:
    """What the aggregator makes of a server that lists subresources alone."""
    kind: Object = {"group": "", "version": "", "kind": ""}
    return {
        "resource": resource.plural,
        "responseKind": kind,
        "scope": "Namespaced",
        "singularResource": "",
        "verbs": None,
        "subresources": [
            {"subresource": each, "responseKind": kind, "verbs": None} for each in resource.subresources
        ],
    }


def api_versions() -> Answer:
    """The plain `/api`."""
    return json_answer(
        {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}, 200, _VARY
    )


def group_list(registry: Registry) -> Answer:
    """The plain `/apis`."""
    names = dict.fromkeys(group for group, _ in registry.group_versions() if group)
    groups = [_group(registry, name) for name in names]
    return json_answer({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}, 200, _VARY)


def group(registry: Registry, name: str) -> Answer | None:
    """The plain `/apis/GROUP`; None when the group is not served."""
    if not name or not any(each == name for each, _ in registry.group_versions()):
        return None
    return json_answer({"kind": "APIGroup", "apiVersion": "v1", **_group(registry, name)})


def _group(registry: Registry, name: str) -> Object:
    versions = [
        {"groupVersion": f"{name}/{version}", "version": version}
        for each, version in registry.group_versions()
        if each == name
    ]
    return {"name": name, "versions": versions, "preferredVersion": versions[0]}


def resource_list(registry: Registry, group: str, version: str) -> Answer:
    """The plain `/api/v1` or `/apis/GROUP/VERSION`. Raises NotFound."""
    resources = registry.of(group, version)
    if not resources:
        raise NotFound(NOT_SERVED)
    rows: list[Object] = []
    for resource in resources:
        if not resource.verbs:
            rows += [_bare_row(resource, each) for each in resource.subresources]
            continue
        row: Object = {
            "name": resource.plural,
            "singularName": resource.singular,
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": list(resource.verbs),
        }
        if "list" in resource.verbs and resource.plural != "componentstatuses":
            row["storageVersionHash"] = _storage_hash(resource.storage)
        if resource.short_names:
            row["shortNames"] = list(resource.short_names)
        if resource.categories:
            row["categories"] = list(resource.categories)
        rows.append(row)
        rows += [_subresource_row(resource, each) for each in resource.subresources]
    return json_answer(
        {
            "kind": "APIResourceList",
            **({"apiVersion": "v1"} if group else {}),
            "groupVersion": f"{group}/{version}" if group else version,
            "resources": rows,
        }
    )


def _storage_hash(resource: Resource) -> str:
    """Changes when the objects of a type come to be stored in another version."""
    said = f"{resource.group}/{resource.version}/{resource.kind}"
    return base64.b64encode(hashlib.sha256(said.encode()).digest()[:8]).decode()


def _subresource_row(resource: Resource, subresource: str) -> Object:
    group, version, kind = _response_kind(resource, subresource)
    row: Object = {
        "name": f"{resource.plural}/{subresource}",
        "singularName": "",
        "namespaced": resource.namespaced,
        "kind": kind,
        "verbs": list(subresource_verbs(subresource)),
    }
    if (group, version) != (resource.group, resource.version):
        row |= {"group": group, "version": version}
    return row


def _bare_row(resource: Resource, subresource: str) -> Object:
    """As KubeVirt lists its own."""
    name = f"{resource.plural}/{subresource}"
    return {"name": name, "singularName": "", "namespaced": True, "kind": "", "verbs": None}


def root(registry: Registry) -> Answer:
    """The paths below a cluster's root."""
    paths = ["/api", "/api/v1", "/apis"]
    for group, version in registry.group_versions():
        if group:
            paths += [f"/apis/{group}", f"/apis/{group}/{version}"]
    paths += ["/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/readyz", "/version", "/walras/v1"]
    return json_answer({"paths": list(dict.fromkeys(paths))})


def not_found() -> Answer:
    """An unknown group or path: kube-apiserver's plain text, which clients take for an older server's."""
    return Answer(b"404 page not found\n", 404, b"text/plain; charset=utf-8")
