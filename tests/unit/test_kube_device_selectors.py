"""Selectors of devices in claims and classes: compiled as they are made. Messages are the real server's."""

from __future__ import annotations

from typing import Any

import pytest
from support.caller import Caller, Object, run

from walras.core.errors import Invalid
from walras.kube.validation import selectors

CLASSES = "deviceclasses.resource.k8s.io"
CLAIMS = "resourceclaims.resource.k8s.io"
TEMPLATES = "resourceclaimtemplates.resource.k8s.io"


def chosen(*expressions: str) -> Any:
    return [{"cel": {"expression": each}} for each in expressions]


def device_class(*expressions: str) -> Object:
    return {"metadata": {"name": "x"}, "spec": {"selectors": chosen(*expressions)}}


def devices(*expressions: str) -> Object:
    asked = {"deviceClassName": "c", "selectors": chosen(*expressions)}
    return {"devices": {"requests": [{"name": "r", "exactly": asked}]}}


@pytest.mark.parametrize(
    "expression",
    [
        "device.driver == 'x' && device.allowMultipleAllocations",
        "device.attributes['a'].b",
        "device.attributes['a'].b.isGreaterThan(semver('1.0.0'))",
        "device.capacity['a'].b.compareTo(quantity('1')) >= 0",
        "cel.bind(d, device.attributes['x'], d.y && d.z)",
    ],
)
def test_a_selector_of_devices_is_taken(expression: str) -> None:
    async def story(agent: Caller) -> None:
        await agent.create(CLASSES, device_class(expression))
        await agent.create(CLAIMS, {"metadata": {"name": "x"}, "spec": devices(expression)})

    run(story)


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("device.drivers == 'x'", "compilation failed: ERROR: <input>:1:7: undefined field 'drivers'"),
        ("a b", "compilation failed: ERROR: <input>:1:3: Syntax error"),
        ("1", "must evaluate to bool or the unknown type, not int"),
        ("device.attributes", "not map(string, map(string, google.protobuf.Any))"),
        ("device.attributes.exists(k, device.attributes.exists(l, device.attributes.exists(m, "
         "device.attributes.exists(n, k==l))))", "too complex, exceeds cost limit"),
        ("x" * 10241, "Too long: may not be more than 10240 bytes"),
    ],
)  # fmt: skip
def test_what_is_no_selector_is_refused_where_it_is_made(expression: str, said: str) -> None:
    async def story(agent: Caller) -> None:
        for key, obj, path in (
            (CLASSES, device_class(expression), "spec.selectors[0].cel.expression"),
            (CLAIMS, {"metadata": {"name": "x"}, "spec": devices(expression)},
             "spec.devices.requests[0].exactly.selectors[0].cel.expression"),
            (TEMPLATES, {"metadata": {"name": "x"}, "spec": {"spec": devices(expression)}},
             "spec.spec.devices.requests[0].exactly.selectors[0].cel.expression"),
        ):  # fmt: skip
            with pytest.raises(Invalid) as refused:
                await agent.create(key, obj)
            (cause,) = refused.value.causes
            assert cause.field == path and said in cause.message

    run(story)


def test_a_class_that_is_changed_elsewhere_keeps_its_selectors() -> None:
    async def story(agent: Caller) -> None:
        await agent.create(CLASSES, device_class("true"))
        await agent.patch(CLASSES, "x", {"metadata": {"labels": {"a": "b"}}})
        with pytest.raises(Invalid, match="undeclared reference to 'bad'"):
            await agent.patch(CLASSES, "x", {"spec": {"selectors": chosen("bad")}})

    run(story)


def test_what_is_compiled_of_one_object_is_bounded() -> None:
    long = f"'{'x' * 10_000}' == device.driver"
    many = [f"{long} || {number} == 1" for number in range(8)]

    async def story(agent: Caller) -> None:
        with pytest.raises(Invalid) as refused:
            await agent.create(CLASSES, device_class(*many))
        fields = [cause.field for cause in refused.value.causes]
        most = selectors.COMPILED_CHARACTERS_MAX // len(many[0])
        assert fields == [f"spec.selectors[{number}].cel.expression" for number in range(most, len(many))]

    run(story)
