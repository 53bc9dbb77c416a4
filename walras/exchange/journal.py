"""The ledger in the database: its tables, and how entries get there and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Final, NamedTuple, Protocol

import msgspec
from msgspec.structs import astuple

from walras.core.errors import Conflict, NotFound
from walras.kube.transaction import Transaction
from walras.ledger.chain import GENESIS, seal
from walras.ledger.ledger import RECENT_MAX, Ledger
from walras.ledger.statement import Position, Statement, statement
from walras.ledger.types import Account, Entry, Hold
from walras.ledger.verify import EMPTY, Books, Head

MIGRATIONS: Final = (
    """CREATE TABLE ledger_accounts (
        id TEXT PRIMARY KEY, limited INTEGER NOT NULL, debits_pending INTEGER NOT NULL,
        debits_posted INTEGER NOT NULL, credits_pending INTEGER NOT NULL,
        credits_posted INTEGER NOT NULL
    ) WITHOUT ROWID""",
    """CREATE TABLE ledger_holds (
        id TEXT PRIMARY KEY, debit TEXT NOT NULL, credit TEXT NOT NULL, amount INTEGER NOT NULL,
        ref TEXT NOT NULL
    ) WITHOUT ROWID""",
    """CREATE TABLE ledger_journal (
        seq INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL,
        debit TEXT NOT NULL, credit TEXT NOT NULL, amount INTEGER NOT NULL, hold TEXT NOT NULL,
        ref TEXT NOT NULL
    )""",
    "CREATE INDEX ledger_journal_by_debit ON ledger_journal (debit, at_ms)",
    "CREATE TABLE budgets (agent TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID",
    "ALTER TABLE ledger_journal ADD COLUMN expires_at_ms INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE ledger_journal ADD COLUMN seal BLOB NOT NULL DEFAULT x''",
    "ALTER TABLE ledger_holds ADD COLUMN expires_at_ms INTEGER NOT NULL DEFAULT 0",
    "CREATE INDEX ledger_journal_by_credit ON ledger_journal (credit, at_ms)",
    """CREATE TABLE ledger_head (
        one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL, seal BLOB NOT NULL
    )""",
)
CHUNK: Final = 4_096
PAGE_MAX: Final = 1_000

_ENTRY: Final = "seq, at_ms, id, kind, debit, credit, amount, hold, ref, expires_at_ms"
# Powers of two, so that few statements are prepared. One statement inserts many rows because each step
# of a statement costs the store's thread a turn of the interpreter lock.
_ROWS: Final = (256, 64, 16, 4, 1)

Row = tuple[Any, ...]


class Reader(Protocol):
    def query(self, sql: str, params: Sequence[Any] = ()) -> list[Row]: ...


class Database(Reader, Protocol):
    def migrate(self, name: str, steps: Sequence[str]) -> None: ...


def insert(tx: Transaction, into: str, rows: Sequence[Row]) -> None:
    """Stage rows of one width, many a statement; `into` is such as "INSERT INTO usage"."""
    start = 0
    for size in _ROWS:
        last = start + (len(rows) - start) // size * size
        if last > start:
            values = ", ".join([f"({', '.join('?' * len(rows[0]))})"] * size)
            tx.execute(
                f"{into} VALUES {values}",
                [list(chain.from_iterable(rows[at : at + size])) for at in range(start, last, size)],
            )
        start = last


def store_entries(tx: Transaction, entries: Sequence[Entry], seals: Sequence[bytes]) -> None:
    """Stage new entries with their seals, the last of which becomes the journal's head."""
    rows = [(*astuple(entry), sealed) for entry, sealed in zip(entries, seals, strict=True)]
    insert(tx, f"INSERT INTO ledger_journal ({_ENTRY}, seal)", rows)
    tx.execute("INSERT OR REPLACE INTO ledger_head VALUES (1, ?, ?)", [(entries[-1].seq, seals[-1])])


def store_books(tx: Transaction, ledger: Ledger, entries: Iterable[Entry]) -> None:
    """Stage the accounts and holds that these entries changed, as they are now."""
    accounts: set[str] = set()
    holds: set[str] = set()
    for entry in entries:
        accounts.add(entry.debit)
        accounts.add(entry.credit)
        holds.add(entry.hold)
    for table, touched, there in (
        ("ledger_accounts", accounts, ledger.accounts),
        ("ledger_holds", holds, ledger.holds),
    ):
        gone = [(id,) for id in touched if id and id not in there]
        if gone:
            tx.execute(f"DELETE FROM {table} WHERE id = ?", gone)  # noqa: S608
        rows = [astuple(there[id]) for id in sorted(touched) if id in there]
        insert(tx, f"INSERT OR REPLACE INTO {table}", rows)


def restore(database: Reader) -> Ledger:
    """The ledger as it is stored. Raises Conflict when its parts do not agree."""
    books, _ = read_books(database)
    sql = f"SELECT {_ENTRY} FROM ledger_journal ORDER BY seq DESC LIMIT {RECENT_MAX}"  # noqa: S608
    recent = [Entry(*row) for row in reversed(database.query(sql))]

    def history(ids: Sequence[str]) -> Mapping[str, Entry]:
        return find_entries(database, ids)

    return Ledger.restore(books.accounts.values(), books.holds.values(), recent, history)


def ending(database: Reader) -> tuple[bytes, list[tuple[bytes, int]]]:
    """The last entry's seal, and the (seal, seq) that a journal of before there were seals has yet to get.

    Raises Conflict when the journal does not end as it was stored.
    """
    head = database.query("SELECT seq, seal FROM ledger_head")
    last = database.query("SELECT seq, seal FROM ledger_journal ORDER BY seq DESC LIMIT 1")
    if head or not last:
        if last != head:
            raise Conflict("the journal does not end as it was stored; `walras ledger verify` says where")
        return (head[0][1] if head else GENESIS), []
    if database.query("SELECT 1 FROM ledger_journal WHERE seal <> x'' LIMIT 1"):
        raise Conflict("the journal's head was removed; restore the data from a backup")
    previous, backlog = GENESIS, []
    for rows in read_rows(database):
        entries = [Entry(*row[:-1]) for row in rows]
        seals = seal(previous, entries)
        backlog += [(sealed, entry.seq) for sealed, entry in zip(seals, entries, strict=True)]
        previous = seals[-1]
    return previous, backlog


def store_backlog(tx: Transaction, backlog: Sequence[tuple[bytes, int]]) -> None:
    """Stage the seals of entries that had none."""
    tx.execute("UPDATE ledger_journal SET seal = ? WHERE seq = ?", backlog)
    tx.execute("INSERT OR REPLACE INTO ledger_head VALUES (1, ?2, ?1)", [backlog[-1]])


def find_entries(database: Reader, ids: Sequence[str]) -> dict[str, Entry]:
    """Those of the ids that the journal has, with their entries."""
    sql = f"SELECT {_ENTRY} FROM ledger_journal WHERE id IN (SELECT value FROM json_each(?))"  # noqa: S608
    rows = database.query(sql, (msgspec.json.encode(ids).decode(),))
    return {entry.id: entry for entry in (Entry(*row) for row in rows)}


def journal(database: Reader) -> list[Entry]:
    """Every entry."""
    return [Entry(*row[:-1]) for rows in read_rows(database) for row in rows]


def read_rows(database: Reader, upto: int | None = None) -> Iterator[list[Row]]:
    """The journal's rows in order as the verifier takes them, a chunk at a time; up to an entry's number."""
    after, last = -(2**63), 2**63 - 1 if upto is None else upto
    sql = (
        f"SELECT {_ENTRY}, seal FROM ledger_journal "  # noqa: S608
        "WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?"
    )
    while rows := database.query(sql, (after, last, CHUNK)):
        yield rows
        after = rows[-1][0]


_BOOKS: Final = """SELECT
    (SELECT json_group_array(json_object('id', id, 'limit', limited, 'debits_pending', debits_pending,
        'debits_posted', debits_posted, 'credits_pending', credits_pending, 'credits_posted', credits_posted))
        FROM ledger_accounts),
    (SELECT json_group_array(json_object('id', id, 'debit', debit, 'credit', credit, 'amount', amount,
        'ref', ref, 'expires_at_ms', expires_at_ms)) FROM ledger_holds),
    (SELECT json_array(seq, lower(hex(seal))) FROM ledger_head)"""


def read_books(database: Reader, *also: str) -> tuple[Books, Row]:
    """Accounts, holds and head as of one moment, with the values of more subqueries as of the same.

    Raises Conflict when they cannot be what was stored.
    """
    # One statement reads one state of the database, whatever is committed meanwhile.
    ((accounts, holds, head, *more),) = database.query(", ".join([_BOOKS, *also]))
    try:
        books = Books(
            {account.id: account for account in msgspec.json.decode(accounts, type=list[Account])},
            {hold.id: hold for hold in msgspec.json.decode(holds, type=list[Hold])},
            msgspec.json.decode(head, type=Head) if head else EMPTY,
        )
    except msgspec.ValidationError as error:
        raise Conflict(f"the ledger's accounts, holds or head were altered: {error}") from None
    return books, tuple(more)


_AFTER: Final = f"""WITH mine AS (
    SELECT {_ENTRY} FROM ledger_journal WHERE debit = ?1 AND (at_ms, seq) > (?2, ?3) AND seq >= ?4
    UNION ALL
    SELECT {_ENTRY} FROM ledger_journal WHERE credit = ?1 AND (at_ms, seq) > (?2, ?3) AND seq >= ?4)"""  # noqa: S608
# From the present backwards, so that a recent statement does not read the whole past.
_POSITION: Final = f"""{_AFTER} SELECT
    coalesce((SELECT credits_posted - debits_posted FROM ledger_accounts WHERE id = ?1), 0)
        - coalesce(sum(iif(debit = ?1, -amount, amount)) FILTER (WHERE kind IN ('transfer', 'capture')), 0),
    coalesce((SELECT debits_pending FROM ledger_accounts WHERE id = ?1), 0)
        - coalesce(sum(iif(kind = 'hold', amount, -amount)) FILTER (WHERE debit = ?1 AND hold <> ''), 0)
    FROM mine"""  # noqa: S608
_PAGE: Final = f"{_AFTER} SELECT * FROM mine WHERE at_ms < ?5 ORDER BY at_ms, seq LIMIT ?6"  # noqa: S608


class Place(NamedTuple):
    """Between two entries of the journal by time: after all before `at_ms`, and at it after `seq`."""

    at_ms: int
    seq: int


def read_statement(
    database: Reader, account: str, after: Place, until_ms: int, limit: int, opened: int = 0
) -> tuple[Statement, Place | None]:
    """At most `limit` of an account's entries up to, not including, `until_ms`; and where they go on, if so.

    `opened` is the entry that opened the account, for one who is not to see those of an earlier account by
    its name. Raises NotFound for an account that there never was.
    """
    known = "SELECT 1 FROM ledger_journal WHERE (debit = ?1 OR credit = ?1) AND seq >= ?2 LIMIT 1"
    if not database.query(known, (account, opened)):
        raise NotFound(f'there is no account "{account}"; `walras ledger` lists them')
    ((balance, held),) = database.query(_POSITION, (account, *after, opened))
    rows = database.query(_PAGE, (account, *after, opened, until_ms, limit + 1))
    entries = [Entry(*row) for row in rows[:limit]]
    more = Place(entries[-1].at_ms, entries[-1].seq) if len(rows) > limit else None
    return statement(account, Position(balance, held), entries), more
