"""Two-phase double entry: what each operation does to the four sums, and what it refuses."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from walras.core.errors import AlreadyExists, Conflict, InsufficientFunds, MoneyError, NotFound
from walras.ledger.ledger import Ledger
from walras.ledger.types import AMOUNT_MAX, BATCH_MAX, Account, Entry, Hold, Limit, Transfer


@pytest.fixture
def ledger() -> Ledger:
    """A mint without a limit, an agent with 100 and the market's revenue."""
    ledger = Ledger()
    ledger.open("o1", "mint", limit=Limit.NONE, at_ms=0)
    ledger.open("o2", "agent", limit=Limit.DEBITS, at_ms=0)
    ledger.open("o3", "revenue", limit=Limit.DEBITS, at_ms=0)
    ledger.transfer("t1", "mint", "agent", 100, at_ms=1)
    return ledger


def test_a_transfer_moves_money_and_is_one_journal_entry(ledger: Ledger) -> None:
    entry = ledger.transfer("t2", "agent", "revenue", 30, at_ms=2, ref="rent")
    assert (entry.seq, entry.kind, entry.debit, entry.credit, entry.amount) == (
        5,
        "transfer",
        "agent",
        "revenue",
        30,
    )
    assert ledger.find("t2") == entry
    assert ledger.find("t3") is None
    assert ledger.account("agent").available == 70
    assert ledger.account("revenue").available == 30
    assert ledger.account("mint").available == -100
    assert ledger.balanced()


def test_held_money_is_not_available_but_still_owned(ledger: Ledger) -> None:
    ledger.hold("h", "agent", "revenue", 60, at_ms=2)
    assert ledger.account("agent").available == 40
    assert ledger.account("agent").balance == 100
    assert ledger.account("revenue").available == 0, "money on its way cannot be spent"
    with pytest.raises(InsufficientFunds, match="available"):
        ledger.transfer("t2", "agent", "revenue", 41, at_ms=3)


def test_a_hold_is_captured_in_parts_and_its_rest_is_released(ledger: Ledger) -> None:
    ledger.hold("h", "agent", "revenue", 60, at_ms=2)
    ledger.capture("c1", "h", 25, at_ms=3)
    ledger.capture("c2", "h", 10, at_ms=4)
    assert ledger.find_hold("h").amount == 25
    assert ledger.account("revenue").available == 35
    entry = ledger.release("r", "h", at_ms=5)
    assert entry.amount == 25
    assert ledger.account("agent").available == 65
    assert not ledger.holds
    assert ledger.balanced()


def test_no_more_is_captured_than_is_held(ledger: Ledger) -> None:
    ledger.hold("h", "agent", "revenue", 10, at_ms=2)
    with pytest.raises(InsufficientFunds):
        ledger.capture("c", "h", 11, at_ms=3)
    ledger.capture("c", "h", 10, at_ms=3)
    assert ledger.find_hold("h").amount == 0, "an empty hold stays until it is released"
    ledger.release("r", "h", at_ms=4)
    with pytest.raises(NotFound):
        ledger.capture("c3", "h", 0, at_ms=5)


def test_a_repeated_operation_is_applied_once(ledger: Ledger) -> None:
    first = ledger.hold("h", "agent", "revenue", 60, at_ms=2)
    assert ledger.hold("h", "agent", "revenue", 60, at_ms=9) == first
    assert ledger.capture("c", "h", 5, at_ms=3) == ledger.capture("c", "h", 5, at_ms=4)
    assert ledger.release("r", "h", at_ms=5) == ledger.release("r", "h", at_ms=6)
    assert ledger.capture("c", "h", 5, at_ms=7).amount == 5, "even when the hold is gone"
    assert ledger.transfer("t1", "mint", "agent", 100, at_ms=8).at_ms == 1
    assert ledger.open("o2", "agent", limit=Limit.DEBITS, at_ms=9).at_ms == 0
    assert ledger.account("agent").available == 95
    assert ledger.seq == 7


def test_an_id_is_not_used_for_something_else(ledger: Ledger) -> None:
    with pytest.raises(Conflict):
        ledger.transfer("t1", "mint", "agent", 101, at_ms=2)
    ledger.hold("h", "agent", "revenue", 5, at_ms=2)
    with pytest.raises(Conflict):
        ledger.capture("t1", "h", 5, at_ms=2)
    with pytest.raises(Conflict):
        ledger.release("h", "h", at_ms=2)


@pytest.mark.parametrize(
    ("debit", "credit", "amount", "error"),
    [
        ("agent", "revenue", -1, MoneyError),
        ("agent", "agent", 1, MoneyError),
        ("agent", "nobody", 1, NotFound),
        ("nobody", "agent", 1, NotFound),
        ("agent", "revenue", 101, InsufficientFunds),
        ("mint", "agent", AMOUNT_MAX, MoneyError),
    ],
)
def test_what_cannot_be_paid_changes_nothing(
    ledger: Ledger, debit: str, credit: str, amount: int, error: type[Exception]
) -> None:
    before = {name: replace(account) for name, account in ledger.accounts.items()}
    with pytest.raises(error):
        ledger.transfer("x", debit, credit, amount, at_ms=2)
    with pytest.raises(error):
        ledger.hold("x", debit, credit, amount, at_ms=2)
    assert ledger.accounts == before
    assert ledger.seq == 4


def test_only_an_empty_account_is_closed(ledger: Ledger) -> None:
    with pytest.raises(Conflict):
        ledger.close("x1", "agent", at_ms=2)
    ledger.hold("h", "agent", "revenue", 0, at_ms=2)
    ledger.transfer("t2", "agent", "mint", 100, at_ms=2)
    with pytest.raises(Conflict):
        ledger.close("x1", "agent", at_ms=3)
    ledger.release("r", "h", at_ms=3)
    entry = ledger.close("x1", "agent", at_ms=4)
    assert ledger.close("x1", "agent", at_ms=5) == entry
    assert "agent" not in ledger.accounts
    assert ledger.balanced()
    with pytest.raises(Conflict):
        ledger.close("x2", "mint", at_ms=4)
    with pytest.raises(AlreadyExists):
        ledger.open("o9", "mint", limit=Limit.DEBITS, at_ms=4)


def test_a_mint_takes_back_no_more_than_it_issued(ledger: Ledger) -> None:
    ledger.open("o4", "issuer", limit=Limit.CREDITS, at_ms=2)
    with pytest.raises(MoneyError, match="cannot take more"):
        ledger.transfer("x", "agent", "issuer", 1, at_ms=2)
    ledger.transfer("t2", "issuer", "agent", 10, at_ms=2)
    ledger.hold("h", "agent", "issuer", 7, at_ms=3)
    with pytest.raises(MoneyError):
        ledger.hold("x", "agent", "issuer", 4, at_ms=3)
    (refusal,) = ledger.apply([Transfer("x", "agent", "issuer", 4)], at_ms=3)
    assert isinstance(refusal, MoneyError), "what is on its way counts"
    ledger.transfer("t3", "agent", "issuer", 3, at_ms=3)
    ledger.capture("c", "h", 7, at_ms=3)
    assert ledger.account("issuer").balance == 0
    assert ledger.balanced()


def test_a_hold_whose_time_is_over_gives_itself_back(ledger: Ledger) -> None:
    ledger.hold("short", "agent", "revenue", 10, at_ms=2, expires_at_ms=100)
    ledger.hold("long", "agent", "revenue", 20, at_ms=2, expires_at_ms=200)
    ledger.hold("for-ever", "agent", "revenue", 30, at_ms=2)
    ledger.capture("c", "short", 4, at_ms=3)
    assert ledger.expire(99) == []
    (entry,) = ledger.expire(100)
    assert (entry.kind, entry.hold, entry.amount) == ("expire", "short", 6)
    assert set(ledger.holds) == {"long", "for-ever"}
    assert ledger.account("agent").available == 46
    with pytest.raises(NotFound):
        ledger.capture("late", "short", 1, at_ms=101)
    assert [each.hold for each in ledger.expire(10**9)] == ["long"]
    assert ledger.balanced()


def test_a_hold_that_someone_still_needs_does_not_expire(ledger: Ledger) -> None:
    ledger.hold("a", "agent", "revenue", 10, at_ms=2, expires_at_ms=100)
    ledger.hold("b", "agent", "revenue", 10, at_ms=2, expires_at_ms=100)
    assert [entry.hold for entry in ledger.expire(500, keep={"a"})] == ["b"]
    assert [entry.hold for entry in ledger.expire(501)] == ["a"], "once nobody keeps it"


def test_a_hold_that_ended_in_time_does_not_expire(ledger: Ledger) -> None:
    ledger.hold("h", "agent", "revenue", 10, at_ms=2, expires_at_ms=100)
    ledger.release("r", "h", at_ms=50)
    assert ledger.expire(100) == []


def test_time_never_runs_backwards_in_the_journal(ledger: Ledger) -> None:
    ledger.transfer("t2", "agent", "revenue", 1, at_ms=1000)
    assert ledger.transfer("t3", "agent", "revenue", 1, at_ms=900).at_ms == 1000
    (entry,) = ledger.apply([Transfer("t4", "agent", "revenue", 1)], at_ms=1)
    assert isinstance(entry, Entry)
    assert entry.at_ms == 1000
    assert ledger.expire(500) == []


class TestBatches:
    def test_each_transfer_is_done_or_refused_by_itself(self, ledger: Ledger) -> None:
        ledger.drain()
        ledger.open("o4", "issuer", limit=Limit.CREDITS, at_ms=2)
        done = ledger.apply(
            [
                Transfer("b1", "agent", "revenue", 60, "rent"),
                Transfer("b2", "agent", "revenue", 60),
                Transfer("b1", "agent", "revenue", 60),
                Transfer("b1", "agent", "revenue", 61),
                Transfer("b3", "nobody", "revenue", 1),
                Transfer("b4", "agent", "nobody", 1),
                Transfer("b5", "agent", "agent", 1),
                Transfer("b6", "agent", "revenue", -1),
                Transfer("b7", "revenue", "issuer", 1),
                Transfer("b8", "mint", "agent", AMOUNT_MAX),
                Transfer("t1", "mint", "agent", 100),
                Transfer("b9", "revenue", "agent", 60),
            ],
            at_ms=5,
        )
        assert [type(each) for each in done] == [
            Entry, InsufficientFunds, Entry, Conflict, NotFound, NotFound,
            MoneyError, MoneyError, MoneyError, MoneyError, Entry, Entry,
        ]  # fmt: skip
        assert done[2] is done[0]
        assert [entry.id for entry in ledger.drain()] == ["o4", "b1", "b9"]
        assert [entry.seq for entry in (done[0], done[11]) if isinstance(entry, Entry)] == [6, 7]
        assert ledger.account("agent").available == 100
        assert ledger.transfer("t5", "agent", "revenue", 1, at_ms=6).seq == 8
        assert ledger.balanced()

    def test_a_batch_has_a_bound(self, ledger: Ledger) -> None:
        too_many = [Transfer(f"b{number}", "mint", "agent", 1) for number in range(BATCH_MAX + 1)]
        with pytest.raises(MoneyError, match="at most"):
            ledger.apply(too_many, at_ms=2)
        assert len(ledger.apply(too_many[1:], at_ms=2)) == BATCH_MAX

    def test_nothing_in_nothing_out(self, ledger: Ledger) -> None:
        assert ledger.apply([], at_ms=2) == []
        assert ledger.seq == 4


class TestIds:
    def test_an_old_id_is_looked_up_where_memory_ends(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("walras.ledger.ledger.RECENT_MAX", 4)
        stored: dict[str, Entry] = {}
        ledger = Ledger(lambda ids: {id: stored[id] for id in ids if id in stored})
        ledger.open("o1", "mint", limit=Limit.NONE, at_ms=0)
        ledger.open("o2", "agent", limit=Limit.DEBITS, at_ms=0)
        for number in range(12):
            ledger.transfer(f"t{number}", "mint", "agent", 5, at_ms=number)
            stored |= {entry.id: entry for entry in ledger.drain()}
        before = ledger.account("agent").balance
        assert ledger.transfer("t0", "mint", "agent", 5, at_ms=99) == stored["t0"]
        assert ledger.transfer("t11", "mint", "agent", 5, at_ms=99) == stored["t11"]
        with pytest.raises(Conflict):
            ledger.transfer("t0", "mint", "agent", 6, at_ms=99)
        repeated, fresh = ledger.apply(
            [Transfer("t1", "mint", "agent", 5), Transfer("new", "mint", "agent", 5)], at_ms=99
        )
        assert repeated == stored["t1"]
        assert fresh == ledger.drain()[0]
        assert ledger.account("agent").balance == before + 5

    def test_both_generations_of_memory_know_an_id(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("walras.ledger.ledger.RECENT_MAX", 4)
        ledger = Ledger()
        ledger.open("o1", "mint", limit=Limit.NONE, at_ms=0)
        ledger.open("o2", "agent", limit=Limit.DEBITS, at_ms=0)
        for number in range(4):
            ledger.apply([Transfer(f"t{number}", "mint", "agent", 5)], at_ms=number)
        ledger.apply([Transfer(f"t{number}", "mint", "agent", 5) for number in range(4)], at_ms=9)
        for number in range(4):
            ledger.transfer(f"t{number}", "mint", "agent", 5, at_ms=9)
        assert ledger.account("agent").balance == 20

    def test_without_a_history_memory_is_what_there_is(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("walras.ledger.ledger.RECENT_MAX", 2)
        ledger = Ledger()
        for number in range(9):
            ledger.open(f"o{number}", f"a{number}", limit=Limit.DEBITS, at_ms=0)
        with pytest.raises(AlreadyExists):
            ledger.open("o0", "a0", limit=Limit.DEBITS, at_ms=0)


class TestAppending:
    """A journal read back entry by entry, as verification does it."""

    def test_a_journal_rebuilds_the_ledger(self, ledger: Ledger) -> None:
        ledger.hold("h", "agent", "revenue", 60, at_ms=2, expires_at_ms=9)
        ledger.capture("c", "h", 20, at_ms=3)
        ledger.hold("h2", "agent", "revenue", 5, at_ms=3)
        ledger.release("r", "h2", at_ms=4)
        ledger.apply([Transfer("b", "revenue", "agent", 20)], at_ms=4)
        ledger.expire(9)
        ledger.transfer("t2", "agent", "mint", 100, at_ms=10)
        ledger.close("x", "agent", at_ms=10)
        again = Ledger()
        for entry in ledger.drain():
            again.append(entry)
        assert again.accounts == ledger.accounts
        assert again.holds == ledger.holds == {}
        assert again.seq == ledger.seq
        assert again.drain() == [], "they are stored already"

    @pytest.mark.parametrize(
        ("wrong", "error"),
        [
            (Entry(7, 5, "e", "transfer", "agent", "revenue", 1), Conflict),
            (Entry(6, 5, "h", "transfer", "agent", "revenue", 1), Conflict),
            (Entry(6, 5, "e", "open", "other", "", 3), Conflict),
            (Entry(6, 5, "e", "open", "agent", "", 1), AlreadyExists),
            (Entry(6, 5, "e", "close", "agent", "", 100), Conflict),
            (Entry(6, 5, "e", "capture", "revenue", "agent", 1, "h"), Conflict),
            (Entry(6, 5, "e", "capture", "agent", "revenue", 61, "h"), InsufficientFunds),
            (Entry(6, 5, "e", "release", "agent", "revenue", 59, "h"), Conflict),
            (Entry(6, 5, "e", "expire", "agent", "revenue", 60, "h"), Conflict),
            (Entry(6, 5, "e", "hold", "agent", "revenue", 1, "other"), Conflict),
            (Entry(6, 5, "e", "transfer", "agent", "revenue", AMOUNT_MAX + 1), MoneyError),
        ],
    )
    def test_an_entry_that_cannot_follow_is_refused(
        self, ledger: Ledger, wrong: Entry, error: type[Exception]
    ) -> None:
        ledger.hold("h", "agent", "revenue", 60, at_ms=2, expires_at_ms=6)
        with pytest.raises(error):
            ledger.append(wrong)
        assert ledger.seq == 5


def test_a_ledger_is_restored_from_its_parts_and_checked(ledger: Ledger) -> None:
    last = ledger.hold("h", "agent", "revenue", 60, at_ms=2, expires_at_ms=50)
    ledger.hold("h2", "agent", "revenue", 1, at_ms=2)
    journal = ledger.drain()
    again = Ledger.restore(ledger.accounts.values(), ledger.holds.values(), journal)
    assert again.accounts == ledger.accounts
    assert again.hold("h", "agent", "revenue", 60, at_ms=9) == last
    assert again.capture("c", "h", 50, at_ms=3).seq == 7
    assert [entry.hold for entry in again.expire(50)] == ["h"]
    assert Ledger.restore([], [], []).seq == 0


def test_parts_that_do_not_balance_are_no_ledger() -> None:
    def accounts(**changes: int) -> list[Account]:
        payer = Account(id="a", limit=Limit.NONE, debits_posted=9, credits_posted=0)
        payee = Account(id="b", limit=Limit.DEBITS, credits_posted=9)
        for name, value in changes.items():
            setattr(payee, name, value)
        return [payer, payee]

    Ledger.restore(accounts(), [], [])
    wallet = [
        Account(id="a", limit=Limit.DEBITS, debits_posted=1),
        Account(id="b", limit=Limit.NONE, credits_posted=1),
    ]
    mint = [
        Account(id="a", limit=Limit.CREDITS, credits_posted=1),
        Account(id="b", limit=Limit.NONE, debits_posted=1),
    ]
    for parts, holds in (
        (accounts(credits_posted=8), []),
        (accounts(debits_pending=1), []),
        (accounts(credits_pending=1), []),
        (wallet, []),
        (mint, []),
        (accounts(credits_pending=5), [Hold(id="h", debit="gone", credit="b", amount=5)]),
    ):
        with pytest.raises(Conflict, match="balance"):
            Ledger.restore(parts, holds, [])
