"""The API in process: reads from memory, transactions, what subscribers are told."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from walras.core.clock import SequenceIds, VirtualClock
from walras.core.errors import AlreadyExists, BadRequest, Conflict, NotFound, StorageError
from walras.kube.api import API, Change
from walras.kube.store.sqlite import SqliteStore

Object = dict[str, Any]


def config(name: str, namespace: str = "default", **data: str) -> Object:
    return {"metadata": {"name": name, "namespace": namespace}, "data": data}


def pod(name: str, **spec: Any) -> Object:
    return {"metadata": {"name": name, "namespace": "default"}, "spec": spec}


def run(story: Callable[[API], Coroutine[Any, Any, None]]) -> None:
    """Tells a story to an API with the clusters "a" and "b"."""

    async def told() -> None:
        store = SqliteStore(":memory:")
        api = API(store, VirtualClock(), SequenceIds())
        await api.create_cluster("a")
        await api.create_cluster("b")
        await story(api)
        store.close()

    asyncio.run(told())


def test_a_created_object_has_its_metadata_and_is_found_and_listed() -> None:
    async def story(api: API) -> None:
        made = await api.create("a", "configmaps", config("x", k="v"))
        assert made["apiVersion"] == "v1" and made["kind"] == "ConfigMap"
        assert made["metadata"]["uid"] and made["metadata"]["resourceVersion"] == "2"
        assert made["metadata"]["creationTimestamp"] == "2023-11-14T22:13:20Z"
        assert api.get("a", "configmaps", "default", "x") == made
        await api.create("a", "configmaps", config("a", "zoo"))
        await api.create("a", "configmaps", config("b"))
        assert [o["metadata"]["name"] for o in api.list("a", "configmaps")] == ["b", "x", "a"]
        assert [o["metadata"]["name"] for o in api.list("a", "configmaps", "zoo")] == ["a"]

    run(story)


def test_what_a_caller_keeps_mutating_does_not_reach_the_store() -> None:
    async def story(api: API) -> None:
        mine = config("x", k="v")
        await api.create("a", "configmaps", mine)
        mine["data"]["k"] = "changed"
        assert api.get("a", "configmaps", "default", "x")["data"] == {"k": "v"}

    run(story)


def test_clusters_do_not_see_each_other() -> None:
    async def story(api: API) -> None:
        await api.create("a", "configmaps", config("x"))
        await api.create("b", "configmaps", config("x"))
        await api.delete("b", "configmaps", "default", "x")
        assert api.find("a", "configmaps", "default", "x")
        assert api.list("b", "configmaps") == []
        assert [cluster for cluster, _ in api.everywhere("configmaps")] == ["a"]
        with pytest.raises(NotFound, match='clusters "c" not found'):
            api.list("c", "configmaps")

    run(story)


def test_errors_say_what_kubernetes_says() -> None:
    async def story(api: API) -> None:
        await api.create("a", "jobs.batch", config("x"))
        with pytest.raises(AlreadyExists, match=r'^jobs.batch "x" already exists$') as exists:
            await api.create("a", "jobs.batch", config("x"))
        assert exists.value.details == {"name": "x", "group": "batch", "kind": "jobs"}
        with pytest.raises(NotFound, match=r'^pods "x" not found$'):
            await api.edit("a", "pods", "default", "x", lambda _: None)
        with pytest.raises(BadRequest, match="name or generateName is required"):
            await api.create("a", "pods", {"metadata": {"namespace": "default"}})

    run(story)


def test_a_pod_that_gets_its_node_is_of_the_same_generation() -> None:
    async def story(api: API) -> None:
        await api.create("a", "pods", pod("x"))
        bound = await api.edit("a", "pods", "default", "x", lambda obj: obj["spec"].update(nodeName="n"))
        assert bound["metadata"]["generation"] == 1

    run(story)


def test_edit_counts_generations_and_keeps_identity() -> None:
    async def story(api: API) -> None:
        made = await api.create("a", "pods", pod("x"))

        def change(obj: Object) -> None:
            obj["spec"]["activeDeadlineSeconds"] = 9
            obj["metadata"].update(uid="forged", name="forged", creationTimestamp="forged")

        edited = await api.edit("a", "pods", "default", "x", change)
        assert edited["metadata"]["generation"] == 2
        assert edited["metadata"]["uid"] == made["metadata"]["uid"]
        status = await api.edit("a", "pods", "default", "x", lambda o: o.update(status={"phase": "Running"}))
        assert status["metadata"]["generation"] == 2
        same = await api.edit("a", "pods", "default", "x", lambda o: o.update(status={"phase": "Running"}))
        assert same["metadata"]["resourceVersion"] == status["metadata"]["resourceVersion"]

    run(story)


def test_a_transaction_sees_its_own_staging_and_readers_only_the_commit() -> None:
    async def story(api: API) -> None:
        tx = api.transaction()
        tx.create("a", "configmaps", config("x", k="1"))
        tx.edit("a", "configmaps", "default", "x", lambda o: o["data"].update(k="2"))
        tx.create("b", "configmaps", config("y"))
        assert api.find("a", "configmaps", "default", "x") is None
        await tx.commit()
        assert api.get("a", "configmaps", "default", "x")["data"] == {"k": "2"}
        assert api.get("b", "configmaps", "default", "y")

    run(story)


def test_an_overtaken_transaction_conflicts_and_writes_nothing() -> None:
    async def story(api: API) -> None:
        await api.create("a", "configmaps", config("x", k="1"))
        slow = api.transaction()
        slow.create("a", "configmaps", config("y"))
        slow.edit("a", "configmaps", "default", "x", lambda o: o["data"].update(k="slow"))
        await api.edit("a", "configmaps", "default", "x", lambda o: o["data"].update(k="quick"))
        with pytest.raises(Conflict, match="the object has been modified"):
            await slow.commit()
        assert api.find("a", "configmaps", "default", "y") is None
        assert api.get("a", "configmaps", "default", "x")["data"] == {"k": "quick"}

    run(story)


def test_concurrent_edits_all_count() -> None:
    async def story(api: API) -> None:
        await api.create("a", "configmaps", config("x", n="0"))

        def add(obj: Object) -> None:
            obj["data"]["n"] = str(int(obj["data"]["n"]) + 1)

        await asyncio.gather(*(api.edit("a", "configmaps", "default", "x", add) for _ in range(50)))
        assert api.get("a", "configmaps", "default", "x")["data"] == {"n": "50"}

    run(story)


def test_a_failed_commit_undoes_everything_staged_and_the_next_one_works() -> None:
    async def story(api: API) -> None:
        api.store.migrate("t", ["CREATE TABLE t (n INTEGER PRIMARY KEY)"])
        await api.create("a", "configmaps", config("kept"))
        bad = api.transaction()
        bad.create("a", "configmaps", config("x"))
        bad.execute("INSERT INTO t VALUES (?)", [(1,), (1,)])
        results = await asyncio.gather(
            bad.commit(),
            api.edit("a", "configmaps", "default", "kept", lambda o: o.update(data={"k": "v"})),
            return_exceptions=True,
        )
        assert [type(result) for result in results] == [StorageError, StorageError]
        assert api.find("a", "configmaps", "default", "x") is None
        assert api.store.query("SELECT * FROM t") == []
        made = await api.create("a", "configmaps", config("x"))
        assert made["metadata"]["resourceVersion"] == "3"

    run(story)


def test_what_is_staged_while_a_failing_group_is_in_flight_fails_too() -> None:
    async def story(api: API) -> None:
        bad = api.transaction()
        bad.create("a", "configmaps", config("x"))
        bad.execute("INSERT INTO missing VALUES (1)", [()])
        first = asyncio.ensure_future(bad.commit())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert api._committer._flight
        second = asyncio.ensure_future(
            api.edit("a", "configmaps", "default", "x", lambda o: o.update(data={"on": "sand"}))
        )
        results = await asyncio.gather(first, second, return_exceptions=True)
        assert [type(result) for result in results] == [StorageError, StorageError]
        assert api.list("a", "configmaps") == []

    run(story)


def test_subscribers_first_hear_what_exists_then_each_change_in_order() -> None:
    async def story(api: API) -> None:
        await api.create("a", "pods", pod("x"))
        heard: list[Change] = []
        unsubscribe = api.subscribe("pods", heard.append)
        assert [(c.cluster, c.type) for c in heard] == [("a", "ADDED")]
        await api.create("b", "pods", pod("y"))
        await api.edit("a", "pods", "default", "x", lambda o: o["spec"].update(priority=1))
        await api.delete("a", "pods", "default", "x")
        assert [(c.cluster, c.type) for c in heard[1:]] == [
            ("b", "ADDED"),
            ("a", "MODIFIED"),
            ("a", "DELETED"),
        ]
        assert heard[2].old is not None and heard[2].old["spec"] == {}
        unsubscribe()
        await api.create("b", "pods", pod("z"))
        assert len(heard) == 4

    run(story)


def test_what_a_subscriber_hears_of_first_is_not_kept_decoded_and_a_change_is_decoded_once() -> None:
    async def story(api: API) -> None:
        record = api.record("a", "configmaps", "default", (await api.create("a", "configmaps", config("x")))
                            ["metadata"]["name"])  # fmt: skip
        assert record is not None
        seen: list[Object] = []
        for _ in range(2):
            api.subscribe("configmaps", lambda change: seen.append(change.object))
        assert seen[0] == seen[1] and seen[0] is not seen[1] and record.object is record.object
        seen.clear()
        await api.create("a", "configmaps", config("y"))
        assert seen[0] is seen[1]
        # However little room there is for what is decoded.
        await api.create("a", "configmaps", config("z", large="x" * (3 << 20)))
        assert seen[2] is seen[3]

    run(story)


def test_a_subscriber_that_raises_does_not_keep_the_news_from_others() -> None:
    async def story(api: API) -> None:
        heard: list[str] = []

        def broken(_: Change) -> None:
            raise RuntimeError("broken")

        api.subscribe("pods", broken)
        api.subscribe("pods", lambda change: heard.append(change.type))
        await api.create("a", "pods", pod("x"))
        assert heard == ["ADDED"]

    run(story)


def test_a_deleted_cluster_is_gone_with_its_objects() -> None:
    async def story(api: API) -> None:
        heard: list[str] = []
        await api.create("a", "pods", pod("x"))
        api.subscribe("pods", lambda change: heard.append(change.type))
        await api.delete_cluster("a")
        assert heard == ["ADDED", "DELETED"]
        assert api.clusters() == ["b"] and not api.has_cluster("a")
        with pytest.raises(NotFound):
            await api.create("a", "pods", pod("x"))
        await api.create_cluster("a")
        assert api.list("a", "pods") == []

    run(story)


def test_a_cluster_whose_deletion_could_not_be_written_is_there_still() -> None:
    async def story(api: API) -> None:
        await api.create("a", "pods", pod("x"))
        bad = api.transaction()
        bad.execute("INSERT INTO missing VALUES (1)", [()])
        results = await asyncio.gather(bad.commit(), api.delete_cluster("a"), return_exceptions=True)
        assert [type(result) for result in results] == [StorageError, StorageError]
        assert api.has_cluster("a") and api.get("a", "pods", "default", "x")
        await api.delete_cluster("a")
        assert not api.has_cluster("a")

    run(story)


def test_a_cluster_is_created_once() -> None:
    async def story(api: API) -> None:
        results = await asyncio.gather(
            api.create_cluster("c"), api.create_cluster("c"), return_exceptions=True
        )
        assert [type(result) for result in results] == [type(None), AlreadyExists]

    run(story)


def test_generated_names_are_kubernetes_prefix_and_five_letters() -> None:
    async def story(api: API) -> None:
        made = await api.create("a", "pods", {"metadata": {"generateName": "x-", "namespace": "default"}})
        assert made["metadata"]["name"].startswith("x-") and len(made["metadata"]["name"]) == 7
        made = await api.create("a", "pods", {"metadata": {"generateName": "y" * 80, "namespace": "default"}})
        assert len(made["metadata"]["name"]) == 63

    run(story)


def test_a_cancelled_writer_does_not_stop_the_others() -> None:
    async def story(api: API) -> None:
        tasks = [asyncio.ensure_future(api.create("a", "pods", pod(f"p{n}"))) for n in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert api.find("a", "pods", "default", "p0") and api.find("a", "pods", "default", "p2")

    run(story)


def test_an_api_outlives_the_loop_that_wrote_first() -> None:
    store = SqliteStore(":memory:")
    api = API(store, VirtualClock(), SequenceIds())
    asyncio.run(api.create_cluster("a"))

    async def walk_away() -> None:
        task = asyncio.ensure_future(api.create("a", "pods", pod("x")))
        await asyncio.sleep(0)
        task.cancel()

    asyncio.run(walk_away())
    asyncio.run(api.create("a", "pods", pod("y")))
    assert len(api.list("a", "pods")) == 2
    store.close()
