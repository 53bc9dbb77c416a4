"""A request that waits while its cluster goes is nothing to the next cluster of the name."""

from __future__ import annotations

import asyncio
import json
from ipaddress import ip_network
from typing import Any

import pytest
from support.application import application, client
from support.webhook import ALLOW, Webhook

from walras.kube.serve import fair as fair_module
from walras.kube.serve.app import Application
from walras.kube.store.sqlite import SqliteStore

CONFIG_MAPS = "/clusters/one/api/v1/namespaces/default/configmaps"
TOKEN = "/clusters/one/api/v1/namespaces/default/serviceaccounts/default/token"


async def renewed(app: Application, cluster: str) -> None:
    """Another cluster by the name of one that is gone."""
    api = app.verbs.api
    await api.delete_cluster(cluster)
    await api.create_cluster(cluster)
    await api.create(cluster, "namespaces", {"metadata": {"name": "default"}})
    await api.create(
        cluster,
        "configmaps",
        {"metadata": {"name": "here", "namespace": "default"}, "data": {"secret": "another's"}},
    )
    await api.create(cluster, "serviceaccounts", {"metadata": {"name": "default", "namespace": "default"}})


@pytest.mark.parametrize(
    ("method", "path", "sent"),
    [
        ("POST", CONFIG_MAPS, {"metadata": {"name": "mine"}}),
        ("POST", TOKEN, {"spec": {}}),
        ("PUT", f"{CONFIG_MAPS}/here", {"metadata": {"name": "here"}}),
        ("PATCH", f"{CONFIG_MAPS}/here", {"data": {"more": "of mine"}}),
        ("DELETE", f"{CONFIG_MAPS}/here", {"kind": "DeleteOptions", "apiVersion": "v1"}),
        ("DELETE", CONFIG_MAPS, {"kind": "DeleteOptions", "apiVersion": "v1"}),
        (
            "POST",
            "/clusters/one/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            {"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}},
        ),
    ],
)
def test_a_body_that_comes_late_does_nothing_to_the_next_cluster_of_the_name(
    store: SqliteStore, method: str, path: str, sent: Any
) -> None:
    async def run() -> None:
        app = await application(store)
        begun, let_go = asyncio.Event(), asyncio.Event()

        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        headers = {"content-type": kind, "authorization": "Bearer one"}
        body = json.dumps(sent).encode()
        answers: list[Any] = []

        async def receive() -> Any:
            begun.set()
            await let_go.wait()
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            answers.append(message)

        scope = {
            "type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"",
            "headers": [
                *((name.encode(), value.encode()) for name, value in headers.items()),
                (b"content-length", str(len(body)).encode()),
            ],
        }  # fmt: skip
        asking = asyncio.create_task(app(scope, receive, send))
        await begun.wait()
        await renewed(app, "one")
        let_go.set()
        await asking
        told = b"".join(each.get("body", b"") for each in answers)
        assert answers[0]["status"] == 404, told
        assert b'clusters \\"one\\" not found' in told
        found = app.verbs.api.list("one", "configmaps", "default")
        assert [(each["metadata"]["name"], each["data"]) for each in found] == [
            ("here", {"secret": "another's"})
        ]

    asyncio.run(run())


def test_a_request_that_waits_for_its_turn_sees_nothing_of_the_next_cluster_of_the_name(
    store: SqliteStore,
) -> None:
    async def run() -> None:
        app = await application(store)
        fair = app._fair
        # As many at once as one may have.
        turns = [await fair.turn(("one", ""), "") for _ in range(fair_module.RUNNING_MAX)]
        async with client(app, "one") as http:
            asking = asyncio.create_task(http.get(f"{CONFIG_MAPS}/here"))
            for _ in range(20):
                await asyncio.sleep(0)
            assert fair.waiting == 1
            await renewed(app, "one")
            for turn in turns:
                turn.leave()
            answer = await asking
            assert (answer.status_code, "another" in answer.text) == (404, False)
            assert (await http.get(f"{CONFIG_MAPS}/here")).json()["data"] == {"secret": "another's"}

    asyncio.run(run())


class Held(Webhook):
    """Answers once it may."""

    def __init__(self) -> None:
        super().__init__(lambda _: ALLOW)
        self.begun, self.let_go = asyncio.Event(), asyncio.Event()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.begun.set()
        await self.let_go.wait()
        await super()._serve(reader, writer)


def test_a_write_that_waits_for_a_webhook_does_not_reach_the_next_cluster_of_the_name(
    store: SqliteStore,
) -> None:
    async def run() -> None:
        app = await application(store)
        app.verbs.api.admission.webhooks.reach.networks = (ip_network("127.0.0.0/8"),)
        webhook = Held()
        async with webhook, client(app, "one") as http:
            what = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}
            rule = {**what, "operations": ["CREATE"]}
            asks = {
                "name": "slow.example.com",
                "clientConfig": webhook.client(),
                "rules": [rule],
                "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
            }
            made = await http.post(
                "/clusters/one/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
                json={"metadata": {"name": "slow"}, "webhooks": [asks]},
            )
            assert made.status_code == 201
            asking = asyncio.create_task(http.post(CONFIG_MAPS, json={"metadata": {"name": "mine"}}))
            await webhook.begun.wait()
            await renewed(app, "one")
            webhook.let_go.set()
            answer = await asking
            assert answer.status_code == 404 and 'clusters "one" not found' in answer.json()["message"]
        found = app.verbs.api.list("one", "configmaps", "default")
        assert [each["metadata"]["name"] for each in found] == ["here"]

    asyncio.run(run())
