"""Faults of fields in the words of k8s.io/apimachinery/pkg/util/validation/field."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

from walras.core.errors import Cause

# Characters that are told of one object. A list of faults grows with the object, and so may each of them.
TOLD_MAX: Final = 256 << 10


class Struct(dict[str, Any]):
    """A value whose fields are shown in the order that they are given in, as Go shows those of a struct."""


class Verbatim(str):
    """A value that is shown as it is."""


def go(**fields: Any) -> Verbatim:
    """A struct as Go's field errors show it: the fields of the internal type, in its order."""
    return Verbatim(json.dumps(fields, separators=(",", ":"), ensure_ascii=False))


def rendered(value: Any) -> str:
    """A value as Go's field errors print it: strings quoted, the rest as compact JSON."""
    if isinstance(value, Verbatim):
        return value
    by_name = isinstance(value, dict) and not isinstance(value, Struct)
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, sort_keys=by_name)
    if isinstance(value, str):
        return text
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


class Faults(list[Cause]):
    """The faults found so far, each with its path and a typed reason; the first is always among them."""

    def __init__(self) -> None:
        super().__init__()
        self._told = 0

    @property
    def full(self) -> bool:
        """Whether so much is told already that nothing more is."""
        return self._told >= TOLD_MAX

    def append(self, cause: Cause) -> None:
        if not self.full:
            self._told += len(cause.message) + len(cause.field)
            super().append(cause)

    def extend(self, causes: Iterable[Cause]) -> None:
        for cause in causes:
            self.append(cause)

    def _add(self, reason: str, path: str, text: str, detail: str) -> None:
        self.append(Cause(reason, f"{text}: {detail}" if detail else text, path))

    def required(self, path: str, detail: str = "") -> None:
        self._add("FieldValueRequired", path, "Required value", detail)

    def invalid(self, path: str, value: Any, detail: str) -> None:
        self._add("FieldValueInvalid", path, f"Invalid value: {rendered(value)}", detail)

    def without_value(self, reason: str, path: str, detail: str) -> None:
        """A fault of a value that is too large to be shown."""
        text = "Duplicate value" if reason == "FieldValueDuplicate" else "Invalid value"
        self._add(reason, path, text, detail)

    def wrong_type(self, path: str, value: Any, detail: str) -> None:
        self._add("FieldValueTypeInvalid", path, f"Invalid value: {rendered(value)}", detail)

    def not_supported(self, path: str, value: Any, supported: Iterable[str]) -> None:
        names = ", ".join(rendered(name) for name in supported)
        detail = f"supported values: {names}" if names else ""
        self._add("FieldValueNotSupported", path, f"Unsupported value: {rendered(value)}", detail)

    def duplicate(self, path: str, value: Any) -> None:
        self._add("FieldValueDuplicate", path, f"Duplicate value: {rendered(value)}", "")

    def not_found(self, path: str, value: Any, detail: str = "") -> None:
        self._add("FieldValueNotFound", path, f"Not found: {rendered(value)}", detail)

    def forbidden(self, path: str, detail: str) -> None:
        self._add("FieldValueForbidden", path, "Forbidden", detail)

    def too_long(self, path: str, most: int) -> None:
        unit = "byte" if most == 1 else "bytes"
        self._add("FieldValueTooLong", path, "Too long", f"may not be more than {most} {unit}")

    def too_many(self, path: str, actual: int, most: int) -> None:
        unit = "item" if most == 1 else "items"
        self._add("FieldValueTooMany", path, f"Too many: {actual}", f"must have at most {most} {unit}")

    def each(self, path: str, value: Any, details: Iterable[str]) -> None:
        """One `invalid` for each of a name check's messages."""
        for detail in details:
            self.invalid(path, value, detail)

    def immutable(self, path: str, new: Any, old: Any) -> None:
        """A fault when the value differs from the stored one."""
        if new != old:
            self.invalid(path, new, "field is immutable")

    def nonnegative(self, path: str, value: int | None) -> None:
        if value is not None and value < 0:
            self.invalid(path, value, "must be greater than or equal to 0")

    def one_of(self, path: str, value: str | None, supported: Sequence[str]) -> None:
        """A fault when the value is missing or none of those supported."""
        if not value:
            self.required(path)
        elif value not in supported:
            self.not_supported(path, value, supported)
