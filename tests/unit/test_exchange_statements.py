"""What /clusters/NAME/walras/v1/ledger and statement answer, and to whom."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import apsw
import pytest
from support.books import save

from walras.core.clock import SequenceIds, VirtualClock, rfc3339
from walras.core.errors import BadRequest, Forbidden, NotFound, WalrasError
from walras.cost import usage
from walras.exchange.treasury import MINT, Budget, Treasury, account_of, revenue_of
from walras.exchange.views import Views
from walras.kube.api import API
from walras.kube.context import Identity
from walras.kube.record import Object
from walras.kube.serve.ports import Asked
from walras.kube.store.sqlite import SqliteStore
from walras.kube.verbs import Verbs

OPERATOR = Identity("operator", (), "")
SEARCH = Identity("search", (), "search")
START_MS = VirtualClock().now_ms()
MINUTE_MS = 60_000


class Books:
    """An agent that got its first balance at the start and one credit a minute ever since, for 5 minutes."""

    def __init__(self, path: Path) -> None:
        self.path, self.clock = path, VirtualClock()
        self.store = SqliteStore(path)
        self.store.migrate("usage", usage.MIGRATIONS)
        api = API(self.store, self.clock, SequenceIds())
        self.api, self.treasury = api, (treasury := Treasury(self.store))
        exchange: Any = SimpleNamespace(treasury=treasury)
        self.views = Views(api, exchange, self.store, self.clock, Verbs(api))
        treasury.open_pool("default", START_MS)
        budget = Budget(uid="u", rate_micros_per_hour=0, cap_micros=0, weight=1, paid_ms=0)
        treasury.open_agent("search", budget, 10_000_000, START_MS)
        for number in range(1, 6):
            self.clock.advance(MINUTE_MS)
            treasury.transfer(
                f"t{number}", MINT, account_of("search"), 1_000_000, self.clock.now_ms(), "gift"
            )
        self.save()

    def save(self, *used: tuple[Any, ...]) -> None:
        save(self.api, self.treasury, *used)

    def ask(self, path: str, who: Identity = OPERATOR, cluster: str = "fleet", /, **query: str) -> Object:
        async def body() -> Object:
            raise AssertionError("a question has no body")

        return asyncio.run(self.views(Asked(who, cluster, "GET", path, query, body)))


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Books]:
    books = Books(tmp_path / "walras.db")
    yield books
    books.store.close()


def balances(page: Object) -> list[Any]:
    return [line["balance"] for line in page["entries"]]


def test_a_statement_has_every_entry_with_the_balance_after_it(books: Books) -> None:
    page = books.ask("statement", account="agent:search")
    assert page["opening"] == {"balance": "0.00", "held": "0.00"}
    assert balances(page) == ["0.00", "10.00", "11.00", "12.00", "13.00", "14.00", "15.00"]
    assert page["closing"] == {"balance": "15.00", "held": "0.00"}
    assert page["entries"][2] == {
        "entry": 5, "time": rfc3339(START_MS + MINUTE_MS)[:-1] + ".000000Z", "kind": "transfer",
        "with": "mint", "amount": "1.00", "hold": "0.00", "balance": "11.00", "held": "0.00",
        "for": "gift", "id": "t1",
    }  # fmt: skip
    assert "continue" not in page


def test_a_statement_is_of_the_time_between_two_times(books: Books) -> None:
    page = books.ask("statement", account="agent:search", since="3m", until="1m")
    assert (page["opening"]["balance"], balances(page)) == ("11.00", ["12.00", "13.00"])
    page = books.ask("statement", account="agent:search", since=rfc3339(START_MS + 5 * MINUTE_MS))
    assert (page["opening"]["balance"], balances(page)) == ("14.00", ["15.00"])


def test_a_statement_comes_in_pages(books: Books) -> None:
    found, query = [], {"account": "agent:search", "limit": "3"}
    while True:
        page = books.ask("statement", **query)
        found += balances(page)
        if "continue" not in page:
            break
        assert len(page["entries"]) == 3
        query["continue"] = page["continue"]
    assert found == ["0.00", "10.00", "11.00", "12.00", "13.00", "14.00", "15.00"]


def test_an_agent_reads_its_own_statement_and_no_other(books: Books) -> None:
    own = books.ask("statement", SEARCH, "search")
    assert own == books.ask("statement", SEARCH, "search", account="agent:search")
    assert own == books.ask("statement", OPERATOR, "search"), "the operator reads it there too"
    for account in ("mint", "agent:other", "revenue:default"):
        with pytest.raises(Forbidden):
            books.ask("statement", SEARCH, "search", account=account)
    with pytest.raises(Forbidden):
        books.ask("ledger", SEARCH, "search")


def test_an_agent_is_told_nothing_of_another_that_had_its_name(books: Books) -> None:
    def used(uid: str, micros: int) -> tuple[Any, ...]:
        row = (START_MS, "search", "default", "pod", "", "lease", "gpu", "default", 1, 0, micros, "", 0, 0, 0)
        return (*row[:3], f"of-{uid}", *row[4:], uid)

    def pay(uid: str, micros: int) -> None:
        now_ms, account, pool = books.clock.now_ms(), account_of("search"), revenue_of("default")
        books.treasury.hold(f"lease:{uid}", account, pool, micros, now_ms, ref="default/lease")
        books.treasury.capture(f"lease:{uid}:1", f"lease:{uid}", micros, now_ms, ref=f"of-{uid}")
        books.treasury.release(f"lease:{uid}", now_ms)
        books.save(used(uid, micros))

    pay("u", 500)
    books.treasury.close_agent("search", books.clock.now_ms())
    assert books.ask("cost", SEARCH, "search", by="pod")["rows"] == []
    budget = Budget(uid="v", rate_micros_per_hour=0, cap_micros=0, weight=1, paid_ms=0)
    # The clock may have been set back meanwhile.
    books.treasury.open_agent("search", budget, 2_000_000, START_MS + 1)
    books.save()
    pay("v", 700)
    own = books.ask("statement", SEARCH, "search")
    assert balances(own) == ["0.00", "2.00", "2.00", "1.9993", "1.9993"]
    assert own["opening"]["balance"] == "0.00" and own["closing"]["balance"] == "1.9993"
    cost = books.ask("cost", SEARCH, "search", by="pod")
    assert [(row["pod"], row["chargedMicros"]) for row in cost["rows"]] == [("of-v", 700)]
    assert cost["balanced"] and cost["ledger"] == "0.0007"
    # All of the name is there for the operator.
    cost = books.ask("cost", OPERATOR, "search", by="pod")
    assert {row["pod"] for row in cost["rows"]} == {"of-u", "of-v"} and cost["balanced"]
    assert len(books.ask("statement", OPERATOR, "search")["entries"]) > 10


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ({}, BadRequest),
        ({"account": "agent:none"}, NotFound),
        ({"account": "mint", "since": "soon"}, BadRequest),
        ({"account": "mint", "until": "2030-01-01"}, BadRequest),
        ({"account": "mint", "limit": "0"}, BadRequest),
        ({"account": "mint", "limit": "1001"}, BadRequest),
        ({"account": "mint", "limit": "many"}, BadRequest),
        ({"account": "mint", "continue": "x"}, BadRequest),
    ],
)
def test_what_cannot_be_answered_is_refused(
    books: Books, query: dict[str, str], error: type[WalrasError]
) -> None:
    with pytest.raises(error):
        books.ask("statement", **query)


def test_the_ledger_lists_accounts_and_verifies_when_asked(books: Books) -> None:
    shown = books.ask("ledger")
    assert [account["id"] for account in shown["accounts"]] == ["agent:search", "mint", "revenue:default"]
    assert shown["balanced"] is True
    assert "fault" not in shown
    verified = books.ask("ledger", verify="1")
    assert (verified["fault"], verified["balanced"]) == (None, True)
    assert verified["head"] == shown["head"]
    with pytest.raises(BadRequest):
        books.ask("ledger", verify="1", head="nonsense")


def test_the_ledger_says_when_it_does_not_balance(books: Books) -> None:
    connection = apsw.Connection(str(books.path))
    connection.execute("UPDATE ledger_accounts SET credits_posted = 16000000 WHERE id = 'agent:search'")
    connection.close()
    assert books.ask("ledger")["balanced"] is False
    verified = books.ask("ledger", verify="1")
    assert 'account "agent:search"' in verified["fault"]["message"]
    assert verified["balanced"] is False
