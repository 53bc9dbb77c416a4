"""The paths and operations of a resource as OpenAPI has them, version 3 and, made from that, version 2.

What clients read of them: the kind that each is about, the bodies, and the parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from walras.kube import strategies
from walras.kube.registry import Resource

Object = dict[str, Any]

META: Final = "io.k8s.apimachinery.pkg.apis.meta.v1"
COMPONENTS: Final = "#/components/schemas/"
_PATCHES: Final = (
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
)
# kubectl sends no other to a type that is said to take it.
_STRATEGIC: Final = "application/strategic-merge-patch+json"
_JSON: Final = ("application/json", "application/yaml")
_PROTOBUF: Final = "application/vnd.kubernetes.protobuf"
_LISTING: Final = {
    "allowWatchBookmarks": "boolean", "continue": "string", "fieldSelector": "string",
    "labelSelector": "string", "limit": "integer", "resourceVersion": "string",
    "resourceVersionMatch": "string", "sendInitialEvents": "boolean", "timeoutSeconds": "integer",
    "watch": "boolean",
}  # fmt: skip
_DELETING: Final = {
    "dryRun": "string", "gracePeriodSeconds": "integer", "ignoreStoreReadErrorWithClusterBreakingPotential":
    "boolean", "orphanDependents": "boolean", "propagationPolicy": "string",
}  # fmt: skip
_WRITING: Final = {"dryRun": "string", "fieldManager": "string", "fieldValidation": "string"}
# The verb of the API behind each method, on a collection and on an object.
_ON_MANY: Final = {"get": "list", "post": "create", "delete": "deletecollection"}
_ON_ONE: Final = {"get": "get", "put": "update", "patch": "patch", "delete": "delete"}
_ON_SUBRESOURCE: Final = {"get": "get", "put": "update", "patch": "patch", "post": "create"}
_ACTIONS: Final = {"create": "post", "update": "put"}
# How the verb is called in an operation's name, where it is not as it is.
_SPOKEN: Final = {"get": "read", "update": "replace", "deletecollection": "delete"}
# Subresources whose kind is one of their own: group, version, kind.
_KINDS: Final = {
    "binding": ("", "v1", "Binding"),
    "eviction": ("policy", "v1", "Eviction"),
    "scale": ("autoscaling", "v1", "Scale"),
    "token": ("authentication.k8s.io", "v1", "TokenRequest"),
}
_ACTS: Final = {"finalize": ("put",), "binding": ("post",), "eviction": ("post",), "token": ("post",)}
_STREAMS: Final = ("attach", "exec", "log", "portforward", "proxy")
_GET: Final = {"log": ("get",), "proxy": ("delete", "get", "patch", "post", "put")}


def referred(resource: Resource) -> list[str]:
    """The definitions beside the resource's own that its operations speak of."""
    named = [f"{META}.{kind}" for kind in ("DeleteOptions", "Patch", "Status", "WatchEvent", "ListMeta")]
    return named + [_definition(name) for name in resource.subresources if name in _KINDS]


def _definition(subresource: str) -> str:
    group, version, kind = _KINDS[subresource]
    return f"io.k8s.api.{group.partition('.')[0] or 'core'}.{version}.{kind}"


def paths(resource: Resource, component: str) -> Object:
    """Every path of the resource with its operations, for a document of version 3."""
    prefix = f"/apis/{resource.group}/{resource.version}" if resource.group else f"/api/{resource.version}"
    collection = f"{prefix}/{resource.plural}"
    found: Object = {}
    if resource.namespaced:
        if "list" in resource.verbs:
            found[collection] = {"get": _operation(resource, "list", component, everywhere=True)}
        collection = f"{prefix}/namespaces/{{namespace}}/{resource.plural}"
    found[collection] = _item(resource, collection, component, _ON_MANY)
    one = f"{collection}/{{name}}"
    if "get" in resource.verbs:
        found[one] = _item(resource, one, component, _ON_ONE)
    for name in resource.subresources:
        found[f"{one}/{name}"] = _subresource(resource, f"{one}/{name}", name, component)
    return {path: item for path, item in found.items() if item}


def _item(resource: Resource, path: str, component: str, methods: Mapping[str, str]) -> Object:
    item = {
        method: _operation(resource, verb, component)
        for method, verb in methods.items()
        if verb in resource.verbs
    }
    return {**item, "parameters": _path_parameters(path)} if item else {}


def _path_parameters(path: str) -> list[Object]:
    names = [name for name in ("name", "namespace") if f"{{{name}}}" in path]
    found = [
        {"in": "path", "name": name, "required": True, "schema": {"type": "string", "uniqueItems": True}}
        for name in names
    ]
    return [*found, _parameter("pretty", "string")]


def _subresource(resource: Resource, path: str, name: str, component: str) -> Object:
    if name in _STREAMS:
        methods = _GET.get(name, ("get", "post"))
        item = {method: _stream(resource, name, method) for method in methods}
    else:
        kind = _definition(name) if name in _KINDS else component
        methods = _ACTS.get(name, ("get", "put", "patch"))
        item = {
            method: _operation(resource, _ON_SUBRESOURCE[method], kind, subresource=name)
            for method in methods
        }
    return {**item, "parameters": _path_parameters(path)}


def _stream(resource: Resource, name: str, method: str) -> Object:
    """An operation that answers whatever a container, a node or a Service says."""
    kind = resource.kind if name == "log" else f"{resource.kind}{name.capitalize()}Options"
    answer = {"content": {"*/*": {"schema": {"type": "string"}}}, "description": "OK"}
    return {
        "operationId": _named(resource, "get", name)
        if name == "log"
        else _named(resource, "connect", name, method.capitalize()),
        "responses": {"200": answer, "401": {"description": "Unauthorized"}},
        "tags": [_tag(resource)],
        "x-kubernetes-action": "get" if name == "log" else "connect",
        "x-kubernetes-group-version-kind": {**_gvk(resource), "kind": kind},
    }


def _operation(
    resource: Resource, verb: str, component: str, *, subresource: str = "", everywhere: bool = False
) -> Object:
    action = _ACTIONS.get(verb, verb)
    operation: Object = {
        "operationId": _named(resource, verb, subresource, everywhere=everywhere),
        "responses": _responses(resource, verb, component),
        "tags": [_tag(resource)],
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": _gvk(resource, subresource),
    }
    parameters = {
        "list": _LISTING,
        "delete": _DELETING,
        "deletecollection": {**_DELETING, **_LISTING, "watch": "", "allowWatchBookmarks": ""},
        "get": {},
        "patch": {**_WRITING, "force": "boolean"},
    }.get(verb, _WRITING)
    if parameters:
        operation["parameters"] = [_parameter(*each) for each in parameters.items() if each[1]]
    body = _body(resource, verb, component)
    if body:
        operation["requestBody"] = body
    return operation


def _named(
    resource: Resource, verb: str, subresource: str, method: str = "", *, everywhere: bool = False
) -> str:
    """What generated clients call the operation: listAppsV1NamespacedDeployment."""
    group = _tag(resource).rpartition("_")[0]
    parts = [_SPOKEN.get(verb, verb), _title(group), _title(resource.version), method]
    parts.append("Collection" if verb == "deletecollection" else "")
    parts.append("Namespaced" if resource.namespaced and not everywhere else "")
    parts += [resource.kind, _title(subresource), "ForAllNamespaces" if everywhere else ""]
    return "".join(parts)


def _title(name: str) -> str:
    return name[:1].upper() + name[1:]


def _responses(resource: Resource, verb: str, component: str) -> Object:
    kind = list_component(component) if verb == "list" else component
    if verb == "deletecollection" or (verb == "delete" and resource.key not in strategies.RETURNED):
        kind = f"{META}.Status"
    media = (*_JSON, _PROTOBUF) if resource.builtin else _JSON
    content = {each: {"schema": {"$ref": COMPONENTS + kind}} for each in media}
    codes = {"create": ("200", "201", "202"), "update": ("200", "201"), "patch": ("200", "201")}
    said = {"200": "OK", "201": "Created", "202": "Accepted"}
    more = ("200", "202") if verb == "delete" else codes.get(verb, ("200",))
    answers: Object = {code: {"content": content, "description": said[code]} for code in more}
    return {**answers, "401": {"description": "Unauthorized"}}


def _body(resource: Resource, verb: str, component: str) -> Object:
    if verb in ("create", "update"):
        schema = {"$ref": COMPONENTS + component}
        return {"content": {kind: {"schema": schema} for kind in _JSON}, "required": True}
    if verb == "patch":
        kinds = (*_PATCHES, _STRATEGIC) if resource.builtin else _PATCHES
        schema = {"$ref": f"{COMPONENTS}{META}.Patch"}
        return {"content": {kind: {"schema": schema} for kind in kinds}, "required": True}
    if verb in ("delete", "deletecollection"):
        schema = {"$ref": f"{COMPONENTS}{META}.DeleteOptions"}
        return {"content": {kind: {"schema": schema} for kind in _JSON}}
    return {}


def _parameter(name: str, kind: str) -> Object:
    return {"in": "query", "name": name, "schema": {"type": kind, "uniqueItems": True}}


def _tag(resource: Resource) -> str:
    first, *others = (resource.group.removesuffix(".k8s.io") or "core").split(".")
    return f"{first}{''.join(map(_title, others))}_{resource.version}"


def _gvk(resource: Resource, subresource: str = "") -> dict[str, str]:
    own = (resource.group, resource.version, resource.kind)
    group, version, kind = _KINDS.get(subresource, own)
    return {"group": group, "kind": kind, "version": version}


def list_component(component: str) -> str:
    """The name of the definition of a kind's list."""
    return f"{component}List"


def paths_v2(found: Mapping[str, Object]) -> Object:
    """The same paths for a document of version 2."""
    return {
        path: {
            method: [_parameter_v2(each) for each in part] if method == "parameters" else _operation_v2(part)
            for method, part in item.items()
        }
        for path, item in found.items()
    }


def _operation_v2(operation: Object) -> Object:
    result = {key: value for key, value in operation.items() if key not in ("requestBody", "parameters")}
    body, parameters = operation.get("requestBody"), operation.get("parameters") or ()
    result["consumes"] = list(body["content"]) if body and len(body["content"]) > 2 else ["*/*"]
    result["produces"] = list(operation["responses"]["200"].get("content", {})) or ["*/*"]
    result["schemes"] = ["https"]
    result["responses"] = {code: _response_v2(answer) for code, answer in operation["responses"].items()}
    found = [_parameter_v2(each) for each in parameters]
    if body:
        schema = definition_references(next(iter(body["content"].values()))["schema"])
        required = {"required": True} if body.get("required") else {}
        found.insert(0, {"in": "body", "name": "body", **required, "schema": schema})
    return {**result, "parameters": found} if found else result


def _response_v2(answer: Object) -> Object:
    content = answer.get("content")
    if not content:
        return {"description": answer["description"]}
    schema = next(iter(content.values()))["schema"]
    return {"description": answer["description"], "schema": definition_references(schema)}


def _parameter_v2(parameter: Object) -> Object:
    schema = parameter.get("schema") or {}
    return {**{key: value for key, value in parameter.items() if key != "schema"}, **schema}


def definition_references(schema: Object) -> Object:
    """A schema that refers to definitions where version 3 refers to components."""
    reference = schema.get("$ref")
    if isinstance(reference, str):
        return {"$ref": "#/definitions/" + reference.removeprefix(COMPONENTS)}
    return schema
