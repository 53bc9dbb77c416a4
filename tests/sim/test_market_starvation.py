"""Large work among small: starved where others reported it, started within its bound by gang escrow."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from support.pool import Market

from walras.market.auction import Auction
from walras.market.mechanism import Mechanism
from walras.market.mechanisms.drf import Drf
from walras.market.mechanisms.fifo import Fifo
from walras.market.mechanisms.priority import Priority
from walras.market.types import Bid, Device, Package, Rules

CREDIT = 1_000_000
RULES = Rules(quantum_ms=3_000, notice_ms=2_000)
TERM_MS = 30_000
TICKS = 600


def pool(count: int) -> tuple[Device, ...]:
    return tuple(Device(f"d{i}", f"n{i}", "m", i, 80_000) for i in range(count))


def job(name: str, devices: int, price: float = 1) -> Bid:
    package = Package(devices, 1000, 0, TERM_MS, round(price * CREDIT))
    return Bid(name, f"of-{name}", "batch", (package,), 0, 0, 0)


def submit(played: Market, bid: Bid, work_ms: int) -> None:
    played.fund(bid.agent, 1000 * CREDIT)
    played.want(bid, work_ms)


@dataclass
class Stream:
    """Small jobs of one shape and price: a new one whenever one ends, so that some always wait."""

    played: Market
    devices: int
    work_ms: int
    price: float = 1
    waiting: int = 2
    made: int = 0

    def tick(self, count: int = 1) -> None:
        for _ in range(count):
            pending = sum(name.startswith("small") for name in self.played.bids)
            for _ in range(self.waiting - pending):
                self.made += 1
                submit(self.played, job(f"small-{self.made:04}", self.devices, self.price), self.work_ms)
            self.played.tick()


class TestKueue534:
    """Prevent starvation of large jobs (kubernetes-sigs/kueue#534).

    The example of the comment of 2023-01-30, in tens: a quota of 100, job1 and job2 take 30 each, job3 asks
    for 50 and waits, while smaller jobs that came after it fit into the 40 that are free, and so on.
    """

    @staticmethod
    def play(mechanism: Mechanism, price: float = 1, small: int = 3) -> tuple[Market, int]:
        """A market of ten devices, and when job3 came; job1, job2 and the small ones run for 20 s each."""
        played = Market(pool(10), RULES, mechanism)
        submit(played, job("job1", 3), 20_000)
        played.tick(7)
        submit(played, job("job2", 3), 20_000)
        played.tick(7)
        submit(played, job("job3", 5, price), 40_000)
        came_ms = played.now_ms
        Stream(played, devices=small, work_ms=20_000).tick(TICKS)
        return played, came_ms

    @pytest.mark.parametrize("mechanism", [Fifo(), Priority()], ids=["fifo", "priority"])
    def test_in_a_queue_the_small_ones_starve_it(self, mechanism: Mechanism) -> None:
        played, _ = self.play(mechanism)
        assert not played.starts("job3")
        assert len(played.past) > 20

    @pytest.mark.parametrize(("price", "small"), [(1, 1), (1.25, 3), (2, 3)])
    def test_in_the_market_it_starts_within_the_longest_lease(self, price: float, small: int) -> None:
        """Worth as much as those that give way, of which no term lasts longer; notice and ticks apart. At the
        same price those give way that came later."""
        played, came_ms = self.play(Auction(), price, small)
        starts = played.starts("job3")
        assert starts
        assert starts[0] - came_ms <= TERM_MS + RULES.notice_ms + 3 * RULES.tick_ms

    @pytest.mark.xfail(strict=True, reason="two leases of three devices are worth more than one of five")
    def test_at_the_same_price_room_that_comes_free_by_itself_is_kept_for_it(self) -> None:
        """The thread's own sizes: two small ones would have to go, and both end within 20 s anyway."""
        played, _ = self.play(Auction())
        assert played.starts("job3")

    def test_below_their_price_it_waits_as_it_is_outbid(self) -> None:
        played, _ = self.play(Auction(), 0.9)
        assert not played.starts("job3")


class TestVolcano5805:
    """A gang stuck below minAvailable after a node came back (volcano-sh/volcano#5805).

    A gang of two runs on two nodes of one slot each. One node is drained and comes back; before the gang has
    its slot again an unrelated pod of equal priority takes it, as DRF puts who has nothing before who has
    half a gang. From then on the other half holds its slot and does nothing. In the market a gang is one
    lease: it loses both shares or none, so that nothing is held for half of it, and waits for both.
    """

    @staticmethod
    def play(mechanism: Mechanism, price: float = 1) -> tuple[Market, int]:
        """The market long after, and when the node came back; pods of 20 s come one after another."""
        played = Market(pool(2), RULES, mechanism)
        submit(played, job("gang", 2, price), 3_600_000)
        played.tick(10)
        assert played.running("gang")
        lost = played.lose_device("d1")
        pods = Stream(played, devices=1, work_ms=20_000, waiting=1)
        pods.tick(10)
        played.devices = (*played.devices, lost)
        back_ms = played.now_ms
        pods.tick(TICKS)
        return played, back_ms

    @pytest.mark.parametrize("mechanism", [Drf(), Fifo()], ids=["drf", "fifo"])
    def test_in_a_queue_single_pods_keep_the_gang_waiting(self, mechanism: Mechanism) -> None:
        played, _ = self.play(mechanism)
        assert len(played.starts("gang")) == 1

    def test_nothing_is_held_for_half_a_gang(self) -> None:
        """While it waits every device is in use, but for ticks between two leases."""
        for mechanism in (Auction(), Fifo()):
            played, _ = self.play(mechanism)
            assert {len(held.lease.shares) for held in played.past if held.bid.id == "gang"} == {2}

    @pytest.mark.parametrize("price", [1, 1.1, 2])
    def test_the_gang_starts_again_within_the_longest_lease(self, price: float) -> None:
        played, back_ms = self.play(Auction(), price)
        again = [start for start in played.starts("gang") if start >= back_ms]
        assert again
        assert again[0] - back_ms <= TERM_MS + RULES.notice_ms + 3 * RULES.tick_ms

    def test_room_that_is_kept_for_a_gang_is_used_again_once_it_wants_it_no_more(self) -> None:
        """Nothing keeps it idle for ever: neither a gang that went, nor one that never comes to start."""
        played = Market(pool(2), RULES, Auction())
        submit(played, job("long", 1), 3_600_000)
        submit(played, job("short", 1), 5_000)
        played.tick(2)
        submit(played, job("gang", 2, 2), 60_000)
        played.tick(8)
        assert [escrow.bid for escrow in played.escrows] == ["gang"]
        submit(played, job("next", 1), 3_600_000)
        played.tick(2)
        assert played.used_milli() == 1000, "the room of the short one is kept"
        played.withdraw("gang")
        played.tick(1)
        assert not played.escrows
        assert played.running("next")
