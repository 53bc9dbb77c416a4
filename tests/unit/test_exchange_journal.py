"""The ledger in a real database: stored, restored, audited, and read as statements."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from support.books import save

from walras.core.clock import SequenceIds, VirtualClock
from walras.core.errors import Conflict, NotFound, StorageError
from walras.cost import usage
from walras.exchange import journal
from walras.exchange.audit import audit
from walras.exchange.journal import Place
from walras.exchange.treasury import MINT, Budget, Treasury, account_of, revenue_of
from walras.kube.api import API
from walras.kube.store.reader import SqliteReader
from walras.kube.store.sqlite import SqliteStore
from walras.ledger.chain import GENESIS, seal
from walras.ledger.statement import Line, Position, statement
from walras.ledger.types import Limit, Transfer
from walras.ledger.verify import Head

Rows = list[tuple[Any, ...]]


class Bank:
    """A treasury on a file, closed and opened again at will."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.open()

    def open(self) -> None:
        self.store = SqliteStore(self.path)
        self.store.migrate("usage", usage.MIGRATIONS)
        self.api = API(self.store, VirtualClock(), SequenceIds())
        self.treasury = Treasury(self.store)

    def close(self) -> None:
        self.store.close()

    def save(self, *used: tuple[Any, ...]) -> None:
        save(self.api, self.treasury, *used)

    def agent(self, name: str, micros: int = 1000) -> None:
        budget = Budget(uid=f"uid-{name}", rate_micros_per_hour=0, cap_micros=10**9, weight=1, paid_ms=0)
        self.treasury.open_agent(name, budget, micros, 1)


def metered(agent: str, lease: str, micros: int) -> tuple[Any, ...]:
    return (
        0,
        agent,
        "default",
        "pod",
        "",
        lease,
        "gpu",
        "default",
        1,
        0,
        micros,
        "",
        0,
        0,
        0,
        f"uid-{agent}",
    )


@pytest.fixture
def bank(tmp_path: Path) -> Iterator[Bank]:
    """Two agents; one leased and paid 25 of 60, the other paid 10 and holds nothing."""
    bank = Bank(tmp_path / "walras.db")
    bank.treasury.open_pool("default", 0)
    bank.agent("a")
    bank.agent("b")
    bank.save()
    bank.treasury.hold(
        "lease:1:1", account_of("a"), revenue_of("default"), 60, 2, ref="default/l1", expires_at_ms=99
    )
    bank.treasury.capture("lease:1:1:3", "lease:1:1", 25, 3, ref="pod")
    bank.treasury.hold("lease:2:1", account_of("b"), revenue_of("default"), 10, 3, ref="default/l2")
    bank.treasury.capture("lease:2:1:3", "lease:2:1", 10, 3)
    bank.treasury.release("lease:2:1", 4)
    bank.treasury.pay_rebate("default", 1000, 5)
    bank.save(metered("a", "l1", 25), metered("b", "l2", 10))
    yield bank
    bank.close()


def test_what_is_stored_is_what_is_restored(bank: Bank) -> None:
    ledger = bank.treasury.ledger
    bank.close()
    bank.open()
    assert bank.treasury.ledger.accounts == ledger.accounts
    assert bank.treasury.ledger.holds == ledger.holds
    assert bank.treasury.ledger.seq == ledger.seq
    bank.treasury.transfer("later", MINT, account_of("a"), 1, 9)
    bank.save()
    assert audit(bank.store).fault is None


def test_closing_an_agent_leaves_neither_account_nor_hold(bank: Bank) -> None:
    bank.treasury.release("lease:1:1", 6)
    bank.treasury.close_agent("a", 7)
    bank.save()
    assert bank.store.query("SELECT id FROM ledger_accounts ORDER BY id") == [
        ("agent:b",),
        ("mint",),
        ("revenue:default",),
    ]
    assert bank.store.query("SELECT * FROM ledger_holds") == []
    assert audit(bank.store).fault is None
    # One of the same name is another one.
    bank.treasury.open_agent(
        "a", Budget(uid="second", rate_micros_per_hour=0, cap_micros=9, weight=1, paid_ms=0), 5, 8
    )
    bank.save()
    found, _ = journal.read_statement(bank.store, "agent:a", Place(8, 0), 99, 10)
    assert (found.opening.balance, found.closing.balance) == (0, 5)
    assert audit(bank.store).fault is None


def test_an_audit_counts_what_was_paid_and_metered(bank: Bank) -> None:
    found = audit(bank.store)
    assert found.fault is None
    assert found.captured_micros == found.metered_micros == 35
    assert found.head.seq == bank.treasury.ledger.seq
    shown = found.as_object()
    assert shown["balanced"] is True
    assert shown["captured"] == "0.000035"


class Forger:
    """Changes the data behind the server's back, has them audited, and takes the changes back."""

    def __init__(self, bank: Bank) -> None:
        self._connection = apsw.Connection(str(bank.path))

    def query(self, sql: str, params: Any = ()) -> Rows:
        try:
            return list(self._connection.execute(sql, tuple(params)))
        except apsw.Error as error:
            raise StorageError(str(error)) from None

    def fault(self, *statements: str) -> tuple[int, str]:
        self._connection.execute("BEGIN")
        try:
            for sql in statements:
                self._connection.execute(sql)
            found = audit(self)
        finally:
            self._connection.execute("ROLLBACK")
        assert found.fault is not None, statements
        assert found.as_object()["balanced"] is False
        return found.fault.seq, found.fault.message

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def forger(bank: Bank) -> Iterator[Forger]:
    forger = Forger(bank)
    yield forger
    forger.close()
    assert audit(bank.store).fault is None


def cells(forger: Forger, table: str) -> Iterator[tuple[str, str, str, Any]]:
    """Key column, key, column and value of every cell of a table."""
    names = [row[1] for row in forger.query(f"PRAGMA table_info({table})")]
    for row in forger.query(f"SELECT * FROM {table}"):
        for name, value in zip(names, row, strict=True):
            yield names[0], repr(row[0]), name, value


def other_than(value: Any) -> str:
    """SQL of a value of the same type."""
    if isinstance(value, bytes):
        return "zeroblob(32)"
    return str(value + 100) if isinstance(value, int) else repr(f"{value}!")


@pytest.mark.parametrize("table", ["ledger_journal", "ledger_accounts", "ledger_holds", "ledger_head"])
def test_any_cell_that_is_altered_is_found(forger: Forger, table: str) -> None:
    found = list(cells(forger, table))
    assert len(found) >= 3
    for key, row, column, value in found:
        if column == "one":
            continue  # the only value that it may have
        where = f"WHERE {key} = {row}"
        number, _ = forger.fault(f"UPDATE {table} SET {column} = {other_than(value)} {where}")
        if table == "ledger_journal":
            assert number == int(row), column
        for nonsense in ("x'ff00'", "1.5"):
            try:
                forger.fault(f"UPDATE {table} SET {column} = {nonsense} {where}")
            except apsw.MismatchError:
                assert column == "seq", "the only column that takes nothing but integers"


@pytest.mark.parametrize("table", ["ledger_journal", "ledger_accounts", "ledger_holds", "ledger_head"])
def test_any_row_that_is_removed_is_found(forger: Forger, table: str) -> None:
    rows = {(key, row) for key, row, _, _ in cells(forger, table)}
    for key, row in rows:
        number, _ = forger.fault(f"DELETE FROM {table} WHERE {key} = {row}")
        if table == "ledger_journal":
            assert number == int(row)


def test_rows_that_are_swapped_or_added_are_found(forger: Forger) -> None:
    swap = "UPDATE ledger_journal SET seq = {} WHERE seq = {}"
    assert forger.fault(swap.format(-1, 4), swap.format(4, 5), swap.format(5, -1))[0] == 4
    for seq in (0, -5, 10**6):
        values = f"({seq}, 1, 'new', 'transfer', 'mint', 'agent:a', 9, '', '', 0, x'')"
        forger.fault(f"INSERT INTO ledger_journal VALUES {values}")
    forger.fault("INSERT INTO ledger_accounts VALUES ('agent:c', 1, 0, 0, 0, 50)")
    forger.fault("INSERT INTO ledger_holds VALUES ('h', 'agent:a', 'agent:b', 5, '', 0)")


def test_meters_that_do_not_agree_with_what_was_paid_are_found(forger: Forger) -> None:
    assert 'lease "l1"' in forger.fault("UPDATE usage SET micros = micros + 1 WHERE agent = 'a'")[1]
    assert "its meters read 0.00" in forger.fault("DELETE FROM usage WHERE agent = 'b'")[1]
    forger.fault("UPDATE usage SET agent = 'b' WHERE agent = 'a'")
    forger.fault("UPDATE usage SET lease = 'l2' WHERE agent = 'a'")


def test_a_journal_that_was_rewritten_whole_is_found_by_a_head_that_was_noted(
    bank: Bank, forger: Forger
) -> None:
    noted = audit(bank.store).head
    assert audit(bank.store, noted).fault is None
    found = audit(bank.store, Head(noted.seq, "0" * 64))
    assert found.fault is not None
    assert "rewritten" in found.fault.message


def test_a_server_does_not_start_on_a_journal_that_ends_otherwise(bank: Bank) -> None:
    bank.close()
    for change, said in (
        ("DELETE FROM ledger_journal WHERE seq = (SELECT max(seq) FROM ledger_journal)", "does not end"),
        ("UPDATE ledger_head SET seal = zeroblob(32)", "does not end"),
        ("DELETE FROM ledger_head", "removed"),
        ("UPDATE ledger_accounts SET limited = 7", "altered"),
        ("UPDATE ledger_accounts SET credits_posted = 7", "do not balance"),
    ):
        copy = bank.path.with_name("copy.db")
        connection = apsw.Connection(str(bank.path))
        connection.execute("VACUUM INTO ?", (str(copy),))
        connection.close()
        connection = apsw.Connection(str(copy))
        connection.execute(change)
        connection.close()
        store = SqliteStore(copy)
        with pytest.raises(Conflict, match=said):
            Treasury(store)
        store.close()
        copy.unlink()
    bank.open()


OLD = 5  # how many steps the tables had before there were seals and timeouts


def test_a_journal_of_before_there_were_seals_is_sealed_at_the_first_chance(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "walras.db")
    store.migrate("ledger", journal.MIGRATIONS[:OLD])
    store.migrate("usage", usage.MIGRATIONS)
    store.close()
    connection = apsw.Connection(str(tmp_path / "walras.db"))
    connection.execute(
        """INSERT INTO ledger_journal VALUES
            (1, 0, 'o1', 'open', 'mint', '', 0, '', ''), (2, 0, 'o2', 'open', 'agent:a', '', 1, '', ''),
            (3, 1, 't', 'transfer', 'mint', 'agent:a', 100, '', 'first balance'),
            (4, 1, 'o3', 'open', 'agent:b', '', 1, '', ''),
            (5, 2, 'h', 'hold', 'agent:a', 'agent:b', 60, 'h', 'default/l1');
        INSERT INTO ledger_accounts VALUES
            ('mint', 0, 0, 100, 0, 0), ('agent:a', 1, 60, 0, 0, 100), ('agent:b', 1, 0, 0, 60, 0);
        INSERT INTO ledger_holds VALUES ('h', 'agent:a', 'agent:b', 60, 'default/l1')"""
    )
    connection.close()
    with SqliteReader(tmp_path / "walras.db") as reader, pytest.raises(StorageError, match="once"):
        audit(reader)
    bank = Bank(tmp_path / "walras.db")
    bank.save()
    assert audit(bank.store).fault is None
    bank.treasury.release("h", 3)
    bank.save()
    bank.close()
    bank.open()
    found = audit(bank.store)
    assert (found.fault, found.head.seq) == (None, 6)
    assert found.head.seal == seal(GENESIS, journal.journal(bank.store))[-1].hex()
    bank.close()


def test_an_empty_folder_has_nothing_to_seal(tmp_path: Path) -> None:
    bank = Bank(tmp_path / "walras.db")
    bank.save()
    assert audit(bank.store).fault is None
    assert audit(bank.store).head.seq == 0
    bank.close()


def test_a_payment_repeated_after_a_restart_is_made_once(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("walras.ledger.ledger.RECENT_MAX", 4)
    monkeypatch.setattr("walras.exchange.journal.RECENT_MAX", 4)
    bank.treasury.transfer("once", MINT, account_of("a"), 7, 6)
    bank.save()
    for number in range(20):
        bank.treasury.transfer(f"t{number}", MINT, account_of("b"), 1, 6)
    bank.save()
    bank.close()
    bank.open()
    owned = bank.treasury.balance("a")
    bank.treasury.transfer("once", MINT, account_of("a"), 7, 9)
    assert bank.treasury.transfer_all([Transfer("once", MINT, account_of("a"), 7)], 9) == []
    with pytest.raises(Conflict):
        bank.treasury.transfer("once", MINT, account_of("a"), 8, 9)
    bank.save()
    assert bank.treasury.balance("a") == owned
    assert audit(bank.store).fault is None


def test_what_the_database_refuses_is_not_half_stored(bank: Bank) -> None:
    """The journal's unique ids are the last line of defence: here memory has forgotten one and the lookup."""
    bank.treasury.transfer("once", MINT, account_of("a"), 7, 6)
    bank.save()
    bank.treasury.ledger._recent.clear()
    bank.treasury.transfer("once", MINT, account_of("a"), 7, 6)
    bank.treasury.transfer("other", MINT, account_of("b"), 7, 6)
    with pytest.raises(StorageError):
        bank.save()
    bank.close()
    bank.open()
    assert journal.find_entries(bank.store, ["other"]) == {}
    assert audit(bank.store).fault is None


def test_holds_that_nobody_ended_expire_and_those_of_leases_do_not(bank: Bank) -> None:
    bank.treasury.hold("lost", account_of("b"), revenue_of("default"), 5, 5, expires_at_ms=50)
    bank.save()
    bank.close()
    bank.open()
    assert bank.treasury.expire(49, ()) == []
    assert bank.treasury.expire(1000, {"lease:1:1"}) == ["lost"]
    bank.save()
    assert bank.store.query("SELECT id FROM ledger_holds") == [("lease:1:1",)]
    assert audit(bank.store).fault is None


def test_many_rows_go_into_few_statements(bank: Bank) -> None:
    total = 256 + 64 + 3
    transfers = [Transfer(f"m{number}", MINT, account_of("a"), 1) for number in range(total)]
    assert bank.treasury.transfer_all(transfers, 9) == []
    tx = bank.api.transaction()
    bank.treasury.store(tx)
    assert len(tx._statements) == 3 + 1 + 1, "256 + 64 + 3 x 1 rows, the head, two accounts"
    asyncio.run(tx.commit())
    assert audit(bank.store).fault is None
    assert len(journal.find_entries(bank.store, [transfer.id for transfer in transfers])) == total


class TestStatements:
    def test_the_database_says_what_the_pure_statement_says(self, bank: Bank) -> None:
        """However it is cut into pages, and wherever it begins."""
        chance = random.Random(4)
        play(bank, chance, 300)
        entries = journal.journal(bank.store)
        for account in ("agent:a", "agent:b", "mint", revenue_of("default")):
            mine = [entry for entry in entries if account in (entry.debit, entry.credit)]
            whole = statement(account, Position(0, 0), mine)
            for since_ms in (0, 3, chance.randrange(400), 10**6):
                lines: list[Line] = []
                place: Place | None = Place(since_ms, 0)
                opening: Position | None = None
                while place is not None:
                    page, more = journal.read_statement(bank.store, account, place, 350, 7)
                    assert opening in (None, page.opening), "a page opens where the last one closed"
                    opening, place = page.closing, more
                    lines += page.lines
                assert tuple(lines) == tuple(line for line in whole.lines if since_ms <= line.at_ms < 350)

    def test_an_account_that_there_never_was_has_none(self, bank: Bank) -> None:
        with pytest.raises(NotFound, match="walras ledger"):
            journal.read_statement(bank.store, "agent:none", Place(0, 0), 9, 9)


def play(bank: Bank, chance: random.Random, count: int) -> None:
    """Random operations among the accounts, saved now and then, at times that sometimes run backwards."""
    names = [account_of("a"), account_of("b"), revenue_of("default")]
    bank.treasury.ledger.open("other", "agent:other", limit=Limit.NONE, at_ms=6)
    for number in range(count):
        now = number + chance.randrange(-5, 5)
        payer, payee = chance.sample(names, 2)
        held = list(bank.treasury.ledger.holds.values())
        match chance.choice(("transfer", "hold", "capture", "release", "issue", "save")):
            case "transfer":
                bank.treasury.transfer_all([Transfer(f"p{number}", payer, payee, chance.randrange(40))], now)
            case "hold" if bank.treasury.ledger.account(payer).available > 40:
                bank.treasury.hold(f"p{number}", payer, payee, chance.randrange(40), now)
            case "capture" if held:
                hold = chance.choice(held)
                bank.treasury.capture(f"p{number}", hold.id, chance.randint(0, hold.amount), now)
            case "release" if held:
                bank.treasury.release(chance.choice(held).id, now)
            case "issue":
                bank.treasury.transfer(f"p{number}", MINT, payer, 50, now)
            case "save":
                bank.save()
    bank.save()
