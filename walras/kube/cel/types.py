"""Types of CEL, as the checker infers them and as messages write them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True)
class Field:
    """A declared field of an object: its type, and its name in the data where expressions write another."""

    type: Type
    key: str
    # What it holds at most, for costs; see cost.py.
    size_max: int | None = None


@dataclass(frozen=True, slots=True)
class Type:
    """A type by its name and parameters; an object also has fields, looked up when first needed."""

    name: str
    parameters: tuple[Type, ...] = ()
    fields: Mapping[str, Field] | None = field(default=None, compare=False, hash=False, repr=False)
    # How many characters, items or entries a value has at most; None where nothing says so.
    size_max: int | None = field(default=None, compare=False, hash=False)
    # "set", or "map" with its keys: how lists of the type compare and add up.
    list_type: tuple[str, ...] = field(default=(), compare=False, hash=False)

    def __str__(self) -> str:
        if not self.parameters:
            return self.name
        return f"{self.name}({', '.join(map(str, self.parameters))})"

    @property
    def is_dyn(self) -> bool:
        return self.name in ("dyn", "!error!")

    @property
    def is_variable(self) -> bool:
        return len(self.name) == 1


# What null may stand for, beside objects.
_NULLABLE: Final = ("null", "timestamp", "duration", "optional_type", "any")

DYN: Final = Type("dyn")
ERROR: Final = Type("!error!")
BOOL: Final = Type("bool")
INT: Final = Type("int")
UINT: Final = Type("uint")
DOUBLE: Final = Type("double")
STRING: Final = Type("string")
BYTES: Final = Type("bytes")
NULL: Final = Type("null")
TIMESTAMP: Final = Type("timestamp")
DURATION: Final = Type("duration")
TYPE: Final = Type("type")


def read(name: str) -> Type:
    """A type that its name says all of."""
    return Type(name)


def list_of(item: Type, size_max: int | None = None, list_type: tuple[str, ...] = ()) -> Type:
    return Type("list", (item,), None, size_max, list_type)


def map_of(key: Type, value: Type, size_max: int | None = None) -> Type:
    return Type("map", (key, value), None, size_max)


def optional_of(value: Type) -> Type:
    return Type("optional_type", (value,))


class Substitution:
    """What type variables of one expression stand for."""

    def __init__(self) -> None:
        self._bound: dict[str, Type] = {}
        self._fresh = 0

    def fresh(self) -> Type:
        """A variable that nothing else uses; what stays unbound is dyn."""
        self._fresh += 1
        return Type(f"_var{self._fresh}")

    def is_free(self, kind: Type) -> bool:
        return kind.name.startswith("_var")

    def resolve(self, kind: Type) -> Type:
        while self.is_free(kind) and kind.name in self._bound:
            kind = self._bound[kind.name]
        return kind

    def final(self, kind: Type) -> Type:
        """The type with every variable replaced; dyn for the ones that nothing says anything about."""
        kind = self.resolve(kind)
        if self.is_free(kind):
            return DYN
        if not kind.parameters:
            return kind
        parameters = tuple(self.final(each) for each in kind.parameters)
        if parameters == kind.parameters:
            return kind
        return Type(kind.name, parameters, kind.fields, kind.size_max, kind.list_type)

    def mark(self) -> dict[str, Type]:
        return dict(self._bound)

    def restore(self, mark: dict[str, Type]) -> None:
        self._bound = mark

    def assignable(self, to: Type, given: Type) -> bool:
        """Whether a value of `given` may stand where `to` is wanted; binds variables."""
        to, given = self.resolve(to), self.resolve(given)
        if to is given or to.is_dyn or given.is_dyn:
            return True
        if self.is_free(to):
            self._bound[to.name] = given
            return True
        if self.is_free(given):
            self._bound[given.name] = to
            return True
        if given.name == "null":
            # Null stands for what holds no value: objects, optional values, times, durations.
            return (
                to.name in ("null", "timestamp", "duration", "optional_type", "any") or to.fields is not None
            )
        if to.name != given.name or len(to.parameters) != len(given.parameters):
            return False
        pairs = zip(to.parameters, given.parameters, strict=True)
        return all(self.assignable(a, b) for a, b in pairs)


def join(left: Type, right: Type, names: Substitution) -> Type:
    """The type of a list or map that holds both."""
    if names.resolve(left).is_dyn or names.resolve(right).is_dyn:
        return DYN
    mark = names.mark()
    if names.assignable(left, right):
        return left
    names.restore(mark)
    return DYN
