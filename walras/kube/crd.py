"""CustomResourceDefinitions: what one serves, and the status that says so."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final
from weakref import WeakValueDictionary

import msgspec

from walras.kube.registry import Resource

Object = dict[str, Any]

# Clusters that define the same kind share one resource, with its schema and its OpenAPI document.
_shared: Final[WeakValueDictionary[bytes, Resource]] = WeakValueDictionary()
_META: Final = {"$ref": "#/$defs/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}
_OPEN: Final = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def resources(crd: Mapping[str, Any]) -> list[Resource]:
    """The resource that the definition serves, at its storage version; none until it is established.

    One version is served: the one in which objects are stored, which needs no conversion.
    """
    if not is_established(crd):
        return []
    spec = crd["spec"]
    return [_interned(spec, each) for each in spec["versions"] if each["storage"] and each["served"]]


def _interned(spec: Mapping[str, Any], version: Mapping[str, Any]) -> Resource:
    what = (spec["group"], spec["scope"], spec["names"], version)
    digest = hashlib.sha256(msgspec.json.encode(what, order="deterministic")).digest()
    resource = _shared.get(digest)
    if resource is None:
        resource = _shared[digest] = resource_of(spec, version)
    return resource


def resource_of(spec: Mapping[str, Any], version: Mapping[str, Any]) -> Resource:
    """The resource of one version of a definition's spec."""
    names, subresources = spec["names"], version.get("subresources") or {}
    fields = version.get("selectableFields") or ()
    return Resource(
        group=spec["group"],
        version=version["name"],
        kind=names["kind"],
        plural=names["plural"],
        singular=names.get("singular") or names["kind"].lower(),
        namespaced=spec["scope"] == "Namespaced",
        raw_schema=with_metadata((version.get("schema") or {}).get("openAPIV3Schema") or _OPEN),
        short_names=tuple(names.get("shortNames") or ()),
        categories=tuple(names.get("categories") or ()),
        subresources=tuple(name for name in ("status", "scale") if name in subresources),
        printer_columns=tuple(version.get("additionalPrinterColumns") or ()),
        selectable_fields=tuple(field["jsonPath"].removeprefix(".") for field in fields),
        scale=subresources.get("scale"),
        builtin=False,
        deprecation=_deprecation(spec, version) if version.get("deprecated") else "",
    )


def _deprecation(spec: Mapping[str, Any], version: Mapping[str, Any]) -> str:
    said = version.get("deprecationWarning")
    return said or f"{spec['group']}/{version['name']} {spec['names']['kind']} is deprecated"


def with_metadata(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema with what every object has, whether it says so or not."""
    always = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": _META}
    return {**schema, "properties": {**(schema.get("properties") or {}), **always}}


def is_established(crd: Mapping[str, Any]) -> bool:
    conditions = (crd.get("status") or {}).get("conditions") or ()
    return any(each["type"] == "Established" and each["status"] == "True" for each in conditions)


def establish(crd: Mapping[str, Any], now: str) -> Object:
    """The status of a definition whose names nobody else has: accepted and served at once.

    `now` is an RFC 3339 time; a condition that held already keeps its own.
    """
    spec, before = crd["spec"], crd.get("status") or {}
    since = {each["type"]: each["lastTransitionTime"] for each in before.get("conditions") or ()}
    stored = list(before.get("storedVersions") or ())
    stored += [each["name"] for each in spec["versions"] if each["storage"] and each["name"] not in stored]

    def condition(kind: str, reason: str, message: str) -> Object:
        return {
            "type": kind,
            "status": "True",
            "reason": reason,
            "message": message,
            "lastTransitionTime": since.get(kind, now),
        }

    return {
        "conditions": [
            condition("NamesAccepted", "NoConflicts", "no conflicts found"),
            condition("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        ],
        "acceptedNames": dict(spec["names"]),
        "storedVersions": stored,
    }
