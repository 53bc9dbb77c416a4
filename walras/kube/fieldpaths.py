"""Paths of fields that a client is told of: put in words only where they are told, and within a bound."""

from __future__ import annotations

from typing import Any, Final

# The way back up, each step a field name, a list index or (a map's key,).
Path = tuple[Any, "str | int | tuple[str]"] | None

# As many faults as Kubernetes reports of one document.
TOLD_MAX: Final = 100
# One long key is in the path of all that is under it.
TOLD_CHARACTERS_MAX: Final = 64 << 10


def text(path: Path) -> str:
    """Like "spec.containers[0].image"."""
    steps: list[str] = []
    while path is not None:
        path, step = path[0], path[1]
        steps.append(
            f"[{step}]" if isinstance(step, int) else f".{step if isinstance(step, str) else step[0]}"
        )
    return "".join(reversed(steps)).removeprefix(".")


class Told:
    """The first paths that are noted, in words: no more than anybody reads."""

    __slots__ = ("_room", "paths")

    def __init__(self) -> None:
        self.paths: list[str] = []
        self._room = TOLD_CHARACTERS_MAX

    @property
    def is_full(self) -> bool:
        return self._room <= 0 or len(self.paths) >= TOLD_MAX

    def note(self, path: Path) -> None:
        if not self.is_full:
            self.paths.append(text(path))
            self._room -= len(self.paths[-1])
