"""The live auctioneer: one task that takes in bids, clears the market and keeps leases, money and nodes true.

Every step stages all its effects in one transaction. When the store refuses one, the exchange forgets what it
knows and reads it back: memory never runs ahead of the disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Final

import structlog

from walras.core.clock import Clock, Ids
from walras.core.errors import ServiceUnavailable, StorageError
from walras.cost import usage
from walras.exchange import accounts, carried, effects, projections, settlement
from walras.exchange.arrivals import Arrivals
from walras.exchange.auctioneer import Auctioneer, Question
from walras.exchange.book import current_pool, default_pool
from walras.exchange.carried import Shelf
from walras.exchange.demand import AGENTS, FLEET, POOLS, Bidder
from walras.exchange.effects import Effects
from walras.exchange.emptying import Emptying, NodeRuntime
from walras.exchange.equipment import Equipment
from walras.exchange.holding import Holding
from walras.exchange.journal import Database
from walras.exchange.lifecycle import Lifecycle
from walras.exchange.showing import Display
from walras.exchange.supply import Supply
from walras.exchange.treasury import Treasury
from walras.exchange.warming import Warming
from walras.kube.api import API
from walras.kube.record import Object
from walras.kube.transaction import Transaction
from walras.kube.validation.walras import DEFAULT_POOL
from walras.tenants.controller import Manager
from walras.tenants.events import Recorder

INCOME_PERIOD_MS: Final = 5_000
STATUS_PERIOD_MS: Final = 2_000
PRUNE_PERIOD_MS: Final = 60_000
RETRY_MS: Final = 1_000
# So many bids are decided on arrival before the loop serves others again.
URGENT_A_STEP: Final = 16

_log = structlog.get_logger("walras.exchange")


class Exchange:
    """One pool's market over the clusters of all agents."""

    def __init__(
        self,
        api: API,
        database: Database,
        clock: Clock,
        ids: Ids,
        *,
        manager: Manager,
        recorder: Recorder,
        runtime: NodeRuntime,
        supply: Supply,
    ) -> None:
        self._api, self._database, self._clock, self._ids = api, database, clock, ids
        self._recorder, self._supply = recorder, supply
        self.auctioneer = Auctioneer(api, supply, ids)
        self._display = Display()
        # Held by a step to its end on the disk: between steps money, leases and objects agree.
        self.turn = asyncio.Lock()
        # Whether memory is what the disk says; not after a step that failed, until it is read back.
        self._is_true = True
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._unsubscribe: list[Callable[[], None]] = []
        self._arrivals = Arrivals(
            api,
            clock,
            manager,
            Bidder(api, recorder, supply, self.auctioneer.proxy),
            self.auctioneer,
            lambda: self.holdings,
            wake=self._wake.set,
            hurry=self._hurry,
        )
        self._emptying = Emptying(runtime, self._wake.set)
        self.equipment = Equipment(api, supply, clock, runtime, lambda: self.holdings, self._wake.set)
        self._lifecycle = Lifecycle(supply, self.equipment, self._emptying)
        self._warming: Warming | None = None
        self._tick_at_ms = self._income_at_ms = self._status_at_ms = self._prune_at_ms = 0
        self._stepped_ms = 0
        self.treasury: Treasury
        self.holdings: dict[str, Holding]
        self._shelf: Shelf

    # Life

    async def start(self) -> None:
        """Open, then tick until stopped. Raises StorageError."""
        await self.open()
        self._warming = Warming()
        self.equipment.start()
        self._task = asyncio.create_task(self._run())

    async def prepare(self) -> None:
        """Have devices of leases that go on made ready before anything runs there. Raises StorageError."""
        self._database.migrate("leases", effects.MIGRATIONS)
        await self.equipment.resume(list(effects.stored(self._database).values()))

    async def open(self) -> None:
        """Read back what is stored and subscribe to demand. Raises StorageError."""
        self._database.migrate("leases", effects.MIGRATIONS)
        self._database.migrate("usage", usage.MIGRATIONS)
        self._database.migrate("markets", carried.MIGRATIONS)
        self.reload()
        await self._bootstrap()
        now = self._clock.now_ms()
        for holding in self.holdings.values():
            settlement.skip_gap(holding, now)
        self._unsubscribe = [self.equipment.health.open(), self._arrivals.open()]
        fx = self._effects()
        projections.reconcile(fx, self._supply)
        await fx.commit()
        fx = self._effects()
        self._lifecycle.open(fx, now)
        await fx.commit()

    async def stop(self) -> None:
        """Settle every running lease up to now and stop; leases go on at the next start."""
        for unsubscribe in self._unsubscribe:
            unsubscribe()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._emptying.cancel()
        await self.equipment.cancel()
        if self._warming is not None:
            await self._warming.cancel()
        fx = self._effects()
        self._lifecycle.settle_all(fx, self._clock.now_ms())
        self._store_carried(fx.tx, at_once=True)
        await fx.commit()

    def reload(self) -> None:
        """Forget what memory holds and take money and leases as they are stored. Raises StorageError.

        Everything is looked at and told again: what a lost step had dealt with is open once more.
        """
        self.treasury = Treasury(self._database)
        self.holdings = effects.stored(self._database)
        self._shelf = Shelf(self._database, DEFAULT_POOL)
        self.auctioneer.restore(self._shelf.read(), self.treasury, self._clock.now_ms())
        self._is_true = True
        self._display = Display()
        self._arrivals.note_all(self.treasury.budgets)

    async def _bootstrap(self) -> None:
        """The default pool and its account, made at the first start."""
        fx = self._effects()
        self.treasury.open_pool(DEFAULT_POOL, self._clock.now_ms())
        if self._api.find(FLEET, POOLS, "", DEFAULT_POOL) is None:
            fx.tx.create(FLEET, POOLS, default_pool())
        await fx.commit()

    def _effects(self) -> Effects:
        return Effects(
            self._api,
            self.treasury,
            self.holdings,
            self._recorder,
            self._api.transaction(),
            self._store_carried,
        )

    def _store_carried(self, tx: Transaction, *, at_once: bool = False) -> None:
        market = self.auctioneer
        self._shelf.store(tx, market.prices.at_ms, market.carried, at_once=at_once)

    # The loop

    async def _run(self) -> None:
        good = True
        while True:
            try:
                if not good:
                    await self._read_back()
                await self.step()
            except StorageError as error:
                if good:
                    _log.error(
                        "the store refused a step; reading back until it does not", error=error.message
                    )
                good = await self._recover()
                continue
            except Exception:
                _log.exception("a step failed; reading back")
                good = await self._recover()
                continue
            if not good:
                good = True
                _log.info("the store takes steps again")
            wait_ms = self._next_ms() - self._clock.now_ms()
            if wait_ms > 0:
                try:
                    async with asyncio.timeout(wait_ms / 1000):
                        await self._wake.wait()
                except TimeoutError:
                    pass
            self._wake.clear()

    async def _recover(self) -> bool:
        """Memory goes back to what the disk says at once, as others read it too. False: not good yet."""
        with suppress(StorageError):
            await self._read_back()
        await asyncio.sleep(RETRY_MS / 1000)
        return False

    async def _read_back(self) -> None:
        async with self.turn:
            self.reload()

    def _hurry(self) -> None:
        """Clear the market at once."""
        self._tick_at_ms = 0
        self._wake.set()

    def _next_ms(self) -> int:
        return min([0 if self._arrivals.urgent else self._tick_at_ms, *self._lifecycle.due_ms(self.holdings)])

    async def step(self) -> None:
        """Do everything that is due at the clock's time, in one transaction. Raises StorageError."""
        async with self.turn:
            self._is_true = False
            await self._step()
            self._is_true = True

    async def _step(self) -> None:
        now = self._clock.now_ms()
        if now < self._stepped_ms:
            # A clock that was set back is no reason to wait until it is as late again.
            self._tick_at_ms = self._income_at_ms = self._status_at_ms = self._prune_at_ms = 0
        self._stepped_ms = now
        fx = self._effects()
        pool = current_pool(self._api, self.equipment.offered())
        noted = self._arrivals.take()
        self._take_in_agents(fx, noted.agents, now)
        self._lifecycle.advance(fx, pool, now, look=noted.leases, offered=noted.offers)
        for _ in range(URGENT_A_STEP):
            if self._arrivals.urgent:
                self.auctioneer.express(fx, pool, self._arrivals.urgent.take(), now)
        if now >= self._tick_at_ms:
            self._tick_at_ms = now + pool.rules.tick_ms
            self._lifecycle.settle_all(fx, now)
            self._expire_holds(now)
            self.auctioneer.clear(fx, pool, now)
            if self._warming is not None:
                self._warming.look()
        if now >= self._income_at_ms:
            self._income_at_ms = now + INCOME_PERIOD_MS
            self.treasury.pay_income(now)
            self.treasury.pay_rebate(pool.name, sum(device.milli for device in pool.devices), now)
        if now >= self._prune_at_ms:
            self._prune_at_ms = now + PRUNE_PERIOD_MS
            projections.prune(fx, now)
        if now >= self._status_at_ms:
            self._status_at_ms = now + STATUS_PERIOD_MS
            self._display.refresh(fx, pool, self.auctioneer.prices, now)
        await fx.commit()
        if self._lifecycle.has_new(self.holdings):
            # What was granted just now may have its cards ready already.
            self._wake.set()

    # What is asked of it

    def ask(self, cluster: str, bid: Object) -> Question:
        """The market with that bid in it, between two steps: hold `turn`.

        Raises Invalid, ServiceUnavailable.
        """
        self._check_true()
        if not self.treasury.serves(cluster):
            raise ServiceUnavailable(f'the account of agent "{cluster}" is not open yet', retry_after_s=1)
        pool = current_pool(self._api, self.equipment.offered())
        return self.auctioneer.ask(self._effects(), pool, cluster, bid, self._clock.now_ms())

    def _check_true(self) -> None:
        if not self._is_true:
            raise ServiceUnavailable("the store refuses writes at present; try again", retry_after_s=1)

    async def grant(self, agent: str, micros: int, id: str, *, force: bool) -> bool:
        """Add to an agent's balance; False when the grant of that id was made before.

        Raises NotFound, Conflict, StorageError, ServiceUnavailable.
        """
        async with self.turn:
            self._check_true()
            fx = self._effects()
            made = accounts.grant(fx.treasury, agent, micros, id, self._clock.now_ms(), force=force)
            try:
                await fx.commit()
            except Exception:
                self._is_true = False
                self.reload()
                raise
        self._status_at_ms = 0
        self._wake.set()
        return made

    def _expire_holds(self, now: int) -> None:
        """Money that is on hold for no lease, past its time, is free again."""
        for hold in self.treasury.expire(
            now, {hold for each in self.holdings.values() for hold in each.holds}
        ):
            _log.warning("a hold that no lease names was given back", hold=hold)

    # Agents

    def _take_in_agents(self, fx: Effects, changed: Collection[str], now: int) -> None:
        for name in changed:
            agent = self._api.find(FLEET, AGENTS, "", name)
            budget = self.treasury.budgets.get(name)
            if agent is None and budget is None:
                continue
            gone = agent is None or "deletionTimestamp" in agent["metadata"]
            # One that was removed past its finalizers leaves an account, perhaps to another of its name.
            if gone or (agent and budget and budget.uid != agent["metadata"]["uid"]):
                held = [holding for holding in self.holdings.values() if holding.agent == name]
                if held:
                    # Looked at again when the last of them is over.
                    self._arrivals.noted.agents.add(name)
                    self.treasury.leaving.add(name)
                    for holding in held:
                        self._emptying.begin(holding)
                    continue
                accounts.close(fx, name, now)
                self.auctioneer.forget_agent(name)
                self._shelf.hasten()
            if agent is not None and not gone:
                accounts.take_in(fx, agent, now)
