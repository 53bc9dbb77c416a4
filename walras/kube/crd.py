"""CustomResourceDefinitions: what one serves, and the status that says so."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final
from weakref import WeakValueDictionary

import msgspec

from walras.kube.conversion import config
from walras.kube.registry import Resource

Object = dict[str, Any]

# Clusters that define the same kind share one resource, with its schema and its OpenAPI document.
_shared: Final[WeakValueDictionary[bytes, Resource]] = WeakValueDictionary()
_META: Final = {"$ref": "#/$defs/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}
_OPEN: Final = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def resources(crd: Mapping[str, Any]) -> list[Resource]:
    """What the definition serves, a resource for each version; none until it is established.

    The version in which objects are stored comes first, served or not.
    """
    if not is_established(crd):
        return []
    spec = {**crd["spec"], "names": crd["status"].get("acceptedNames") or crd["spec"]["names"]}
    storage = next(each for each in spec["versions"] if each["storage"])
    is_mixed = len(spec["versions"]) > 1 or len(crd["status"].get("storedVersions") or ()) > 1
    # A definition that has changed may have defaults that its objects were made without.
    is_mixed = is_mixed or (crd["metadata"].get("generation", 1) > 1 and _has_defaults(storage))
    stored = _interned(spec, storage, is_mixed)
    others = (each for each in spec["versions"] if each["served"] and not each["storage"])
    return [stored, *(_interned(spec, each, stored=stored) for each in others)]


def _interned(
    spec: Mapping[str, Any],
    version: Mapping[str, Any],
    is_mixed: bool = False,
    stored: Resource | None = None,
) -> Resource:
    storage = next(each for each in spec["versions"] if each["storage"]) if stored is not None else None
    what = (
        spec["group"],
        spec["scope"],
        spec["names"],
        version,
        is_mixed,
        storage,
        stored is not None and stored.is_mixed,
        spec.get("conversion"),
        [each["name"] for each in spec["versions"]],
    )
    digest = hashlib.sha256(msgspec.json.encode(what, order="deterministic")).digest()
    resource = _shared.get(digest)
    if resource is None or resource.stored is not stored:
        resource = _shared[digest] = replace(
            resource_of(spec, version), is_mixed=is_mixed, stored=stored, converter=config.webhook(spec)
        )
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
        is_served=version["served"],
        deprecation=_deprecation(spec, version) if version.get("deprecated") else "",
    )


def _deprecation(spec: Mapping[str, Any], version: Mapping[str, Any]) -> str:
    said = version.get("deprecationWarning")
    return said or f"{spec['group']}/{version['name']} {spec['names']['kind']} is deprecated"


def _has_defaults(node: Any) -> bool:
    if isinstance(node, dict):
        return "default" in node or any(_has_defaults(each) for each in node.values())
    return isinstance(node, list) and any(_has_defaults(each) for each in node)


def with_metadata(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema with what every object has, whether it says so or not."""
    always = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": _META}
    return {**schema, "properties": {**(schema.get("properties") or {}), **always}}


def is_established(crd: Mapping[str, Any]) -> bool:
    conditions = (crd.get("status") or {}).get("conditions") or ()
    return any(each["type"] == "Established" and each["status"] == "True" for each in conditions)


def establish(crd: Mapping[str, Any], now: str, others: Iterable[Mapping[str, Any]] = ()) -> Object:
    """The status of a definition beside the others of its group: accepted and served at once, if it can be.

    `now` is an RFC 3339 time; a condition that held already keeps its own.
    """
    spec, before = crd["spec"], crd.get("status") or {}
    had = {each["type"]: each for each in before.get("conditions") or ()}
    stored = list(before.get("storedVersions") or ())
    stored += [each["name"] for each in spec["versions"] if each["storage"] and each["name"] not in stored]
    accepted, reason, message = _accepted(spec["names"], before.get("acceptedNames") or {}, others)

    def condition(kind: str, holds: bool, reason: str, message: str) -> Object:
        status, old = "True" if holds else "False", had.get(kind, {})
        since = old.get("lastTransitionTime", now) if old.get("status") == status else now
        return {
            "type": kind,
            "status": status,
            "reason": reason,
            "message": message,
            "lastTransitionTime": since,
        }

    established = had.get("Established", {})
    if not reason and established.get("status") != "True" and config.has_broken_authorities(spec):
        why = "The conversion webhook CABundle is invalid"
        established = condition("Established", False, "InvalidCABundle", why)
    elif not reason:
        established = condition(
            "Established", True, "InitialNamesAccepted", "the initial names have been accepted"
        )
    elif established.get("status") != "True":
        established = condition("Established", False, "NotAccepted", "not all names are accepted")
    names = condition("NamesAccepted", not reason, reason or "NoConflicts", message or "no conflicts found")
    ours = {"NamesAccepted": names, "Established": established}
    known = [ours.pop(each["type"], each) for each in before.get("conditions") or ()]
    return {
        "conditions": [*known, *ours.values()],
        "acceptedNames": accepted,
        "storedVersions": stored,
    }


def is_refused(crd: Mapping[str, Any]) -> bool:
    """Whether other definitions of the group have names that this one wants."""
    conditions = (crd.get("status") or {}).get("conditions") or ()
    return any(each["type"] == "NamesAccepted" and each["status"] == "False" for each in conditions)


def _accepted(
    wanted: Mapping[str, Any], had: Mapping[str, Any], others: Iterable[Mapping[str, Any]]
) -> tuple[Object, str, str]:
    """The names that the definition may have, and which of those that it wants it may not, and why."""
    words: set[str] = set()
    kinds: set[str] = set()
    for other in others:
        names = (other.get("status") or {}).get("acceptedNames") or {}
        words.update((names.get("plural", ""), names.get("singular", ""), *(names.get("shortNames") or ())))
        kinds.update((names.get("kind", ""), names.get("listKind", "")))
    accepted: Object = {key: value for key, value in had.items() if key != "categories"}
    accepted |= {key: value for key, value in wanted.items() if key == "categories"}
    reason = message = ""
    for field, taken in (("plural", words), ("singular", words), ("shortNames", words), ("kind", kinds),
                         ("listKind", kinds)):  # fmt: skip
        given, mine = wanted.get(field) or "", had.get(field) or ""
        asked = [each for each in given if each not in mine] if field == "shortNames" else [given]
        in_use = [each for each in asked if each and each != mine and each in taken]
        if in_use:
            reason = f"{field[0].upper()}{field[1:]}Conflict"
            said = [f'"{each}" is already in use' for each in in_use]
            message = said[0] if len(said) == 1 else f"[{', '.join(said)}]"
        elif given:
            accepted[field] = given
        else:
            accepted.pop(field, None)
    return accepted, reason, message
