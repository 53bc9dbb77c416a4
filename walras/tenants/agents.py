"""An Agent of the fleet becomes a cluster with a token, and takes both along when it goes."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any, Final

from walras.core.clock import Clock, Ids, rfc3339
from walras.core.errors import NotFound
from walras.kube.api import API, Change
from walras.kube.transaction import Transaction
from walras.tenants.controller import Key, Manager
from walras.tenants.furniture import AGENT_UID, BASE_NODE, SYSTEM, base_node, furnish
from walras.tenants.objects import (
    AGENTS,
    FLEET,
    NAMESPACES,
    NODES,
    SECRETS,
    Object,
    condition,
    deleting,
    drop_finalizer,
    finalizers,
    owner_reference,
    set_condition,
    uid,
)
from walras.tenants.tokens import (
    SECRET_PREFIX,
    SYSTEM_NAMESPACE,
    decode,
    encode,
    kubeconfig,
)

CONTROL_PLANE: Final = "walras.dev/control-plane"
# Of an agent that is gone: as often as it is looked whether everything of it has ended.
_ENDING_MS: Final = 20
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


class AgentController:
    """Keys are names of agents, of clusters without one too: those are removed.

    `forget`: ends what a cluster that is gone has left outside of the API, whether nothing of it is left. No
    agent comes by its name before.
    """

    def __init__(
        self, api: API, clock: Clock, ids: Ids, manager: Manager, *, endpoint: str, ca_pem: str
    ) -> None:
        self._api = api
        self._clock = clock
        self._ids = ids
        self._manager = manager
        self._endpoint = endpoint.rstrip("/")
        self._ca_pem = ca_pem
        self.forget: Callable[[str], Awaitable[bool]] = _forgotten

    def watch(self) -> list[Callable[[], None]]:
        for cluster in self._api.clusters():
            if cluster != FLEET:
                self._manager.add(self, Key(FLEET, "", cluster))
        return [
            self._api.subscribe(AGENTS, self._agent_changed),
            self._api.subscribe(SECRETS, self._secret_changed),
            self._api.subscribe(NODES, self._node_changed),
        ]

    def _agent_changed(self, change: Change) -> None:
        if change.type != "MODIFIED" or change.old is None or _ours(change.old) != _ours(change.object):
            self._manager.add(self, Key(FLEET, "", change.name))

    def _secret_changed(self, change: Change) -> None:
        metadata = change.object["metadata"]
        if change.cluster == FLEET and metadata["namespace"] == SYSTEM_NAMESPACE and change.type != "ADDED":
            name = str(metadata["name"])
            if name.startswith(SECRET_PREFIX):
                self._manager.add(self, Key(FLEET, "", name.removeprefix(SECRET_PREFIX)))

    def _node_changed(self, change: Change) -> None:
        if change.type == "DELETED" and change.object["metadata"]["name"] == BASE_NODE:
            self._manager.add(self, Key(FLEET, "", change.cluster))

    async def reconcile(self, cluster: str, namespace: str, name: str) -> int | None:
        del cluster, namespace
        agent = self._api.find(FLEET, AGENTS, "", name)
        if agent is None:
            done = await self._remove(name)
        elif deleting(agent):
            done = await self._let_go(name, agent)
        elif name == FLEET or _NAME.fullmatch(name) is None:
            await self._refuse(name)
            done = True
        else:
            done = await self._provide(name, agent)
        return None if done else _ENDING_MS

    async def _provide(self, name: str, agent: Object) -> bool:
        """Whether the agent has its cluster."""
        transaction = self._api.transaction()
        now = rfc3339(self._clock.now_ms())
        if not (self._api.is_asleep(name) and _is_provided(agent)):
            if not await self._make_cluster(name, agent):
                return False
            transaction = self._api.transaction()
            if self._api.find(name, NAMESPACES, "", SYSTEM) is None:
                furnish(transaction, name, self._ca_pem)
            if self._api.find(name, NODES, "", BASE_NODE) is None:
                transaction.create(name, NODES, base_node(uid(agent), now))
        self._keep_secret(transaction, name, agent)
        endpoint = f"{self._endpoint}/clusters/{name}"

        def ready(latest: Object) -> None:
            # An agent that goes before it was held leaves a cluster without an agent, and that goes too.
            if not deleting(latest) and CONTROL_PLANE not in finalizers(latest):
                latest["metadata"]["finalizers"] = [*finalizers(latest), CONTROL_PLANE]
            latest.setdefault("status", {})["endpoint"] = endpoint
            latest["status"]["observedGeneration"] = latest["metadata"].get("generation", 1)
            set_condition(
                latest, "Ready", "True", now,
                reason="ControlPlaneReady", message="the cluster serves its API",
            )  # fmt: skip

        transaction.edit(FLEET, AGENTS, "", name, ready)
        await transaction.commit()
        return True

    async def _make_cluster(self, name: str, agent: Object) -> bool:
        """Whether it is there. Nothing of an earlier agent of the name is for this one."""
        if self._api.has_cluster(name):
            if not self._is_of_another(name, agent):
                return True
            # That one was deleted by force.
            await self._drop(name)
        if not await self.forget(name):
            return False
        await self._api.create_cluster(name)
        return True

    def _is_of_another(self, name: str, agent: Object) -> bool:
        node = self._api.find(name, NODES, "", BASE_NODE)
        owner = (node["metadata"].get("annotations") or {}).get(AGENT_UID) if node is not None else None
        return owner is not None and owner != uid(agent)

    def _keep_secret(self, transaction: Transaction, name: str, agent: Object) -> None:
        secret_name = SECRET_PREFIX + name
        secret = self._api.find(FLEET, SECRETS, SYSTEM_NAMESPACE, secret_name)
        token = decode(secret, "token") if secret is not None else ""
        token = token or self._ids.token()
        data = {
            "token": encode(token),
            "kubeconfig": encode(kubeconfig(self._endpoint, self._ca_pem, name, token)),
        }
        if secret is None:
            metadata = {
                "name": secret_name,
                "namespace": SYSTEM_NAMESPACE,
                "labels": {"walras.dev/agent": name},
                "ownerReferences": [owner_reference(agent)],
            }
            transaction.create(
                FLEET, SECRETS, {"metadata": metadata, "type": "walras.dev/agent", "data": data}
            )
        elif secret.get("data") != data and not deleting(secret):
            transaction.edit(
                FLEET, SECRETS, SYSTEM_NAMESPACE, secret_name, lambda latest: latest.update(data=data)
            )

    async def _let_go(self, name: str, agent: Object) -> bool:
        """Whether there is nothing more to do for it at this moment."""
        # The token is refused since the deletion was committed; nobody needs its Secret any more.
        await self._delete_secret(name)
        if finalizers(agent) != [CONTROL_PLANE]:
            return True
        if not await self._remove(name):
            return False
        await self._api.edit(FLEET, AGENTS, "", name, lambda latest: drop_finalizer(latest, CONTROL_PLANE))
        return True

    async def _remove(self, name: str) -> bool:
        """Whether nothing of the cluster is left."""
        if name == FLEET:
            return True
        await self._drop(name)
        return await self.forget(name)

    async def _drop(self, name: str) -> None:
        await self._delete_secret(name)
        if self._api.has_cluster(name):
            await self._api.delete_cluster(name)

    async def _delete_secret(self, name: str) -> None:
        try:
            await self._api.delete(FLEET, SECRETS, SYSTEM_NAMESPACE, SECRET_PREFIX + name)
        except NotFound:
            return

    async def _refuse(self, name: str) -> None:
        now = rfc3339(self._clock.now_ms())
        why = (
            f'"{FLEET}" is the operator\'s cluster'
            if name == FLEET
            else f'"{name}" is no DNS label of at most 63 characters'
        )

        def refuse(latest: Object) -> None:
            set_condition(
                latest, "Ready", "False", now,
                reason="InvalidName", message=f"{why}; delete the agent and choose another name",
            )  # fmt: skip

        await self._api.edit(FLEET, AGENTS, "", name, refuse)


async def _forgotten(_: str) -> bool:
    return True


def _ours(agent: Object) -> list[Any]:
    """What of an agent concerns its control plane; money, which changes all the time, does not."""
    metadata, status = agent["metadata"], agent.get("status") or {}
    said = [metadata.get(name) for name in ("uid", "generation", "finalizers", "deletionTimestamp")]
    return [*said, status.get("endpoint"), condition(agent, "Ready")]


def _is_provided(agent: Object) -> bool:
    """Whether the cluster was made for this very agent: its status is not a client's to write at creation."""
    ready = condition(agent, "Ready")
    return ready is not None and ready.get("status") == "True" and CONTROL_PLANE in finalizers(agent)
