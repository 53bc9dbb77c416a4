"""Field ownership: `metadata.managedFields` on every write but server-side apply, which is in applying.py."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Final

from walras.core.errors import BadRequest
from walras.kube import fieldsets, shapes, strategies, structs
from walras.kube.fieldsets import FieldSet, Path
from walras.kube.objects import PODS
from walras.kube.owners import BOOKKEEPING, Managers, Owned, held_in, is_of, who_is, write
from walras.kube.policy import GROUP
from walras.kube.registry import Resource
from walras.kube.typed import Comparison, compare, object_type

Object = dict[str, Any]
# An object of another version of the type, by its apiVersion; None where there is none to compare.
Elsewhere = Callable[[Object, str], tuple[Resource, Object] | None]

UPDATE_MANAGERS_MAX: Final = 10
_ANCIENT: Final = "ancient-changes"

_METADATA: Final = ("labels", "annotations", "finalizers", "ownerReferences")
# The server completes what is asked for, and then nobody may change it.
_REQUESTS: Final = "certificatesigningrequests.certificates.k8s.io"


# The fields of new objects by type and shape, to be read only: agents make thousands that differ in values.
_FIRST: Final[dict[tuple[str, str, bytes], Object]] = {}
_FIRST_MAX: Final = 1024


def filtered(resource: Resource, subresource: str, fields: Iterable[Path]) -> FieldSet:
    """The fields without what a request to this (sub)resource cannot write."""
    if resource.key == _REQUESTS and not subresource:
        fields = fieldsets.without(frozenset(fields), [("f:spec",)])
    if subresource == "status":
        if not resource.builtin:
            return frozenset(path for path in fields if path[0] == "f:status")
        kept = strategies.metadata_of_status(resource)
        reset = [("f:metadata", f"f:{name}") for name in _METADATA if name not in kept]
        if resource.key == PODS:
            reset.append(("f:metadata", "f:deletionTimestamp"))
        return fieldsets.without(frozenset(fields), [("f:spec",), *reset])
    if not subresource and resource.has_status:
        return fieldsets.without(frozenset(fields), [("f:status",)])
    return frozenset(fields)


def compared(resource: Resource, subresource: str, old: Object, new: Object) -> Comparison:
    """What differs of that which a request to this (sub)resource can write. Raises BadRequest."""
    if resource.builtin:
        # Structs held by value and zero values that are always written are no change.
        old, new = structs.completed(resource.schema, old), structs.completed(resource.schema, new)
    try:
        found = compare(object_type(resource.schema), old, new)
    except ValueError as error:
        raise BadRequest(f"failed to compare objects: {error}") from None
    return Comparison(
        *(set(filtered(resource, subresource, part)) for part in (found.added, found.removed, found.modified))
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
    elsewhere: Elsewhere | None = None,
) -> None:
    """Writes `new`'s managedFields, in place: `manager` owns what it changed since `old` (None on create).

    The entries that the client sends are taken where they can be read, so that it can edit them; an empty
    list gives up tracking. An object without entries stays without, as in Kubernetes. `now` is a
    `metav1.Time`. Where a webhook converts, `elsewhere` says what a change is to managers in other versions.
    """
    assert operation == "Update", "apply() records what is applied"
    sent = (new.get("metadata") or {}).get("managedFields")
    managers = held_in(old)
    given: Managers = {}
    if not subresource:
        if sent == [{}] or (sent == [] and resource.builtin):
            managers = {}
        elif sent:
            given = held_in(new)
            known = {who: owned for who, owned in given.items() if is_of(resource, owned)}
            if not resource.builtin and len(known) < len(given):
                # Upstream cannot convert to what they are about, and then tells nobody to own anything.
                write(new, {})
                return
            if given:
                # What is of another group is nobody's, but the object stays one whose fields are owned.
                managers = known
    if old is not None and not managers and not given:
        write(new, {})
        return
    try:
        # Types that are the same in every cluster, for as long as the process runs.
        is_fixed = resource.builtin or resource.group == GROUP
        if old is None and not managers and is_fixed and not subresource:
            _write_first(resource, new, manager, now)
        else:
            changes = Changes(resource, subresource, old or {}, new, elsewhere)
            write(new, updated(changes, managers, manager, now))
    except BadRequest:
        # What cannot be compared is for validation to refuse; nobody is told to own it.
        write(new, {})


def _write_first(resource: Resource, new: Object, manager: str, now: str) -> None:
    """The entry of whoever makes an object: for objects of one shape it owns the same fields."""
    new.get("metadata", {}).pop("managedFields", None)
    shape = shapes.of(new)
    first = (resource.key, resource.version, shape)
    known = _FIRST.get(first) if shape else None
    if known is None:
        write(new, updated(Changes(resource, "", {}, new), {}, manager, now))
        entries = new["metadata"].get("managedFields")
        if shape and entries:
            if len(_FIRST) >= _FIRST_MAX:
                _FIRST.clear()
            _FIRST[first] = entries[0]["fieldsV1"]
        return
    who = who_is(manager or "unknown", "Update", resource.api_version, "")
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


class Changes:
    """What differs between two states, in the words of each version that fields are owned in."""

    def __init__(
        self,
        resource: Resource,
        subresource: str,
        old: Object,
        new: Object,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self.resource = resource
        self.subresource = subresource
        self._old, self._new, self._elsewhere = old, new, elsewhere
        self.here = compared(resource, subresource, old, new)
        self._known: dict[str, Comparison | None] = {resource.api_version: self.here}

    def at(self, api_version: str) -> Comparison | None:
        """None where nothing can be said of the version."""
        if self._elsewhere is None:
            return self.here
        if api_version not in self._known:
            old = self._elsewhere(self._old, api_version) if self._old else None
            new = self._elsewhere(self._new, api_version)
            self._known[api_version] = new and compared(
                new[0], self.subresource, old[1] if old else {}, new[1]
            )
        return self._known[api_version]

    def changed(self, owned: Owned) -> FieldSet:
        """Which of the fields are there now and were not, or otherwise."""
        found = self.at(owned.api_version)
        return owned.fields & (found.added | found.modified) if found else fieldsets.EMPTY

    def said(self, fields: FieldSet) -> FieldSet:
        """Those of the fields, of structs in structs, that are something else than 0 now."""
        found = set()
        for path in fields:
            value: Any = self._new
            for element in path:
                value = value.get(element[2:]) if isinstance(value, dict) else None
            if value:
                found.add(path)
        return frozenset(found)

    def left(self, owned: Owned) -> Owned:
        """What the change leaves of what somebody else owns."""
        found = self.at(owned.api_version)
        if found is None:
            return owned
        return replace(owned, fields=owned.fields - found.added - found.modified - found.removed)


def updated(changes: Changes, managers: Managers, manager: str, now: str) -> Managers:
    """Who owns what after `manager` made the changes."""
    resource, subresource = changes.resource, changes.subresource
    kept = {who: changes.left(owned) for who, owned in managers.items()}
    changed = changes.here.added | changes.here.modified
    mine = frozenset(changed) - BOOKKEEPING
    if subresource == "scale":
        # A scale of nothing is one without the field, of which nobody is told to own anything.
        mine = changes.said(mine)
    if mine:
        who = who_is(manager or "unknown", "Update", resource.api_version, subresource)
        known = kept.get(who)
        before, time = (known.fields, known.time) if known else (fieldsets.EMPTY, "")
        # Upstream, too, gives what is owned through a scale no time.
        time = time if subresource == "scale" else now
        kept[who] = Owned(mine | before, resource.api_version, time)
    return _capped({who: owned for who, owned in kept.items() if owned.fields})


def _capped(managers: Managers) -> Managers:
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
    bucket = who_is(_ANCIENT, "Update", api_version, "")
    if bucket in rest:
        fields |= rest[bucket].fields
    rest[bucket] = Owned(fields, api_version, time)
    return rest
