"""Options of requests from outside, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from walras.core.errors import BadRequest, Cause, Invalid
from walras.kube import fields, objects
from walras.kube.record import Object
from walras.kube.registry import Resource
from walras.kube.schema import Schema

MANAGER_BYTES_MAX: Final = 128
# Where upstream keeps its types, as its messages have it.
_SCHEME: Final = "pkg/runtime/scheme.go:111"
_DELETE_OPTIONS: Final = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"
APPLY: Final = "application/apply-patch+yaml"
_PROPAGATIONS: Final = ("Background", "Foreground", "Orphan")
_VALIDATIONS: Final = ("", "Ignore", "Strict", "Warn")


def invalid(kind: str, *causes: Cause) -> Invalid:
    """The error for faults of "ListOptions", "CreateOptions", "DeleteOptions" and the like."""
    said = [f"{cause.field}: {cause.message}" for cause in causes]
    text = said[0] if len(said) == 1 else f"[{', '.join(said)}]"
    return Invalid(
        f'{kind}.meta.k8s.io "" is invalid: {text}',
        causes=causes,
        details={"group": "meta.k8s.io", "kind": kind},
    )


def check_write(kind: str, query: Mapping[str, str], media: str = "") -> None:
    """Raises Invalid for parameters that no write takes; `media` is the patch's, where it is one."""
    if not query and media != APPLY:
        return
    causes: list[Cause] = []
    manager = query.get("fieldManager", "")
    if media == APPLY:
        if not manager:
            causes.append(
                _cause("fieldManager", "FieldValueRequired", "Required value: is required for apply patch")
            )
    elif media and "force" in query:
        message = "Forbidden: may not be specified for non-apply patch"
        causes.append(_cause("force", "FieldValueForbidden", message))
    causes += _manager(manager)
    if query.get("dryRun", "All") != "All":
        causes.append(_dry_run([query["dryRun"]]))
    wanted = query.get("fieldValidation", "")
    if wanted not in _VALIDATIONS:
        supported = ", ".join(f'"{each}"' for each in _VALIDATIONS)
        message = f'Unsupported value: "{wanted[:64]}": supported values: {supported}'
        causes.append(_cause("fieldValidation", "FieldValueNotSupported", message))
    if causes:
        raise invalid(kind, *causes)


def _cause(field: str, reason: str, message: str) -> Cause:
    return Cause(reason, message, field)


def _manager(name: str) -> Iterator[Cause]:
    if len(name.encode()) > MANAGER_BYTES_MAX:
        message = f"Too long: may not be more than {MANAGER_BYTES_MAX} bytes"
        yield _cause("fieldManager", "FieldValueTooLong", message)
        return
    at = 0
    for char in name:
        if not char.isprintable():
            message = f"Invalid value: {quoted(name)}: invalid character U+{ord(char):04X} (at position {at})"
            yield _cause("fieldManager", "FieldValueInvalid", message)
        at += len(char.encode())


def _dry_run(given: list[str]) -> Cause:
    shown = ", ".join(quoted(each) for each in given)
    message = f'Unsupported value: [{shown}]: supported values: "All"'
    return _cause("dryRun", "FieldValueNotSupported", message)


_ESCAPES: Final = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t",
                   "\v": "\\v", "\\": "\\\\", '"': '\\"'}  # fmt: skip


def quoted(text: str) -> str:
    """As Go's %q writes it."""

    def one(char: str) -> str:
        if char in _ESCAPES:
            return _ESCAPES[char]
        if char.isprintable():
            return char
        return f"\\x{ord(char):02x}" if ord(char) < 0x80 else f"\\u{ord(char):04x}"

    return '"' + "".join(map(one, text)) + '"'


def grace_s(options: Object) -> int | None:
    """Seconds that the caller grants; None leaves it to the object. Raises BadRequest."""
    grace = options.get("gracePeriodSeconds")
    if grace is not None and (type(grace) is not int or abs(grace) >= 2**31):
        raise BadRequest(f"gracePeriodSeconds: Invalid value: {str(grace)[:64]}: must be a whole number")
    return grace


def propagation(options: Object) -> str:
    """The policy asked for; "" leaves it to the object's own finalizers."""
    wanted, orphan = options.get("propagationPolicy"), options.get("orphanDependents")
    if orphan is not None:
        return "Orphan" if orphan else "Background"
    return str(wanted or "")


def no_kind(kind: str, api_version: str) -> str:
    """What upstream says of a type that it does not know."""
    return f'no kind {quoted(kind)} is registered for version {quoted(api_version)} in scheme "{_SCHEME}"'


def deleting(body: Object) -> Object:
    """DeleteOptions as a client sent them, decoded. Raises BadRequest."""
    kind, version = body.get("kind") or "DeleteOptions", body.get("apiVersion") or "v1"
    if kind != "DeleteOptions":
        raise BadRequest(no_kind(str(kind), str(version)))
    try:
        return fields.decode(Schema.named(_DELETE_OPTIONS), body)[0]
    except fields.Undecodable as error:
        raise BadRequest(error.why) from None


def check_delete(options: Object) -> None:
    """Raises Invalid for options that no deletion takes."""
    wanted, orphan, dry = (options.get(n) for n in ("propagationPolicy", "orphanDependents", "dryRun"))
    causes: list[Cause] = []
    if wanted is not None and orphan is not None:
        shown = quoted(str(wanted)[:64])
        message = f"Invalid value: {shown}: orphanDependents and deletionPropagation cannot be both set"
        causes.append(_cause("propagationPolicy", "FieldValueInvalid", message))
    if wanted is not None and wanted not in _PROPAGATIONS:
        supported = '"Foreground", "Background", "Orphan", "nil"'
        message = f"Unsupported value: {quoted(str(wanted)[:64])}: supported values: {supported}"
        causes.append(_cause("propagationPolicy", "FieldValueNotSupported", message))
    if dry and any(each != "All" for each in dry):
        causes.append(_dry_run([str(each)[:64] for each in dry]))
    if causes:
        raise invalid("DeleteOptions", *causes)


def is_dry_run(options: Object) -> bool:
    asked = options.get("dryRun") or ()
    return isinstance(asked, (list, tuple)) and "All" in asked


def check_preconditions(resource: Resource, obj: Object, options: Object) -> None:
    """Raises Conflict when the object is not the one, or not the version, that the caller means."""
    wanted: Any = options.get("preconditions")
    if not isinstance(wanted, dict):
        return
    for field, label, why in (
        ("uid", "UID", "The object might have been deleted and then recreated"),
        ("resourceVersion", "ResourceVersion", "The object might have been modified"),
    ):
        value, present = wanted.get(field), obj["metadata"][field]
        if value is not None and value != present:
            name = str(obj["metadata"]["name"])
            if resource.key == objects.NAMESPACES:
                said = f"{label} in precondition: {value}, {label} in object meta: {present}"
                raise objects.conflict(resource.key, name, f"Precondition failed: {said}")
            raise objects.conflict(
                f"{resource.kind}.{resource.group}" if resource.group else resource.kind,
                str(obj["metadata"]["name"]),
                f"the {label} in the precondition ({value}) does not match the {label} in record "
                f"({present}). {why}",
            )
