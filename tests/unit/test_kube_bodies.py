"""Request bodies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from walras.core.errors import BadRequest, RequestEntityTooLarge, UnsupportedMediaType
from walras.kube import bodies
from walras.kube.bodies import BODY_BYTES_MAX, YAML_VALUES_MAX, Body


@dataclass
class Pairs:
    """Members of an object, of which some may have the same key."""

    members: list[tuple[str, Any]]


def decode(text: str | bytes, media: str = "application/json") -> Body:
    return asyncio.run(bodies.decode(text.encode() if isinstance(text, str) else text, media))


def receiving(*messages: Mapping[str, Any]) -> bodies.Receive:
    left = list(messages)

    async def receive() -> Mapping[str, Any]:
        return left.pop(0)

    return receive


def part(body: bytes, more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


def test_json_and_yaml_give_the_same_object() -> None:
    assert decode('{"kind":"A","spec":{"m":1}}').value == {"kind": "A", "spec": {"m": 1}}
    assert decode("kind: A\nspec: {m: 1}", "application/yaml; charset=utf-8").value == {
        "kind": "A",
        "spec": {"m": 1},
    }


def test_yaml_dates_stay_text_and_keys_become_text() -> None:
    assert decode("at: 2026-01-01\n1: one\ntrue: yes", "application/yaml").value == {
        "at": "2026-01-01",
        "1": "one",
        "true": True,
    }


def test_yaml_knows_the_booleans_of_one_letter() -> None:
    found = decode("a: [y, N]\nn: yy", "application/yaml").value
    assert found == {"a": [True, False], "false": "yy"}


def test_fields_given_twice_are_told_with_their_paths_and_the_last_one_counts() -> None:
    found = decode('{"a":1,"b":{"c":1,"c":2},"d":[{"e":1},{"e":1,"e":2}]}', "application/json")
    assert (found.duplicates, found.repeats) == (("b.c", "d[1].e"), ())
    assert found.value == {"a": 1, "b": {"c": 2}, "d": [{"e": 1}, {"e": 2}]}


def test_a_long_key_over_many_fields_given_twice_is_not_told_again_for_each() -> None:
    below = ",".join(f'"f{number}":{{"a":1,"a":2}}' for number in range(2000))
    told = decode('{"' + "k" * 100_000 + '":{' + below + "}}").duplicates
    assert 0 < sum(map(len, told)) < 2 * 100_100


def test_keys_given_twice_in_yaml_are_told_with_their_lines_and_the_last_one_counts() -> None:
    found = decode("a: 1\nb:\n  c: 1\n  c: 2\nd:\n- e: 1\n- e: 1\n  e: 2\n", "application/yaml")
    told = ('line 4: key "c" already set in map', 'line 8: key "e" already set in map')
    assert (found.duplicates, found.repeats) == ((), told)
    assert found.value == {"a": 1, "b": {"c": 2}, "d": [{"e": 1}, {"e": 2}]}


@pytest.mark.parametrize(
    ("text", "media"),
    [
        ("", "application/json"),
        ("{", "application/json"),
        ("[]", "application/json"),
        ('{"a":NaN}', "application/json"),
        (b'{"a":"\xff"}', "application/json"),
        ('{"a":"\\ud800"}', "application/json"),
        ('{"a":123456789012345678901234567890}', "application/json"),
        ('{"a":' + "[" * 500 + "]" * 500 + "}", "application/json"),
        ('{"a":' * 3000 + "1" + "}" * 3000, "application/json"),
        ("a: [", "application/yaml"),
        ("- a", "application/yaml"),
        ("a: &x [1]\nb: *x", "application/yaml"),
        ("[" * 3000 + "]" * 3000, "application/yaml"),
        ("? [a, b]\n: c", "application/yaml"),
        ("a: !!python/object:os.system x", "application/yaml"),
        ("a: 1\n---\nb: 2", "application/yaml"),
        (b"a: \xff\xfe", "application/yaml"),
    ],
)
def test_what_cannot_be_an_object_is_a_bad_request(text: str | bytes, media: str) -> None:
    with pytest.raises(BadRequest):
        decode(text, media)


def test_other_media_types_are_not_supported() -> None:
    with pytest.raises(UnsupportedMediaType, match=r"application/vnd\.kubernetes\.protobuf"):
        decode("{}", "application/cbor")


def test_a_body_in_parts_is_put_together() -> None:
    receive = receiving(part(b"ab", True), part(b"cd", True), part(b""))
    assert asyncio.run(bodies.read(receive, None)) == b"abcd"


def test_a_body_of_the_declared_length_is_not_waited_for_any_more() -> None:
    # There is no third message: to ask for one would fail.
    receive = receiving(part(b"ab", True), part(b"cd", True))
    assert asyncio.run(bodies.read(receive, b"4")) == b"abcd"


def test_a_body_over_the_limit_is_refused_by_its_declared_length_before_it_is_read() -> None:
    with pytest.raises(RequestEntityTooLarge):
        asyncio.run(bodies.read(receiving(), str(BODY_BYTES_MAX + 1).encode()))


def test_a_body_over_the_limit_is_refused_while_it_is_read() -> None:
    with pytest.raises(RequestEntityTooLarge):
        asyncio.run(bodies.read(receiving(part(b"x" * BODY_BYTES_MAX, True), part(b"x", True)), None))


def test_a_body_that_breaks_off_in_the_middle_is_refused() -> None:
    with pytest.raises(BadRequest, match="broke off"):
        asyncio.run(bodies.read(receiving(part(b"x", True), {"type": "http.disconnect"}), None))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"a" :1,"a":2,"b":1}', ("a",)),
        ('{"a"\n:1,"b":"\\":","a" : 2}', ("a",)),
        ('{"b":"x\\":1, \\"y\\":2","c":{"d":"\\" :"}}', ()),
        ('{"a":{"k":1},"b":{"k":1},"c":[{"k":1},{"k":1}]}', ()),
        ('{"a":{"k":1,"\\u006b":2}}', ("a.k",)),
        ('{"a":1,"a":2,"b":"\\"\\u003a"}', ("a",)),
        ('{"a":1,"a":2,"b":"\\"\\u003A"}', ("a",)),
    ],
)
def test_a_key_given_twice_is_told_however_the_json_is_written(text: str, told: tuple[str, ...]) -> None:
    assert decode(text).duplicates == told


@given(
    st.recursive(
        st.one_of(
            st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.text('":\\ ,{}a0', max_size=6)
        ),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.lists(st.tuples(st.text('":\\ ak', max_size=2), inner), max_size=3).map(Pairs),
        ),
        max_leaves=12,
    ),
    st.booleans(),
    st.sampled_from([(",", ":"), (", ", ": "), (" , ", " : ")]),
)
def test_keys_are_told_just_when_they_are_given_twice(
    inner: Any, escaped: bool, marks: tuple[str, str]
) -> None:
    twice: list[str] = []
    text = written(Pairs([("a", inner)]), marks, twice, escaped)
    assert bool(decode(text).duplicates) == bool(twice)


def written(value: Any, marks: tuple[str, str], twice: list[str], escaped: bool) -> str:
    """JSON, with members in the order in which they are given; notes the keys that are given twice."""
    if isinstance(value, Pairs):
        keys = [key for key, _ in value.members]
        twice += [key for key in keys if keys.count(key) > 1]
        members = (
            f"{written(key, marks, twice, escaped)}{marks[1]}{written(each, marks, twice, escaped)}"
            for key, each in value.members
        )
        return "{" + marks[0].join(members) + "}"
    if isinstance(value, list):
        return "[" + marks[0].join(written(each, marks, twice, escaped) for each in value) + "]"
    text = json.dumps(value)
    if not escaped or "\\\\" in text:
        return text
    return text.replace(":", "\\u003a") if len(text) % 2 else text.replace('\\"', "\\u0022")


@pytest.mark.parametrize(
    ("media", "unit"),
    [
        ("application/json", b'{"a":1,"a":2,"b":[%s]}'),
        ("application/yaml", b"{a: 1, a: 2, b: [%s]}"),
    ],
)
def test_large_bodies_are_read_beside_the_loop(media: str, unit: bytes) -> None:
    taken: list[int] = []

    async def take(step: Any, body: bytes, kind: str) -> Any:
        taken.append(len(body))
        return step(body, kind)

    small, large = (unit % b",".join([b"1"] * many) for many in (10, 20_000))
    for body in (small, large):
        there = asyncio.run(bodies.decode(body, media, "Pod", take))
        assert there == asyncio.run(bodies.decode(body, media, "Pod"))
    assert taken == [len(large)]


def test_a_large_body_in_protobuf_is_read_beside_the_loop() -> None:
    async def take(_: Any, body: bytes, __: str) -> Any:
        raise BadRequest(f"{len(body)} bytes")

    with pytest.raises(BadRequest, match="100004 bytes"):
        asyncio.run(bodies.decode(bodies.PROTOBUF_MAGIC + b"x" * 100_000, "", "Pod", take))


def test_yaml_of_too_many_values_is_refused_before_they_are_made() -> None:
    body = b"a: [" + b",".join([b"1"] * (YAML_VALUES_MAX - 3)) + b"%s]"
    assert len(decode(body % b"", "application/yaml").value["a"]) == YAML_VALUES_MAX - 3
    with pytest.raises(RequestEntityTooLarge, match="at most 250000 values"):
        decode(body % b",1", "application/yaml")
