"""OpenAPI documents of what a cluster serves: version 3 by group version, with an index, version 2 as one.

Documents are made when first asked for and shared by all clusters that serve the same; of a cluster with
types of its own only these are made for it.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec

from walras.kube import openapi_operations as operations
from walras.kube import openapi_protobuf as protobuf
from walras.kube.registry import Registry, Resource
from walras.kube.schema import DEFINITIONS_VERSION, definitions

GroupVersion = tuple[str, str]

# Part of every hash, under which clients keep documents for ever: raise it when their form changes.
FORMAT: Final = 3
CACHE_MAX: Final = 256
_DEFINITIONS: Final = "#/$defs/"
_INFO: Final = {"title": "Kubernetes", "version": ".".join(DEFINITIONS_VERSION.split(".")[:2])}
_TOKEN: Final = {"type": "apiKey", "description": "Bearer Token authentication", "name": "authorization",
                 "in": "header"}  # fmt: skip
_KEYS: Final = {"BearerToken": _TOKEN}
_SECURITY: Final[list[Mapping[str, Any]]] = [{"BearerToken": []}]
_META: Final = f"{operations.META}.ObjectMeta"
_CONVENTIONS: Final = "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md"
_METADATA: Final = f"Standard object's metadata. More info: {_CONVENTIONS}#metadata"
# What an OpenAPI v2 schema has no word for.
_NOT_IN_V2: Final = ("allOf", "anyOf", "not", "nullable", "oneOf", "x-kubernetes-validations")
# By what is made and the identities of its resources, which are kept beside it so that they stay theirs.
_cache: OrderedDict[tuple[Any, ...], tuple[tuple[Resource, ...], Any]] = OrderedDict()


def _cached(what: str, resources: tuple[Resource, ...], make: Callable[[tuple[Resource, ...]], Any]) -> Any:
    key = (what, *(id(resource) for resource in resources))
    known = _cache.get(key)
    if known is None:
        known = _cache[key] = (resources, make(resources))
        while len(_cache) > CACHE_MAX:
            _cache.popitem(last=False)
    _cache.move_to_end(key)
    return known[1]


def index(registry: Registry) -> bytes:
    """The JSON at /openapi/v3: where each group version's document is, under a hash of its content.

    The addresses are relative to the cluster: client-go puts its own prefix before "/openapi/v3".
    """
    paths = {}
    described = ((each.group, each.version) for each in registry if _is_described(each))
    for group, version in dict.fromkeys(described):
        path = f"apis/{group}/{version}" if group else f"api/{version}"
        digest_ = digest(registry, (group, version))
        paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash={digest_}"}
    return msgspec.json.encode({"paths": paths})


def _is_described(resource: Resource) -> bool:
    """What has subresources alone, as KubeVirt's acts do, is no kind to be described."""
    return bool(resource.verbs)


def digest(registry: Registry, group_version: GroupVersion | None = None) -> str:
    """A hash of what a document is made from, so that telling it makes none; None is all of version 2."""
    resources = tuple(registry) if group_version is None else registry.of(*group_version)
    return str(_cached("digest", resources, _digest))


def _digest(resources: Iterable[Resource]) -> str:
    parts: list[Any] = [FORMAT, DEFINITIONS_VERSION]
    for resource in resources:
        parts.append((resource.group, resource.version, resource.kind, resource.plural, resource.namespaced))
        parts.append((resource.verbs, resource.subresources, resource.raw_schema))
    return hashlib.sha512(msgspec.json.encode(parts, order="deterministic")).hexdigest().upper()


def document(registry: Registry, group_version: GroupVersion) -> bytes:
    """The document of a (group, version) as JSON; without any path when it is not served."""
    body: bytes = _cached("v3", registry.of(*group_version), _document)
    return body


def _document(resources: tuple[Resource, ...]) -> bytes:
    components = _Components(operations.COMPONENTS)
    paths: dict[str, Any] = {}
    for resource in filter(_is_described, resources):
        paths.update(operations.paths(resource, components.add(resource)))
    return msgspec.json.encode(
        {
            "openapi": "3.0.0",
            "info": _INFO,
            "paths": paths,
            "components": {"schemas": components.schemas, "securitySchemes": {"BearerToken": _TOKEN}},
        }
    )


def document_v2(registry: Registry) -> bytes:
    """Everything that is served as one document of OpenAPI v2, as JSON."""
    parts = _parts(registry, "v2", _inside, _inside)
    paths = b",".join(part[0] for part in parts if part[0])
    schemas = b",".join(part[1] for part in parts if part[1])
    head = msgspec.json.encode({"swagger": "2.0", "info": _INFO, "securityDefinitions": _KEYS,
                                "security": _SECURITY})  # fmt: skip
    return b'%b,"paths":{%b},"definitions":{%b}}' % (head[:-1], paths, schemas)


def document_v2_protobuf(registry: Registry) -> bytes:
    """The same as protobuf, for clients that are older than version 3."""
    parts = _parts(registry, "v2 protobuf", protobuf.paths, protobuf.definitions)
    paths, schemas = b"".join(part[0] for part in parts), b"".join(part[1] for part in parts)
    return protobuf.document(_INFO, _KEYS, _SECURITY, paths, schemas)


def _inside(value: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode(value)[1:-1]


_Encode = Callable[[Mapping[str, Any]], bytes]
_Fragments = tuple[bytes, bytes, frozenset[str]]


def _parts(registry: Registry, what: str, of_paths: _Encode, of_schemas: _Encode) -> list[_Fragments]:
    """The fragments of what all clusters serve, and of what this one does beside it."""
    own = registry.additions
    shared = tuple(registry)[: len(registry) - len(own)]
    parts = [_cached(what, shared, lambda each: _fragments(each, frozenset(), of_paths, of_schemas))]
    if own:
        # Under names of the shared ones its definitions are the same.
        names = parts[0][2]
        beside = f"{what} beside {len(shared)}"
        parts.append(_cached(beside, own, lambda each: _fragments(each, names, of_paths, of_schemas)))
    return parts


def _fragments(
    resources: tuple[Resource, ...], without: frozenset[str], of_paths: _Encode, of_schemas: _Encode
) -> _Fragments:
    """The inside of the objects "paths" and "definitions" of version 2, and the names that are defined."""
    components = _Components("#/definitions/")
    paths: dict[str, Any] = {}
    for resource in filter(_is_described, resources):
        paths.update(operations.paths_v2(operations.paths(resource, components.add(resource))))
    schemas = {name: schema for name, schema in components.schemas.items() if name not in without}
    return of_paths(paths), of_schemas(schemas), frozenset(schemas)


class _Components:
    """The schemas of one document: its kinds, their lists, and all that they and the operations refer to.

    `prefix` is where references lead: into the components of version 3 or the definitions of version 2.
    """

    def __init__(self, prefix: str) -> None:
        self.schemas: dict[str, Any] = {}
        self._prefix = prefix
        self._v2 = prefix == "#/definitions/"

    def add(self, resource: Resource) -> str:
        """The name under which the resource's kind stands, now that it does."""
        for name in operations.referred(resource):
            self._include(name)
        reference = resource.raw_schema.get("$ref")
        if isinstance(reference, str):
            name = reference.removeprefix(_DEFINITIONS)
            self._include(name)
            if "list" in resource.verbs:
                self._include(operations.list_component(name))
            return name
        reverse = ".".join(reversed(resource.group.split(".")))
        name = f"{reverse}.{resource.version}.{resource.kind}"
        gvk = {"group": resource.group, "kind": resource.kind, "version": resource.version}
        schema = self._converted(_published(resource.raw_schema, self._v2))
        self.schemas[name] = {**schema, "x-kubernetes-group-version-kind": [gvk]}
        self.schemas[operations.list_component(name)] = self._list(resource, name)
        return name

    def _list(self, resource: Resource, name: str) -> dict[str, Any]:
        """The definition of the list of a custom kind."""
        text = "List of " + resource.plural
        text += (
            ". More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md"
        )
        gvk = {"group": resource.group, "kind": resource.list_kind, "version": resource.version}
        self._include(f"{operations.META}.ListMeta")
        return {
            "description": f"{resource.list_kind} is a list of {resource.kind}",
            "type": "object",
            "required": ["items"],
            "properties": {
                **_type_meta(),
                "items": {"description": text, "type": "array", "items": {"$ref": self._prefix + name}},
                "metadata": {"$ref": f"{self._prefix}{operations.META}.ListMeta"},
            },
            "x-kubernetes-group-version-kind": [gvk],
        }

    def _include(self, name: str) -> None:
        if name not in self.schemas:
            self.schemas[name] = {}
            self.schemas[name] = self._converted(definitions()[name])
            if name.endswith(".IntOrString"):
                self.schemas[name]["format"] = "int-or-string"

    def _converted(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """A schema in OpenAPI's form: single types, references as the version has them."""
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
                target = {"$ref": self._prefix + name}
                if len(raw) == 1:
                    return target
                # Beside a reference version 3 ignores what version 2 reads.
                result.update(target if self._v2 else {"allOf": [target]})
            elif not _is_type_meta(key, raw):
                result[key] = value
        return result


def _published(raw: Mapping[str, Any], v2: bool) -> dict[str, Any]:
    """A custom kind's schema as it is published: with words for what every object has."""
    if raw.get("x-kubernetes-preserve-unknown-fields") and v2:
        # kubectl takes whatever is said of its fields to be all that there are.
        return {"type": "object"}
    schema = _without(raw) if v2 else dict(raw)
    metadata = {"description": _METADATA, "$ref": f"{_DEFINITIONS}{_META}"}
    return {**schema, "properties": {**schema.get("properties", {}), **_type_meta(), "metadata": metadata}}


def _type_meta() -> dict[str, Any]:
    """apiVersion and kind in upstream's words."""
    known = definitions()["io.k8s.api.core.v1.Pod"]["properties"]
    return {
        name: {"description": known[name].get("description", ""), "type": "string"}
        for name in ("apiVersion", "kind")
    }


def _without(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A structural schema without what version 2 cannot say; what that leaves in doubt is allowed."""
    left = {key: value for key, value in raw.items() if key not in _NOT_IN_V2}
    if raw.get("nullable"):
        left = {key: value for key, value in left.items() if key not in ("type", "items", "properties")}
    if raw.get("x-kubernetes-preserve-unknown-fields"):
        left = {key: value for key, value in left.items() if key not in ("items", "properties")}
    for key in ("items", "additionalProperties"):
        if isinstance(left.get(key), Mapping):
            left[key] = _without(left[key])
    if "properties" in left:
        below: Mapping[str, Any] = left["properties"]
        left["properties"] = {name: _without(child) for name, child in below.items()}
        required = [name for name in left.get("required", ()) if not below.get(name, {}).get("nullable")]
        left.pop("required", None)
        left.update({"required": required} if required else {})
    return left


def _single(declared: Any) -> Any:
    if isinstance(declared, str):
        return declared
    return next(kind for kind in declared if kind != "null")


def _is_type_meta(key: str, raw: Mapping[str, Any]) -> bool:
    # The definitions pin apiVersion and kind to one value; upstream's documents do not.
    return key == "enum" and str(raw.get("description", "")).startswith(
        ("APIVersion defines", "Kind is a string")
    )
