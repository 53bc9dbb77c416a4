"""What a webhook converts is answered as the real kube-apiserver answers it, with the same webhook."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from differential import known
from differential.compare import differences
from differential.normal import Normaliser
from differential.sides import Side, embedded, real
from differential.steps import Step
from differential.story import APPLY, MERGE, asked, compared
from support import reference
from support.conversion import GROUP, KEY, convert, definition, multi, spoilt
from support.webhook import Webhook

WHY = reference.missing("etcd", "kube-apiserver")
pytestmark = [pytest.mark.e2e, pytest.mark.skipif(bool(WHY), reason=WHY)]

Object = dict[str, Any]
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
V1, V2 = (f"/apis/{GROUP}/{version}/namespaces/default/multis" for version in ("v1", "v2"))
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
SERVED_S = 20.0
# The real server takes a new webhook some moments after it is told of it.
SETTLED_S = 3.0


def usual() -> Iterator[Step]:
    """Requests that go well, and what is wrong with others."""
    yield asked("POST", V1, multi("v1", "a", hostPort="localhost:8080"), fieldManager="one")
    yield asked("POST", V2, multi("v2", "b", host="example.com", port="80"), fieldManager="two")
    yield asked("POST", V2, multi("v2", "b", host="example.com", port="80"))
    yield asked("POST", V2, multi("v2", "c", host="h", port="123456"))
    yield asked("POST", V2, multi("v1", "c", hostPort="h:1"))
    yield asked("POST", V2, multi("v2", "c", host="h", port="1"), dryRun="All")
    for path in (V1, V2):
        for name in ("a", "b", "missing"):
            yield asked("GET", f"{path}/{name}")
        yield asked("GET", path)
        yield asked("GET", path, limit="1")
        yield asked("GET", path, labelSelector="a=b")
        yield asked("GET", path, accept=TABLE)
        yield asked("GET", path, watch="1", timeoutSeconds="1")
    yield asked("GET", V2, fieldSelector="host=localhost")
    yield asked("GET", V1, fieldSelector="host=localhost")
    yield asked("PATCH", f"{V2}/a", {"port": "81"}, MERGE, fieldManager="three")
    yield asked("PATCH", f"{V2}/a", {"port": "81"}, MERGE, fieldManager="three")
    yield asked("PATCH", f"{V2}/a", {"port": "812345"}, MERGE)
    more = {"extra": "e", "metadata": {"labels": {"l": "m"}}}
    yield asked("PATCH", f"{V1}/a", more, MERGE, fieldManager="m")
    other = multi("v1", "a", hostPort="x:1")
    yield asked("PATCH", f"{V1}/a", other, APPLY, fieldManager="four")
    yield asked("PATCH", f"{V1}/a", other, APPLY, fieldManager="four", force="true")
    yield asked("PATCH", f"{V2}/a", multi("v2", "a", host="y"), APPLY, fieldManager="five")
    yield asked("PATCH", f"{V2}/a", multi("v2", "a", host="y", port="2"), APPLY, fieldManager="four")
    yield asked("PATCH", f"{V2}/n", multi("v2", "n", host="n", port="1"), APPLY, fieldManager="four")
    yield asked("PATCH", f"{V1}/n", multi("v1", "n", hostPort="n:1", extra="e"), APPLY, fieldManager="four")
    yield asked("PATCH", f"{V2}/n", multi("v2", "n", host="n", port="1"), APPLY, fieldManager="four")
    yield asked("PATCH", f"{V2}/a/status", {"status": {"ready": True}}, MERGE, fieldManager="s")
    yield asked("GET", f"{V1}/a")
    yield asked("PATCH", f"{V2}/b", {"metadata": {"finalizers": ["a/b"]}}, MERGE, fieldManager="f")
    yield asked("DELETE", f"{V2}/b")
    yield asked("PATCH", f"{V1}/b", {"metadata": {"finalizers": None}}, MERGE, fieldManager="f")
    yield asked("DELETE", f"{V1}/n")
    yield asked("GET", V2)


def bad() -> Iterator[Step]:
    """Requests about what the webhook spoils."""
    yield asked("GET", f"{V1}/a")
    yield asked("GET", f"{V2}/a")
    yield asked("GET", V2, resourceVersion="")
    yield asked("POST", V2, multi("v2", "c", host="h", port="1"), dryRun="All")
    yield asked("DELETE", f"{V2}/a", dryRun="All")
    yield asked("DELETE", f"{V1}/a", dryRun="All")
    yield asked("PATCH", f"{V2}/a", {"port": "7"}, MERGE, dryRun="All")


def refused() -> Iterator[Step]:
    """Definitions whose conversion is wrong, or just acceptable."""
    url = "https://127.0.0.1:1/convert"
    service = {"name": "x", "namespace": "y"}
    clients: tuple[Object, ...] = (
        {}, {"url": url, "service": service}, {"service": service}, {"url": "http://u@x?y"}, {"url": "https://"},
        {"service": {"name": "", "namespace": "", "path": "x", "port": -1}}, {"url": url, "caBundle": "YWJj"},
        {"url": url, "caBundle": "IA=="}, {"url": f"{url}#x"},
    )  # fmt: skip
    for client in clients:
        yield asked("POST", CRDS, definition(client), dryRun="All")
    for reviews in ([], ["v9", "V1", "v9"], ["v1beta1"], ["v1", "v1"]):
        yield asked("POST", CRDS, definition({"url": url}, conversionReviewVersions=reviews), dryRun="All")
    changes: tuple[Object, ...] = (
        {"conversion": {"strategy": "Webhook"}},
        {"conversion": {"strategy": "X", "webhook": {"clientConfig": {"url": url}}}},
        {"conversion": {"webhook": {"clientConfig": {"url": url}, "conversionReviewVersions": ["v1"]}}},
        {"preserveUnknownFields": True},
        {
            "scope": "X",
            "conversion": {"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"]}},
        },
    )
    for change in changes:
        made = definition({"url": url})
        made["spec"] |= change
        yield asked("POST", CRDS, made, dryRun="All")
    broken = definition({"url": url, "caBundle": "YWJj"})
    broken["metadata"]["name"], broken["spec"]["group"] = f"multis.not.{GROUP}", f"not.{GROUP}"
    yield asked("POST", CRDS, broken)


SPOILT: dict[str, Callable[[Object], Any]] = {
    "failure": lambda _: {"result": {"status": "Failure", "message": "no way"}},
    "no reason": lambda _: {"result": {"status": "Failure"}},
    "empty": lambda _: b"{}",
    "nulls": lambda asked: {**convert(asked), "convertedObjects": [None for _ in asked["objects"]]},
    "name": spoilt(lambda obj: obj["metadata"].update(name="other")),
    "namespace": spoilt(lambda obj: obj["metadata"].update(namespace="other")),
    "uid": spoilt(lambda obj: obj["metadata"].update(uid="other")),
    "kind": spoilt(lambda obj: obj.update(kind="Other")),
    "version": spoilt(lambda obj: obj.update(apiVersion=f"{GROUP}/v9")),
    "metadata": spoilt(lambda obj: obj.pop("metadata")),
    "label": spoilt(lambda obj: obj["metadata"].update(labels={"a": 1})),
    "labels": spoilt(lambda obj: obj["metadata"].update(labels={"a b": "c d"})),
    "annotations": spoilt(lambda obj: obj["metadata"].update(annotations=["a"])),
    "harmless": spoilt(lambda obj: obj["metadata"].update(annotations={"a": "b"}, finalizers=["a/b"])),
}


async def define(side: Side, crd: Object) -> None:
    """Makes the definition and returns once both versions are served."""
    (answer,) = await side.ask(asked("POST", CRDS, crd), "", {})
    assert answer.status == 201, answer.body
    until = asyncio.get_running_loop().time() + SERVED_S
    for path in (V1, V2):
        while (await side.ask(asked("GET", path), "", {}))[0].status != 200:
            assert asyncio.get_running_loop().time() < until, f"{side.name} does not serve {path}"
            await asyncio.sleep(0.1)


WATCHES = (
    asked("GET", V2, watch="1", timeoutSeconds="4"),
    asked("GET", V2, watch="1", timeoutSeconds="4", fieldSelector="host=host1"),
    asked("GET", V2, watch="1", timeoutSeconds="4", fieldSelector="host=host1,port=80"),
    asked("GET", V2, watch="1", timeoutSeconds="4", labelSelector="l=m"),
    asked("GET", V1, watch="1", timeoutSeconds="4"),
)


def changes() -> Iterator[Step]:
    """What is told to those who watch."""
    yield asked("POST", V2, multi("v2", "one", host="host1", port="80"))
    yield asked("POST", V2, multi("v2", "two", host="host1", port="8080"))
    yield asked("POST", V1, multi("v1", "three", hostPort="host2:1"))
    yield asked("PATCH", f"{V2}/three", {"host": "host1"}, MERGE)
    yield asked("PATCH", f"{V1}/one", {"metadata": {"labels": {"l": "m"}}}, MERGE)
    yield asked("DELETE", V2, fieldSelector="host=host1,port=80")
    yield asked("PATCH", f"{V2}/two", {"host": "host2"}, MERGE)
    yield asked("DELETE", f"{V1}/three")
    yield asked("DELETE", f"{V2}/two")


async def watched(sides: tuple[Side, Side]) -> list[str]:
    """The differences in what the watches tell of the changes."""
    told = []
    for side in sides:
        watches = [asyncio.create_task(side.ask(watch, "own", {})) for watch in WATCHES]
        await asyncio.sleep(1)
        normal = Normaliser("own")
        for step in changes():
            normal((await side.ask(step, "own", {}))[0])
        told.append([normal((await watch)[0]) for watch in watches])
    return [
        f"{watch.path} {watch.query}: {each}"
        for watch, theirs, ours in zip(WATCHES, *told, strict=True)
        for each in differences(watch, theirs, ours)
    ]


def test_what_a_webhook_converts_is_answered_as_the_real_server_answers(tmp_path: Path) -> None:
    async def story() -> None:
        async with AsyncExitStack() as stack:
            theirs = await stack.enter_async_context(real(tmp_path / "real"))
            loopback = [ipaddress.ip_network("127.0.0.0/8")]
            ours = await stack.enter_async_context(embedded(tmp_path / "embedded", loopback))
            webhook = await stack.enter_async_context(Webhook(convert))
            sides = (theirs, ours)
            found = [("refused", each) for each in await compared(sides, refused(), known.table())]
            for side in sides:
                await define(side, definition(webhook.client("/convert")))
            await asyncio.sleep(SETTLED_S)
            found += [("usual", each) for each in await compared(sides, usual())]
            found += [("watched", each) for each in await watched(sides)]
            for name, answer in SPOILT.items():
                webhook.answer = answer
                found += [(name, each) for each in await compared(sides, bad())]
            webhook.answer = convert
            nowhere = deepcopy(definition({"url": "https://127.0.0.1:1/convert"})["spec"]["conversion"])
            change = {"spec": {"conversion": nowhere}}
            for side in sides:
                await side.ask(asked("PATCH", f"{CRDS}/{KEY}", change, MERGE), "", {})
            await asyncio.sleep(SETTLED_S)
            found += [("out of reach", each) for each in await compared(sides, bad())]
        assert not found, "\n".join(f"{name}: {each}" for name, each in found)

    asyncio.run(story())
