"""Whose the engine's images are, in a file that is never behind what the engine has."""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

import msgspec

from walras.core.errors import StorageError
from walras.runtimes.image_names import repository

Found = Mapping[str, Any]


class Note(msgspec.Struct, omit_defaults=True):
    """An image that was pulled. `agents`: those that could pull it, None for everybody.

    `payer`: the agent whose images it counts among, with so many bytes; `names`: what it was pulled by.
    """

    agents: list[str] | None = None
    payer: str = ""
    size_bytes: int = 0
    names: list[str] = []


class Intent(msgspec.Struct, omit_defaults=True):
    """A pull that an agent has begun. `before`: the id that the name stood for then, "" for none."""

    name: str
    cluster: str
    keyed: bool
    before: str = ""


class _Pages(msgspec.Struct):
    images: dict[str, Note] = {}
    pulling: dict[str, Intent] = {}


class Book:
    """An image that a pull with a key may have brought and that is not noted is nobody's.

    So it does not matter where a pull, or the server, is cut off: its intent is on disk before it begins.
    What writes raises StorageError.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pages = _Pages()
        if path.exists():
            self._pages = msgspec.json.decode(path.read_bytes(), type=_Pages)
        # Whether the disk has what is known here.
        self._is_written = True
        # Intents that nobody is at work on any more, and since when, by the loop's time.
        self.left = dict.fromkeys(self._pages.pulling, 0.0)
        self._numbers = count(1 + max((int(each) for each in self.left), default=0))

    def allows(self, found: Found, cluster: str) -> bool:
        """Whether the image, as the engine shows it, is for the agent."""
        note = self._pages.images.get(_id(found))
        if note is not None:
            return note.agents is None or cluster in note.agents
        names = [*(found.get("RepoTags") or ()), *(found.get("RepoDigests") or ())]
        places = {repository(each) for each in names}
        return not any(
            each.keyed and repository(each.name) in places and each.before != _id(found)
            for each in self._pages.pulling.values()
        )

    def begin(self, name: str, cluster: str, before: Found | None, *, keyed: bool) -> str:
        """A pull begins: what to `note`, `leave` or `end` it by."""
        number = str(next(self._numbers))
        self._pages.pulling[number] = Intent(name, cluster, keyed, _id(before) if before is not None else "")
        try:
            self._write()
        except StorageError:
            del self._pages.pulling[number]
            raise
        return number

    def leave(self, number: str, now_s: float) -> None:
        """The pull was cut off, nobody knows where."""
        if number in self._pages.pulling:
            self.left[number] = now_s

    def name(self, number: str) -> str:
        """What the pull was of."""
        return self._pages.pulling[number].name

    def end(self, number: str, found: Found | None) -> str:
        """A pull that came to nothing is over: the id of what it may have brought (`found`) if it did.

        That is nobody's if there was a key, and counts among the agent's until it is gone.
        """
        intent = self._pages.pulling.pop(number)
        self.left.pop(number, None)
        brought = found is not None and _id(found) not in (intent.before, *self._pages.images)
        if found is not None and brought:
            self._pages.images[_id(found)] = Note(
                [] if intent.keyed else None, intent.cluster, _size(found), [intent.name]
            )
        self._write()
        return _id(found) if found is not None and brought else ""

    def note(self, found: Found, number: str) -> None:
        """The pull brought the image."""
        intent = self._pages.pulling.pop(number)
        known = self._pages.images.get(_id(found))
        # What the operator brought is not made anybody's by who can pull it too.
        free = not intent.keyed or (known is None and intent.before == _id(found))
        if known is None:
            known = self._pages.images[_id(found)] = Note([], intent.cluster, _size(found))
        known.names = sorted({*known.names, intent.name})
        if free:
            known.agents = None
        elif known.agents is not None:
            known.agents = sorted({*known.agents, intent.cluster})
        self._write()

    def forget(self, engine_id: str) -> None:
        """The image is gone."""
        if self._pages.images.pop(engine_id, None) is not None:
            self._write()

    def drop(self, cluster: str) -> None:
        """The agent is gone: nothing is for another by its name, nor counts among that one's."""
        was = msgspec.json.encode(self._pages)
        for note in self._pages.images.values():
            note.agents = note.agents and [each for each in note.agents if each != cluster]
            note.payer = "" if note.payer == cluster else note.payer
        for intent in self._pages.pulling.values():
            intent.cluster = "" if intent.cluster == cluster else intent.cluster
        if not self._is_written or msgspec.json.encode(self._pages) != was:
            self._write()

    def names(self, engine_id: str) -> list[str]:
        """What pods pulled the image by."""
        note = self._pages.images.get(engine_id)
        return note.names if note is not None else []

    def knows(self, engine_id: str) -> bool:
        """Whether it is noted of the image whose it is."""
        return engine_id in self._pages.images

    def paid(self, cluster: str) -> dict[str, int]:
        """The bytes of each image that counts among the agent's, by id."""
        every = self._pages.images.items()
        return {name: note.size_bytes for name, note in every if note.payer == cluster}

    def _write(self) -> None:
        """Returns when it is on disk."""
        self._is_written = False
        try:
            _replace(self._path, msgspec.json.encode(self._pages))
        except OSError as error:
            raise StorageError(f"{self._path} cannot be written: {error.strerror or error}") from error
        self._is_written = True


def _replace(path: Path, content: bytes) -> None:
    fresh = path.with_suffix(".new")
    with fresh.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _size(found: Found) -> int:
    return int(found.get("Size") or 0)


def _id(found: Found) -> str:
    return str(found["Id"])
