"""A server with the clusters "fleet", "one" and "two" to try access control on, over HTTP in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

import httpx

from walras.core.clock import SequenceIds, VirtualClock
from walras.kube.access.accounts import Accounts
from walras.kube.access.keys import SigningKey
from walras.kube.api import API
from walras.kube.context import Identity
from walras.kube.serve.app import Application
from walras.kube.serve.auditlog import AuditLog
from walras.kube.store.sqlite import MEMORY, SqliteStore
from walras.kube.verbs import Verbs

Object = dict[str, Any]
ENDPOINT = "https://walras.test"
ISSUERS = "https://kubernetes.default.svc/clusters"
KEY = SigningKey.generate()
TOKENS = {
    "operator": Identity("operator", ("system:masters", "system:authenticated"), ""),
    "one": Identity("walras:agent:one", ("system:masters", "system:authenticated"), "one"),
    "two": Identity("walras:agent:two", ("system:masters", "system:authenticated"), "two"),
}
RBAC = "/apis/rbac.authorization.k8s.io/v1"


class Tokens:
    def identify(self, token: str) -> Identity | None:
        return TOKENS.get(token)


@dataclass
class Place:
    api: API
    clock: VirtualClock
    app: Application
    accounts: Accounts
    http: httpx.AsyncClient

    async def ask(
        self,
        token: str,
        method: str,
        path: str,
        body: Any = None,
        *,
        cluster: str = "one",
        headers: list[tuple[str, str]] | None = None,
    ) -> httpx.Response:
        sent = [("authorization", f"Bearer {token}"), *(headers or [])]
        if method == "PATCH":
            sent.append(("content-type", "application/merge-patch+json"))
        return await self.http.request(method, f"/clusters/{cluster}{path}", json=body, headers=sent)

    async def get(self, token: str, path: str, cluster: str = "one") -> int:
        return (await self.ask(token, "GET", path, cluster=cluster)).status_code

    async def must(
        self, token: str, method: str, path: str, body: Any = None, cluster: str = "one"
    ) -> Object:
        answer = await self.ask(token, method, path, body, cluster=cluster)
        assert answer.status_code < 300, answer.text
        found: Object = answer.json()
        return found

    async def account(self, name: str = "robot", cluster: str = "one") -> Object:
        path = "/api/v1/namespaces/default/serviceaccounts"
        return await self.must(cluster, "POST", path, {"metadata": {"name": name}}, cluster)

    async def token(self, name: str = "robot", cluster: str = "one", **spec: Any) -> str:
        path = f"/api/v1/namespaces/default/serviceaccounts/{name}/token"
        made = await self.must(cluster, "POST", path, {"spec": spec}, cluster)
        return str(made["status"]["token"])

    async def role(self, name: str, *rules: Object, cluster: str = "one", **more: Any) -> Object:
        body = {"metadata": {"name": name}, "rules": list(rules), **more}
        return await self.must(cluster, "POST", f"{RBAC}/clusterroles", body, cluster)

    async def bind(
        self, role: str, *subjects: Object, name: str = "", namespace: str = "", cluster: str = "one"
    ) -> Object:
        body = {
            "metadata": {"name": name or role},
            "roleRef": {"kind": "ClusterRole", "name": role},
            "subjects": list(subjects),
        }
        path = f"/namespaces/{namespace}/rolebindings" if namespace else "/clusterrolebindings"
        return await self.must(cluster, "POST", RBAC + path, body, cluster)


class Story(Protocol):
    def __call__(self, place: Place) -> Coroutine[Any, Any, None]: ...


def tell(story: Story, audit: AuditLog | None = None) -> None:
    """Runs a story on a fresh server."""

    async def told() -> None:
        store, clock = SqliteStore(MEMORY), VirtualClock()
        api = API(store, clock, SequenceIds())
        for cluster in ("fleet", "one", "two"):
            await api.create_cluster(cluster)
            for namespace in ("default", "kube-system", "other"):
                await api.create(cluster, "namespaces", {"metadata": {"name": namespace}})
        accounts = Accounts(api, KEY)
        app = Application(Verbs(api), Tokens(), clock, accounts=accounts, audit=audit)
        transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url=ENDPOINT) as http:
            await story(Place(api, clock, app, accounts, http))
        store.close()

    asyncio.run(told())


def rule(verbs: str, resources: str, group: str = "", *names: str) -> Object:
    found: Object = {"verbs": verbs.split(), "apiGroups": [group], "resources": resources.split()}
    return {**found, "resourceNames": list(names)} if names else found


def robot(name: str = "robot", namespace: str = "default") -> Object:
    return {"kind": "ServiceAccount", "name": name, "namespace": namespace}


def user(name: str) -> Object:
    return {"kind": "User", "name": name}


def group(name: str) -> Object:
    return {"kind": "Group", "name": name}
