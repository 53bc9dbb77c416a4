"""Whose images are, and which go when their disk is full."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

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
