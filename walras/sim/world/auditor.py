"""Books of its own: believes neither market nor ledger nor leases, and checks after every event.

It keeps a naive account of every micro from the journal alone, counts devices by adding up, and times how
long a bid at the top has waited. After an event it checks what the journal and the market say was touched, so
that an event costs what it changes. They may say too little: so now and then, and at the end, everything is
added up anew, and must be what the books have. What it finds raises AuditError with what was so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn

from walras.core.errors import InternalError
from walras.core.money import charge
from walras.ledger.types import Entry
from walras.market.types import Award, Lease, Outcome, Package, Snapshot

if TYPE_CHECKING:
    from walras.sim.world.bank import Bank
    from walras.sim.world.market import Market

_UNLIMITED: Final = ("mint",)
_UNUSED: Final = (0, 0, 0, 0)


class AuditError(InternalError):
    """An invariant of the simulation does not hold: a defect of Walras, to be reported with its seed."""


@dataclass(frozen=True, slots=True)
class Promise:
    """An agent that bids more than anybody else and has the money waits so long at most."""

    agent: str
    wait_ms: int


class Auditor:
    """`check` after every event, `decided` with every outcome, `excuse` when something failed.

    every: so many events lie between two times that all is added up; None for as many as keep the cost of an
    event the same however much there is.
    """

    def __init__(self, market: Market, bank: Bank) -> None:
        self._market, self._bank = market, bank
        self.every: int | None = None
        self._left = 0
        self._own: Counter[str] = Counter()
        self._holds: dict[str, tuple[str, int]] = {}
        self._held: Counter[str] = Counter()  # by payer, what of the holds is left
        self._about = self._issued = 0
        self._leases: dict[str, tuple[Lease, tuple[str, ...]]] = {}  # with the holds of their terms
        self._named: dict[str, str] = {}  # by hold, its lease
        self._used: dict[str, list[int]] = {}  # by device: milli and memory now, milli and memory later
        self._devices: tuple[object, ...] = ()
        self._sizes: dict[str, tuple[int, int]] = {}
        self._touched = market.leases.log()
        self._waiting: dict[str, int] = {}
        self.promise: Promise | None = None
        self.tell: Callable[[str], None] | None = None
        market.observe = self.decided

    def check(self, event: str, now_ms: int) -> None:
        """Raises AuditError."""
        entries = self._bank.drain()
        if self._devices is not self._market.devices:
            self._devices = self._market.devices
            self._sizes = {each.id: (each.milli, each.memory_mib) for each in self._market.devices}
            self._check_change(entries, event, now_ms)
            self._check_devices(self._used)
        elif entries or self._touched:
            self._check_change(entries, event, now_ms)
        self._left -= 1
        if self._left < 0:
            self.close()

    def _check_change(self, entries: Sequence[Entry], event: str, now_ms: int) -> None:
        """What the journal and the market say was touched."""
        names: set[str] = set()
        holds: set[str] = set()
        for entry in entries:
            self._book(entry)
            names.add(entry.debit)
            names.add(entry.credit)
            holds.add(entry.hold)
        names.discard("")
        holds.discard("")
        self._check_accounts(names)
        touched = list(self._touched)
        self._touched.clear()
        changes = self._changes(touched) if self.tell is not None else ""
        devices: set[str] = set()
        for name in touched:
            self._take(name, holds, devices)
        self._check_holds(holds)
        # Once all is taken in: one lease may have the place of another that was touched.
        self._check_devices(devices)
        if self.tell is not None and (changes or entries):
            self.tell(f"{now_ms:>9} {event.strip('_'):<8} {changes or 'money'}")

    def close(self) -> None:
        """Add everything up: the same must come of it, and leases that are over have left nothing behind."""
        self._left = 16 * len(self._market.leases) + 1_000 if self.every is None else self.every
        held: Counter[str] = Counter()
        for payer, left in self._holds.values():
            held[payer] += left
        self._must(+held == +self._held, "what is on hold is not the sum of the holds")
        total = sum(amount for name, amount in self._own.items() if name not in _UNLIMITED)
        self._must(total == self._about == self._issued, f"{total} micros are about, {self._issued} issued")
        self._check_accounts(self._bank.ledger.accounts)
        leases = {holding.lease.id: holding for holding in self._market.leases}
        self._must(leases.keys() == self._leases.keys(), "leases came or went and nobody said so")
        named = sorted(term.hold for holding in leases.values() for term in holding.terms)
        self._must(named == sorted(self._holds), "holds and leases do not match")
        used, self._used = self._used, {}
        for name, holding in leases.items():
            lease = self._leases[name][0]
            told = (lease.shares, lease.state) == (holding.lease.shares, holding.lease.state)
            self._must(told, f"{name} changed and nobody said so")
            self._count(holding.lease, 1)
        before = {name: each for name, each in used.items() if any(each)}
        self._must(self._used == before, "devices are not taken as the leases say")
        self._check_devices(self._used)

    def decided(self, snapshot: Snapshot, outcome: Outcome) -> None:
        """What an outcome promises: nobody has what it did not bid for, or pays more than it bid, or has two
        answers, and notice is given."""
        bids = {bid.id: bid for bid in snapshot.bids}
        leases = {lease.id: lease for lease in snapshot.leases}
        answered = [each.bid for each in outcome.awards] + [each.bid for each in outcome.refusals]
        self._must(len(answered) == len(set(answered)), "a bid has two answers")
        self._must(bids.keys() >= set(answered), "an answer is to no bid")
        for award in outcome.awards:
            bid = bids[award.bid]
            package = bid.packages[award.package]
            most = package.price_micros
            if not _is_of(award, package):
                _fail(f"{bid.id} has devices that its package {award.package} does not ask for")
            if award.price_micros > most:
                _fail(f"{bid.id} pays {award.price_micros} and bid {most}")
            paid = award.cost_micros + award.compensations_micros
            if paid > charge(most, award.total_milli, award.term_ms):
                _fail(f"{bid.id} pays {paid}, more than it bid")
            if bid.deadline_ms is not None and snapshot.now_ms >= bid.deadline_ms:
                _fail(f"{bid.id} won after its deadline")
        for renewal in outcome.renewals:
            if renewal.price_micros > leases[renewal.lease].max_price_micros:
                _fail(f"{renewal.lease} is renewed above its bid")
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
        kind, amount, debit, credit = entry.kind, entry.amount, entry.debit, entry.credit
        if kind in ("transfer", "capture"):
            self._own[debit] -= amount
            self._own[credit] += amount
            if debit in _UNLIMITED:
                self._issued += amount
            else:
                self._about -= amount
            if credit in _UNLIMITED:
                self._issued -= amount
            else:
                self._about += amount
        if kind == "hold":
            if entry.hold in self._holds:
                _fail(f"hold {entry.hold} is made twice")
            self._holds[entry.hold] = (debit, amount)
            self._held[debit] += amount
        elif kind == "capture":
            payer, left = self._holds[entry.hold]
            if amount > left:
                _fail(f"hold {entry.hold} pays {amount} of {left}")
            self._holds[entry.hold] = (payer, left - amount)
            self._held[payer] -= amount
        elif kind in ("release", "expire"):
            payer, left = self._holds.pop(entry.hold)
            if amount != left:
                _fail(f"hold {entry.hold} gives back {amount} of {left}")
            self._held[payer] -= amount

    def _check_accounts(self, names: Iterable[str]) -> None:
        """Nothing is made or lost but by the mint, nobody owes, and the ledger says the same."""
        accounts = self._bank.ledger.accounts
        for name in names:
            balance, own = accounts[name].balance, self._own[name]
            if balance != own:
                _fail(f"{name} has {balance} in the ledger and {own} in these books")
            if name not in _UNLIMITED and not own >= self._held[name] >= 0:
                _fail(f"{name} promised more than it has")

    def _check_holds(self, holds: Iterable[str]) -> None:
        """Every lease has its money on hold, and no money is held for none."""
        for hold in holds:
            if (hold in self._holds) != (hold in self._named):
                _fail("holds and leases do not match")

    def _take(self, name: str, holds: set[str], devices: set[str]) -> None:
        """Have a lease that was touched in the books as it is now. To `holds` come those that it has or had,
        to `devices` those of which it takes something."""
        was = self._leases.pop(name, None)
        holding = self._market.leases.find(name)
        if was is not None:
            holds.update(was[1])
            for hold in was[1]:
                self._named.pop(hold, None)
        if holding is None:
            if was is not None:
                self._count(was[0], -1)
            return
        lease, terms = holding.lease, tuple([term.hold for term in holding.terms])
        self._leases[name] = lease, terms
        for hold in terms:
            if hold in self._named:
                _fail(f"hold {hold} is for two leases")
            self._named[hold] = name
        holds.update(terms)
        # A lease that is renewed has what it had.
        if was is not None and was[0].shares is lease.shares and was[0].state == lease.state:
            return
        if was is not None:
            self._count(was[0], -1)
        self._count(lease, 1)
        devices.update([share.device for share in lease.shares])

    def _count(self, lease: Lease, sign: int) -> None:
        """Now: what runs or drains. Later: what runs or is reserved."""
        now = sign * (lease.state in ("active", "draining"))
        later = sign * (lease.state in ("active", "reserved"))
        for share in lease.shares:
            device, milli, memory_mib = share.device, share.milli, share.memory_mib
            if device not in self._used:
                self._used[device] = [0, 0, 0, 0]
            used = self._used[device]
            used[0] += now * milli
            used[1] += now * memory_mib
            used[2] += later * milli
            used[3] += later * memory_mib

    def _check_devices(self, names: Iterable[str]) -> None:
        """No device is oversold in compute or memory, now or once the drains are over."""
        for name in names:
            used, size = self._used.get(name, _UNUSED), self._sizes.get(name)
            if size is None:
                if any(used):
                    _fail(f"{name} is leased and is not there")
            elif max(used[0], used[2]) > size[0] or max(used[1], used[3]) > size[1]:
                _fail(f"{name} is oversold")

    def _changes(self, touched: Iterable[str]) -> str:
        """Which leases ended (-), began (+) or changed (~) with this event."""
        ended, others = [], []
        for name in touched:
            was, holding = self._leases.get(name), self._market.leases.find(name)
            if holding is None:
                ended += [f"-{name}"] if was else []
                continue
            lease = holding.lease
            if was is None or (lease.state, lease.end_ms) != (was[0].state, was[0].end_ms):
                shares = "+".join(f"{share.device}:{share.milli}" for share in lease.shares)
                what = f"({lease.agent} {lease.state} {shares} @{lease.price_micros})"
                others.append(f"{'~' if was else '+'}{name}{what}")
        return " ".join((*ended, *others))

    @staticmethod
    def _must(holds: bool, otherwise: str) -> None:
        if not holds:
            _fail(otherwise)


def _is_of(award: Award, package: Package) -> bool:
    """Whether the shares are as many as the package asks for, each of another device that it takes."""
    milli, names = package.milli_gpu, set()
    for share in award.shares:
        if share.milli != milli:
            return False
        names.add(share.device)
    within = package.fewest <= len(names) == len(award.shares) <= package.devices
    return within and (package.eligible is None or names <= package.eligible)


def _fail(what: str) -> NoReturn:
    raise AuditError(f"the books do not hold: {what}")
