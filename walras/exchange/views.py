"""What can be asked beside Kubernetes objects, below /clusters/NAME/walras/v1/."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, Final

import msgspec

from walras.core.clock import Clock
from walras.core.errors import BadRequest, Forbidden, Invalid, MethodNotAllowed, NotFound
from walras.core.money import format_credits, parse_credits
from walras.core.quantity import parse_duration_ms
from walras.cost import usage
from walras.exchange import statements
from walras.exchange.demand import BIDS, FLEET, POOLS
from walras.exchange.exchange import Exchange
from walras.exchange.journal import Database
from walras.exchange.quotes import Quotes
from walras.exchange.treasury import account_of
from walras.kube.access.words import MASTERS
from walras.kube.api import API
from walras.kube.record import Object
from walras.kube.serve.ports import Asked, Identity
from walras.kube.verbs import Verbs
from walras.tenants import backup

HISTORY_MAX: Final = 300
READ: Final = ("prices", "cost", "ledger", "statement", "backup")
DONE: Final = ("quote", "grants", "restore")
# Of an agent that has no account yet.
NOBODY: Final = "-"
NEVER: Final = 2**63 - 1


class Grant(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a grant. The same id makes it once, however often it is sent."""

    agent: str
    credits: str
    id: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._:-]{1,64}\Z")]
    force: bool = False


class Views:
    """An agent is told of itself, the operator of everybody; only grants and restores change anything."""

    def __init__(self, api: API, exchange: Exchange, database: Database, clock: Clock, verbs: Verbs) -> None:
        self._api, self._exchange, self._database, self._clock = api, exchange, database, clock
        self._quotes = Quotes(exchange, verbs, clock)

    async def __call__(self, asked: Asked) -> Object:
        """Raises NotFound, MethodNotAllowed, Forbidden, BadRequest, and what quotes and grants raise."""
        identity, cluster, path, query = asked.identity, asked.cluster, asked.path, asked.query
        if path not in READ + DONE:
            raise NotFound(f'"{path}" is not one of {", ".join(READ + DONE)}')
        if asked.method != ("GET" if path in READ else "POST"):
            raise MethodNotAllowed(f'"{path}" is asked with {"GET" if path in READ else "POST"}')
        if identity.cluster not in ("", cluster):
            raise Forbidden(f'this identity may only open the cluster "{identity.cluster}"')
        agent = "" if cluster in (FLEET, "*") else cluster
        match path:
            case "prices":
                return self._prices()
            case "cost":
                return self._cost(identity, agent, query)
            case "quote":
                return await self._quotes.quote(identity, cluster, await asked.body())
            case "ledger":
                if identity.cluster:
                    raise Forbidden("the ledger of all accounts is the operator's")
                return await asyncio.to_thread(statements.ledger_object, self._database, query)
            case "backup" | "restore" | "grants":
                return await self._kept(asked)
        account = _account(identity, agent, query.get("account", ""))
        now_ms, (_, opened) = self._clock.now_ms(), self._own(identity)
        return await asyncio.to_thread(
            statements.statement_object, self._database, account, query, now_ms, opened
        )

    def _own(self, identity: Identity) -> tuple[str, int]:
        """(uid, the entry of the journal that opened its account) of the agent that asks: what an earlier one
        of its name did is not for it. ("", 0) for the operator, who sees all of every name."""
        if not identity.cluster:
            return "", 0
        budget = self._exchange.treasury.budgets.get(identity.cluster)
        uid = budget.uid if budget is not None else NOBODY
        found = self._database.query("SELECT seq FROM ledger_journal WHERE id = ?", (f"open:{uid}",))
        return uid, found[0][0] if found else NEVER

    async def _kept(self, asked: Asked) -> Object:
        """What is for one who may do everything: to take a cluster, to put it back, to give credits."""
        identity, cluster = asked.identity, asked.cluster
        match asked.path:
            case "backup":
                if MASTERS not in identity.groups:
                    raise Forbidden("a backup holds Secrets too: only who may read everything takes one")
                return backup.taken(self._api, cluster, self._clock.now_ms())
            case "restore":
                if identity.cluster:
                    raise Forbidden("clusters are restored by the operator")
                return await backup.restored(self._api, cluster, await asked.body())
        if identity.cluster or cluster != FLEET:
            raise Forbidden("grants are the operator's to make, below /clusters/fleet")
        return await self._grant(await asked.body())

    async def _grant(self, body: Object) -> Object:
        try:
            wanted = msgspec.convert(body, Grant)
        except msgspec.ValidationError as error:
            raise BadRequest(f"a grant names agent, credits and id: {error}") from None
        micros = parse_credits(wanted.credits)
        if not micros:
            raise Invalid("a grant is of more than 0 credits")
        made = await self._exchange.grant(wanted.agent, micros, wanted.id, force=wanted.force)
        balance = format_credits(self._exchange.treasury.available(wanted.agent))
        return {
            "agent": wanted.agent,
            "credits": format_credits(micros),
            "id": wanted.id,
            "made": made,
            "balance": balance,
        }

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
                    "postedPrice": format_credits(market.prices.slow.posted_micros),
                    "reserve": format_credits(market.prices.slow.reserve_micros),
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
                        [at_ms, format_credits(price)] for at_ms, price in list(market.history)[-HISTORY_MAX:]
                    ],
                }
            )
        return {"pools": pools}

    def _cost(self, identity: Identity, agent: str, query: Mapping[str, str]) -> Object:
        uid, opened = self._own(identity)
        since = query.get("since", "")
        since_ms = self._clock.now_ms() - parse_duration_ms(since) if since else 0
        by = query.get("by", "agent")
        report = usage.report(self._database, by=by, since_ms=since_ms, agent=agent, uid=uid)
        shown = report.as_object()
        shown["since"] = since or "the beginning"
        if not since:
            captured = self._captured(agent, opened)
            shown["ledger"] = format_credits(captured)
            shown["balanced"] = captured == report.total_micros
        return shown

    def _captured(self, agent: str, opened: int) -> int:
        """Micros that the journal says were paid for leases from that entry on, by one agent or by all."""
        sql = "SELECT COALESCE(SUM(amount), 0) FROM ledger_journal WHERE kind = 'capture' AND seq >= ?"
        if agent:
            return int(self._database.query(f"{sql} AND debit = ?", (opened, account_of(agent)))[0][0])
        return int(self._database.query(sql, (opened,))[0][0])


def _account(identity: Identity, agent: str, account: str) -> str:
    """The account whose statement is asked for; an agent's own is the only one it may read."""
    if not account and not agent:
        raise BadRequest("name an account, such as account=agent:NAME")
    own = account_of(agent)
    if identity.cluster and account not in ("", own):
        raise Forbidden(f'the statement of "{account}" is the operator\'s; yours is of "{own}"')
    return account or own
