"""Requests to functions: held, answered, refused; how many instances they make; and who gets at whose."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from support.functions import DOMAIN, Call, Stage, service, stage
from support.world import AGENT

from walras.functions import backend as backends
from walras.functions.words import ROUTES, VISIBILITY
from walras.kube.context import Identity
from walras.kube.serve.fair import RUNNING_MAX

Object = dict[str, Any]


async def asleep(on: Stage) -> None:
    """The function is there and has no instance."""
    await on.ready(service())
    await on.idle()
    assert on.world.pods() == []
    await on.world.later(1)
    assert on.backend() is None


async def waits(on: Stage, count: int = 1, revision: str = "hello-00001") -> None:
    await on.until(lambda: (found := on.backend(revision)) is not None and found.waiting == count)


# From nothing and back


def test_without_requests_a_function_goes_to_zero_after_window_and_retention() -> None:
    async def story(on: Stage) -> None:
        await on.ready(service(window="20s", scale_to_zero_pod_retention_period="10s"))
        await on.idle(28)
        assert len(on.world.pods()) == 1
        await on.idle(4)
        assert on.world.pods() == []
        assert on.status("revisions.serving.knative.dev", "hello-00001")["actualReplicas"] == 0

    stage(story)


def test_a_request_to_a_function_at_zero_is_held_and_answered_by_the_instance_that_it_wakes() -> None:
    async def story(on: Stage) -> None:
        await asleep(on)
        call = on.call()
        await waits(on)
        assert len(on.world.pods()) == 1 and not call.task.done()
        await on.run_all()
        answer = await call.task
        assert answer.status == 200 and answer.revision == "hello-00001" and answer.whole

    stage(story)


def test_many_requests_to_a_function_at_zero_wake_one_instance_and_are_answered_in_order() -> None:
    async def story(on: Stage) -> None:
        await asleep(on)
        calls = [on.call() for _ in range(50)]
        await waits(on, 50)
        assert len(on.world.pods()) == 1
        await on.run_all()
        answers = await asyncio.gather(*(call.task for call in calls))
        assert {answer.status for answer in answers} == {200}

    stage(story)


def test_a_function_with_a_least_scale_stays() -> None:
    async def story(on: Stage) -> None:
        await on.ready(service(min_scale="2"))
        await on.idle(200)
        assert len(on.world.pods()) == 2

    stage(story)


def test_a_held_request_that_nobody_waits_for_any_more_is_forgotten() -> None:
    async def story(on: Stage) -> None:
        await asleep(on)
        call = on.call()
        await waits(on)
        call.gone.set()
        await on.until(call.task.done)
        assert on.backend().waiting == 0 and on.backend().meter.level == 0

    stage(story)


def test_a_request_that_no_instance_came_for_hears_what_the_market_said() -> None:
    async def story(on: Stage) -> None:
        await asleep(on)
        call = on.call()
        await waits(on)
        await on.refuse_bids()
        # The next one does not wait for 300 s.
        call.gone.set()
        on.backend().limits = replace(on.backend().limits, timeout_ms=1)
        answer = await on.get()
        assert (answer.status, answer.reason) == (503, "Outbid")
        assert "others pay 9.00" in json.loads(answer.body)["message"]
        assert dict(answer.headers)[b"retry-after"] == b"5"

    stage(story)


def test_nothing_is_remembered_of_a_revision_that_goes_while_requests_wait_for_it() -> None:
    async def story(on: Stage) -> None:
        await asleep(on)
        first = on.call()
        await waits(on)
        await on.world.api.delete(AGENT, "services.serving.knative.dev", "default", "hello")
        await on.world.settle()
        await on.sweep()
        assert (await on.get()).status == 404
        first.gone.set()
        await on.until(first.task.done)
        await on.seconds(3)
        assert on.backend() is None

    stage(story)


def test_a_held_request_does_not_reach_a_function_of_the_next_agent_of_the_name() -> None:
    async def story(on: Stage) -> None:
        await asleep(on)
        held = on.call()
        await waits(on)
        await on.world.api.delete("fleet", "agents.walras.dev", "", AGENT)
        await on.until(lambda: on.world.api.find("fleet", "agents.walras.dev", "", AGENT) is None)
        answer = await asyncio.wait_for(held.task, 10)
        assert (answer.status, dict(answer.headers)[b"retry-after"]) == (503, b"5")
        await on.world.agent()
        await on.ready(service())
        assert on.backend().meter.level == 0
        assert (await on.get()).status == 200

    stage(story)


def test_a_request_that_waits_for_its_turn_does_not_reach_the_next_agent_of_the_name() -> None:
    async def story(on: Stage) -> None:
        await on.ready(service())
        turns = [await on.fair.turn((AGENT, ""), "functions") for _ in range(RUNNING_MAX)]
        call = on.call()
        await on.until(lambda: on.fair.waiting)
        await on.world.api.delete("fleet", "agents.walras.dev", "", AGENT)
        await on.until(lambda: on.world.api.find("fleet", "agents.walras.dev", "", AGENT) is None)
        await on.world.agent()
        await on.ready(service())
        for turn in turns:
            turn.leave()
        assert (await asyncio.wait_for(call.task, 10)).status == 503
        assert (await on.get()).status == 200

    stage(story)


def test_a_request_that_is_being_answered_outlives_its_revision_but_not_its_instance() -> None:
    async def story(on: Stage) -> None:
        gate = asyncio.Event()
        on.hold(gate)
        made = service()
        made["spec"]["template"]["spec"]["containerConcurrency"] = 1
        await on.ready(made)
        answered, held = on.call(), on.call()
        await waits(on)
        await on.world.api.delete(AGENT, "services.serving.knative.dev", "default", "hello")
        await on.world.settle()
        assert (await asyncio.wait_for(held.task, 10)).status == 503 and not answered.task.done()
        assert on.backend() is None
        gate.set()
        assert (await asyncio.wait_for(answered.task, 10)).status == 200
        await on.sweep()
        assert on.functions.backends._probes == {}

    stage(story)


def test_requests_to_a_revision_that_never_starts_leave_nothing_behind() -> None:
    async def story(on: Stage) -> None:
        made = service()
        annotations = made["spec"]["template"]["metadata"]["annotations"]
        annotations["serving.knative.dev/progress-deadline"] = "5s"
        await on.apply(made)
        assert (await on.get()).status == 503
        await on.seconds(10)
        await on.sweep()
        await on.seconds(2)
        assert on.backend() is None and on.world.pods() == []

    stage(story)


# Scale


def test_requests_at_once_make_more_instances_and_fewer_when_they_are_over() -> None:
    async def story(on: Stage) -> None:
        gate = asyncio.Event()
        on.hold(gate)
        await on.ready(service(target="2", target_utilization_percentage="100", window="10s"))
        calls = [on.call() for _ in range(8)]
        await on.until(lambda: on.backend().meter.level == 8)
        await on.seconds(3)
        assert len(on.world.pods()) == 4
        await on.run_all()
        gate.set()
        answers = await asyncio.gather(*(call.task for call in calls))
        assert {answer.status for answer in answers} == {200}
        await on.idle(60)
        assert on.world.pods() == []

    stage(story)


def test_there_are_no_more_instances_than_the_maximum() -> None:
    async def story(on: Stage) -> None:
        on.hold(asyncio.Event())
        await on.ready(service(target="1", max_scale="3"))
        for _ in range(20):
            on.call()
        await on.until(lambda: on.backend().meter.level == 20)
        await on.seconds(5)
        assert len(on.world.pods()) == 3

    stage(story)


def test_an_instance_is_given_no_more_at_once_than_it_takes_and_the_least_loaded_is_next() -> None:
    async def story(on: Stage) -> None:
        gate = asyncio.Event()
        on.hold(gate)
        made = service(min_scale="2", max_scale="2")
        made["spec"]["template"]["spec"]["containerConcurrency"] = 2
        await on.ready(made)
        calls = [on.call() for _ in range(6)]
        await waits(on, 2)
        assert [each.in_flight for each in on.backend().instances.values()] == [2, 2]
        gate.set()
        await asyncio.gather(*(call.task for call in calls))
        assert [each.in_flight for each in on.backend().instances.values()] == [0, 0]

    stage(story)


def test_an_instance_that_is_one_too_many_ends_its_requests_first() -> None:
    async def story(on: Stage) -> None:
        gate = asyncio.Event()
        on.hold(gate)
        await on.ready(service(initial_scale="2", window="5s"))
        calls = [on.call() for _ in range(2)]
        await on.until(lambda: [each.in_flight for each in on.backend().instances.values()] == [1, 1])
        await on.seconds(60)
        closing = [each for each in on.backend().instances.values() if each.closing]
        assert len(closing) == 1 and closing[0].in_flight == 1
        assert not any("deletionTimestamp" in pod["metadata"] for pod in on.world.pods())
        gate.set()
        answers = await asyncio.gather(*(call.task for call in calls))
        assert {answer.status for answer in answers} == {200}
        await on.world.settle()
        assert sum("deletionTimestamp" in pod["metadata"] for pod in on.world.pods()) == 1

    stage(story)


# Instances that fail


def test_an_instance_that_does_not_answer_is_not_asked_and_another_one_is() -> None:
    async def story(on: Stage) -> None:
        await on.ready(service(min_scale="2"))
        dead = on.world.pods()[0]["metadata"]["name"]
        on.dead.add(dead)
        answers = [await on.get() for _ in range(6)]
        assert {answer.status for answer in answers} == {200}
        assert not any(dead in answer.body.decode() for answer in answers)

    stage(story)


def test_an_instance_whose_pod_has_failed_is_replaced() -> None:
    async def story(on: Stage) -> None:
        await on.ready(service(min_scale="1"))
        (pod,) = on.world.pods()
        await on.world.later(10)
        await on.world.set_status(pod, phase="Failed")
        await on.world.settle()
        (new,) = [each for each in on.world.pods() if each["status"].get("phase") != "Failed"]
        assert new["metadata"]["name"] != pod["metadata"]["name"]
        await on.run_all()
        assert (await on.get()).status == 200

    stage(story)


def test_a_node_that_is_to_go_gets_no_requests_and_its_instance_is_replaced_before() -> None:
    async def story(on: Stage) -> None:
        await on.ready(service(min_scale="1"))
        (pod,) = on.world.pods()
        conditions = [{"type": "DisruptionTarget", "status": "True", "reason": "Displaced"}]
        call_before = await on.get()
        await on.world.set_status(pod, conditions=conditions)
        await on.world.settle()
        call = on.call()
        await waits(on)
        await on.run_all()
        assert (await call.task).body != call_before.body

    stage(story)


# Traffic


def test_requests_are_split_by_percent_and_a_tag_has_a_host_of_its_own() -> None:
    async def story(on: Stage) -> None:
        await on.ready(service(min_scale="1"))
        two = [
            {"revisionName": "hello-00001", "percent": 75, "tag": "stable"},
            {"latestRevision": True, "percent": 25, "tag": "next"},
        ]
        await on.ready(service(says="two", min_scale="1", traffic=two))
        got = Counter([(await on.get()).revision for _ in range(100)])
        assert got == {"hello-00001": 75, "hello-00002": 25}
        assert (await on.get(f"next-hello.default.{AGENT}.{DOMAIN}")).revision == "hello-00002"
        assert (await on.get(f"stable-hello.default.{AGENT}.{DOMAIN}")).revision == "hello-00001"
        # And back to where it was.
        await on.ready(service(says="two", traffic=[{"revisionName": "hello-00001", "percent": 100}]))
        assert Counter([(await on.get()).revision for _ in range(10)]) == {"hello-00001": 10}

    stage(story)


def test_a_revision_that_is_gone_though_a_route_leads_to_it_is_no_unknown_host() -> None:
    async def story(on: Stage) -> None:
        await on.ready(service())
        await on.ready(service(says="two", traffic=[{"revisionName": "hello-00001", "percent": 100}]))
        assert on.ready_of(ROUTES) == ("True", "")
        await on.world.api.delete(AGENT, "revisions.serving.knative.dev", "default", "hello-00001")
        await on.world.settle()
        await on.sweep()
        assert on.ready_of(ROUTES) == ("False", "RevisionMissing")
        answer = await on.get()
        assert answer.status == 503 and "not found" in json.loads(answer.body)["message"]

    stage(story)


# Bounds


def test_a_flood_is_bounded_and_the_rest_hears_to_come_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "WAITING_MAX", 10)

    async def story(on: Stage) -> None:
        await asleep(on)
        calls = [on.call() for _ in range(30)]
        await waits(on, 10)
        refused = [call for call in calls if call.task.done()]
        assert len(refused) == 20
        assert {(call.answer.status, dict(call.answer.headers)[b"retry-after"]) for call in refused} == {
            (503, b"1")
        }
        await on.run_all()
        answers = await asyncio.gather(*(call.task for call in calls))
        assert Counter(answer.status for answer in answers) == {503: 20, 200: 10}

    stage(story)


def test_the_head_of_a_request_is_bounded() -> None:
    async def story(on: Stage) -> None:
        await on.ready(service())
        assert (await on.get(headers=((b"x", b"y" * 70_000),))).status == 431
        assert (await on.get(path="/" + "x" * 70_000)).status == 431

    stage(story)


# Whose


@pytest.mark.parametrize(
    "host",
    [
        "",
        "hello",
        DOMAIN,
        f"hello.{DOMAIN}",
        f"hello.default.{DOMAIN}",
        f"hello.default.other.{DOMAIN}",
        f"hello.kube-system.{AGENT}.{DOMAIN}",
        f"hello.default.{AGENT}.{DOMAIN}.evil.example",
        f"x.hello.default.{AGENT}.{DOMAIN}",
        f"hello.default.{AGENT}.{DOMAIN}:80:80",
        f"hello.default.{AGENT}%2e{DOMAIN}",
        f"hello-.default.{AGENT}.{DOMAIN}",
        "a" * 300,
    ],
)
def test_a_host_that_is_no_functions_finds_nothing(host: str) -> None:
    async def story(on: Stage) -> None:
        await on.ready(service())
        assert (await on.get(host)).status == 404

    stage(story)


def test_a_request_with_two_hosts_is_refused() -> None:
    async def story(on: Stage) -> None:
        await on.ready(service())
        second = ((b"host", f"hello.default.other.{DOMAIN}".encode()),)
        assert (await on.get(headers=second)).status == 400

    stage(story)


def test_agents_with_functions_of_one_name_get_their_own_requests() -> None:
    async def story(on: Stage) -> None:
        for agent in ("one", "two"):
            await on.ready(service(), agent)
        for agent in ("one", "two"):
            answer = await on.get(f"hello.default.{agent}.{DOMAIN}")
            (pod,) = on.world.pods(cluster=agent)
            assert answer.body.decode().endswith(pod["metadata"]["name"])
        # Headers of any kind change nothing of it.
        forged = (b"x-forwarded-host", f"hello.default.two.{DOMAIN}".encode())
        answer = await on.get(
            f"hello.default.one.{DOMAIN}", headers=(forged, (b"knative-serving-tag", b"two"))
        )
        assert answer.body.decode().endswith(on.world.pods(cluster="one")[0]["metadata"]["name"])

    stage(story, agents=("one", "two"))


def test_a_cluster_local_function_is_for_callers_of_its_cluster_and_never_sees_their_tokens() -> None:
    async def story(on: Stage) -> None:
        heads = []

        async def program(pod: Object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

        made = service()
        made["metadata"]["labels"] = {VISIBILITY: "cluster-local"}
        await on.ready(made)
        on.program = program
        on.tokens = {
            "own": Identity("agent:acme", (), AGENT),
            "other": Identity("agent:other", (), "other"),
            "operator": Identity("walras:operator", (), ""),
        }

        async def status(*tokens: str) -> int:
            headers = tuple((b"authorization", f"Bearer {token}".encode()) for token in tokens)
            return (await on.get(headers=headers)).status

        assert await status() == 401
        assert await status("nonsense") == 401
        assert await status("own", "own") == 401
        assert await status("other") == 403
        assert await status("own") == 204
        assert await status("operator") == 204
        assert not any(b"authorization" in head for head in heads)
        # It is public again once nothing says otherwise.
        await on.world.api.edit(
            AGENT, "services.serving.knative.dev", "default", "hello",
            lambda latest: latest["metadata"].pop("labels"),
        )  # fmt: skip
        await on.world.settle()
        assert VISIBILITY not in (on.world.api.get(AGENT, ROUTES, "default", "hello")["metadata"]["labels"])
        assert await status() == 204

    stage(story)


def test_pods_reach_the_functions_of_their_own_cluster_alone_and_need_no_token() -> None:
    async def story(on: Stage) -> None:
        for agent in ("one", "two"):
            made = service()
            made["metadata"]["labels"] = {VISIBILITY: "cluster-local"}
            await on.ready(made, agent)
        for host in (
            "hello.default",
            "hello.default.svc",
            "hello.default.svc.cluster.local",
            "HELLO.default:80",
        ):
            answer = await on.get(host, within="one")
            assert answer.body.decode().endswith(on.world.pods(cluster="one")[0]["metadata"]["name"])
        for host in (f"hello.default.two.{DOMAIN}", f"hello.default.one.{DOMAIN}", "hello", "hello.two", ""):
            assert (await on.get(host, within="one")).status == 404
        # From outside a name alone leads nowhere.
        assert (await on.get("hello.default.svc.cluster.local")).status == 404

    stage(story, agents=("one", "two"))


# Sleep


def test_a_cluster_whose_functions_are_at_zero_sleeps_and_the_first_request_wakes_it() -> None:
    async def story(on: Stage) -> None:
        await asleep(on)
        api = on.world.api
        # Events keep a cluster awake for their hour.
        for _ in range(75):
            await on.world.later(60)
        assert AGENT not in on.world.planes.manager.busy()
        await api.hibernate([AGENT])
        assert api.is_asleep(AGENT)
        for host in (f"nobody.default.{AGENT}.{DOMAIN}", f"hello.other.{AGENT}.{DOMAIN}"):
            assert (await on.get(host)).status == 404
        assert api.is_asleep(AGENT)
        call = on.call()
        await waits(on)
        assert not api.is_asleep(AGENT)
        await on.run_all()
        assert (await call.task).status == 200

    stage(story)


def test_the_server_takes_no_new_requests_while_it_stops_and_those_that_wait_hear_of_it() -> None:
    async def story(on: Stage) -> None:
        await asleep(on)
        held: Call = on.call()
        await waits(on)
        await on.functions.app.close()
        assert (await held.task).status == 503
        assert (await on.get()).status == 503

    stage(story)


def test_a_flood_of_one_agents_requests_does_not_hold_up_anothers() -> None:
    async def story(on: Stage) -> None:
        for agent in ("one", "two"):
            await on.ready(service(), agent)
        flood = [on.call(f"hello.default.one.{DOMAIN}") for _ in range(400)]
        late = on.call(f"hello.default.two.{DOMAIN}")
        await late.task
        assert sum(call.task.done() for call in flood) < 100
        assert {(await call.task).status for call in flood} == {200}

    stage(story, agents=("one", "two"))
