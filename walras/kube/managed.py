"""Field ownership: `metadata.managedFields` on every write, and server-side apply (KEP-555)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import msgspec

from walras.core.errors import BadRequest, Cause, Conflict, Unclassified
from walras.kube import fieldsets, shapes, structs
from walras.kube.fieldsets import FieldSet, Path
from walras.kube.patch import copied, same, without_nulls
from walras.kube.registry import Resource
from walras.kube.typed import (
    Comparison,
    Type,
    compare,
    fields_of,
    merge,
    object_type,
    remove,
    with_named_prefixes,
)

Object = dict[str, Any]

UPDATE_MANAGERS_MAX: Final = 10
_ANCIENT: Final = "ancient-changes"
_BEFORE: Final = "before-first-apply"
_KUBECTL: Final = "kubectl"
LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
_ANNOTATIONS_BYTES_MAX: Final = 256 * 1024

# What the server keeps itself belongs to nobody.
_BOOKKEEPING: Final[FieldSet] = frozenset(
    [("f:apiVersion",), ("f:kind",), ("f:metadata",)]
    + [
        ("f:metadata", f"f:{name}")
        for name in (
            "name", "namespace", "creationTimestamp", "selfLink", "uid", "clusterName", "generation",
            "managedFields", "resourceVersion",
        )
    ]
)  # fmt: skip


class _Who(NamedTuple):
    """What tells entries apart. An applier is the same at every apiVersion."""

    manager: str
    operation: str
    api_version: str
    subresource: str

    def __str__(self) -> str:
        name = f'"{self.manager}"'
        if self.subresource:
            name += f' with subresource "{self.subresource}"'
        return f"{name} using {self.api_version}" if self.operation == "Update" else name


@dataclass(frozen=True, slots=True)
class _Owned:
    fields: FieldSet
    api_version: str
    time: str = ""


_Managers = dict[_Who, _Owned]


def _who(manager: str, operation: str, api_version: str, subresource: str) -> _Who:
    return _Who(manager, operation, "" if operation == "Apply" else api_version, subresource)


def _decode(entries: Any) -> _Managers:
    """The entries by who owns. Raises ValueError."""
    managers: _Managers = {}
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
        who = _who(entry.get("manager", ""), operation, api_version, entry.get("subresource", ""))
        fields = fieldsets.decode(entry.get("fieldsV1") or {})
        managers[who] = _Owned(fields, api_version, entry.get("time") or "")
    return managers


def _held(obj: Object | None) -> _Managers:
    """The managers of a stored object; none where its entries cannot be read."""
    try:
        return _decode(((obj or {}).get("metadata") or {}).get("managedFields"))
    except ValueError:
        return {}


def _is_of(resource: Resource, owned: _Owned) -> bool:
    """Whether the entry is of a version of the resource's group; fields of others mean nothing here."""
    return owned.api_version.rpartition("/")[0] == resource.group


def _write(obj: Object, managers: _Managers) -> None:
    metadata = obj.setdefault("metadata", {})
    metadata.pop("managedFields", None)
    order = sorted(
        managers.items(),
        key=lambda held: (
            held[0].operation, held[1].time, held[0].manager, held[1].api_version, held[0].subresource,
        ),
    )  # fmt: skip
    if order:
        metadata["managedFields"] = [_entry(who, owned) for who, owned in order]


def _entry(who: _Who, owned: _Owned) -> Object:
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


# The server completes what is asked for, and then nobody may change it.
_REQUESTS: Final = "certificatesigningrequests.certificates.k8s.io"


# The fields of new objects by type and shape, to be read only: agents make thousands that differ in values.
_FIRST: Final[dict[tuple[str, str, bytes], Object]] = {}
_FIRST_MAX: Final = 1024


def _filtered(resource: Resource, subresource: str, fields: Iterable[Path]) -> FieldSet:
    """Without what a request to this (sub)resource cannot write."""
    if resource.key == _REQUESTS and not subresource:
        fields = fieldsets.without(frozenset(fields), [("f:spec",)])
    if subresource == "status":
        if not resource.builtin:
            return frozenset(path for path in fields if path[0] == "f:status")
        return fieldsets.without(frozenset(fields), [("f:spec",)])
    if not subresource and resource.has_status:
        return fieldsets.without(frozenset(fields), [("f:status",)])
    return frozenset(fields)


def _compared(resource: Resource, subresource: str, old: Object, new: Object) -> Comparison:
    if resource.builtin:
        # Structs held by value and zero values that are always written are no change.
        old, new = structs.completed(resource.schema, old), structs.completed(resource.schema, new)
    try:
        found = compare(object_type(resource.schema), old, new)
    except ValueError as error:
        raise BadRequest(f"failed to compare objects: {error}") from None
    return Comparison(
        *(
            set(_filtered(resource, subresource, part))
            for part in (found.added, found.removed, found.modified)
        )
    )


def record(
    resource: Resource,
    old: Object | None,
    new: Object,
    *,
    manager: str,
    operation: str = "Update",
    subresource: str = "",
    now: str,
) -> None:
    """Writes `new`'s managedFields, in place: `manager` owns what it changed since `old` (None on create).

    The entries that the client sends are taken where they can be read, so that it can edit them; an empty
    list gives up tracking. An object without entries stays without, as in Kubernetes. `now` is a
    `metav1.Time`.
    """
    assert operation == "Update", "apply() records what is applied"
    sent = (new.get("metadata") or {}).get("managedFields")
    managers = _held(old)
    if not subresource:
        if sent in ([], [{}]):
            managers = {}
        elif sent:
            sent_ones = {who: owned for who, owned in _held(new).items() if _is_of(resource, owned)}
            managers = sent_ones or managers
    if old is not None and not managers:
        _write(new, {})
        return
    try:
        if old is None and not managers and resource.builtin and not subresource:
            _write_first(resource, new, manager, now)
        else:
            _write(new, _updated(resource, old, new, managers, manager, subresource, now))
    except BadRequest:
        # What cannot be compared is for validation to refuse; nobody is told to own it.
        _write(new, {})


def _write_first(resource: Resource, new: Object, manager: str, now: str) -> None:
    """The entry of whoever makes an object: for objects of one shape it owns the same fields."""
    new.get("metadata", {}).pop("managedFields", None)
    shape = shapes.of(new)
    first = (resource.key, resource.version, shape)
    known = _FIRST.get(first) if shape else None
    if known is None:
        _write(new, _updated(resource, None, new, {}, manager, "", now))
        entries = new["metadata"].get("managedFields")
        if shape and entries:
            if len(_FIRST) >= _FIRST_MAX:
                _FIRST.clear()
            _FIRST[first] = entries[0]["fieldsV1"]
        return
    who = _who(manager or "unknown", "Update", resource.api_version, "")
    new["metadata"]["managedFields"] = [
        {
            "manager": who.manager,
            "operation": who.operation,
            "apiVersion": resource.api_version,
            "time": now,
            "fieldsType": "FieldsV1",
            "fieldsV1": known,
        }
    ]


def _updated(
    resource: Resource,
    old: Object | None,
    new: Object,
    managers: _Managers,
    manager: str,
    subresource: str,
    now: str,
) -> _Managers:
    change = _compared(resource, subresource, old or {}, new)
    changed = change.added | change.modified
    gone = changed | change.removed
    kept = {who: replace(owned, fields=owned.fields - gone) for who, owned in managers.items()}
    mine = frozenset(changed) - _BOOKKEEPING
    if mine:
        who = _who(manager or "unknown", "Update", resource.api_version, subresource)
        known = kept.get(who)
        before, time = (known.fields, known.time) if known else (fieldsets.EMPTY, "")
        # Upstream, too, gives what is owned through a scale no time.
        time = time if subresource == "scale" else now
        kept[who] = _Owned(mine | before, resource.api_version, time)
    return _capped({who: owned for who, owned in kept.items() if owned.fields})


def _capped(managers: _Managers) -> _Managers:
    """Merges the oldest of too many updaters into one."""
    if len(managers) <= UPDATE_MANAGERS_MAX:
        return managers
    updaters = sorted(
        (who for who in managers if who.operation == "Update"), key=lambda who: (managers[who].time, who)
    )
    excess = len(updaters) - UPDATE_MANAGERS_MAX
    if excess <= 0:
        return managers
    # Merging n entries makes them one, so one more than the excess goes.
    oldest = updaters[: excess + 1]
    fields = frozenset().union(*(managers[who].fields for who in oldest))
    api_version, time = managers[oldest[-1]].api_version, managers[oldest[-1]].time
    rest = {who: owned for who, owned in managers.items() if who not in oldest}
    bucket = _who(_ANCIENT, "Update", api_version, "")
    if bucket in rest:
        fields |= rest[bucket].fields
    rest[bucket] = _Owned(fields, api_version, time)
    return rest


def apply(
    resource: Resource,
    live: Object | None,
    applied: Object,
    *,
    manager: str,
    force: bool,
    subresource: str = "",
    now: str,
) -> Object:
    """The object after `manager` applied its configuration; equal to `live` where that changes nothing.

    Fields that the manager applied before and leaves out now are removed unless somebody else owns them.
    Raises Conflict with a cause of reason FieldManagerConflict for each field that another manager owns and
    this would change, unless `force`; Unclassified for a configuration that does not fit the schema.
    """
    _check(resource, applied)
    managers = _held(live)
    if live is not None and not managers:
        managers = _updated(resource, None, live, {}, _BEFORE, subresource, now)
    config = without_nulls(applied) if resource.builtin else applied
    task = _Apply(resource, subresource, live or {}, config, _who(manager, "Apply", "", subresource))
    try:
        result, owners = task.run(managers, force, now)
    except Conflict as conflict:
        # kubectl takes over what it applied on the client's side before.
        if manager != _KUBECTL or not task.conflicts <= _last_applied(resource, live or {}):
            raise conflict
        result, owners = task.run(managers, True, now)
    _write(result, owners)
    if manager == _KUBECTL:
        _note_last_applied(result, applied)
    return result


def _check(resource: Resource, applied: Object) -> None:
    version = applied.get("apiVersion", "")
    if version != resource.api_version:
        raise BadRequest(
            "Incorrect version specified in apply patch. "
            f"Specified patch version: {version}, expected: {resource.api_version}"
        )
    metadata = applied.get("metadata") or {}
    if isinstance(metadata, dict) and metadata.get("managedFields") is not None:
        raise BadRequest("metadata.managedFields must be nil")


@dataclass(slots=True)
class _Apply:
    """One configuration on its way into one live object."""

    resource: Resource
    subresource: str
    live: Object
    config: Object
    who: _Who
    conflicts: FieldSet = fieldsets.EMPTY

    def run(self, managers: _Managers, force: bool, now: str) -> tuple[Object, _Managers]:
        root = object_type(self.resource.schema)
        try:
            sets = _filtered(self.resource, self.subresource, fields_of(root, self.config, strict=True))
            merged = merge(root, self.live, self.config)
        except ValueError as error:
            raise Unclassified(f"failed to create typed patch object ({self.names()}): {error}") from None
        before = managers.get(self.who)
        owners = {**managers, self.who: _Owned(sets, self.resource.api_version)}
        last = before.fields if before else fieldsets.EMPTY
        result = _pruned(root, merged, last, owners)
        change = _compared(self.resource, self.subresource, self.live, result)
        changed = frozenset(change.added | change.modified)
        others = {who: owned for who, owned in managers.items() if who != self.who}
        self.refuse_conflicts({who: owned.fields & changed for who, owned in others.items()}, force)
        gone = changed | change.removed
        kept = {who: replace(owned, fields=owned.fields - gone) for who, owned in others.items()}
        unchanged = same(result, self.live)
        time = (before.time if before else "") if unchanged else now
        kept[self.who] = _Owned(sets - _BOOKKEEPING, self.resource.api_version, time)
        return result, {who: owned for who, owned in kept.items() if owned.fields}

    def names(self) -> str:
        metadata, resource = self.config.get("metadata") or {}, self.resource
        metadata = metadata if isinstance(metadata, dict) else {}
        kind = f"{resource.group}/{resource.version}, Kind={resource.kind}"
        return f"{metadata.get('namespace', '')}/{metadata.get('name', '')}; {kind}"

    def refuse_conflicts(self, conflicts: dict[_Who, FieldSet], force: bool) -> None:
        """Raises Conflict with every manager and field, in Kubernetes' words."""
        self.conflicts = frozenset().union(*conflicts.values())
        if force or not self.conflicts:
            return
        held = [
            (who, path)
            for who in sorted(conflicts)
            for path in sorted(conflicts[who], key=fieldsets.iteration_key)
        ]
        causes = tuple(
            Cause("FieldManagerConflict", f"conflict with {who}", fieldsets.text(path)) for who, path in held
        )
        if len(held) == 1:
            who, path = held[0]
            raise Conflict(
                f"Apply failed with 1 conflict: conflict with {who}: {fieldsets.text(path)}", causes=causes
            )
        lines = []
        for who in sorted(conflicts):
            if conflicts[who]:
                lines.append(f"conflicts with {who}:")
                lines += [f"- {fieldsets.text(path)}" for owner, path in held if owner == who]
        raise Conflict(f"Apply failed with {len(held)} conflicts: " + "\n".join(lines), causes=causes)


def _pruned(root: Type, merged: Object, last: FieldSet, owners: _Managers) -> Object:
    """`merged` without what was applied last time and nobody owns any more."""
    if not last:
        return merged
    have = with_named_prefixes(root, fields_of(root, merged))
    owned = with_named_prefixes(root, frozenset().union(*(held.fields for held in owners.values())))
    last = with_named_prefixes(root, last)
    pruned = remove(root, merged, last)
    # Removing an element took what others own in it along; that comes back.
    left = with_named_prefixes(root, fields_of(root, pruned))
    pruned = remove(root, merged, have - (left | owned))
    left = with_named_prefixes(root, fields_of(root, pruned))
    # And what nobody owns is not this manager's to remove.
    return remove(root, merged, (have - left) & last)


def _last_applied(resource: Resource, live: Object) -> FieldSet:
    """What client-side apply set last and the object still has."""
    annotation = ((live.get("metadata") or {}).get("annotations") or {}).get(LAST_APPLIED, "")
    root = object_type(resource.schema)
    try:
        config = msgspec.json.decode(annotation)
        if not isinstance(config, dict) or config.get("apiVersion") != resource.api_version:
            return fieldsets.EMPTY
        change = compare(root, config, live)
        return fields_of(root, config) - change.modified - change.added - change.removed
    except (ValueError, msgspec.DecodeError):
        return fieldsets.EMPTY


def _note_last_applied(result: Object, applied: Object) -> None:
    """Keeps client-side apply's annotation, where there is one, in step."""
    annotations = (result.get("metadata") or {}).get("annotations") or {}
    if not annotations.get(LAST_APPLIED):
        return
    config = copied(applied)
    (config["metadata"].get("annotations") or {}).pop(LAST_APPLIED, None)
    annotations[LAST_APPLIED] = msgspec.json.encode(config, order="sorted").decode() + "\n"
    if sum(len(key) + len(value.encode()) for key, value in annotations.items()) > _ANNOTATIONS_BYTES_MAX:
        del annotations[LAST_APPLIED]
