"""A plain dictionary with a log foretells the API: every revision, replay, selection and failure."""

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from walras.core.clock import SequenceIds, VirtualClock
from walras.core.errors import Expired, StorageError
from walras.kube import committer
from walras.kube.api import API
from walras.kube.store.sqlite import SqliteStore
from walras.kube.verbs import Context, Identity, Verbs

NAMES, COLORS = ("x", "y", "z"), ("red", "blue")
PUT = st.tuples(st.just("put"), st.sampled_from(NAMES), st.sampled_from(COLORS))
DROP = st.tuples(st.just("drop"), st.sampled_from(NAMES), st.just(""))
ONE = PUT | DROP
STEPS = st.lists(
    st.one_of(
        ONE.map(lambda one: ("write", (one,))),
        st.lists(ONE, min_size=2, max_size=5).map(lambda many: ("write", tuple(many))),
        st.lists(ONE, min_size=1, max_size=3).map(lambda many: ("fail", tuple(many))),
        st.just(("restart", ())),
    ),
    min_size=6,
    max_size=25,
)
State = dict[str, str]
Event = tuple[int, str, str]


class Model:
    """What must be true: `states[r]` is the objects (name to color) at revision r."""

    def __init__(self) -> None:
        self.states: dict[int, State] = {1: {}}

    @property
    def revision(self) -> int:
        return max(self.states)

    @property
    def now(self) -> State:
        return self.states[self.revision]

    def write(self, action: str, name: str, color: str) -> None:
        state = dict(self.now)
        if action == "put":
            state[name] = color
        else:
            state.pop(name, None)
        if state != self.now:
            self.states[self.revision + 1] = state

    def events(self, after: int, color: str) -> list[Event]:
        """What a watcher of a color (or of all, "") must see beyond a revision."""
        found = []
        for revision in range(after + 1, self.revision + 1):
            before, state = self.states[revision - 1], self.states[revision]
            (name,) = [n for n in NAMES if before.get(n) != state.get(n)]
            was, now = before.get(name), state.get(name)
            seen = (was is not None and color in ("", was), now is not None and color in ("", now))
            kind = {(False, True): "ADDED", (True, True): "MODIFIED", (True, False): "DELETED"}.get(seen)
            if kind:
                found.append((revision, kind, name))
        return found


class Subject:
    """The API, on a file that outlives it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.start()

    def start(self) -> None:
        self.store = SqliteStore(self.path)
        # What is proved here does not need the disk's patience.
        self.store._writer.execute("PRAGMA synchronous = OFF")
        self.api = API(self.store, VirtualClock(), SequenceIds())
        self.verbs = Verbs(self.api)

    def stage(self, tx: Any, action: str, name: str, color: str) -> None:
        if action == "drop":
            if tx.peek("a", "configmaps", "n", name) is not None:
                tx.delete("a", "configmaps", "n", name)
        elif tx.peek("a", "configmaps", "n", name) is None:
            metadata = {"name": name, "namespace": "n", "labels": {"color": color}}
            tx.create("a", "configmaps", {"metadata": metadata})
        else:
            tx.edit("a", "configmaps", "n", name, lambda o: o["metadata"].update(labels={"color": color}))

    async def write(self, steps: tuple[tuple[str, str, str], ...]) -> None:
        """Each step in a transaction of its own, all at once."""

        async def one(step: tuple[str, str, str]) -> None:
            tx = self.api.transaction()
            self.stage(tx, *step)
            await tx.commit()

        await asyncio.gather(*(one(step) for step in steps))

    async def fail(self, steps: tuple[tuple[str, str, str], ...]) -> None:
        tx = self.api.transaction()
        for step in steps:
            self.stage(tx, *step)
        tx.execute("INSERT INTO nowhere VALUES (1)", [()])
        with pytest.raises(StorageError):
            await tx.commit()

    def watch(self, after: int, color: str) -> list[Event]:
        resource = self.api.registry("a")["configmaps"]
        selector = f"color={color}" if color else ""
        stream = self.verbs.watch(
            Context(Identity("op"), "a"), resource, "", resource_version=str(after), label_selector=selector
        )
        found = []
        while (event := stream.ready()) is not None:
            metadata = event.object["metadata"]
            found.append((int(metadata["resourceVersion"]), event.type, metadata["name"]))
        stream.close()
        return found

    def listed(self, at: int) -> State:
        resource = self.api.registry("a")["configmaps"]
        items, token = [], ""
        first: dict[str, Any] = {"resource_version": str(at), "resource_version_match": "Exact"}
        while True:
            more = {"continue_": token} if token else first
            page = self.verbs.list(Context(Identity("op"), "a"), resource, "", limit=2, **more)
            items += page.items
            token = page.continue_
            if not token:
                return {item["metadata"]["name"]: item["metadata"]["labels"]["color"] for item in items}


@contextmanager
def short_history(revisions: int) -> Iterator[None]:
    kept = committer.HISTORY_REVISIONS, committer.COMPACT_STEP
    committer.HISTORY_REVISIONS, committer.COMPACT_STEP = revisions, 1  # type: ignore[misc]
    try:
        yield
    finally:
        committer.HISTORY_REVISIONS, committer.COMPACT_STEP = kept  # type: ignore[misc]


def agree(subject: Subject, model: Model) -> None:
    assert subject.api.revision("a") == model.revision
    compacted = subject.api.state.clusters["a"].compacted
    for revision in model.states:
        if revision < compacted:
            with pytest.raises(Expired):
                subject.watch(revision, "")
            continue
        assert subject.listed(revision) == model.states[revision]
        for color in ("", *COLORS):
            assert subject.watch(revision, color) == model.events(revision, color)


@settings(max_examples=40, deadline=None)
@given(steps=STEPS, history=st.sampled_from((1, 4, 1000)))
def test_every_revision_is_as_the_model_says(steps: list[tuple[str, Any]], history: int) -> None:
    async def told(directory: str) -> None:
        subject, model = Subject(Path(directory) / "db"), Model()
        await subject.api.create_cluster("a")
        for action, writes in steps:
            if action == "restart":
                subject.store.close()
                subject.start()
            elif action == "fail":
                await subject.fail(writes)
            else:
                await subject.write(writes)
                for write in writes:
                    model.write(*write)
        agree(subject, model)
        subject.store.close()
        subject.start()
        agree(subject, model)
        subject.store.close()

    with short_history(history), tempfile.TemporaryDirectory() as directory:
        asyncio.run(told(directory))
