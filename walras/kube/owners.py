"""Entries of `metadata.managedFields`: who owns which fields, by operation, version and subresource."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec

from walras.kube import fieldsets
from walras.kube.fieldsets import FieldSet
from walras.kube.registry import Resource

Object = dict[str, Any]

# What the server keeps itself belongs to nobody.
BOOKKEEPING: Final[FieldSet] = frozenset(
    [("f:apiVersion",), ("f:kind",), ("f:metadata",)]
    + [
        ("f:metadata", f"f:{name}")
        for name in (
            "name", "namespace", "creationTimestamp", "selfLink", "uid", "clusterName", "generation",
            "managedFields", "resourceVersion",
        )
    ]
)  # fmt: skip


class Who(NamedTuple):
    """What tells entries apart. An applier is the same at every apiVersion."""

    manager: str
    operation: str
    api_version: str
    subresource: str

    @property
    def identifier(self) -> str:
        """The text by which upstream knows and orders managers."""
        parts = {"manager": self.manager, "operation": self.operation, "apiVersion": self.api_version,
                 "subresource": self.subresource}  # fmt: skip
        return msgspec.json.encode({name: part for name, part in parts.items() if part}).decode()

    def __str__(self) -> str:
        name = f'"{self.manager}"'
        if self.subresource:
            name += f' with subresource "{self.subresource}"'
        return f"{name} using {self.api_version}" if self.operation == "Update" else name


@dataclass(frozen=True, slots=True)
class Owned:
    """What somebody owns, in the words of a version; `time` is a `metav1.Time`."""

    fields: FieldSet
    api_version: str
    time: str = ""


Managers = dict[Who, Owned]


def who_is(manager: str, operation: str, api_version: str, subresource: str) -> Who:
    """The manager of an entry, told from others."""
    return Who(manager, operation, "" if operation == "Apply" else api_version, subresource)


def decode(entries: Any) -> Managers:
    """The entries by who owns. Raises ValueError."""
    managers: Managers = {}
    for index, entry in enumerate(entries or ()):
        if not isinstance(entry, dict):
            raise ValueError("an entry must be an object")
        operation, api_version = entry.get("operation", ""), entry.get("apiVersion", "")
        if operation not in ("Apply", "Update"):
            raise ValueError("operation must be `Apply` or `Update`")
        if not api_version:
            raise ValueError("apiVersion must not be empty")
        if entry.get("fieldsType") != "FieldsV1":
            raise ValueError(
                f'invalid fieldsType "{entry.get("fieldsType")}" in managed fields entry {index}'
            )
        who = who_is(entry.get("manager", ""), operation, api_version, entry.get("subresource", ""))
        given = entry.get("fieldsV1") or {}
        if not isinstance(given, dict):
            raise ValueError("fieldsV1 must be an object")
        fields = fieldsets.decode(given)
        managers[who] = Owned(fields, api_version, entry.get("time") or "")
    return managers


def held_in(obj: Object | None) -> Managers:
    """The managers of a stored object; none where its entries cannot be read."""
    try:
        return decode(((obj or {}).get("metadata") or {}).get("managedFields"))
    except ValueError:
        return {}


def is_of(resource: Resource, owned: Owned) -> bool:
    """Whether the entry is of a version of the resource's group; fields of others mean nothing here."""
    return owned.api_version.rpartition("/")[0] == resource.group


def write(obj: Object, managers: Managers) -> None:
    """Writes the entries into the object's metadata, in place, in upstream's order."""
    if obj.get("metadata") is None:
        obj["metadata"] = {}
    metadata = obj["metadata"]
    metadata.pop("managedFields", None)
    order = sorted(
        managers.items(),
        key=lambda held: (
            held[0].operation, held[1].time, held[0].manager, held[1].api_version, held[0].subresource,
        ),
    )  # fmt: skip
    if order:
        metadata["managedFields"] = [_entry(who, owned) for who, owned in order]


def _entry(who: Who, owned: Owned) -> Object:
    entry: Object = {
        "manager": who.manager,
        "operation": who.operation,
        "apiVersion": owned.api_version,
        "time": owned.time,
        "fieldsType": "FieldsV1",
        "fieldsV1": fieldsets.encode(owned.fields),
        "subresource": who.subresource,
    }
    return {key: value for key, value in entry.items() if value != ""}
