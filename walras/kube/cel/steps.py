"""What the parts of a program do when they run, and how they count what that costs."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from typing import Any, Final

from walras.kube.cel import costs
from walras.kube.cel.functions import map_key
from walras.kube.cel.times import parse_duration, parse_timestamp
from walras.kube.cel.types import Type
from walras.kube.cel.values import NONE, CelError, CostExceeded, Optional, equal, no_overload

# Items and characters that one call may make.
MADE_MAX: Final = 16 << 20
OVER: Final = "operation cancelled: actual cost limit exceeded"
ABSENT: Final = object()


class Run:
    """One evaluation: its variables by place, and what it has spent."""

    __slots__ = ("cost", "deadline", "limit", "made", "slots")

    def __init__(self, slots: list[Any], limit: int, deadline: float) -> None:
        self.slots = slots
        self.cost = 0
        self.limit = limit
        self.deadline = deadline
        self.made = 0

    def check(self) -> None:
        if self.cost > self.limit or time.perf_counter() > self.deadline:
            raise CostExceeded(OVER)

    def make(self, count: int) -> None:
        self.made += count
        if self.made > MADE_MAX:
            raise CostExceeded(OVER)


Step = Callable[[Run], Any]


def constant(value: Any) -> Step:
    return lambda _: value


def coerced(kind: Type, step: Step) -> Step:
    """Times, durations and bytes are texts in the data."""
    if kind.name == "timestamp":

        def moment(run: Run) -> Any:
            value = step(run)
            if isinstance(value, str):
                return parse_timestamp(value if "T" in value.upper() else value + "T00:00:00Z")
            return value

        return moment
    if kind.name == "duration":

        def span(run: Run) -> Any:
            value = step(run)
            return parse_duration(value) if isinstance(value, str) else value

        return span
    if kind.name == "bytes":

        def raw(run: Run) -> Any:
            value = step(run)
            return decoded(value) if isinstance(value, str) else value

        return raw
    return step


def decoded(value: str) -> bytes:
    try:
        return base64.b64decode(value)
    except ValueError as error:
        raise CelError(str(error)) from None


def presence(operand: Step, key: str) -> Step:
    def has(run: Run) -> bool:
        value = operand(run)
        if isinstance(value, Optional):
            value = value.value if value.has else {}
        if isinstance(value, dict):
            return key in value
        raise CelError(f"no such key: {key}" if value is None else "unsupported field selection")

    return has


def item(value: Any, key: Any) -> Any:
    if isinstance(value, list):
        if isinstance(key, bool) or not isinstance(key, int | float) or int(key) != key:
            raise CelError(f"unsupported index type '{type(key).__name__}' in list")
        if not 0 <= key < len(value):
            raise CelError(f"index out of bounds: {int(key)}")
        return value[int(key)]
    if isinstance(value, dict):
        found = value.get(map_key(value, key), ABSENT)
        if found is ABSENT:
            raise CelError(f"no such key: {key}")
        return found
    raise no_overload()


def member_of(value: Any, key: Any) -> Optional:
    """The member of what may be missing, which may be missing too."""
    if isinstance(value, Optional):
        if not value.has:
            return NONE
        value = value.value
    if isinstance(value, dict):
        found = value.get(map_key(value, key), ABSENT)
        return NONE if found is ABSENT else Optional(True, found)
    if isinstance(value, list):
        inside = isinstance(key, int) and not isinstance(key, bool) and 0 <= key < len(value)
        return Optional(True, value[key]) if inside else NONE
    if value is None:
        return NONE
    raise no_overload()


def optional_member(operand: Step, key: Step) -> Step:
    def member(run: Run) -> Optional:
        value, name = operand(run), key(run)
        run.cost += 1
        return member_of(value, name)

    return member


def both(left: Step, right: Step) -> Step:
    return _shortcut(left, right, settles=False)


def either(left: Step, right: Step) -> Step:
    return _shortcut(left, right, settles=True)


def _shortcut(left: Step, right: Step, *, settles: bool) -> Step:
    """Each side settles it alone with that value, whatever the other does, even fail."""

    def shortcut(run: Run) -> Any:
        failure: CelError | None = None
        try:
            first = left(run)
            if first is settles:
                return settles
            if not isinstance(first, bool):
                failure = no_overload()
        except CostExceeded:
            raise
        except CelError as error:
            failure = error
        second = right(run)
        if second is settles:
            return settles
        if failure is not None:
            raise failure
        if not isinstance(second, bool):
            raise no_overload()
        return not settles

    return shortcut


def choice(condition: Step, chosen: Step, other: Step) -> Step:
    def choose(run: Run) -> Any:
        value = condition(run)
        if value is True:
            return chosen(run)
        if value is False:
            return other(run)
        raise no_overload()

    return choose


def applied(function: Callable[..., Any], cost: costs.Cost | None, steps: list[Step]) -> Step:
    def call(run: Run) -> Any:
        args = tuple([step(run) for step in steps])
        result = function(*args)
        run.cost += 1 if cost is None else cost(args, result)
        if isinstance(result, str | list | bytes | dict):
            run.make(len(result))
            run.check()
        elif run.cost > run.limit:
            raise CostExceeded(OVER)
        return result

    return call


def same_items(left: Any, right: Any) -> bool:
    if not isinstance(left, list) or not isinstance(right, list):
        return equal(left, right)
    return len(left) == len(right) and all(any(equal(a, b) for b in right) for a in left)


def merged(left: Any, right: Any, keys: tuple[str, ...]) -> Any:
    if not isinstance(left, list) or not isinstance(right, list):
        raise no_overload()

    def identity(item: Any) -> Any:
        return [item.get(key) for key in keys] if keys and isinstance(item, dict) else item

    found = list(left)
    for item in right:
        same = [at for at, each in enumerate(found) if equal(identity(each), identity(item))]
        if same:
            found[same[0]] = item
        else:
            found.append(item)
    return found


def mapping(pairs: list[tuple[Step, Step]], optional: frozenset[int], cost: int) -> Step:
    def make(run: Run) -> Any:
        found: dict[Any, Any] = {}
        for number, (left, right) in enumerate(pairs):
            key, value = left(run), right(run)
            if number in optional:
                if not isinstance(value, Optional):
                    raise no_overload()
                if not value.has:
                    continue
                value = value.value
            if isinstance(key, list | dict | float | None):
                raise CelError(f"unsupported key type: {type(key).__name__}")
            if key in found:
                raise CelError(f"insert failed: key {key} already exists")
            found[key] = value
        run.cost += cost
        run.make(len(found))
        return found

    return make


_UNREAD: Final = object()


def named_value(place: int, body: Step) -> Step:
    """`cel.bind`: what the body makes of a value that it reads by its name, when it first does."""

    def bind(run: Run) -> Any:
        run.cost += costs.LIST
        run.slots[place] = _UNREAD
        return body(run)

    return bind


def once_read(place: int, value: Step) -> Step:
    def read(run: Run) -> Any:
        run.cost += 1
        if run.slots[place] is _UNREAD:
            run.slots[place] = value(run)
        return run.slots[place]

    return read


def mapped_optional(value: Step, place: int, body: Step, *, flat: bool) -> Step:
    def mapped(run: Run) -> Any:
        found = value(run)
        run.cost += costs.LIST + 2
        if not isinstance(found, Optional):
            raise no_overload()
        if not found.has:
            return NONE
        run.slots[place] = found.value
        result = body(run)
        return result if flat else Optional(True, result)

    return mapped
