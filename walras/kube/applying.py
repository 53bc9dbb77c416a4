"""Server-side apply (KEP-555): a configuration merged into an object, and who owns what of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgspec

from walras.core.errors import BadRequest, Cause, Conflict, Unclassified
from walras.kube import fieldsets
from walras.kube.fieldsets import FieldSet
from walras.kube.managed import Changes, Elsewhere, filtered, updated
from walras.kube.owners import BOOKKEEPING, Managers, Owned, Who, held_in, who_is, write
from walras.kube.patch import copied, same
from walras.kube.record import parse
from walras.kube.registry import Resource
from walras.kube.typed import Type, compare, fields_of, merge, object_type, remove, with_named_prefixes

Object = dict[str, Any]

LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
_BEFORE: Final = "before-first-apply"
_KUBECTL: Final = "kubectl"
_ANNOTATIONS_BYTES_MAX: Final = 256 * 1024


def apply(
    resource: Resource,
    live: Object | None,
    applied: Object,
    *,
    manager: str,
    force: bool,
    subresource: str = "",
    now: str,
    elsewhere: Elsewhere | None = None,
) -> Object:
    """The object after `manager` applied its configuration; equal to `live` where that changes nothing.

    Fields that the manager applied before and leaves out now are removed unless somebody else owns them.
    Raises Conflict with a cause of reason FieldManagerConflict for each field that another manager owns and
    this would change, unless `force`; Unclassified for a configuration that does not fit the schema.
    """
    _check(resource, applied)
    if not resource.builtin:
        applied = _without_creation(applied)
    managers = held_in(live)
    if live is not None and not managers:
        managers = updated(Changes(resource, subresource, {}, live), {}, _BEFORE, now)
    who = who_is(manager, "Apply", "", subresource)
    task = _Apply(resource, subresource, live or {}, applied, who, elsewhere)
    try:
        result, owners = task.run(managers, force, now)
    except Conflict as conflict:
        # kubectl takes over what it applied on the client's side before.
        if manager != _KUBECTL or not task.conflicts <= _last_applied(resource, live or {}):
            raise conflict
        result, owners = task.run(managers, True, now)
    write(result, owners)
    if manager == _KUBECTL:
        _note_last_applied(result, applied)
    return result


def _without_creation(applied: Object) -> Object:
    """The configuration without the time of a creation, which upstream takes out whatever it is."""
    metadata = applied.get("metadata")
    if not isinstance(metadata, dict) or "creationTimestamp" not in metadata:
        return applied
    kept = {name: value for name, value in metadata.items() if name != "creationTimestamp"}
    return {**applied, "metadata": kept}


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
    who: Who
    elsewhere: Elsewhere | None = None
    conflicts: FieldSet = fieldsets.EMPTY

    def run(self, managers: Managers, force: bool, now: str) -> tuple[Object, Managers]:
        root = object_type(self.resource.schema)
        try:
            sets = filtered(self.resource, self.subresource, fields_of(root, self.config, strict=True))
            merged = merge(root, self.live, self.config)
        except ValueError as error:
            raise Unclassified(
                f"failed to create typed patch object ({_names(self.resource, self.config)}): {error}"
            ) from None
        before = managers.get(self.who)
        owners = {**managers, self.who: Owned(sets, self.resource.api_version)}
        result = self.pruned(merged, before, owners)
        changes = Changes(self.resource, self.subresource, self.live, result, self.elsewhere)
        others = {who: owned for who, owned in managers.items() if who != self.who}
        self.refuse_conflicts({who: changes.changed(owned) for who, owned in others.items()}, force)
        kept = {who: changes.left(owned) for who, owned in others.items()}
        unchanged = same(result, self.live)
        time = (before.time if before else "") if unchanged else now
        kept[self.who] = Owned(sets - BOOKKEEPING, self.resource.api_version, time)
        return result, {who: owned for who, owned in kept.items() if owned.fields}

    def pruned(self, merged: Object, before: Owned | None, owners: Managers) -> Object:
        """`merged` without what was applied last time and nobody owns any more.

        Where a webhook converts, that is looked up in the version in which it was applied, and what others
        own is put back in each of theirs.
        """
        if before is None or not before.fields:
            return merged
        if self.elsewhere is None:
            root, last = object_type(self.resource.schema), before.fields
            owned = frozenset().union(*(held.fields for held in owners.values()))
            left = remove(root, merged, with_named_prefixes(root, last))
            return _only(root, merged, _put_back(root, merged, left, owned), last)
        return self.pruned_elsewhere(self.elsewhere, merged, before, owners)

    def pruned_elsewhere(
        self, elsewhere: Elsewhere, merged: Object, before: Owned, owners: Managers
    ) -> Object:
        at: dict[str, FieldSet] = {}
        for held in owners.values():
            at[held.api_version] = at.get(held.api_version, fieldsets.EMPTY) | held.fields
        start = elsewhere(merged, before.api_version)
        if start is None:
            return merged
        resource, whole = start
        root = object_type(resource.schema)
        left = remove(root, whole, with_named_prefixes(root, before.fields))
        # That version first: what it needs to be converted at all is put back before it is.
        for version in sorted(at, key=lambda each: (each != before.api_version, each)):
            found, rest = elsewhere(whole, version), elsewhere(left, version)
            if found is not None and rest is not None:
                whole, left = found[1], rest[1]
                left = _put_back(object_type(found[0].schema), whole, left, at[version])
        found, rest = elsewhere(whole, before.api_version), elsewhere(left, before.api_version)
        assert found is not None and rest is not None, "the version was there before"
        back = elsewhere(_only(root, found[1], rest[1], before.fields), self.resource.api_version)
        return merged if back is None else back[1]

    def refuse_conflicts(self, conflicts: dict[Who, FieldSet], force: bool) -> None:
        """Raises Conflict with every manager and field, in Kubernetes' words."""
        self.conflicts = frozenset().union(*conflicts.values())
        if force or not self.conflicts:
            return
        order = sorted(conflicts, key=lambda who: who.identifier)
        held = [(who, path) for who in order for path in sorted(conflicts[who], key=fieldsets.iteration_key)]
        causes = tuple(
            Cause("FieldManagerConflict", f"conflict with {who}", fieldsets.text(path)) for who, path in held
        )
        if len(held) == 1:
            who, path = held[0]
            raise Conflict(
                f"Apply failed with 1 conflict: conflict with {who}: {fieldsets.text(path)}", causes=causes
            )
        lines = []
        for who in order:
            if conflicts[who]:
                lines.append(f"conflicts with {who}:")
                lines += [f"- {fieldsets.text(path)}" for owner, path in held if owner == who]
        raise Conflict(f"Apply failed with {len(held)} conflicts: " + "\n".join(lines), causes=causes)


def _names(resource: Resource, config: Object) -> str:
    metadata = config.get("metadata") or {}
    metadata = metadata if isinstance(metadata, dict) else {}
    return f"{metadata.get('namespace', '')}/{metadata.get('name', '')}; {_kind(resource)}"


def _kind(resource: Resource) -> str:
    return f"{resource.group}/{resource.version}, Kind={resource.kind}"


def unconverted(resource: Resource, applied: Object, why: str) -> str:
    """What upstream says of a configuration that fits the schema and cannot be put into its struct."""
    to = f"to proper version: unable to convert unstructured object to {_kind(resource)}"
    return f"failed to convert new object ({_names(resource, applied)}) {to}: {why}"


def _put_back(root: Type, whole: Object, pruned: Object, owned: FieldSet) -> Object:
    """`whole` as far as `pruned` has it or it is owned: an element that went took what others own along."""
    have = with_named_prefixes(root, fields_of(root, whole))
    left = with_named_prefixes(root, fields_of(root, pruned))
    return remove(root, whole, have - (left | with_named_prefixes(root, owned)))


def _only(root: Type, whole: Object, pruned: Object, last: FieldSet) -> Object:
    """`whole` without what `pruned` lacks of what was applied last: no more is this manager's to remove."""
    have = with_named_prefixes(root, fields_of(root, whole))
    left = with_named_prefixes(root, fields_of(root, pruned))
    return remove(root, whole, (have - left) & with_named_prefixes(root, last))


def _last_applied(resource: Resource, live: Object) -> FieldSet:
    """What client-side apply set last and the object still has."""
    annotation = ((live.get("metadata") or {}).get("annotations") or {}).get(LAST_APPLIED, "")
    root = object_type(resource.schema)
    try:
        config = parse(annotation)
        if not isinstance(config, dict) or config.get("apiVersion") != resource.api_version:
            return fieldsets.EMPTY
        change = compare(root, config, live)
        return fields_of(root, config) - change.modified - change.added - change.removed
    except ValueError:
        return fieldsets.EMPTY


def _note_last_applied(result: Object, applied: Object) -> None:
    """Keeps client-side apply's annotation, where there is one, in step."""
    annotations = (result.get("metadata") or {}).get("annotations") or {}
    if not annotations.get(LAST_APPLIED):
        return
    config = copied(applied)
    ((config.get("metadata") or {}).get("annotations") or {}).pop(LAST_APPLIED, None)
    annotations[LAST_APPLIED] = msgspec.json.encode(config, order="sorted").decode() + "\n"
    if sum(len(key) + len(value.encode()) for key, value in annotations.items()) > _ANNOTATIONS_BYTES_MAX:
        del annotations[LAST_APPLIED]
