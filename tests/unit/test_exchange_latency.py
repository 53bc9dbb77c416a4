"""What a latency makes of a bid: from annotations on pods and their owners to the price."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from support.market import Market

from walras.exchange.latency import MORE_MAX, Latency, latency_of, with_more
from walras.kube.record import Object

DEPLOYMENTS, REPLICASETS = "deployments.apps", "replicasets.apps"
OBJECTIVE = {"walras.dev/slo": "200ms", "walras.dev/slo-bad": "1s"}


def play(story: Callable[[Market], Coroutine[Any, Any, None]]) -> None:
    async def scene() -> None:
        world = Market()
        await world.open()
        try:
            await world.agent("a", {"strategy": "slo", "maxPrice": "8.00"})
            await world.seconds(1)
            await story(world)
        finally:
            await world.close()

    asyncio.run(scene())


def owned(by: Object) -> list[Object]:
    metadata = by["metadata"]
    return [{"kind": by["kind"], "name": metadata["name"], "uid": metadata["uid"], "controller": True}]


async def deployment(world: Market, ready: int, latency: str = "", replicas: int = 1) -> Object:
    """A Deployment with its ReplicaSet, which it returns; so many replicas are ready."""
    annotations = {"walras.dev/latency": latency} if latency else {}
    metadata = {"name": "web", "namespace": "default"}
    status = {"readyReplicas": ready} if ready else {}
    top = await world.api.create(
        "a",
        DEPLOYMENTS,
        {
            "kind": "Deployment",
            "metadata": {**metadata, "annotations": annotations},
            "spec": {"replicas": replicas},
            "status": status,
        },
    )
    return await world.api.create(
        "a",
        REPLICASETS,
        {"kind": "ReplicaSet", "metadata": {**metadata, "ownerReferences": owned(top)}, "spec": {}},
    )


async def replica(world: Market, replica_set: Object, annotations: Object | None = None) -> None:
    """One more pod of it that waits for a GPU."""
    waits = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    limits = {"walras.dev/milligpu": "500"}
    await world.api.create(
        "a",
        "pods",
        {
            "metadata": {
                "name": "web-1",
                "namespace": "default",
                "annotations": OBJECTIVE if annotations is None else annotations,
                "ownerReferences": owned(replica_set),
            },
            "spec": {"containers": [{"name": "c", "resources": {"limits": limits}}]},
            "status": {"phase": "Pending", "conditions": [waits]},
        },
    )
    await world.seconds()


async def measure(world: Market, latency: str) -> None:
    def said(obj: Object) -> None:
        obj["metadata"].setdefault("annotations", {})["walras.dev/latency"] = latency

    await world.api.edit("a", DEPLOYMENTS, "default", "web", said)


@pytest.mark.parametrize(
    ("ready", "latency", "price"),
    [
        (1, "800ms", "4.00"),  # to 400 ms: from 0.25 to 0.75
        (3, "800ms", "2.00"),  # to 600 ms: from 0.25 to 0.50
        (1, "200ms", "0.00"),  # fine already
        (1, "4s", "0.00"),  # to 2 s: no use, and no more are asked for
        (0, "800ms", "8.00"),  # of replicas that are gone
        (2, "", "8.00"),  # nobody measures
    ],
)
def test_a_replica_bids_what_it_brings_back(ready: int, latency: str, price: str) -> None:
    async def story(world: Market) -> None:
        await replica(world, await deployment(world, ready, latency))
        assert world.price("a", "web-1") == price

    play(story)


def test_replicas_that_help_only_together_bid_their_parts() -> None:
    """From 4 s to 2, 1.33, 1, 0.8 and 0.67 s with up to five more: the fourth is the first that helps."""

    async def story(world: Market) -> None:
        await replica(world, await deployment(world, 1, "4s", replicas=6))
        # Four bring back 0.25 of 8.00, five 0.41 (from 666 ms), so 0.6672 each.
        assert world.price("a", "web-1") == "0.6672"

    play(story)


def test_a_bid_that_waits_follows_what_is_measured() -> None:
    async def story(world: Market) -> None:
        await world.agent("rival")
        await world.wish("rival", "rich", 1000, max_price="9.00", term="1h", restart_cost="50")
        await world.seconds(2)
        await replica(world, await deployment(world, 1, "200ms"))
        await world.seconds(1)
        assert (world.price("a", "web-1"), world.reason("a", "web-1")) == ("0.00", "BelowReserve")
        await measure(world, "800ms")
        await world.seconds(6)
        assert world.price("a", "web-1") == "4.00"
        await measure(world, "nonsense")
        await world.seconds(6)
        assert world.price("a", "web-1") == "8.00", "what cannot be read is not measured"

    play(story)


def test_without_money_it_bids_the_reserve_and_is_told_what_is_missing() -> None:
    async def story(world: Market) -> None:
        await world.agent("poor", {"strategy": "slo", "maxPrice": "8.00"}, balance="0")
        await world.seconds(1)
        await world.wish("poor", "p", 500)
        await world.seconds(1)
        assert (world.price("poor", "p"), world.reason("poor", "p")) == ("0.10", "InsufficientFunds")

    play(story)


def test_the_outermost_workload_that_measures_counts_and_strangers_do_not() -> None:
    async def story(world: Market) -> None:
        replica_set = await deployment(world, 1, "800ms")

        def said(obj: Object) -> None:
            obj["metadata"]["annotations"] = {"walras.dev/latency": "100ms"}
            obj["status"] = {"readyReplicas": 1}

        await world.api.edit("a", REPLICASETS, "default", "web", said)
        pod: Object = {"metadata": {"namespace": "default", "ownerReferences": owned(replica_set)}}
        assert latency_of(world.api, "a", pod).without_ms == 800
        await world.api.edit(
            "a", DEPLOYMENTS, "default", "web", lambda obj: obj["metadata"].pop("annotations")
        )
        assert latency_of(world.api, "a", pod).without_ms == 100
        pod["metadata"]["ownerReferences"][0]["uid"] = "of one that was there before"
        assert latency_of(world.api, "a", pod) == Latency()

    play(story)


@pytest.mark.parametrize(
    ("annotations", "good_ms", "bad_ms"),
    [
        ({"walras.dev/slo": "200ms"}, 200, 2_000),
        (OBJECTIVE, 200, 1_000),
        ({"walras.dev/slo-bad": "1s"}, None, None),
        ({"walras.dev/slo": "2s", "walras.dev/slo-bad": "1s"}, None, None),
        ({"walras.dev/slo": "soon"}, None, None),
        ({}, None, None),
    ],
)
def test_an_objective_is_read_from_the_pod(
    annotations: Object, good_ms: int | None, bad_ms: int | None
) -> None:
    async def story(world: Market) -> None:
        found = latency_of(world.api, "a", {"metadata": {"annotations": annotations}})
        assert (found.good_ms, found.bad_ms) == (good_ms, bad_ms)

    play(story)


def test_more_replicas_take_their_part_of_the_load() -> None:
    assert [with_more(900, ready, 1) for ready in (1, 2, 8)] == [450, 600, 800]
    assert [with_more(900, 1, more) for more in (2, 8)] == [300, 100]


def test_only_so_many_replicas_are_looked_ahead() -> None:
    async def story(world: Market) -> None:
        replica_set = await deployment(world, 1, "4s", replicas=10**9)
        pod: Object = {"metadata": {"namespace": "default", "ownerReferences": owned(replica_set)}}
        assert len(latency_of(world.api, "a", pod).with_ms) == MORE_MAX

    play(story)
