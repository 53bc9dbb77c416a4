"""Requests written by hand, asked of both servers one after another."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

from differential.compare import differences, is_late
from differential.known import NONE, Table
from differential.normal import Normaliser
from differential.sides import Answer, Side
from differential.steps import JSON, Step

MERGE: Final = "application/merge-patch+json"
APPLY: Final = "application/apply-patch+yaml"
_TRIES: Final = 10


def asked(method: str, path: str, body: Any = None, media: str = JSON, **query: str) -> Step:
    accept = query.pop("accept", JSON)
    watch = "watch" in query
    what = f"{method} {_resource(path)}"
    pairs = tuple(query.items())
    return Step(0, method, path, what, pairs, body, media, accept, watch=watch)


async def _settled(side: Side, step: Step) -> Answer:
    """The answer; to a watch once the real server has made the cache that it watches."""
    (answer,) = await side.ask(step, "own", {})
    for _ in range(_TRIES):
        if not is_late(step, answer):
            break
        await asyncio.sleep(0.5)
        (answer,) = await side.ask(step, "own", {})
    return answer


def _resource(path: str) -> str:
    """The plural of a path, and the subresource where there is one."""
    _, _, *rest = path.removeprefix("/").split("/")
    rest = rest[1:] if path.startswith("/apis/") else rest
    if len(rest) > 2 and rest[0] == "namespaces":
        rest = rest[2:]
    return "/".join(rest[::2][:2])


async def compared(sides: tuple[Side, Side], steps: Iterable[Step], known: Table = NONE) -> list[str]:
    """Every difference between the real server's answers and ours that is not known."""
    normal = [Normaliser("own"), Normaliser("own")]
    found: list[str] = []
    for step in steps:
        theirs, ours = [await _settled(side, step) for side in sides]
        if is_late(step, theirs):
            continue
        told = differences(step, normal[0](theirs), normal[1](ours))
        found += [
            f"{step.method} {step.path} {step.query} {step.body}: {each}"
            for each in told
            if not known.covers(each)
        ]
    return found
