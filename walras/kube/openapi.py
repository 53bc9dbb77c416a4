"""OpenAPI v3 documents of what a cluster serves: one for each group version, and an index with their hashes.

Good for what clients do with them: kubectl's explain, its check that the server validates fields, and the
merge keys of apply. Documents are made when first asked for and shared by all clusters that serve the same.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from walras.kube.registry import Registry, Resource
from walras.kube.schema import DEFINITIONS_VERSION, definitions

GroupVersion = tuple[str, str]

# Part of every hash, under which clients keep documents for ever: raise it when their form changes.
FORMAT: Final = 2
CACHE_MAX: Final = 256
_DEFINITIONS: Final = "#/$defs/"
_COMPONENTS: Final = "#/components/schemas/"
_PATCHES: Final = (
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
)
# kubectl sends no other to a type that is said to take it.
_STRATEGIC: Final = "application/strategic-merge-patch+json"
# By the identities of its resources, which are kept beside it so that they stay theirs.
_cache: OrderedDict[tuple[int, ...], tuple[tuple[Resource, ...], bytes]] = OrderedDict()


def index(registry: Registry) -> bytes:
    """The JSON at /openapi/v3: where each group version's document is, under a hash of its content.

    The addresses are relative to the cluster: client-go puts its own prefix before "/openapi/v3".
    """
    paths = {}
    for group, version in registry.group_versions():
        path = f"apis/{group}/{version}" if group else f"api/{version}"
        digest = _digest(registry.of(group, version))
        paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash={digest}"}
    return msgspec.json.encode({"paths": paths})


def _digest(resources: Iterable[Resource]) -> str:
    """A hash of what a document is made from, so that an index needs no documents."""
    parts: list[Any] = [FORMAT, DEFINITIONS_VERSION]
    for resource in resources:
        parts.append((resource.group, resource.version, resource.kind, resource.plural, resource.namespaced))
        parts.append((resource.verbs, resource.subresources, resource.raw_schema))
    return hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest().upper()


def document(registry: Registry, group_version: GroupVersion) -> bytes:
    """The document of a (group, version) as JSON; without any path when it is not served."""
    resources = registry.of(*group_version)
    key = tuple(id(resource) for resource in resources)
    known = _cache.get(key)
    if known is None:
        known = _cache[key] = (resources, msgspec.json.encode(_document(resources)))
        while len(_cache) > CACHE_MAX:
            _cache.popitem(last=False)
    _cache.move_to_end(key)
    return known[1]


def _document(resources: Iterable[Resource]) -> dict[str, Any]:
    components = _Components()
    paths: dict[str, Any] = {}
    for resource in resources:
        paths.update(_paths(resource, components.add(resource)))
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "unversioned"},
        "paths": paths,
        "components": {"schemas": components.schemas},
    }


class _Components:
    """The schemas of one document: its kinds and all that they refer to."""

    def __init__(self) -> None:
        self.schemas: dict[str, Any] = {}

    def add(self, resource: Resource) -> str:
        """The name under which the resource's kind stands, now that it does."""
        reference = resource.raw_schema.get("$ref")
        if isinstance(reference, str):
            name = reference.removeprefix(_DEFINITIONS)
            self._include(name)
            return name
        reverse = ".".join(reversed(resource.group.split(".")))
        name = f"{reverse}.{resource.version}.{resource.kind}"
        schema = self._converted(resource.raw_schema)
        schema["x-kubernetes-group-version-kind"] = [_gvk(resource)]
        self.schemas[name] = schema
        return name

    def _include(self, name: str) -> None:
        if name not in self.schemas:
            self.schemas[name] = {}
            self.schemas[name] = self._converted(definitions()[name])
            if name.endswith(".IntOrString"):
                self.schemas[name]["format"] = "int-or-string"

    def _converted(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """A schema in OpenAPI's form: single types, references in allOf where anything stands beside them."""
        result: dict[str, Any] = {}
        for key, value in raw.items():
            if key == "type":
                result[key] = _single(value)
            elif key == "properties":
                result[key] = {name: self._converted(child) for name, child in value.items()}
            elif key in ("items", "additionalProperties", "not") and isinstance(value, dict):
                result[key] = self._converted(value)
            elif key in ("oneOf", "anyOf", "allOf"):
                result[key] = [self._converted(child) for child in value]
            elif key == "$ref":
                name = value.removeprefix(_DEFINITIONS)
                self._include(name)
                target = {"$ref": _COMPONENTS + name}
                if len(raw) == 1:
                    return target
                result["allOf"] = [target]
            elif not _is_type_meta(key, raw):
                result[key] = value
        return result


def _single(declared: Any) -> Any:
    if isinstance(declared, str):
        return declared
    return next(kind for kind in declared if kind != "null")


def _is_type_meta(key: str, raw: Mapping[str, Any]) -> bool:
    # The definitions pin apiVersion and kind to one value; upstream's documents do not.
    return key == "enum" and str(raw.get("description", "")).startswith(
        ("APIVersion defines", "Kind is a string")
    )


def _gvk(resource: Resource) -> dict[str, str]:
    return {"group": resource.group, "kind": resource.kind, "version": resource.version}


def _paths(resource: Resource, component: str) -> dict[str, Any]:
    prefix = f"/apis/{resource.group}/{resource.version}" if resource.group else f"/api/{resource.version}"
    collection = f"{prefix}/{resource.plural}"
    every = {}
    if resource.namespaced:
        every = {collection: {"get": _operation(resource, "list", component)}}
        collection = f"{prefix}/namespaces/{{namespace}}/{resource.plural}"
    on_collection: dict[str, Any] = {}
    if "create" in resource.verbs:
        on_collection["post"] = _operation(resource, "post", component)
    if "list" in resource.verbs:
        on_collection["get"] = _operation(resource, "list", component)
    paths = {**(every if "list" in resource.verbs else {}), collection: on_collection}
    if "get" in resource.verbs:
        needs = {"get": "get", "put": "update", "patch": "patch", "delete": "delete"}
        verbs = tuple(verb for verb, need in needs.items() if need in resource.verbs)
        one = f"{collection}/{{name}}"
        paths[one] = {verb: _operation(resource, verb, component) for verb in verbs}
        if resource.has_status:
            paths[f"{one}/status"] = {verb: _operation(resource, verb, component) for verb in verbs[:3]}
    return paths


def _operation(resource: Resource, verb: str, component: str) -> dict[str, Any]:
    reference = {"$ref": _COMPONENTS + component}
    answer: dict[str, Any] = {"content": {"application/json": {"schema": reference}}, "description": "OK"}
    operation: dict[str, Any] = {
        "operationId": f"{verb}_{resource.key}_{resource.version}",
        "responses": {"200": {"description": "OK"} if verb in ("list", "delete") else answer},
        "x-kubernetes-action": verb,
        "x-kubernetes-group-version-kind": _gvk(resource),
    }
    if verb in ("post", "put", "patch"):
        kinds: tuple[str, ...] = ("application/json", "application/yaml")
        if verb == "patch":
            kinds = (*_PATCHES, _STRATEGIC) if resource.builtin else _PATCHES
        body = {"type": "object"} if verb == "patch" else reference
        operation["requestBody"] = {"content": {kind: {"schema": body} for kind in kinds}, "required": True}
        names = ["dryRun", "fieldManager", "fieldValidation"]
        operation["parameters"] = [_parameter(name) for name in names]
        if verb == "patch":
            operation["parameters"].append(_parameter("force", "boolean"))
    return operation


def _parameter(name: str, kind: str = "string") -> dict[str, Any]:
    return {"in": "query", "name": name, "schema": {"type": kind, "uniqueItems": True}}
