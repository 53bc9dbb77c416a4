"""Macros that go over a list or a map (cel-spec, macros), with what each turn costs in cel-go."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from walras.kube.cel import costs
from walras.kube.cel.steps import Run, Step
from walras.kube.cel.values import CelError, CostExceeded, no_overload

Pairs = list[tuple[Any, ...]]


def _entries(value: Any, places: list[int]) -> Pairs:
    """What the variables become, one after another."""
    if isinstance(value, list):
        return list(enumerate(value)) if len(places) == 2 else [(item,) for item in value]
    if isinstance(value, dict):
        return list(value.items()) if len(places) == 2 else [(key,) for key in value]
    raise no_overload()


class _Loop:
    """Goes over a range, and counts each turn with what its macro adds to it (cel-go, parser/macro.go)."""

    def __init__(self, over: Step, places: list[int], turn: int) -> None:
        self.over, self.places, self.turn = over, places, turn

    def turns(self, run: Run) -> Iterator[tuple[Any, ...]]:
        for entry in _entries(self.over(run), self.places):
            for place, value in zip(self.places, entry, strict=True):
                run.slots[place] = value
            run.cost += self.turn
            run.check()
            yield entry
        run.cost += 1


def _quantified(over: Step, places: list[int], args: list[Step], *, ends: bool, turn: int) -> Step:
    """`all` and `exists`: over as soon as one item decides; a failure counts only if none does."""
    loop, test = _Loop(over, places, turn), args[0]

    def run_all(run: Run) -> bool:
        failure: CelError | None = None
        for _ in loop.turns(run):
            try:
                value = test(run)
            except CostExceeded:
                raise
            except CelError as error:
                failure = error
                continue
            if value is ends:
                return bool(ends)
            if not isinstance(value, bool):
                failure = no_overload()
        if failure is not None:
            raise failure
        return not ends

    return run_all


def _all(over: Step, places: list[int], args: list[Step]) -> Step:
    return _quantified(over, places, args, ends=False, turn=3)


def _exists(over: Step, places: list[int], args: list[Step]) -> Step:
    return _quantified(over, places, args, ends=True, turn=4)


def _truth(value: Any) -> bool:
    if value is True or value is False:
        return value is True
    raise no_overload()


def _exists_one(over: Step, places: list[int], args: list[Step]) -> Step:
    loop, test = _Loop(over, places, 1), args[0]

    def count(run: Run) -> bool:
        found = 0
        for _ in loop.turns(run):
            if _truth(test(run)):
                found += 1
                run.cost += 1
        run.cost += 1
        return found == 1

    return count


def _filter(over: Step, places: list[int], args: list[Step]) -> Step:
    loop, test = _Loop(over, places, 1), args[0]

    def keep(run: Run) -> Any:
        run.cost += costs.LIST
        found = []
        for entry in loop.turns(run):
            if _truth(test(run)):
                run.cost += costs.LIST + 2
                found.append(entry[0])
        run.make(len(found))
        return found

    return keep


def _map(over: Step, places: list[int], args: list[Step]) -> Step:
    loop, make = _Loop(over, places, 1), args[-1]
    test = args[0] if len(args) == 2 else None

    def change(run: Run) -> Any:
        run.cost += costs.LIST
        found = []
        for _ in loop.turns(run):
            if test is None or _truth(test(run)):
                found.append(make(run))
                run.cost += costs.LIST + 1
        run.make(len(found))
        return found

    return change


def _transform_map(over: Step, places: list[int], args: list[Step]) -> Step:
    loop, make = _Loop(over, places, 1), args[-1]
    test = args[0] if len(args) == 2 else None

    def change(run: Run) -> Any:
        run.cost += costs.MAP
        found = {}
        for entry in loop.turns(run):
            if test is None or _truth(test(run)):
                found[entry[0]] = make(run)
                run.cost += 2
        run.make(len(found))
        return found

    return change


def _transform_entries(over: Step, places: list[int], args: list[Step]) -> Step:
    loop, make = _Loop(over, places, 1), args[-1]
    test = args[0] if len(args) == 2 else None

    def change(run: Run) -> Any:
        run.cost += costs.MAP
        found: dict[Any, Any] = {}
        for _ in loop.turns(run):
            if test is None or _truth(test(run)):
                made = make(run)
                if not isinstance(made, dict):
                    raise no_overload()
                for key, value in made.items():
                    if key in found:
                        raise CelError(f"insert failed: key {key} already exists")
                    found[key] = value
                run.cost += 2
        run.make(len(found))
        return found

    return change


LOOPS: Final[Mapping[str, Callable[[Step, list[int], list[Step]], Step]]] = {
    "all": _all,
    "exists": _exists,
    "exists_one": _exists_one,
    "filter": _filter,
    "map": _map,
    "transformList": _map,
    "transformMap": _transform_map,
    "transformMapEntry": _transform_entries,
}
