"""A market to test in: an exchange under any mechanism, and what agents and operator ask of it."""

from __future__ import annotations

from pathlib import Path

from support.exchange import World, container
from walras.core.clock import VirtualClock
from walras.exchange.demand import FLEET, PODS, POOLS
from walras.exchange.views import Views
from walras.kube.context import Identity
from walras.kube.record import Object
from walras.kube.serve.ports import Asked
from walras.kube.verbs import Verbs


class Market(World):
    """An exchange under a mechanism, with what can be asked of it."""

    def __init__(
        self, devices: int = 1, path: Path | str = ":memory:", clock: VirtualClock | None = None
    ) -> None:
        super().__init__(path, clock or VirtualClock(), f"emulated:{devices}")
        self.views = Views(self.api, self.exchange, self.store, self.clock, Verbs(self.api))

    async def divide(self, mechanism: str) -> None:
        """Have the pool use another mechanism."""
        await self.api.edit(
            FLEET, POOLS, "", "default", lambda pool: pool["spec"].update(mechanism=mechanism)
        )

    async def seconds(self, count: int = 0) -> None:
        """Second by second, as the exchange ticks; without a count what is due now."""
        for _ in range(max(1, count)):
            await self.step(1000 if count else 0)

    async def wish(
        self, agent: str, name: str, milli: int = 1000, spec: Object | None = None, **said: str
    ) -> None:
        """A pod that the agent's scheduler found no node for; `said` are its annotations."""
        waits = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
        annotations = {f"walras.dev/{key.replace('_', '-')}": text for key, text in said.items()}
        await self.api.create(
            agent,
            PODS,
            {
                "metadata": {"name": name, "namespace": "default", "annotations": annotations},
                "spec": {"containers": [container(milli)], **(spec or {})},
                "status": {"phase": "Pending", "conditions": [waits]},
            },
        )
        await self.step()

    async def ask(
        self, who: str, cluster: str, path: str, body: Object | None = None, /, **query: str
    ) -> Object:
        """What walras/v1/PATH of a cluster answers an agent, or the operator as ""."""

        async def read() -> Object:
            assert body is not None
            return body

        identity = Identity(f"agent:{who}" if who else "operator", (), who)
        method = "GET" if body is None else "POST"
        return await self.views(Asked(identity, cluster, method, path, query, read))

    def price(self, agent: str, name: str) -> str:
        return str(self.bid(agent, name)["spec"]["packages"][0]["maxPrice"])

    def reason(self, agent: str, name: str) -> str:
        return str(self.bid(agent, name)["status"]["explanation"]["reason"])

    def phases(self, agent: str) -> list[str]:
        return [lease["status"]["phase"] for lease in self.leases(agent)]
