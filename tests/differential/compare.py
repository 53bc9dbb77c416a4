"""Where two answers differ, as paths and as the signature that groups differences of one cause."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from differential.sides import Answer
from differential.steps import Step

ABSENT: Final = "<absent>"
_SHOWN: Final = 600
_BEFORE: Final = 80


@dataclass(frozen=True, slots=True)
class Difference:
    """One place where the answers to a step are not the same."""

    signature: str
    path: str
    real: Any
    embedded: Any

    def __str__(self) -> str:
        left, right = _shown(str(self.real), str(self.embedded))
        return f"{self.path}\n    real:     {left}\n    embedded: {right}"


def _shown(*texts: str) -> list[str]:
    """Long texts from where they begin to differ."""
    same = next((at for at, each in enumerate(zip(*texts, strict=False)) if len({*each}) > 1), 0)
    start = max(0, same - _BEFORE) if max(map(len, texts)) > _SHOWN else 0
    parts = [(text[start : start + _SHOWN], len(text) > start + _SHOWN) for text in texts]
    return [f"{'...' if start else ''}{part}{'...' if cut else ''}" for part, cut in parts]


def differences(step: Step, real: Any, embedded: Any) -> list[Difference]:
    """Nothing where they are the same; the status and the message alone where the statuses differ."""
    if real["status"] != embedded["status"]:
        signature = f"{step.what}: status {real['status']} not {embedded['status']}"
        return [Difference(signature, "status", _told(real), _told(embedded))]
    found: list[tuple[str, Any, Any]] = []
    _walk("", real, embedded, found)
    return [
        Difference(f"{step.what}: {real['status']} {generalised(path)}", path, left, right)
        for path, left, right in found
    ]


def is_late(step: Step, answer: Answer) -> bool:
    """Whether a watch cannot be compared: there is no cache for it yet, or etcd is too old for it."""
    told = answer.body if step.watch and isinstance(answer.body, list) else []
    return any(
        each["object"].get("reason") == "Timeout"
        or "RequestWatchProgress is disabled" in str(each["object"].get("message"))
        for each in told
    )


def _told(answer: Any) -> Any:
    body = answer["body"]
    message = body.get("message") if isinstance(body, dict) else body
    return f"{answer['status']} {message if message is not None else body}"


def generalised(path: str) -> str:
    """The path without the indexes and keys that differ from case to case."""
    return re.sub(r"\[\d+\]", "[]", path)


def _walk(path: str, left: Any, right: Any, found: list[tuple[str, Any, Any]]) -> None:
    if isinstance(left, dict) and isinstance(right, dict):
        for key in sorted(left.keys() | right.keys()):
            _walk(f"{path}.{key}".lstrip("."), left.get(key, ABSENT), right.get(key, ABSENT), found)
    elif isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        for index, (one, other) in enumerate(zip(left, right, strict=True)):
            _walk(f"{path}[{index}]", one, other, found)
    elif left != right or isinstance(left, bool) != isinstance(right, bool):
        found.append((path, left, right))
