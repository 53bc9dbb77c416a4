"""Options of requests from outside, and what is wrong with them."""

from __future__ import annotations

from typing import Any, Final

from walras.core.errors import BadRequest, Cause, Invalid
from walras.kube import objects
from walras.kube.record import Object
from walras.kube.registry import Resource

_PROPAGATIONS: Final = ("", "Background", "Foreground", "Orphan")


def invalid(kind: str, field: str, reason: str, message: str) -> Invalid:
    """The error for one option of "ListOptions", "PatchOptions" or "DeleteOptions"."""
    said = f'{kind}.meta.k8s.io "" is invalid: {field}: {message}'
    return Invalid(
        said, causes=(Cause(reason, message, field),), details={"group": "meta.k8s.io", "kind": kind}
    )


def grace_s(options: Object) -> int | None:
    """Seconds that the caller grants; None leaves it to the object. Raises BadRequest."""
    grace = options.get("gracePeriodSeconds")
    if grace is not None and (type(grace) is not int or abs(grace) >= 2**31):
        raise BadRequest(f"gracePeriodSeconds: Invalid value: {str(grace)[:64]}: must be a whole number")
    return grace


def propagation(options: Object) -> str:
    """The policy asked for; "" leaves it to the object's own finalizers. Raises Invalid."""
    wanted, orphan = options.get("propagationPolicy") or "", options.get("orphanDependents")
    if wanted not in _PROPAGATIONS:
        raise invalid(
            "DeleteOptions",
            "propagationPolicy",
            "FieldValueNotSupported",
            f'Unsupported value: "{str(wanted)[:64]}": '
            'supported values: "Foreground", "Background", "Orphan", "nil"',
        )
    if orphan is None:
        return str(wanted)
    if wanted:
        raise invalid(
            "DeleteOptions",
            "propagationPolicy",
            "FieldValueInvalid",
            f'Invalid value: "{wanted}": orphanDependents and deletionPropagation cannot be both set',
        )
    return "Orphan" if orphan else "Background"


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
            raise objects.conflict(
                resource.key,
                str(obj["metadata"]["name"]),
                f"the {label} in the precondition ({value}) does not match the {label} in record "
                f"({present}). {why}",
            )
