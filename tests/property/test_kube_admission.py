"""Whatever a client sends to any kind: it is refused with a typed error or stored in a form that stays."""

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from walras.core.errors import BadRequest
from walras.kube import defaults, fields, preparing, validation
from walras.kube.registry import Resource
from walras.kube.registry_builtin import for_all
from walras.kube.schema import Schema

WRITABLE = [resource for resource in for_all() if "update" in resource.verbs]
WORDS = st.sampled_from(
    ["", "a", "default", "Always", "Never", "A/b", "-", "..", "1", "5%", "/x", "\x00", "é" * 70]
)
AMOUNTS = st.sampled_from(["0", "1", "-1", "250m", "1Gi", "1e3", "0.1n", 2, 0.5])
TIMES = st.sampled_from(["2024-01-01T00:00:00Z", "2024-01-01T00:00:00.000001+05:00"])
NUMBERS = st.sampled_from([-(2**31), -1, 0, 1, 3, 70_000, 2**31 - 1])
ANYTHING = st.recursive(
    st.none() | st.booleans() | NUMBERS | WORDS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(WORDS, inner, max_size=2),
    max_leaves=5,
)


@st.composite
def of_type(draw: Any, schema: Schema, depth: int = 0) -> Any:
    """A value that the type can hold, though it may make no sense."""
    form = schema.form
    if form == "struct":
        names = list(schema.properties)
        chosen = draw(st.lists(st.sampled_from(names), max_size=1 + 6 // (depth + 1), unique=True))
        if depth < 6:
            chosen = [*chosen, *(name for name in ("spec", "template", "containers") if name in names)]
        below = {name: schema.child(name) for name in chosen}
        return {name: draw(of_type(node, depth + 1)) for name, node in below.items() if node is not None}
    if form == "list":
        items = schema.items
        return [] if items is None or depth > 8 else [draw(of_type(items, depth + 1))]
    if form == "map":
        values = schema.values
        return {} if values is None or depth > 8 else {draw(WORDS): draw(of_type(values, depth + 1))}
    simple = {
        "string": WORDS, "integer": NUMBERS, "boolean": st.booleans(), "number": NUMBERS, "quantity": AMOUNTS,
        "time": TIMES, "microtime": TIMES, "int-or-string": WORDS | NUMBERS, "bytes": st.just("eA=="),
    }  # fmt: skip
    return draw(simple.get(form, ANYTHING))


def stored(resource: Resource, obj: dict[str, Any]) -> dict[str, Any]:
    obj = fields.prune(resource.schema, {**obj, "apiVersion": resource.api_version, "kind": resource.kind})
    metadata = obj["metadata"] if isinstance(obj.get("metadata"), dict) else {}
    obj["metadata"] = {**metadata, "name": "x", "uid": "u", "namespace": "default"}
    defaults.apply(resource, obj)
    preparing.prepare(resource, obj)
    return obj


@pytest.mark.parametrize("resource", WRITABLE, ids=lambda resource: resource.key)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_what_fits_a_type_is_judged_and_what_is_stored_is_stable(resource: Resource, data: Any) -> None:
    try:
        first = stored(resource, data.draw(of_type(resource.schema)))
        second = stored(resource, data.draw(of_type(resource.schema)))
    except BadRequest:
        # A free-form part held what its Go type would not, or a number left its range.
        return
    before = copy.deepcopy(first)
    for old in (None, second):
        for cause in validation.validate(resource, first, old):
            assert cause.reason.startswith("FieldValue") and cause.message
    assert first == before
    assert stored(resource, copy.deepcopy(first)) == first


@pytest.mark.parametrize("resource", WRITABLE, ids=lambda resource: resource.key)
@settings(max_examples=8, deadline=None)
@given(spec=ANYTHING, status=ANYTHING, metadata=ANYTHING)
def test_nonsense_is_refused_with_a_typed_error_or_judged(
    resource: Resource, spec: Any, status: Any, metadata: Any
) -> None:
    try:
        obj = stored(resource, {"spec": spec, "status": status, "metadata": metadata})
    except BadRequest:
        return
    for cause in validation.validate(resource, obj, None):
        assert cause.message
