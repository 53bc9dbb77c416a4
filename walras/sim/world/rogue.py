"""An agent that misbehaves: senseless bids, floods, bids that are gone again, leases that nobody uses."""

# ruff: noqa: ARG002 (a claim need not look at all that it is told)

from __future__ import annotations

from random import Random
from typing import Final

from walras.core.money import MICROS
from walras.devices.topology import Affinity
from walras.market.types import JobClass, Package
from walras.sim.world.bidding import Ask, Floor
from walras.sim.world.leases import Holding

FLOOD: Final = 25
PENDING_MAX: Final = 60
CLASSES: Final[tuple[JobClass, ...]] = ("latency", "standard", "batch")


class Squat:
    """A bid and its lease, for nothing."""

    def __init__(self, rogue: Rogue) -> None:
        self._rogue = rogue

    def started(self, holding: Holding, now_ms: int) -> None:
        self._rogue.holdings.append(holding)

    def warned(self, holding: Holding, now_ms: int) -> None:
        """It does not care."""

    def ended(self, holding: Holding, now_ms: int) -> None:
        self._rogue.gone(self, holding)


class Rogue:
    """`act` does one thing that it should not, of those that validation at the API lets through."""

    def __init__(self, agent: str, chance: Random, floor: Floor, price_max_micros: int) -> None:
        self._agent, self._chance, self._floor = agent, chance, floor
        self._price_max = price_max_micros
        self.holdings: list[Holding] = []
        self._pending: list[Squat] = []

    def act(self, now_ms: int) -> str:
        """What it did, in a word."""
        deed = self._chance.choice(("senseless", "flood", "withdraw", "return", "snipe"))
        if deed == "senseless":
            self._bid(now_ms)
        elif deed == "flood":
            for _ in range(FLOOD):
                self._bid(now_ms)
        elif deed == "withdraw":
            for claim in self._pending:
                self._floor.withdraw(claim)
            self._pending.clear()
        elif deed == "return":
            for holding in list(self.holdings):
                self._floor.give_back(holding)
        else:
            claim = self._bid(now_ms)
            self._floor.withdraw(claim)
        return deed

    def gone(self, claim: Squat, holding: Holding) -> None:
        self.holdings = [each for each in self.holdings if each is not holding]
        self._pending = [each for each in self._pending if each is not claim]

    def _bid(self, now_ms: int) -> Squat:
        chance, claim = self._chance, Squat(self)
        devices = chance.choice((0, 1, 1, 2, 3, 1_000))
        package = Package(
            devices=devices,
            milli_gpu=chance.choice((0, 1, 333, 500, 999, 1000, 1001)),
            memory_mib=chance.choice((0, 0, 1, 40_000, 10**9)),
            term_ms=chance.choice((0, 1, 999, 5_000, 60_000)),
            price_micros=0,
            eligible=chance.choice((None, None, frozenset(), frozenset({"gpu0"}), frozenset({"nowhere"}))),
            devices_min=chance.choice((0, 0, 1, devices)),
            affinity=chance.choice((Affinity.ANY, Affinity.ANY, Affinity.NODE, Affinity.SPREAD)),
        )
        start_ms, value_micros = self._floor.start_ms, chance.choice((0, 1, MICROS, self._price_max))
        deadline_ms = chance.choice((None, None, now_ms, max(0, now_ms - 1), now_ms + 5_000))
        ask = Ask(
            agent=self._agent,
            packages=(package,),
            value_micros=value_micros,
            work_ms=1,
            submitted_ms=start_ms + now_ms,
            deadline_ms=None if deadline_ms is None else start_ms + deadline_ms,
            job_class=chance.choice(CLASSES),
            restart_cost_micros=chance.choice((0, 0, 10, self._price_max)),
            priority=chance.choice((0, 0, 10, 10**9)),
        )
        if len(self._pending) < PENDING_MAX:
            self._pending.append(claim)
            self._floor.bid(ask, claim)
        return claim
