"""JSON patch and merge patch: RFC 6902 and 7386, and Kubernetes where it does not follow them."""

from __future__ import annotations

from typing import Any

import pytest

from walras.core.errors import BadRequest, Invalid, RequestEntityTooLarge
from walras.kube.patch import OPERATIONS_MAX, json_patch, merge_patch


def op(kind: str, path: str, **rest: Any) -> dict[str, Any]:
    return {"op": kind, "path": path, **rest}


@pytest.mark.parametrize(
    ("doc", "operation", "expected"),
    [
        # RFC 6902, appendix A.
        ({"foo": "bar"}, op("add", "/baz", value="qux"), {"baz": "qux", "foo": "bar"}),
        ({"foo": ["bar", "baz"]}, op("add", "/foo/1", value="qux"), {"foo": ["bar", "qux", "baz"]}),
        ({"baz": "qux", "foo": "bar"}, op("remove", "/baz"), {"foo": "bar"}),
        ({"foo": ["bar", "qux", "baz"]}, op("remove", "/foo/1"), {"foo": ["bar", "baz"]}),
        ({"baz": "qux"}, op("replace", "/baz", value="boo"), {"baz": "boo"}),
        (
            {"foo": {"bar": "baz", "waldo": "fred"}, "qux": {"corge": "grault"}},
            {"op": "move", "from": "/foo/waldo", "path": "/qux/thud"},
            {"foo": {"bar": "baz"}, "qux": {"corge": "grault", "thud": "fred"}},
        ),
        (
            {"foo": ["all", "grass", "cows", "eat"]},
            {"op": "move", "from": "/foo/1", "path": "/foo/3"},
            {"foo": ["all", "cows", "eat", "grass"]},
        ),
        ({"baz": "qux", "foo": ["a", 2]}, op("test", "/foo/1", value=2), {"baz": "qux", "foo": ["a", 2]}),
        ({"foo": ["bar"]}, op("add", "/foo/-", value=["abc"]), {"foo": ["bar", ["abc"]]}),
        ({"/": 9, "~1": 10}, op("test", "/~01", value=10), {"/": 9, "~1": 10}),
        ({"a": {"b": [1]}}, {"op": "copy", "from": "/a", "path": "/c"}, {"a": {"b": [1]}, "c": {"b": [1]}}),
        # Kubernetes' library: replace adds, negative indices count from the end.
        ({}, op("replace", "/a", value=1), {"a": 1}),
        ({"a": [1, 2]}, op("remove", "/a/-1"), {"a": [1]}),
        ({"a": [1, 2]}, op("add", "/a/-1", value=3), {"a": [1, 2, 3]}),
        ({"a": 1}, op("test", "/b", value=None), {"a": 1}),
        ({"a": 1}, op("replace", "", value={"b": 2}), {"b": 2}),
    ],
)
def test_an_operation_applies(
    doc: dict[str, Any], operation: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert json_patch(doc, [operation]) == expected


@pytest.mark.parametrize(
    ("doc", "operation", "why"),
    [
        ({}, op("remove", "/a"),
         "error in remove for path: '/a': Unable to remove nonexistent key: a: missing value"),
        ({}, op("add", "/a/b", value=1),
         'add operation does not apply: doc is missing path: "/a/b": missing value'),
        ({"a": "text"}, op("add", "/a/b/c", value=1),
         'add operation does not apply: doc is missing path: "/a/b/c": missing value'),
        ({"a": []}, op("add", "/a/x", value=1),
         "error in add for path: '/a/x': value was not a proper array index: 'x'"),
        ({"a": []}, op("add", "/a/1", value=1),
         "error in add for path: '/a/1': Unable to access invalid index: 1: invalid index referenced"),
        ({"a": 1}, op("test", "/a", value=2), "testing value /a failed: test failed"),
        ({"a": 1}, op("test", "/a", value=True), "testing value /a failed: test failed"),
        ({}, {"op": "move", "from": "/x", "path": "/y"},
         "error in move for path: 'x': Unable to remove nonexistent key: x: missing value"),
        ({}, {"op": "copy", "from": "/x/z", "path": "/y"},
         "copy operation does not apply: doc is missing from path: /x/z: missing value"),
        ({}, {"op": "frob", "path": "/a"}, "Unexpected kind: frob"),
        ({}, {"path": "/a"}, "Unexpected kind: unknown"),
        ({}, {"op": "add"}, "add operation failed to decode path: missing value"),
        ({}, {"op": "move", "path": "/a"}, "move operation failed to decode from: missing value"),
    ],
)  # fmt: skip
def test_an_operation_that_does_not_apply_is_a_422_with_the_reason(
    doc: dict[str, Any], operation: dict[str, Any], why: str
) -> None:
    with pytest.raises(Invalid) as refused:
        json_patch(doc, [operation])
    assert refused.value.message == "the server rejected our request due to an error in our request"
    assert str(refused.value.__cause__) == why


def test_a_patch_that_fails_halfway_leaves_the_document_alone() -> None:
    doc = {"a": [1]}
    with pytest.raises(Invalid):
        json_patch(doc, [op("add", "/a/-", value=2), op("test", "/a/0", value=9)])
    assert doc == {"a": [1]}


def test_the_values_of_a_patch_are_not_shared_with_the_result() -> None:
    value: dict[str, Any] = {"x": 1}
    result = json_patch({}, [op("add", "/a", value=value), op("add", "/a/y", value=2)])
    assert value == {"x": 1} and result == {"a": {"x": 1, "y": 2}}


def test_copies_cannot_blow_up_a_small_patch() -> None:
    doubling = [{"op": "copy", "from": "/a", "path": f"/a/{step}"} for step in range(64)]
    with pytest.raises(Invalid) as refused:
        json_patch({"a": {"text": "x" * 1000}}, doubling)
    assert "the accumulated size increase of copy is" in str(refused.value.__cause__)


def test_too_many_operations_are_refused() -> None:
    with pytest.raises(RequestEntityTooLarge, match="maximum operations in a JSON patch is 10000, got 10001"):
        json_patch({}, [op("test", "/a", value=None)] * (OPERATIONS_MAX + 1))


@pytest.mark.parametrize("patch", [{"op": "add"}, "text", None, ["text"], 7])
def test_what_is_no_json_patch_is_a_bad_request(patch: Any) -> None:
    with pytest.raises(BadRequest, match=r"cannot unmarshal \w+ into Go value of type jsonpatch\."):
        json_patch({}, patch)


def test_an_operation_that_is_null_is_none() -> None:
    with pytest.raises(Invalid, match="the server rejected our request"):
        json_patch({}, [None])


@pytest.mark.parametrize(
    ("doc", "patch", "expected"),
    [
        # RFC 7386, appendix A.
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
        ({"a": "text"}, {"a": {"b": 1, "c": None}}, {"a": {"b": 1}}),
    ],
)
def test_a_merge_patch_merges(doc: dict[str, Any], patch: dict[str, Any], expected: dict[str, Any]) -> None:
    assert merge_patch(doc, patch) == expected


@pytest.mark.parametrize("patch", [[], "text", 1, None])
def test_a_merge_patch_must_be_an_object(patch: Any) -> None:
    with pytest.raises(BadRequest):
        merge_patch({}, patch)
