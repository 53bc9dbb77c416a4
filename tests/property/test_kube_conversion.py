"""Whatever a conversion webhook answers: what was asked about is converted, or the request says why not."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from support.conversion import GROUP, converted, definition, multi

from walras.core.errors import Unclassified
from walras.kube import crd
from walras.kube.conversion import review

Object = dict[str, Any]
UID = "u"
SERVED = {"conditions": [{"type": "Established", "status": "True"}], "storedVersions": ["v1"]}
FIRST, SECOND = crd.resources({**definition({"url": "https://example.com"}), "status": SERVED})
ASKED = [
    {**multi("v1", name, hostPort="h:1"), "metadata": {"name": name, "namespace": "default", "uid": name}}
    for name in ("a", "b")
]
GOOD: Object = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "ConversionReview",
    "response": {
        "uid": UID,
        "result": {"status": "Success"},
        "convertedObjects": [converted(each, f"{GROUP}/v2") for each in ASKED],
    },
}
WORDS = st.sampled_from(
    ["", "a", "v1", "metadata", "labels", "annotations", "name", "uid", "kind", "a b", "x/y", "é" * 70]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value."""
    found = [path]
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        found += places(inner, (*path, key))
    return found


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """The value with something else at the place."""
    if not path:
        return new
    changed = deepcopy(value)
    node = changed
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = new
    return changed


def answered(body: bytes) -> tuple[list[Object], str]:
    """The objects, or what is wrong with the answer."""
    try:
        return review.answered(body, ASKED, SECOND, "v1", UID), ""
    except Unclassified as failure:
        return [], failure.message


@given(st.sampled_from(places(GOOD)), VALUES)
def test_an_answer_with_something_else_in_it_is_read_or_refused(path: tuple[Any, ...], new: Any) -> None:
    body = json.dumps(put(GOOD, path, new)).encode()
    found, said = answered(body)
    if said:
        about = f"conversion webhook for {GROUP}/v1, Kind=Multi "
        assert said.startswith((about, "json: cannot unmarshal ", "unexpected end of JSON input"))
    for asked, made in zip(ASKED, found, strict=not said):
        assert (made["apiVersion"], made["kind"]) == (f"{GROUP}/v2", "Multi")
        for name, value in asked["metadata"].items():
            assert made["metadata"][name] == value
        assert made["metadata"].keys() <= {"name", "namespace", "uid", "labels", "annotations"}
        for name in ("labels", "annotations"):
            assert all(isinstance(each, str) for each in (made["metadata"].get(name) or {}).values())
        assert made.keys() <= {"apiVersion", "kind", "metadata", "host", "port", "extra", "status"}


@given(st.binary(max_size=60))
def test_what_is_no_answer_is_refused(body: bytes) -> None:
    _, said = answered(body)
    assert " failed: " in said, "no review has so few bytes"
