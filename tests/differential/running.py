"""Scenarios played on both servers at once, the differences found, and the smallest case of one."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from differential.compare import Difference, differences, is_late
from differential.generate import scenario
from differential.kinds import DEFINITIONS, GROUP, Object
from differential.known import Table
from differential.normal import Normaliser
from differential.sides import Answer, Side, embedded, play, real
from differential.steps import SELF, Scenario, Step

AT_ONCE: Final = 12
_SHRINKS_MAX: Final = 60
_SERVED_TRIES: Final = 300
_CUSTOM: Final = ("gadgets", "baubles")


@dataclass(frozen=True, slots=True)
class Found:
    """The first step of a scenario that was answered differently, and how."""

    scenario: Scenario
    step: Step
    differences: tuple[Difference, ...]

    @property
    def signature(self) -> str:
        return self.differences[0].signature

    @property
    def group(self) -> str:
        """The signature for any built-in or custom resource."""
        plural = self.step.what.split(" ")[-1].partition("/")[0]
        return self.signature.replace(plural, "custom" if plural in _CUSTOM else "builtin")


@dataclass(slots=True)
class Outcome:
    """What a run came to: `cases` are the requests that both servers were asked."""

    cases: int = 0
    known: int = 0
    found: list[Found] = field(default_factory=list)
    by_status: dict[int, int] = field(default_factory=dict)


class Pair:
    """Both servers, ready for scenarios."""

    def __init__(self, ours: Side, theirs: Side, known: Table) -> None:
        self._ours = ours
        self._theirs = theirs
        self._known = known
        self._numbers = itertools.count(1)
        self._gate = asyncio.Semaphore(AT_ONCE)

    async def run(self, seeds: Iterable[str], cases: int) -> Outcome:
        """Scenarios of the seeds until so many cases are compared."""
        outcome = Outcome()
        remaining = iter(seeds)

        async def worker() -> None:
            while outcome.cases < cases:
                found = await self.compare(scenario(next(remaining)), outcome)
                if found is not None:
                    outcome.found.append(found)

        await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
        return outcome

    async def compare(self, played: Scenario, outcome: Outcome | None = None) -> Found | None:
        """The first difference that is not known. What a known one may have changed is not looked at."""
        outcome = outcome or Outcome()
        own = f"d{next(self._numbers)}-{played.seed}"
        await asyncio.gather(*(make_namespace(side, own) for side in (self._theirs, self._ours)))
        normal = [Normaliser(own), Normaliser(own)]
        theirs, ours = play(self._theirs, played, own), play(self._ours, played, own)
        try:
            for _ in played.steps:
                (step, left), (_, right) = await asyncio.gather(anext(theirs), anext(ours))
                outcome.cases += 1
                outcome.by_status[left[0].status] = outcome.by_status.get(left[0].status, 0) + 1
                found = _differing(step, left, right, normal)
                new = tuple(each for each in found if not self._known.covers(each))
                if new:
                    return Found(played, step, new)
                outcome.known += bool(found)
                if found and _changed(step, left, right):
                    return None
        finally:
            await theirs.aclose()
            await ours.aclose()
        return None

    async def smallest(self, found: Found) -> Found:
        """The same difference with as few steps, and as little in their bodies, as it takes."""
        best = [found]
        for candidate in itertools.islice(_smaller(best), _SHRINKS_MAX):
            again = await self.compare(candidate)
            if again is not None and again.signature == found.signature:
                best.append(again)
        return best[-1]


def _differing(
    step: Step, left: Sequence[Answer], right: Sequence[Answer], normal: Sequence[Normaliser]
) -> list[Difference]:
    if step.times > 1:
        # Who was first differs; how many were is the same, but of deletions, that may meet the same object.
        real_, ours = [each.status for each in left], [each.status for each in right]
        if step.method == "DELETE":
            real_, ours = sorted({*real_}), sorted({*ours})
        same = {"type": "", "headers": {}, "body": ""}
        return differences(step, {"status": str(real_), **same}, {"status": str(ours), **same})
    if is_late(step, left[0]):
        return []
    found: list[Difference] = []
    for one, other in zip(left, right, strict=True):
        found += differences(step, normal[0](one), normal[1](other))
    return found


def _changed(step: Step, left: Sequence[Answer], right: Sequence[Answer]) -> bool:
    """Whether what follows may differ for it: for what was written, or versions that one side alone told."""
    written = step.method not in ("GET", "HEAD") and any(each.status < 400 for each in (*left, *right))
    return step.watch or written


def _smaller(best: list[Found]) -> Iterator[Scenario]:
    """Scenarios that are a little less than the last of `best`, to which those are added that will do."""
    found = best[-1]
    end = next(i for i, step in enumerate(found.scenario.steps) if step.id == found.step.id)
    yield Scenario(found.scenario.seed, found.scenario.steps[: end + 1])
    for step in reversed(found.scenario.steps[:end]):
        now = best[-1]
        if any(step.id == kept.id for kept in now.scenario.steps):
            yield now.scenario.without(step.id)
    for step in found.scenario.steps[: end + 1]:
        kept = best[-1].scenario.step(step.id)
        if kept is None:
            continue
        # A watch without its timeout would have no end, and everybody's objects are more than the case's.
        for pair in () if kept.watch else kept.query:
            if pair[1] == f"scenario={SELF}":
                continue
            kept = best[-1].scenario.step(step.id) or step
            query = tuple(each for each in kept.query if each != pair)
            yield best[-1].scenario.replaced(kept.changed(query=query))
        for path in list(_paths(kept.body)):
            kept = best[-1].scenario.step(step.id) or step
            yield best[-1].scenario.replaced(kept.changed(body=_cut(kept.body, path)))


def _paths(body: Any) -> Iterator[tuple[Any, ...]]:
    if isinstance(body, dict):
        for key, value in body.items():
            if key not in ("kind", "apiVersion"):
                yield (key,)
                for inner in _paths(value):
                    yield (key, *inner)
    elif isinstance(body, list) and len(body) > 1:
        for index in reversed(range(len(body))):
            yield (index,)


def _cut(body: Any, path: tuple[Any, ...]) -> Any:
    """The body without what is at the path; as it is where there is nothing any more."""
    head, *rest = path
    if isinstance(body, dict) and head in body:
        if not rest:
            return {key: value for key, value in body.items() if key != head}
        return {**body, head: _cut(body[head], tuple(rest))}
    if isinstance(body, list) and isinstance(head, int) and head < len(body) and not rest:
        return body[:head] + body[head + 1 :]
    return body


async def make_namespace(side: Side, name: str) -> None:
    """A namespace with its default ServiceAccount, which pods need."""
    body: Object = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    account: Object = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
    for path, each in (
        ("/api/v1/namespaces", body),
        (f"/api/v1/namespaces/{name}/serviceaccounts", account),
    ):
        (answer,) = await side.ask(Step(0, "POST", path, "prepare", body=each), name, {})
        if answer.status != 201:
            raise RuntimeError(f"{side.name} made no namespace: {answer.body}")


async def _define(side: Side) -> None:
    """Makes the custom kinds and returns when they are served."""
    for definition in DEFINITIONS:
        plural = definition["spec"]["names"]["plural"]
        path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        (answer,) = await side.ask(Step(0, "POST", path, "prepare", body=definition), "", {})
        if answer.status != 201:
            raise RuntimeError(f"{side.name} takes no {plural}: {answer.body}")
        listing = Step(0, "GET", f"/apis/{GROUP}/v1/{plural}", "prepare")
        for _ in range(_SERVED_TRIES):
            (answer,) = await side.ask(listing, "", {})
            if answer.status == 200:
                break
            await asyncio.sleep(0.1)
        else:
            raise RuntimeError(f"{side.name} does not serve {plural}: {answer.body}")


@asynccontextmanager
async def sides(work: Path) -> AsyncIterator[tuple[Side, Side]]:
    """The real server and this one, started in folders below `work`."""
    async with AsyncExitStack() as stack:
        theirs = await stack.enter_async_context(real(work / "real"))
        ours = await stack.enter_async_context(embedded(work / "embedded"))
        yield theirs, ours


@asynccontextmanager
async def pair(work: Path, known: Table) -> AsyncIterator[Pair]:
    """Both servers, ready for scenarios."""
    async with sides(work) as (theirs, ours):
        await asyncio.gather(_define(theirs), _define(ours))
        # The real server prunes and validates by a new definition some moments after it serves it.
        await asyncio.sleep(2)
        yield Pair(ours, theirs, known)
