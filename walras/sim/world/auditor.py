"""Books of its own: believes neither market nor ledger nor leases, and checks after every event.

It keeps a naive account of every micro from the journal alone, counts devices by adding up, and times how
long a bid at the top has waited. What it finds raises AuditError with what was so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from walras.core.errors import InternalError
from walras.core.money import charge
from walras.ledger.types import Entry
from walras.market.types import Lease, Outcome, Snapshot

if TYPE_CHECKING:
    from walras.sim.world.bank import Bank
    from walras.sim.world.market import Market

_UNLIMITED: Final = ("mint",)


class AuditError(InternalError):
    """An invariant of the simulation does not hold: a defect of Walras, to be reported with its seed."""


@dataclass(frozen=True, slots=True)
class Promise:
    """An agent that bids more than anybody else and has the money waits so long at most."""

    agent: str
    wait_ms: int


class Auditor:
    """`check` after every event, `decided` with every outcome, `excuse` when something failed."""

    def __init__(self, market: Market, bank: Bank) -> None:
        self._market, self._bank = market, bank
        self._own: Counter[str] = Counter()
        self._holds: dict[str, tuple[str, int]] = {}
        self._issued = 0
        self._seen: tuple[Lease, ...] = ()
        self._devices: tuple[object, ...] = ()
        self._waiting: dict[str, int] = {}
        self.promise: Promise | None = None
        self.tell: Callable[[str], None] | None = None
        market.observe = self.decided

    def check(self, event: str, now_ms: int) -> None:
        """Raises AuditError. What has not changed since the last time is not looked at again."""
        entries = self._bank.drain()
        for entry in entries:
            self._book(entry)
        leases = tuple(holding.lease for holding in self._market.leases)
        if entries:
            self._check_money()
        if leases != self._seen or self._devices is not self._market.devices:
            self._check_devices(leases)
        if entries or leases != self._seen:
            self._check_holds()
            changes = self._changes(leases) if self.tell is not None else ""
            if self.tell is not None and (changes or entries):
                self.tell(f"{now_ms:>9} {event:<8} {changes or 'money'}")
        self._seen, self._devices = leases, self._market.devices

    def close(self) -> None:
        """At the end: leases that are over have left nothing behind."""
        self._check_money()
        self._check_holds()

    def decided(self, snapshot: Snapshot, outcome: Outcome) -> None:
        """What an outcome promises: nobody pays more than it bid, all have an answer, notice is given."""
        bids = {bid.id: bid for bid in snapshot.bids}
        leases = {lease.id: lease for lease in snapshot.leases}
        answered = [each.bid for each in outcome.awards] + [each.bid for each in outcome.refusals]
        self._must(len(answered) == len(set(answered)), "a bid has two answers")
        self._must(set(answered) <= set(bids), "an answer is to no bid")
        for award in outcome.awards:
            bid = bids[award.bid]
            most = bid.packages[award.package].price_micros
            self._must(award.price_micros <= most, f"{bid.id} pays {award.price_micros} and bid {most}")
            paid = award.cost_micros + award.compensations_micros
            self._must(
                paid <= charge(most, award.total_milli, award.term_ms),
                f"{bid.id} pays {paid}, more than it bid",
            )
            self._must(
                bid.deadline_ms is None or snapshot.now_ms < bid.deadline_ms,
                f"{bid.id} won after its deadline",
            )
        for renewal in outcome.renewals:
            lease = leases[renewal.lease]
            self._must(renewal.price_micros <= lease.max_price_micros, f"{lease.id} is renewed above its bid")
        noticed_ms = snapshot.now_ms + snapshot.rules.notice_ms
        for gone in outcome.displacements:
            self._must(gone.drains_at_ms >= noticed_ms, f"{gone.lease} has no notice")
            self._must(leases[gone.lease].state == "active", f"{gone.lease} is told to go twice")

        if self.promise is not None:
            self._check_wait(self.promise, snapshot)

    def excuse(self) -> None:
        """What was promised is promised from now on: devices went or came, or the clock jumped."""
        self._waiting.clear()

    def _check_wait(self, promise: Promise, snapshot: Snapshot) -> None:
        known, self._waiting = self._waiting, {}
        for bid in snapshot.bids:
            if bid.agent == promise.agent and bid.packages[0].devices <= len(snapshot.devices):
                since_ms = self._waiting[bid.id] = known.get(bid.id, snapshot.now_ms)
                waited_ms = snapshot.now_ms - since_ms
                self._must(
                    waited_ms <= promise.wait_ms,
                    f"{bid.id} bids most and waits {waited_ms} ms, not {promise.wait_ms} at most",
                )

    def _book(self, entry: Entry) -> None:
        """One line of the journal, on naive accounts."""
        kind, amount = entry.kind, entry.amount
        if kind in ("transfer", "capture"):
            self._own[entry.debit] -= amount
            self._own[entry.credit] += amount
            self._issued += amount * ((entry.debit in _UNLIMITED) - (entry.credit in _UNLIMITED))
        if kind == "hold":
            self._must(entry.hold not in self._holds, f"hold {entry.hold} is made twice")
            self._holds[entry.hold] = (entry.debit, amount)
        elif kind == "capture":
            payer, left = self._holds[entry.hold]
            self._must(amount <= left, f"hold {entry.hold} pays {amount} of {left}")
            self._holds[entry.hold] = (payer, left - amount)
        elif kind in ("release", "expire"):
            _, left = self._holds.pop(entry.hold)
            self._must(amount == left, f"hold {entry.hold} gives back {amount} of {left}")

    def _check_money(self) -> None:
        """Nothing is made or lost but by the mint, nobody owes, and the ledger says the same."""
        held: Counter[str] = Counter()
        for payer, left in self._holds.values():
            held[payer] += left
        total = sum(amount for name, amount in self._own.items() if name not in _UNLIMITED)
        self._must(total == self._issued, f"{total} micros are about and {self._issued} were issued")
        for name, account in self._bank.ledger.accounts.items():
            self._must(account.balance == self._own[name], f"{name} has {account.balance} in the ledger")
            if name not in _UNLIMITED:
                self._must(self._own[name] >= held[name] >= 0, f"{name} promised more than it has")

    def _check_holds(self) -> None:
        """Every lease has its money on hold, and no money is held for none."""
        named = [term.hold for holding in self._market.leases for term in holding.terms]
        self._must(sorted(named) == sorted(self._holds), "holds and leases do not match")

    def _check_devices(self, leases: tuple[Lease, ...]) -> None:
        """No device is oversold in compute or memory, now or once the drains are over."""
        sizes = {device.id: (device.milli, device.memory_mib) for device in self._market.devices}
        for other in ("draining", "reserved"):
            milli: Counter[str] = Counter()
            memory: Counter[str] = Counter()
            for lease in leases:
                if lease.state in ("active", other):
                    for share in lease.shares:
                        milli[share.device] += share.milli
                        memory[share.device] += share.memory_mib
            for name, used in milli.items():
                self._must(name in sizes, f"{name} is leased and is not there")
                self._must((used <= sizes[name][0]) and memory[name] <= sizes[name][1], f"{name} is oversold")

    def _changes(self, leases: tuple[Lease, ...]) -> str:
        """Which leases ended (-), began (+) or changed (~) with this event."""
        was, now = {each.id: each for each in self._seen}, {each.id: each for each in leases}
        changes = [f"-{name}" for name in was if name not in now]
        changes += [
            f"{'+' if name not in was else '~'}{name}({lease.agent} {lease.state} "
            f"{'+'.join(f'{share.device}:{share.milli}' for share in lease.shares)} @{lease.price_micros})"
            for name, lease in now.items()
            if name not in was or (lease.state, lease.end_ms) != (was[name].state, was[name].end_ms)
        ]
        return " ".join(changes)

    @staticmethod
    def _must(holds: bool, otherwise: str) -> None:
        if not holds:
            raise AuditError(f"the books do not hold: {otherwise}")
