"""Who may take a cluster along, and who may put one back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.market import Market

from walras.core.errors import Forbidden, MethodNotAllowed, NotFound
from walras.kube.access.words import MASTERS
from walras.kube.context import Identity
from walras.kube.record import Object
from walras.kube.serve.ports import Asked

OPERATOR = Identity("operator", (MASTERS,), "")
AGENT = Identity("agent:a", (MASTERS,), "a")
HELPER = Identity("system:serviceaccount:default:helper", ("system:serviceaccounts",), "a")


def test_an_agent_takes_its_own_and_only_the_operator_puts_back() -> None:
    async def scene() -> None:
        world = Market()
        await world.open()
        taken: Object = {}

        async def ask(who: Identity, cluster: str, path: str, body: Object | None = None) -> Any:
            async def read() -> Object:
                assert body is not None
                return body

            return await world.views(Asked(who, cluster, "GET" if body is None else "POST", path, {}, read))

        try:
            await world.agent("a", balance="10")
            await world.agent("b", balance="10")
            for who in (OPERATOR, AGENT):
                taken = await ask(who, "a", "backup")
                assert taken["kind"] == "ClusterBackup" and taken["metadata"]["name"] == "a"
            for who, cluster in ((HELPER, "a"), (AGENT, "b"), (AGENT, "fleet")):
                with pytest.raises(Forbidden):
                    await ask(who, cluster, "backup")
            for who, cluster in ((AGENT, "a"), (AGENT, "b"), (HELPER, "a")):
                with pytest.raises(Forbidden):
                    await ask(who, cluster, "restore", taken)
            with pytest.raises(MethodNotAllowed):
                await ask(OPERATOR, "a", "restore")
            with pytest.raises(NotFound):
                await ask(OPERATOR, "*", "backup")
        finally:
            await world.close()

    asyncio.run(scene())
