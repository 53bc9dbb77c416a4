"""What must hold for any configurations, patches and documents."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from walras.core.errors import Conflict
from walras.kube.applying import apply
from walras.kube.fieldsets import decode, encode
from walras.kube.patch import json_patch, merge_patch, same
from walras.kube.registry import Resource
from walras.kube.schema import Schema, definitions
from walras.kube.strategic import strategic_merge

Object = dict[str, Any]

MAPS = Resource(
    "", "v1", "ConfigMap", "configmaps", "configmap", True, definitions()["io.k8s.api.core.v1.ConfigMap"]
)
CONFIG_MAP = Schema.named("io.k8s.api.core.v1.ConfigMap")

names = st.sampled_from("abcd")
values = st.sampled_from("123")
data = st.dictionaries(names, values, min_size=1, max_size=4)
managers = st.sampled_from(["x", "y", "z"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab~/", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3),
    max_leaves=8,
)
documents = st.dictionaries(st.text("ab", max_size=2), json_values, max_size=4)


def config(of: dict[str, str]) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": of}


def owners(obj: Object) -> dict[str, frozenset[tuple[str, ...]]]:
    return {entry["manager"]: decode(entry["fieldsV1"]) for entry in obj["metadata"]["managedFields"]}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(managers, data), min_size=1, max_size=6))
def test_a_forced_apply_sets_what_it_says_and_owns_it_alone_where_others_differ(
    turns: list[tuple[str, dict[str, str]]],
) -> None:
    live: Object | None = None
    last: dict[str, dict[str, str]] = {}
    for manager, said in turns:
        live = apply(MAPS, live, config(said), manager=manager, force=True, now="t")
        last[manager] = said
        assert said.items() <= live["data"].items()
        assert owners(live)[manager] == {("f:data", f"f:{key}") for key in said}
        # An independent account: a key is there exactly if somebody's last word on it still stands.
        for other, theirs in list(last.items()):
            if other != manager:
                last[other] = {key: value for key, value in theirs.items() if said.get(key, value) == value}
        assert live["data"].keys() == set().union(*last.values())


@settings(max_examples=60, deadline=None)
@given(data, data, managers)
def test_applying_twice_is_applying_once(first: dict[str, str], second: dict[str, str], manager: str) -> None:
    live = apply(MAPS, None, config(first), manager="base", force=True, now="t1")
    once = apply(MAPS, live, config(second), manager=manager, force=True, now="t2")
    assert apply(MAPS, once, config(second), manager=manager, force=False, now="t3") == once


@settings(max_examples=60, deadline=None)
@given(data, data)
def test_a_conflict_names_exactly_the_keys_that_differ(first: dict[str, str], second: dict[str, str]) -> None:
    live = apply(MAPS, None, config(first), manager="x", force=False, now="t")
    differing = {f".data.{key}" for key in first.keys() & second.keys() if first[key] != second[key]}
    try:
        apply(MAPS, live, config(second), manager="y", force=False, now="t")
        named = set()
    except Conflict as conflict:
        named = {cause.field for cause in conflict.causes}
    assert named == differing


elements = st.sampled_from(
    ["f:a", "f:b.c", 'k:{"name":"x"}', 'k:{"port":80,"protocol":"TCP"}', 'v:"s"', "v:3", "i:0"]
)


@settings(max_examples=80, deadline=None)
@given(st.frozensets(st.lists(elements, min_size=1, max_size=4).map(tuple), max_size=8))
def test_field_sets_survive_being_written(fields: frozenset[tuple[str, ...]]) -> None:
    assert decode(encode(fields)) == fields


@settings(max_examples=60, deadline=None)
@given(documents, documents)
def test_replacing_every_field_by_json_patch_gives_the_other_document(old: Object, new: Object) -> None:
    operations = [{"op": "remove", "path": f"/{key}"} for key in old]
    operations += [{"op": "add", "path": f"/{key}", "value": value} for key, value in new.items()]
    assert same(json_patch(old, operations), new)


@settings(max_examples=60, deadline=None)
@given(documents, documents)
def test_a_merge_patch_given_twice_changes_nothing_more(doc: Object, patch: Object) -> None:
    once = merge_patch(doc, patch)
    assert same(merge_patch(once, patch), once)


@settings(max_examples=60, deadline=None)
@given(data, st.dictionaries(names, st.none() | values, max_size=4))
def test_strategic_merge_of_a_plain_map_is_a_merge_patch(have: Object, patch: Object) -> None:
    doc = config(have)
    assert strategic_merge(CONFIG_MAP, doc, {"data": patch}) == merge_patch(doc, {"data": patch})
