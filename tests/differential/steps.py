"""What is asked: requests in order, whose answers later ones refer to, and the places that refer to them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import quote

# $rv:3$ is the resourceVersion of what step 3 answered, $uid:3$, $name:3$ and $continue:3$ the like.
_PLACE: Final = re.compile(r"\$(rv|uid|name|continue):(\d+)\$")
# Which of the requests that a step sends at once this one is.
TURN: Final = "$turn$"
# Stands for the scenario's own namespace and, in names without one, for itself.
SELF: Final = "$self$"
JSON: Final = "application/json"


@dataclass(frozen=True, slots=True)
class Step:
    """One request, or `times` of it at once. Its body is a value, text, or `read` changed by `body`."""

    id: int
    method: str
    path: str
    what: str
    query: tuple[tuple[str, str], ...] = ()
    body: Any = None
    content_type: str = JSON
    accept: str = JSON
    # The step whose answer is the body, with `body` merged into it.
    read: int | None = None
    times: int = 1
    watch: bool = False

    def refers_to(self) -> set[int]:
        """The steps whose answers this one needs."""
        text = f"{self.path} {self.query} {json.dumps(self.body, default=str)}"
        found = {int(match[2]) for match in _PLACE.finditer(text)}
        return found | ({self.read} if self.read is not None else set())

    def changed(self, **parts: Any) -> Step:
        return replace(self, **parts)


@dataclass(frozen=True, slots=True)
class Scenario:
    """Steps that run in a namespace of their own."""

    seed: str
    steps: tuple[Step, ...]

    def step(self, id_: int) -> Step | None:
        return next((step for step in self.steps if step.id == id_), None)

    def without(self, id_: int) -> Scenario:
        return replace(self, steps=tuple(step for step in self.steps if step.id != id_))

    def replaced(self, step: Step) -> Scenario:
        return replace(self, steps=tuple(step if s.id == step.id else s for s in self.steps))


@dataclass(frozen=True, slots=True)
class Sent:
    """A step with every place filled in."""

    method: str
    target: str
    headers: Mapping[str, str]
    content: bytes | None


def filled(step: Step, own: str, answers: Mapping[int, Any], turn: int = 0) -> Sent:
    """The request of a step, given what the same server answered to earlier ones."""

    def fill(text: str) -> str:
        text = text.replace(SELF, own).replace(TURN, str(turn))
        return _PLACE.sub(lambda found: _said(answers.get(int(found[2])), found[1]), text)

    pairs = [f"{quote(name)}={quote(fill(value), safe='')}" for name, value in step.query]
    target = fill(step.path) + ("?" + "&".join(pairs) if pairs else "")
    headers = {"accept": step.accept, "user-agent": "differential/1"}
    content = _content(step, answers, fill)
    if content is not None:
        headers["content-type"] = step.content_type
    return Sent(step.method, target, headers, content)


def _content(step: Step, answers: Mapping[int, Any], fill: Any) -> bytes | None:
    if step.read is not None:
        read = answers.get(step.read)
        # What failed left no object to be changed.
        is_object = isinstance(read, dict) and read.get("kind") != "Status"
        whole = merged(read if is_object else {}, step.body or {})
        return fill(_json(whole)).encode()  # type: ignore[no-any-return]
    match step.body:
        case None:
            return None
        case bytes() as raw:
            return raw
        case str() as text:
            return fill(text).encode()  # type: ignore[no-any-return]
    return fill(_json(step.body)).encode()  # type: ignore[no-any-return]


def _json(value: Any) -> str:
    """As clients write it: a space more would be a change of what upstream compares by its bytes."""
    return json.dumps(value, separators=(",", ":"))


def merged(value: Any, change: Any) -> Any:
    """RFC 7386, so that a step can say how what it read is to be changed."""
    if not isinstance(change, dict):
        return change
    result = dict(value) if isinstance(value, dict) else {}
    for key, inner in change.items():
        if inner is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), inner)
    return result


def _said(answer: Any, part: str) -> str:
    metadata = answer.get("metadata") if isinstance(answer, dict) else None
    metadata = metadata if isinstance(metadata, dict) else {}
    name = {"rv": "resourceVersion", "uid": "uid", "name": "name", "continue": "continue"}[part]
    return str(metadata.get(name) or "missing")
