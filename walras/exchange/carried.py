"""What a pool's market carries from one clearing to the next, and over a restart: one row a pool."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec
import structlog

from walras.cost.usage import Database
from walras.kube.transaction import Transaction
from walras.market import types as market
from walras.market.slow import Slow

MIGRATIONS: Final = ("CREATE TABLE markets (pool TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID",)
PUT: Final = "INSERT OR REPLACE INTO markets VALUES (?, ?)"
# However short the ticks, and however much there is to carry.
STORE_PERIOD_MS: Final = 1_000

_log = structlog.get_logger("walras.exchange")


class Pace(NamedTuple):
    """An agent's pacing: its multiplier in millionths as of `at_ms`, and what it had spent by then."""

    mu: int
    at_ms: int
    spent_micros: int


class Carried(msgspec.Struct, frozen=True, kw_only=True):
    """The price of the last clearing, what is posted until the next, and what others remember.

    at_ms: when that clearing was, 0 before the first. memory: the mechanism's. pacing: by agent.
    """

    at_ms: int = 0
    price_micros: int = 0
    slow: Slow = Slow(0, 0, 0)
    memory: market.Memory = market.Memory()
    escrows: tuple[market.Escrow, ...] = ()
    pacing: dict[str, Pace] = msgspec.field(default_factory=dict)


class Shelf:
    """Where it is stored: along with what a step stores anyway, as a clearing alone is no reason to wait for
    the disk. What is lost in a crash is what changed since the last such step."""

    def __init__(self, database: Database, pool: str) -> None:
        self._pool = pool
        self._stored_ms = 0
        rows = database.query("SELECT body FROM markets WHERE pool = ?", (pool,))
        self._body = bytes(rows[0][0]) if rows else b""

    def read(self) -> Carried:
        """What was stored last; of a market that begins, or cannot be read, nothing."""
        if not self._body:
            return Carried()
        try:
            return msgspec.json.decode(self._body, type=Carried)
        except msgspec.DecodeError as error:
            _log.warning("what the market remembered cannot be read; it begins anew", error=str(error))
            return Carried()

    def hasten(self) -> None:
        """What changed is stored with the next step that stores anything, however short after the last."""
        self._stored_ms = 0

    def store(
        self, tx: Transaction, at_ms: int, carried: Callable[[], Carried], *, at_once: bool = False
    ) -> None:
        """Stage the row of the clearing at `at_ms` if it changed and none was stored just before."""
        if at_ms - self._stored_ms < (1 if at_once else STORE_PERIOD_MS):
            return
        body = msgspec.json.encode(carried())
        if body != self._body:
            tx.execute(PUT, [(self._pool, body)])
            self._body, self._stored_ms = body, at_ms
