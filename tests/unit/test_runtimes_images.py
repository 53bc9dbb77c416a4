"""Whose images are, and which go when their disk is full."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from walras.core.errors import StorageError
from walras.runtimes.engine import orphans
from walras.runtimes.engine.book import Book
from walras.runtimes.engine.collecting import AGE_MIN_S, HIGH, LOW, Stored, stored, to_free, victims

PLACE = "registry.example/team/app"


def image(name: str = "sha256:1", *tags: str) -> dict[str, Any]:
    return {"Id": name, "RepoTags": list(tags or (f"{PLACE}:1",)), "RepoDigests": [], "Size": 10}


def test_an_image_that_the_operator_brought_is_for_everybody_whoever_can_pull_it_too(tmp_path: Path) -> None:
    book = Book(tmp_path / "book")
    assert book.allows(image(), "acme")
    number = book.begin(f"{PLACE}:1", "acme", image(), keyed=True)
    assert book.allows(image(), "rival")
    book.note(image(), number)
    assert book.allows(image(), "rival") and book.allows(image(), "acme")


def test_an_image_that_may_have_come_by_a_key_is_nobodys_until_that_is_known(tmp_path: Path) -> None:
    book = Book(tmp_path / "book")
    number = book.begin(f"{PLACE}:1", "acme", None, keyed=True)
    by_digest = {**image(), "RepoTags": [], "RepoDigests": [f"{PLACE}@sha256:{'2' * 64}"]}
    for each in (image(), image("sha256:1", f"{PLACE}:2"), by_digest):
        assert not book.allows(each, "acme") and not book.allows(each, "rival")
    assert book.allows(image("sha256:1", "registry.example/team/other:1"), "rival")
    book.note(image(), number)
    assert book.allows(image(), "acme") and not book.allows(image(), "rival")


def test_an_intent_outlives_the_server_and_what_it_brought_is_nobodys(tmp_path: Path) -> None:
    Book(tmp_path / "book").begin(f"{PLACE}:1", "acme", None, keyed=True)
    again = Book(tmp_path / "book")
    (number,) = again.left
    assert not again.allows(image(), "acme")
    assert again.end(number, image()) == "sha256:1"
    assert again.paid("acme") == {"sha256:1": 10}
    assert not again.left and not again.allows(image(), "acme")
    # A tag that moves on leaves it behind, and it is nobody's still.
    assert not Book(tmp_path / "book").allows(image("sha256:1", f"{PLACE}:old"), "acme")


def test_who_pulls_without_a_key_opens_an_image_to_everybody(tmp_path: Path) -> None:
    book = Book(tmp_path / "book")
    book.note(image(), book.begin(f"{PLACE}:1", "acme", None, keyed=True))
    assert not book.allows(image(), "rival")
    book.note(image(), book.begin(f"{PLACE}:1", "rival", None, keyed=False))
    assert book.allows(image(), "third")
    # A key later takes nothing back.
    book.note(image(), book.begin(f"{PLACE}:1", "acme", image(), keyed=True))
    assert book.allows(image(), "third")


def test_an_agent_that_comes_by_the_name_of_one_that_is_gone_has_none_of_its_images(tmp_path: Path) -> None:
    book = Book(tmp_path / "book")
    book.note(image(), book.begin(f"{PLACE}:1", "acme", None, keyed=True))
    book.note(image(), book.begin(f"{PLACE}:1", "rival", None, keyed=True))
    free = image("sha256:2", "free.example/app:1")
    book.note(free, book.begin("free.example/app:1", "acme", None, keyed=False))
    left = book.begin(f"{PLACE}:2", "acme", None, keyed=True)
    book.drop("acme")
    for each in (book, Book(tmp_path / "book")):
        assert not each.allows(image(), "acme") and each.allows(image(), "rival")
        assert each.allows(free, "acme") and not each.paid("acme")
    # A pull of its that was cut off is not the next one's either.
    assert book.end(left, image("sha256:3", f"{PLACE}:2")) == "sha256:3"
    assert not book.paid("acme") and not book.allows(image("sha256:3", f"{PLACE}:2"), "acme")


def test_an_agent_is_gone_once_the_disk_says_so(tmp_path: Path) -> None:
    path = tmp_path / "book" / "images"
    path.parent.mkdir()
    book = Book(path)
    book.note(image(), book.begin(f"{PLACE}:1", "acme", None, keyed=True))
    path.parent.rename(tmp_path / "away")
    for _ in range(2):
        with pytest.raises(StorageError):
            book.drop("acme")
    (tmp_path / "away").rename(path.parent)
    book.drop("acme")
    assert not Book(path).allows(image(), "acme")


def test_an_image_counts_for_the_agent_that_pulled_it_first_until_it_is_gone(tmp_path: Path) -> None:
    book = Book(tmp_path / "book")
    book.note(image(), book.begin(f"{PLACE}:1", "acme", None, keyed=False))
    book.note(image(), book.begin(f"{PLACE}:1", "rival", None, keyed=False))
    assert book.paid("acme") == {"sha256:1": 10} and not book.paid("rival")
    book.forget("sha256:1")
    assert not book.paid("acme") and not Book(tmp_path / "book").paid("acme")


def test_a_disk_is_freed_from_the_high_mark_down_to_the_low_one() -> None:
    assert to_free(1000, 1000 - 10 * HIGH + 1) == 0
    assert to_free(1000, 1000 - 10 * HIGH) == 10 * (HIGH - LOW)
    assert to_free(0, 0) == 0


def test_what_containers_use_and_no_registry_has_is_kept() -> None:
    images = [image("sha256:1"), image("sha256:2"), image("sha256:3", "localhost/tools:1")]
    found = stored(images, [{"ImageID": "sha256:2"}])
    assert [each.kept for each in found] == [False, True, True]


@given(
    st.lists(st.tuples(st.integers(0, 100), st.booleans(), st.floats(0, 1000)), max_size=12),
    st.integers(0, 500),
)
def test_the_longest_unused_go_first_and_no_more_than_it_takes(
    told: list[tuple[int, bool, float]], wanted: int
) -> None:
    images = [Stored(str(number), size, kept) for number, (size, kept, _) in enumerate(told)]
    used_s = {str(number): at_s for number, (_, _, at_s) in enumerate(told)}
    sizes = {each.id: each.size_bytes for each in images}
    found = victims(images, used_s, 1000.0, wanted)
    may = {each.id for each in images if not each.kept and 1000.0 - used_s[each.id] >= AGE_MIN_S}
    assert set(found) <= may
    assert [used_s[each] for each in found] == sorted(used_s[each] for each in found)
    left = may - set(found)
    assert all(used_s[each] >= max((used_s[one] for one in found), default=0) for each in left)
    if left:
        assert sum(sizes[each] for each in found) >= wanted
    if found:
        assert sum(sizes[each] for each in found[:-1]) < wanted


def stored_at(storage: Path, layers: list[dict[str, Any]], directories: list[str]) -> None:
    """Files as the engine's storage has them: an image of the layer "top", and one that was cut off."""
    for name in ("overlay", "overlay-layers", "overlay-images", "overlay-containers"):
        (storage / name).mkdir(parents=True)
    (storage / "overlay-layers" / "layers.lock").write_bytes(bytes(64))
    (storage / "overlay-layers" / "layers.json").write_text(json.dumps(layers))
    (storage / "overlay-images" / "images.lock").write_bytes(bytes(64))
    images = [
        {"id": "i", "layer": "top", "names": ["app:1"], "created": "2020-01-01T00:00:00Z"},
        {"id": "new", "layer": "fresh"},
        {"id": "half", "layer": "over", "big-data-names": ["sha256:1"], "created": "2999-01-01T00:00:00Z"},
    ]
    (storage / "overlay-images" / "new").mkdir()
    (storage / "overlay-images" / "images.json").write_text(json.dumps(images))
    (storage / "overlay-containers" / "containers.json").write_text(json.dumps([{"layer": "writes"}]))
    for each in directories:
        (storage / "overlay" / each).mkdir()


def layer(
    name: str, parent: str = "", created: str = "2020-01-01T00:00:00.25Z", **more: Any
) -> dict[str, Any]:
    return {"id": name, "parent": parent, "created": created, "kept": 1, **more}


def test_layers_that_belong_to_nothing_are_marked_and_all_others_stay_as_they_are(tmp_path: Path) -> None:
    layers = [
        layer("base"), layer("top", "base"), layer("writes", "top"), layer("left"), layer("over", "left"),
        layer("young", "under", "2999-01-01T00:00:00.123456789Z"), layer("under"), layer("fresh"),
        layer("begun", flags={"incomplete": True}),
    ]  # fmt: skip
    lost, known = "a" * 64, "b" * 64
    stored_at(tmp_path / "s", [*layers, layer(known, flags={"incomplete": True})], [lost, known, "l"])
    assert orphans.condemn(tmp_path / "s", tmp_path / "gone") == ["left", "over"]
    found = {each["id"]: each for each in json.loads((tmp_path / "s/overlay-layers/layers.json").read_text())}
    marked = {name for name, each in found.items() if each.get("flags") == {"incomplete": True}}
    assert marked == {"left", "over", "begun", known} and all(each["kept"] for each in found.values())
    images = json.loads((tmp_path / "s/overlay-images/images.json").read_text())
    assert [each["id"] for each in images] == ["i", "new"]
    for lock in ("overlay-layers/layers.lock", "overlay-images/images.lock"):
        assert (tmp_path / "s" / lock).read_bytes() != bytes(64)
    assert [each.name for each in (tmp_path / "gone").iterdir()] == [lost]
    assert {each.name for each in (tmp_path / "s/overlay").iterdir()} == {known, "l"}
    assert orphans.condemn(tmp_path / "s", tmp_path / "gone") == []


def test_nothing_is_marked_while_the_engine_is_at_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored_at(tmp_path / "s", [layer("left")], ["a" * 64])

    def held(*_: object) -> None:
        raise BlockingIOError

    # A lock of one's own process does not hold oneself up.
    monkeypatch.setattr(fcntl, "lockf", held)
    assert orphans.condemn(tmp_path / "s", tmp_path / "gone") is None
    assert "incomplete" not in (tmp_path / "s/overlay-layers/layers.json").read_text()
    assert not (tmp_path / "gone").exists()
