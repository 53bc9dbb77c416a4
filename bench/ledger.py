"""Transfers a second: in memory, and durable by the server's own path into SQLite.

In memory is `Ledger.apply` on batches that are there: checks, balances, ids, journal entries. Durable is the
treasury: the same, ids looked up in the stored journal, seals, accounts, group commit, one fsync a group;
counted are transfers that are on the disk. Limits measured in the same run: SQLite fed the same rows and
commits by a bare loop, into the same tables and into one without indexes; a bare loop of additions in a
dictionary; SHA-256 of as many bytes.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import hashlib
import json
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import apsw
import uvloop

from bench.wire import percentile
from walras.core.clock import SequenceIds, VirtualClock
from walras.cost import usage
from walras.exchange import journal
from walras.exchange.audit import audit
from walras.exchange.treasury import MINT, Budget, Treasury, account_of
from walras.kube.api import API
from walras.kube.store.sqlite import SqliteStore
from walras.ledger.chain import GENESIS, canonical, seal
from walras.ledger.ledger import Ledger
from walras.ledger.types import BATCH_MAX, Entry, Limit, Transfer

AGENTS = 1_000
# As the store has them.
PRAGMAS = ("journal_mode = WAL", "synchronous = FULL", "wal_autocheckpoint = 4000", "cache_size = -16384")
START_MICROS = 10**12
IN_FLIGHT = 2


def batches(count: int) -> Iterator[list[Transfer]]:
    """Batches as a tick makes them: every lease of the agents pays, under an id of its own and the time."""
    for tick in range(count):
        yield [
            Transfer(
                f"capture:{1_700_000_000_000 + tick * 1000}:lease:{number * 2_654_435_761 % 2**64:032x}:1",
                account_of(f"agent-{number % AGENTS}"),
                account_of(f"agent-{(number * 7 + tick + 1) % AGENTS}"),
                number + 1,
                "trainer-0",
            )
            for number in range(BATCH_MAX)
        ]


def distinct(batch: list[Transfer]) -> list[Transfer]:
    return [transfer for transfer in batch if transfer.debit != transfer.credit]


def memory_per_s(count: int) -> tuple[float, list[Entry]]:
    """The median over batches, and the last batch's entries."""
    ledger = Ledger()
    ledger.open("mint", MINT, limit=Limit.CREDITS, at_ms=0)
    for number in range(AGENTS):
        name = account_of(f"agent-{number}")
        ledger.open(f"open:{number}", name, limit=Limit.DEBITS, at_ms=0)
        ledger.transfer(f"grant:{number}", MINT, name, START_MICROS, at_ms=0)
    rates, entries = [], list[Entry]()
    for tick, batch in enumerate(map(distinct, batches(count))):
        ledger.drain()
        started = time.perf_counter()
        results = ledger.apply(batch, at_ms=tick)
        rates.append(len(batch) / (time.perf_counter() - started))
        entries = ledger.drain()
        assert len(entries) == len(results) == len(batch)
    assert ledger.balanced()
    return percentile(rates, 50), entries


def addition_per_s(count: int) -> float:
    """Two additions a transfer and nothing else."""
    balances = {account_of(f"agent-{number}"): START_MICROS for number in range(AGENTS)}
    rates = []
    for batch in batches(count):
        started = time.perf_counter()
        for _, debit, credit, amount, _ in batch:
            balances[debit] -= amount
            balances[credit] += amount
        rates.append(len(batch) / (time.perf_counter() - started))
    return percentile(rates, 50)


def sha256_per_s(entries: list[Entry]) -> float:
    """Of bytes as long as those that are sealed, already written."""
    texts = [bytes(32) + canonical(entry) for entry in entries]
    started = time.perf_counter()
    for text in texts:
        hashlib.sha256(text).digest()
    return len(texts) / (time.perf_counter() - started)


def seal_per_s(entries: list[Entry]) -> float:
    started = time.perf_counter()
    seal(GENESIS, entries)
    return len(entries) / (time.perf_counter() - started)


async def durable_per_s(path: Path, count: int) -> tuple[float, float]:
    """Durable transfers a second, and entries audited a second afterwards."""
    store = SqliteStore(path)
    store.migrate("usage", usage.MIGRATIONS)
    api, treasury = API(store, VirtualClock(), SequenceIds()), Treasury(store)
    treasury.open_pool("default", 0)
    for number in range(AGENTS):
        name = f"agent-{number}"
        budget = Budget(uid=name, rate_micros_per_hour=0, cap_micros=0, weight=1, paid_ms=0)
        treasury.open_agent(name, budget, START_MICROS, 0)
    await commit(api, treasury)
    work = [distinct(batch) for batch in batches(count)]
    flying: deque[asyncio.Task[None]] = deque()
    gc.collect()
    started = time.perf_counter()
    for tick, batch in enumerate(work):
        assert not treasury.transfer_all(batch, tick)
        flying.append(asyncio.create_task(commit(api, treasury)))
        await asyncio.sleep(0)
        if len(flying) > IN_FLIGHT:
            await flying.popleft()
    await asyncio.gather(*flying)
    rate = sum(map(len, work)) / (time.perf_counter() - started)
    started = time.perf_counter()
    found = audit(store)
    audited = found.head.seq / (time.perf_counter() - started)
    assert found.fault is None and found.head.seq == treasury.ledger.seq
    store.close()
    return rate, audited


async def commit(api: API, treasury: Treasury) -> None:
    tx = api.transaction()
    treasury.store(tx)
    await tx.commit()


def sqlite_per_s(path: Path, count: int, *, indexed: bool) -> float:
    """Rows a second by a bare loop: the same columns, many a statement, as large commits, as many fsyncs."""
    database = apsw.Connection(str(path), statementcachesize=128)
    for pragma in PRAGMAS:
        database.execute(f"PRAGMA {pragma}")
    if indexed:
        for step in journal.MIGRATIONS:
            database.execute(step)
    else:
        database.execute(
            "CREATE TABLE ledger_journal (seq INTEGER PRIMARY KEY, a, b, c, d, e, f, g, h, i, j)"
        )
    size = 256
    one = f"({', '.join('?' * 11)})"
    insert = f"INSERT INTO ledger_journal VALUES {', '.join([one] * size)}"
    total, spent = 0, 0.0
    for tick, batch in enumerate(map(distinct, batches(count))):
        rows = batch[: len(batch) // size * size]
        values = [
            [
                value
                for seq, row in enumerate(rows[at : at + size], total + at)
                for value in columns(seq, tick, row)
            ]
            for at in range(0, len(rows), size)
        ]
        started = time.perf_counter()
        database.execute("BEGIN IMMEDIATE")
        for chunk in values:
            database.execute(insert, chunk)
        database.execute("COMMIT")
        spent += time.perf_counter() - started
        total += len(rows)
    database.close()
    return total / spent


def columns(seq: int, at_ms: int, row: Transfer) -> tuple[int | str | bytes, ...]:
    id, debit, credit, amount, ref = row
    return seq, at_ms, id, "transfer", debit, credit, amount, "", ref, 0, bytes(32)


def measure(folder: Path, count: int) -> dict[str, float]:
    memory, entries = memory_per_s(count)
    durable, audited = uvloop.run(durable_per_s(folder / "walras.db", count))
    return {
        "durable_per_s": round(durable),
        "memory_per_s": round(memory),
        "seal_per_s": round(seal_per_s(entries)),
        "audit_per_s": round(audited),
        "limit_sqlite_per_s": round(sqlite_per_s(folder / "same.db", count, indexed=True)),
        "limit_sqlite_unindexed_per_s": round(sqlite_per_s(folder / "bare.db", count, indexed=False)),
        "limit_addition_per_s": round(addition_per_s(count)),
        "limit_sha256_per_s": round(sha256_per_s(entries)),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=40, help=f"batches of {BATCH_MAX} transfers")
    parser.add_argument(
        "--folder", type=Path, default=None, help="where the databases are made; default /tmp"
    )
    told = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="walras-bench-", dir=told.folder) as folder:
        print(json.dumps(measure(Path(folder), told.batches)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
