"""The ledger against an independent model: any operations, in any order, batched, replayed, sealed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from unittest.mock import patch

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec.structs import astuple, replace

from walras.core.errors import WalrasError
from walras.ledger.chain import GENESIS, seal
from walras.ledger.ledger import Ledger
from walras.ledger.statement import Position, statement
from walras.ledger.types import Entry, Limit, Transfer
from walras.ledger.verify import Books, Head, Verifier

WALLETS = ("a", "b", "c")
NAMES = ("mint", "free", *WALLETS)
# Small enough that limits are met exactly, and now and then absurd.
AMOUNTS = st.one_of(st.integers(0, 12), st.integers(0, 12), st.sampled_from((-1, 2**63 - 1, 2**63)))
IDS = st.integers(0, 40).map(lambda number: f"op{number}")
ACCOUNTS = st.sampled_from((*NAMES, "nobody"))


GRANT = 20
COLUMN_MAX = 2**63 - 1


@dataclass
class Money:
    """What is set aside, from whom for whom, and until when (0: for ever)."""

    payer: str
    payee: str
    left: int
    until: int


@dataclass
class Model:
    """What everybody owns, in coins; what is set aside; which ids were used for what. Nothing else."""

    now: int = 0
    coins: dict[str, int] = field(default_factory=lambda: dict.fromkeys(NAMES, 0))
    # Everything that ever left and reached an account, which has to fit the store's columns.
    out: Counter[str] = field(default_factory=Counter)
    into: Counter[str] = field(default_factory=Counter)
    aside: dict[str, Money] = field(default_factory=dict)
    used: dict[str, tuple[object, ...]] = field(default_factory=dict)

    def spendable(self, name: str) -> int:
        return self.coins[name] - sum(money.left for money in self.aside.values() if money.payer == name)

    def takeable(self) -> int:
        """What the mint may still take back: what it issued, less what is promised to it already."""
        return -self.coins["mint"] - sum(m.left for m in self.aside.values() if m.payee == "mint")

    def may_pay(self, payer: str, payee: str, amount: int) -> bool:
        return (
            payer in self.coins
            and payee in self.coins
            and payer != payee
            and 0 <= amount <= COLUMN_MAX - max(self.reserved(payer, payee))
            and (payer not in WALLETS or amount <= self.spendable(payer))
            and (payee != "mint" or amount <= self.takeable())
        )

    def reserved(self, payer: str, payee: str) -> tuple[int, int]:
        aside = self.aside.values()
        return (
            self.out[payer] + sum(money.left for money in aside if money.payer == payer),
            self.into[payee] + sum(money.left for money in aside if money.payee == payee),
        )

    def move(self, payer: str, payee: str, amount: int) -> None:
        self.out[payer] += amount
        self.into[payee] += amount
        self.coins[payer] -= amount
        self.coins[payee] += amount

    def once(self, id: str, what: tuple[object, ...]) -> bool | None:
        """True when it was done before, False when the id means something else, None when it is new."""
        return self.used[id] == what if id in self.used else None


class LedgerMachine(RuleBasedStateMachine):
    """Every rule does the same on both sides; the invariants compare all there is to see."""

    @initialize(history=st.booleans())
    def begin(self, history: bool) -> None:
        # With so small a memory most ids are looked up in the journal.
        self.patch = patch("walras.ledger.ledger.RECENT_MAX", 3 if history else 10**6)
        self.patch.start()
        self.model, self.journal = Model(), list[Entry]()
        self.ledger = Ledger(self.lookup)
        for name in NAMES:
            limit = {"mint": Limit.CREDITS, "free": Limit.NONE}.get(name, Limit.DEBITS)
            self.ledger.open(f"open-{name}", name, limit=limit, at_ms=0)
        for name in WALLETS:
            self.ledger.transfer(f"grant-{name}", "mint", name, GRANT, at_ms=0)
            self.model.move("mint", name, GRANT)
        self.store()

    def teardown(self) -> None:
        if hasattr(self, "patch"):
            self.patch.stop()

    def lookup(self, ids: Iterable[str]) -> dict[str, Entry]:
        wanted = set(ids)
        return {entry.id: entry for entry in self.journal if entry.id in wanted}

    def store(self) -> None:
        self.journal += self.ledger.drain()

    def does(self, wanted: bool, entry: Entry | WalrasError) -> None:
        assert isinstance(entry, Entry) == wanted, entry

    @rule(ms=st.sampled_from((0, 5, 10)))
    def wait(self, ms: int) -> None:
        self.model.now += ms

    @rule(id=IDS, payer=ACCOUNTS, payee=ACCOUNTS, amount=AMOUNTS)
    def transfer(self, id: str, payer: str, payee: str, amount: int) -> None:
        expected = self.expect_transfer(id, payer, payee, amount)
        try:
            result: Entry | WalrasError = self.ledger.transfer(
                id, payer, payee, amount, at_ms=self.model.now, ref="r"
            )
        except WalrasError as error:
            result = error
        self.does(expected, result)
        self.store()

    def expect_transfer(self, id: str, payer: str, payee: str, amount: int) -> bool:
        what = ("transfer", payer, payee, amount)
        before = self.model.once(id, what)
        if before is not None:
            return before
        if not self.model.may_pay(payer, payee, amount):
            return False
        self.model.move(payer, payee, amount)
        self.model.used[id] = what
        return True

    @rule(batch=st.lists(st.tuples(IDS, ACCOUNTS, ACCOUNTS, AMOUNTS), max_size=6), back=st.integers(0, 9))
    def apply(self, batch: list[tuple[str, str, str, int]], back: int) -> None:
        """At the time, or at one that the ledger has passed already."""
        expected = [self.expect_transfer(*each) for each in batch]
        results = self.ledger.apply([Transfer(*each) for each in batch], at_ms=self.model.now - back)
        assert [isinstance(result, Entry) for result in results] == expected
        self.store()

    @rule(id=IDS, payer=ACCOUNTS, payee=ACCOUNTS, amount=AMOUNTS, lasts=st.sampled_from((0, 5, 10, 20)))
    def hold(self, id: str, payer: str, payee: str, amount: int, lasts: int) -> None:
        what = ("hold", payer, payee, amount)
        before = self.model.once(id, what)
        until = self.model.now + lasts if lasts else 0
        expected = self.model.may_pay(payer, payee, amount) if before is None else before
        if before is None and expected:
            self.model.aside[id] = Money(payer, payee, amount, until)
            self.model.used[id] = what
        try:
            result: Entry | WalrasError = self.ledger.hold(
                id, payer, payee, amount, at_ms=self.model.now, expires_at_ms=until
            )
        except WalrasError as error:
            result = error
        self.does(expected, result)
        self.store()

    @rule(id=IDS, hold=IDS, amount=AMOUNTS)
    def capture(self, id: str, hold: str, amount: int) -> None:
        what = ("capture", hold, amount)
        expected = self.model.once(id, what)
        if expected is None:
            money = self.model.aside.get(hold)
            expected = money is not None and 0 <= amount <= money.left
            if money is not None and expected:
                money.left -= amount
                self.model.move(money.payer, money.payee, amount)
                self.model.used[id] = what
        try:
            result: Entry | WalrasError = self.ledger.capture(id, hold, amount, at_ms=self.model.now)
        except WalrasError as error:
            result = error
        self.does(expected, result)
        self.store()

    @rule(id=IDS, hold=IDS)
    def release(self, id: str, hold: str) -> None:
        what = ("release", hold)
        expected = self.model.once(id, what)
        if expected is None:
            expected = self.model.aside.pop(hold, None) is not None
            if expected:
                self.model.used[id] = what
        try:
            result: Entry | WalrasError = self.ledger.release(id, hold, at_ms=self.model.now)
        except WalrasError as error:
            result = error
        self.does(expected, result)
        self.store()

    @rule(keep=st.sets(IDS, max_size=5))
    def expire(self, keep: set[str]) -> None:
        over = {
            id
            for id, money in self.model.aside.items()
            if money.until and money.until <= self.model.now and id not in keep
        }
        assert {entry.hold for entry in self.ledger.expire(self.model.now, keep)} == over
        for id in over:
            del self.model.aside[id]
        self.store()

    @rule()
    def restart(self) -> None:
        """From what would have been stored: its parts, and the end of its journal."""
        accounts = [replace(account) for account in self.ledger.accounts.values()]
        holds = [replace(hold) for hold in self.ledger.holds.values()]
        self.ledger = Ledger.restore(accounts, holds, self.journal[-3:], self.lookup)

    @invariant()
    def both_agree(self) -> None:
        if not hasattr(self, "ledger"):
            return
        assert self.ledger.balanced()
        assert sum(self.model.coins.values()) == 0
        for name, coins in self.model.coins.items():
            account = self.ledger.account(name)
            assert account.balance == coins
            assert account.available == self.model.spendable(name)
            assert name not in WALLETS or account.available >= 0
        assert self.model.takeable() >= 0
        aside = {id: (m.payer, m.payee, m.left) for id, m in self.model.aside.items()}
        assert {h.id: (h.debit, h.credit, h.amount) for h in self.ledger.holds.values()} == aside

    @invariant()
    def the_journal_is_whole_and_leads_here(self) -> None:
        if not hasattr(self, "ledger"):
            return
        assert [entry.seq for entry in self.journal] == list(range(1, len(self.journal) + 1))
        times = [entry.at_ms for entry in self.journal]
        assert times == sorted(times)
        assert len({entry.id for entry in self.journal}) == len(self.journal)
        seals = seal(GENESIS, self.journal)
        verifier = Verifier()
        verifier.read((*astuple(entry), sealed) for entry, sealed in zip(self.journal, seals, strict=True))
        head = Head(len(self.journal), seals[-1].hex())
        assert verifier.verdict(Books(self.ledger.accounts, self.ledger.holds, head)).fault is None
        for name in NAMES:
            mine = [entry for entry in self.journal if name in (entry.debit, entry.credit)]
            closing = statement(name, Position(0, 0), mine).closing
            account = self.ledger.account(name)
            assert closing == (account.balance, account.debits_pending)


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
