"""What can be asked beside Kubernetes objects: /clusters/NAME/walras/v1/{prices,cost,ledger,statement}."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from walras.core.clock import Clock
from walras.core.errors import BadRequest, Forbidden, NotFound
from walras.core.money import format_credits
from walras.core.quantity import parse_duration_ms
from walras.cost import usage
from walras.exchange import statements
from walras.exchange.demand import BIDS, FLEET, POOLS
from walras.exchange.exchange import Database, Exchange
from walras.exchange.treasury import account_of
from walras.kube.api import API
from walras.kube.record import Object
from walras.kube.serve.ports import Identity

HISTORY_MAX: Final = 300


class Views:
    """Read-only answers. An agent is told of itself, the operator of everybody."""

    def __init__(self, api: API, exchange: Exchange, database: Database, clock: Clock) -> None:
        self._api, self._exchange, self._database, self._clock = api, exchange, database, clock

    async def __call__(self, identity: Identity, cluster: str, path: str, query: Mapping[str, str]) -> Object:
        """Raises NotFound, Forbidden, BadRequest."""
        agent = "" if cluster in (FLEET, "*") else cluster
        match path:
            case "prices":
                return self._prices()
            case "cost":
                return self._cost(agent, query)
            case "ledger":
                if identity.cluster:
                    raise Forbidden("the ledger of all accounts is the operator's")
                return await asyncio.to_thread(statements.ledger_object, self._database, query)
            case "statement":
                account = _account(identity, agent, query.get("account", ""))
                now_ms = self._clock.now_ms()
                return await asyncio.to_thread(
                    statements.statement_object, self._database, account, query, now_ms
                )
        raise NotFound(f'"{path}" is not one of prices, cost, ledger, statement')

    def _prices(self) -> Object:
        pools = []
        for cluster, pool in self._api.everywhere(POOLS):
            if cluster != FLEET:
                continue
            spec, status, market = pool.get("spec", {}), pool.get("status", {}), self._exchange.auctioneer
            pools.append(
                {
                    "name": pool["metadata"]["name"],
                    "mechanism": spec.get("mechanism", "auction"),
                    "price": format_credits(market.prices.price_micros),
                    "postedPrice": format_credits(market.prices.posted_micros),
                    "reserve": format_credits(market.prices.reserve_micros),
                    "devices": status.get("devices", 0),
                    "allocatedPercent": int(status.get("allocated", "0%").rstrip("%")),
                    "bids": sum(
                        1
                        for _, bid in self._api.everywhere(BIDS)
                        if bid.get("status", {}).get("phase", "Pending") in ("Pending", "Refused")
                    ),
                    "leases": status.get("leases", 0),
                    "displacements": market.displacements,
                    "history": [
                        [at_ms, format_credits(price)]
                        for at_ms, price in list(market.history)[-HISTORY_MAX:]
                    ],
                }
            )
        return {"pools": pools}

    def _cost(self, agent: str, query: Mapping[str, str]) -> Object:
        since = query.get("since", "")
        since_ms = self._clock.now_ms() - parse_duration_ms(since) if since else 0
        report = usage.report(self._database, by=query.get("by", "agent"), since_ms=since_ms, agent=agent)
        shown = report.as_object()
        shown["since"] = since or "the beginning"
        if not since:
            captured = self._captured(agent)
            shown["ledger"] = format_credits(captured)
            shown["balanced"] = captured == report.total_micros
        return shown

    def _captured(self, agent: str) -> int:
        """Micros that the journal says were paid for leases, by one agent or by all."""
        sql = "SELECT COALESCE(SUM(amount), 0) FROM ledger_journal WHERE kind = 'capture'"
        if agent:
            return int(self._database.query(f"{sql} AND debit = ?", (account_of(agent),))[0][0])
        return int(self._database.query(sql)[0][0])


def _account(identity: Identity, agent: str, account: str) -> str:
    """The account whose statement is asked for; an agent's own is the only one it may read."""
    if not account and not agent:
        raise BadRequest("name an account, such as account=agent:NAME")
    own = account_of(agent)
    if identity.cluster and account not in ("", own):
        raise Forbidden(f'the statement of "{account}" is the operator\'s; yours is of "{own}"')
    return account or own
