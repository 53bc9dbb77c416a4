"""Writes of large objects: their long steps are taken beside the event loop, and come to the same there."""

import asyncio
import threading
from typing import Any

import pytest
from support.caller import Caller, run

from walras.core.errors import BadRequest, Invalid, WalrasError
from walras.kube.steps import BYTES_MIN, STEPS_MAX, Aside, Steps, Untaken

Object = dict[str, Any]
MANY = 20_000


def pod(variables: int, **spec: Any) -> Object:
    environment = [{"name": f"V_{number}", "value": "some value"} for number in range(variables)]
    container = {"name": "c", "image": "i", "env": environment}
    return {"metadata": {"name": "x"}, "spec": {"containers": [container], **spec}}


def config(keys: int) -> Object:
    return {"metadata": {"name": "x"}, "data": {f"key-{number}": "some value" for number in range(keys)}}


async def turns(work: Any) -> int:
    """How often the loop comes round while something is done."""
    task, count = asyncio.ensure_future(work), 0
    while not task.done():
        await asyncio.sleep(0)
        count += 1
    await task
    return count


def test_a_large_write_holds_up_nobody_for_long() -> None:
    async def story(caller: Caller) -> None:
        # Here and now it is a turn to stage it, and some until the disk has it.
        assert await turns(caller.create("configmaps", config(MANY), steps=Steps())) > 50
        # What is changed a little is as large as it was.
        change = {"metadata": {"labels": {"a": "b"}}}
        assert await turns(caller.patch("configmaps", "x", change)) > 50

    run(story)


def test_a_collection_is_deleted_some_at_a_time() -> None:
    async def story(caller: Caller) -> None:
        for number in range(100):
            await caller.create("configmaps", {"metadata": {"name": f"c-{number}"}})
        kind = caller.resource("configmaps")
        left: list[int] = []

        async def delete(**more: Any) -> list[Object]:
            work = caller.verbs.delete_collection(caller.context(**more), kind, "default", {})
            task = asyncio.ensure_future(work)
            left.clear()
            while not task.done():
                await asyncio.sleep(0)
                left.append(len(caller.api.list("a", "configmaps")))
            found: list[Object] = task.result()["items"]
            return found

        assert len(await delete(dry_run=True)) == 100
        assert len(left) >= 3 and set(left) == {100}
        assert len(await delete()) == 100
        # Others had their turn when some were gone and some were not.
        assert len({each for each in left if 0 < each < 100}) >= 2 and left[-1] == 0

    run(story)


@pytest.mark.parametrize(
    ("media", "change"),
    [
        ("merge-patch+json", {"data": {f"key-{number}": "other" for number in range(MANY)}}),
        ("strategic-merge-patch+json", {"data": {f"key-{number}": None for number in range(0, MANY, 2)}}),
        ("json-patch+json", [{"op": "add", "path": f"/data/more-{n}", "value": "x"} for n in range(2_000)]),
    ],
)
def test_a_large_patch_is_read_and_applied_beside_the_loop(media: str, change: Any) -> None:
    async def story(caller: Caller) -> None:
        for name in ("x", "y"):
            await caller.create("configmaps", {**config(MANY), "metadata": {"name": name}})
        steps = Steps()
        there = await caller.patch("configmaps", "x", change, media, steps=steps)
        here = await caller.patch("configmaps", "y", change, media)
        assert there["data"] == here["data"]
        assert {"_read", "_applied"} <= {step.__name__ for step, *_ in steps._taken}

    run(story)


def test_a_large_scale_is_read_beside_the_loop_too() -> None:
    async def story(caller: Caller) -> None:
        template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
        spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
        await caller.create("deployments.apps", {"metadata": {"name": "x"}, "spec": spec})
        notes = {f"key-{number}": "some value" for number in range(MANY)}
        scale: Object = {
            "metadata": {"name": "x", "namespace": "default", "annotations": notes},
            "spec": {"replicas": 3},
        }
        with pytest.raises(Invalid, match="annotations"):
            await caller.update("deployments.apps", scale, subresource="scale", steps=Steps())
        del scale["metadata"]["annotations"]
        scaled = await caller.update("deployments.apps", scale, subresource="scale", steps=Steps())
        assert scaled["spec"] == {"replicas": 3}

    run(story)


@pytest.mark.parametrize(("key", "obj"), [("configmaps", config(400)), ("pods", pod(400, nodeName="n"))])
def test_what_is_written_is_the_same_wherever_its_steps_are_taken(key: str, obj: Object) -> None:
    async def written(caller: Caller, steps: bool) -> list[Object]:
        def taken() -> dict[str, Any]:
            return {"steps": Steps() if steps else None}

        found = [await caller.create(key, obj, **taken())]
        labelled = {**found[0], "metadata": {**found[0]["metadata"], "labels": {"a": "b"}}}
        found.append(await caller.update(key, labelled, **taken()))
        found.append(await caller.patch(key, "x", {"metadata": {"labels": {"a": None}}}, **taken()))
        kind = caller.resource(key).kind
        mine = {"apiVersion": "v1", "kind": kind, "metadata": {"name": "x", "labels": {"mine": "1"}}}
        found.append(await caller.patch(key, "x", mine, "apply-patch+yaml", force=True, **taken()))
        return [{**each, "metadata": {**each["metadata"], "uid": ""}} for each in found]

    seen: list[tuple[list[Object], list[str]]] = []

    async def story(caller: Caller) -> None:
        seen.append((await written(caller, len(seen) == 1), list(dict.fromkeys(caller.warnings))))

    run(story)
    run(story)
    assert seen[0] == seen[1]


@pytest.mark.parametrize(
    ("obj", "error"),
    [
        (pod(1, containers=[{"name": "C"}]), Invalid),
        (pod(1, containers="x"), BadRequest),
        ({"metadata": {"name": "x"}, "spec": {}}, Invalid),
    ],
)
def test_what_is_wrong_is_told_in_the_same_words(obj: Object, error: type[WalrasError]) -> None:
    async def story(caller: Caller) -> None:
        said = []
        for steps in (None, Steps()):
            with pytest.raises(error) as refused:
                await caller.create("pods", obj, steps=steps)
            said.append(str(refused.value))
        assert said[0] == said[1]

    run(story)


@pytest.mark.parametrize("media", ["merge-patch+json", "apply-patch+yaml"])
def test_a_patch_that_makes_no_object_is_refused_in_the_same_words(media: str) -> None:
    container = {"name": "c", "image": "i", "resources": {"limits": {"cpu": "much"}}}
    change = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {"containers": [container]},
    }  # fmt: skip

    async def story(caller: Caller) -> None:
        await caller.create("pods", pod(1))
        said = []
        for steps in (None, Steps()):
            with pytest.raises(WalrasError) as refused:
                await caller.patch("pods", "x", change, media, force=True, steps=steps)
            said.append((refused.type, str(refused.value)))
        assert said[0] == said[1]

    run(story)


def test_a_write_that_was_overtaken_builds_on_what_overtook_it() -> None:
    async def story(caller: Caller) -> None:
        await caller.create("configmaps", config(MANY), steps=Steps())
        assert len(caller.api.state.collection("a", "configmaps").listed()[0].raw) > BYTES_MIN  # type: ignore[union-attr]
        slow = asyncio.ensure_future(caller.patch("configmaps", "x", {"data": {"slow": "1"}}))
        await asyncio.sleep(0)
        await caller.api.edit("a", "configmaps", "default", "x", lambda it: it["data"].update(quick="1"))
        await slow
        found = caller.get("configmaps", "x")["data"]
        assert (found["slow"], found["quick"], len(found)) == ("1", "1", MANY + 2)

    run(story)


def test_steps_are_taken_one_at_a_time_of_one_cluster_after_another_and_paid_for() -> None:
    order: list[str] = []
    running = threading.Lock()
    paid: dict[str, int] = {"a": 0, "b": 0}

    def step(name: str) -> str:
        assert running.acquire(blocking=False), "two at a time"
        order.append(name)
        sum(range(20_000))
        running.release()
        return name

    async def story(caller: Caller) -> None:
        aside = Aside()

        def context(cluster: str) -> Any:
            found = caller.context(charge=lambda ns: paid.update({cluster: paid[cluster] + ns}))
            found.cluster = cluster
            return found

        loud = [aside.take(context("a"), step, f"a{number}") for number in range(4)]
        assert await asyncio.gather(*loud, aside.take(context("b"), step, "b")) == [
            "a0",
            "a1",
            "a2",
            "a3",
            "b",
        ]
        assert order[:2] == ["a0", "b"] and paid["a"] > 0 < paid["b"]
        assert not aside._mine and not aside._waiting

    run(story)


def test_a_step_is_taken_once_and_in_place_where_there_would_be_no_end_of_them() -> None:
    steps = Steps()
    with pytest.raises(Untaken) as untaken:
        steps.take(len, [1, 2])
    steps.learn(untaken.value, 2)
    assert steps.take(len, [1, 2]) == 2
    with pytest.raises(Untaken):
        steps.take(len, [1])
    for number in range(STEPS_MAX):
        steps.learn(Untaken(len, ("-" * number,)), number)
    assert steps.take(len, [1]) == 1
