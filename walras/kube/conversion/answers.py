"""Conversions that one request has been told so far, and the question that it cannot go on without.

Whoever needs an object in another version looks here, and raises `Unconverted` for what is not known yet. The
request is then begun anew with the answer, as it is for admission webhooks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from walras.core.errors import Unclassified
from walras.kube import defaults
from walras.kube.patch import copied
from walras.kube.record import Object, encode
from walras.kube.registry import Resource

# All answers to one request may take so much, and so many times what is converted.
ANSWERS_BYTES_MIN: Final = 8 << 20
ANSWERED_TIMES_MAX: Final = 4


class Unconverted(Exception):
    """Objects are to be converted to the version `target` before the request can go on."""

    def __init__(self, target: Resource, objects: list[Object]) -> None:
        super().__init__(target.api_version)
        self.target = target
        self.objects = objects


class Budget:
    """How much webhooks may answer to one request: hostile ones send more than there is memory for."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = ANSWERS_BYTES_MIN

    def asked(self, size: int) -> None:
        """Objects of so many bytes are to be converted."""
        self._left += ANSWERED_TIMES_MAX * size

    def answered(self, size: int, about: str) -> None:
        """Raises Unclassified once the answers are more than what was asked about makes likely."""
        self._left -= size
        if self._left < 0:
            most = f"{ANSWERS_BYTES_MIN} bytes and {ANSWERED_TIMES_MAX} times what is converted"
            raise Unclassified(f"{about} failed: the answers to one request take more than {most}")


class Conversions:
    """What objects are in other versions, for as long as one request takes."""

    __slots__ = ("_known", "budget", "rounds")

    def __init__(self) -> None:
        self.budget = Budget()
        # How often something was asked.
        self.rounds = 0
        self._known: dict[tuple[str, bytes], Object] = {}

    def find(self, target: Resource, asked: Object) -> Object | None:
        return self._known.get((target.api_version, encode(asked)))

    def learn(self, target: Resource, asked: Object, converted: Object) -> None:
        self._known[target.api_version, encode(asked)] = converted


def asked(target: Resource, obj: Object) -> Object:
    """What the webhook is shown of an object: with the defaults of the version in which it is stored.

    An object's resourceVersion is not its own to know.
    """
    metadata = {name: value for name, value in obj["metadata"].items() if name != "resourceVersion"}
    shown: Object = {**obj, "metadata": metadata}
    lies_in = target.storage
    if obj["apiVersion"] == lies_in.api_version:
        shown = copied(shown)
        defaults.apply(lies_in, shown)
    return shown


def converted(target: Resource, objects: Iterable[Object], conversions: Conversions | None) -> list[Object]:
    """Copies of the objects in the version `target`. Raises Unconverted with all that are not known."""
    found: list[Object] = []
    missing: list[Object] = []
    for obj in objects:
        if obj["apiVersion"] == target.api_version:
            found.append(copied(obj))
            defaults.apply(target, found[-1])
            continue
        question = asked(target, obj)
        answer = conversions.find(target, question) if conversions is not None else None
        if answer is None:
            missing.append(question)
            continue
        found.append(copied(answer))
        if "resourceVersion" in obj["metadata"]:
            found[-1]["metadata"]["resourceVersion"] = obj["metadata"]["resourceVersion"]
    if missing:
        raise Unconverted(target, missing)
    return found
