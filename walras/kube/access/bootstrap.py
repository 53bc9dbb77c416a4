"""The roles and bindings that every cluster has from its first moment: made once, stored in none."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Final

import msgspec
import yaml

from walras.kube.access.words import (
    AGGREGATE,
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    GROUP,
    ROLE_BINDINGS,
    ROLES,
    Object,
    Rule,
)
from walras.kube.record import Key, Record

# What a cluster's first revision is; nothing stored has it.
REVISION: Final = 1
LABELS: Final = {"kubernetes.io/bootstrapping": "rbac-defaults"}
_AUTOUPDATE: Final = {"rbac.authorization.kubernetes.io/autoupdate": "true"}
_KINDS: Final = {
    CLUSTER_ROLES: "ClusterRole",
    ROLES: "Role",
    CLUSTER_ROLE_BINDINGS: "ClusterRoleBinding",
    ROLE_BINDINGS: "RoleBinding",
}
_VERBS: Final = {
    "read": ("get", "list", "watch"),
    "write": ("create", "delete", "deletecollection", "patch", "update"),
}
# So that the same object has the same uid in every process.
_UIDS: Final = uuid.UUID("6f0a1c8e-7d3b-5c7e-9b53-0d5a6f6b2f11")
Table = Mapping[str, Mapping[tuple[str, str], Record]]


def records(created: str) -> Table:
    """By resource and (namespace, name), all made at the time `created`, for all clusters to share."""
    return recorded(_objects(), created)


def recorded(objects: Iterable[tuple[str, Object]], created: str) -> Table:
    """The records of (resource, object) without what the server adds."""
    table: dict[str, dict[tuple[str, str], Record]] = {}
    for resource, obj in objects:
        namespace, name = obj["metadata"].get("namespace", ""), obj["metadata"]["name"]
        uid = str(uuid.uuid5(_UIDS, f"{resource}/{namespace}/{name}"))
        metadata = {**obj["metadata"], "uid": uid, "creationTimestamp": created}
        where = Key("", resource, namespace, name)
        record = Record.of(where, REVISION, {**obj, "metadata": metadata})
        table.setdefault(resource, {})[namespace, name] = record
    return table


@cache
def _objects() -> tuple[tuple[str, Object], ...]:
    """(resource, object) of each, without what the server adds."""
    text = files("walras.kube.access").joinpath("bootstrap.yaml").read_bytes()
    return tuple(_read(yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))))  # noqa: S506


def _read(table: Mapping[str, Any]) -> Iterator[tuple[str, Object]]:
    rules: dict[str, list[Rule]] = {
        name: [_rule(line) for line in lines] for name, lines in table["clusterRoles"].items()
    }
    labels: Mapping[str, str] = table["aggregates"]
    for name in table["aggregated"]:
        rules[name] = _union(rules[each] for each in sorted(rules) if labels.get(each) == name)
    for name, wanted in sorted(rules.items()):
        role = _object(CLUSTER_ROLES, name, {f"{AGGREGATE}{labels[name]}": "true"} if name in labels else {})
        if name in table["aggregated"]:
            role["aggregationRule"] = {
                "clusterRoleSelectors": [{"matchLabels": {f"{AGGREGATE}{name}": "true"}}]
            }
        yield CLUSTER_ROLES, {**role, "rules": wanted}
    for where, lines in table["roles"].items():
        yield ROLES, {**_object(ROLES, where, {}), "rules": [_rule(line) for line in lines]}
    for resource in (CLUSTER_ROLE_BINDINGS, ROLE_BINDINGS):
        part = "clusterRoleBindings" if resource == CLUSTER_ROLE_BINDINGS else "roleBindings"
        for where, subjects in table[part].items():
            yield resource, _binding(resource, where, subjects)


def _object(resource: str, where: str, labels: Mapping[str, str]) -> Object:
    namespace, _, name = where.rpartition("/")
    metadata: Object = {"name": name, "labels": {**LABELS, **labels}, "annotations": _AUTOUPDATE}
    if namespace:
        metadata["namespace"] = namespace
    return {"apiVersion": f"{GROUP}/v1", "kind": _KINDS[resource], "metadata": metadata}


def _rule(line: str) -> Rule:
    groups, resources, names, verbs = (part.split() for part in line.split("|"))
    rule: Rule = {"verbs": [each for verb in verbs for each in _VERBS.get(verb, (verb,))]}
    if not groups:
        return {**rule, "nonResourceURLs": resources}
    rule |= {"apiGroups": ["" if group == "core" else group for group in groups], "resources": resources}
    return {**rule, "resourceNames": names} if names else rule


def _union(roles: Iterator[list[Rule]]) -> list[Rule]:
    found: dict[bytes, Rule] = {}
    for rules in roles:
        for rule in rules:
            found.setdefault(msgspec.json.encode(rule), rule)
    return list(found.values())


def _binding(resource: str, where: str, lines: list[str]) -> Object:
    role = where.rpartition("/")[2]
    subjects = []
    for kind, _, name in (line.partition(" ") for line in lines):
        if kind == "=":
            role = name
        elif kind == "ServiceAccount":
            namespace, _, account = name.partition("/")
            subjects.append({"kind": kind, "namespace": namespace, "name": account})
        else:
            subjects.append({"apiGroup": GROUP, "kind": kind, "name": name})
    kind = "ClusterRole" if resource == CLUSTER_ROLE_BINDINGS else "Role"
    binding = _object(resource, where, {}) | {"roleRef": {"apiGroup": GROUP, "kind": kind, "name": role}}
    return {**binding, "subjects": subjects} if subjects else binding
