"""Preemption loops that others met, replayed: under the reported rule they go on, in the auction they end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import pytest
from support.pool import Market
from support.requeueing import Requeueing, Usage

from walras.market.auction import Auction
from walras.market.mechanism import Mechanism
from walras.market.types import Bid, Device, Lease, Package, Rules

CREDIT = 1_000_000
RULES = Rules(quantum_ms=3_000, notice_ms=2_000)
TICKS = 150
RESTART_MICROS = 10


def pool(count: int, milli: int = 1000) -> tuple[Device, ...]:
    return tuple(Device(f"d{i}", f"n{i}", "m", i, 80_000, milli) for i in range(count))


def bid(
    name: str, agent: str, price: float, *, devices: int = 1, milli: int = 1000, priority: int = 0
) -> Bid:
    package = Package(devices, milli, 0, 60_000, round(price * CREDIT))
    return Bid(name, agent, "latency", (package,), RESTART_MICROS, 0, 0, priority=priority)


def market(devices: tuple[Device, ...], mechanism: Mechanism, *agents: str) -> Market:
    found = Market(devices, RULES, mechanism)
    for agent in agents:
        found.fund(agent, 1000 * CREDIT)
    return found


def assert_chains_end(played: Market) -> None:
    """Worth grows by (1+e) a step, nobody displaces who displaced it, and in the end all is quiet."""
    worth = {
        held.bid.id: held.bid.packages[0].price_micros * held.lease.total_milli
        for held in (*played.past, *played.held.values())
    }
    percent = 100 + played.rules.epsilon_percent
    steps = {(step.by, step.bid) for step in played.displaced}
    for step in played.displaced:
        assert worth[step.by] * 100 >= worth[step.bid] * percent
        assert (step.bid, step.by) not in steps, "two bids displace each other"
    before = len(played.displaced)
    played.tick(TICKS)
    assert len(played.displaced) == before, "displacement goes on"


def evictions(played: Market) -> Counter[str]:
    return Counter(step.bid for step in played.displaced)


def higher(bid: Bid, lease: Lease, usage: Usage) -> bool:
    """Preemption by priority, readmission by share: what is inconsistent in #3779."""
    return lease.priority < bid.priority


class TestKueue3779:
    """Infinite preemption loop in fair sharing (kubernetes-sigs/kueue#3779).

    The minimal reproduction of the thread (comment of 2025-01-12): quotas of 150m for tenants A and B, none
    for best effort; A1 takes 250m, best effort 50m, then A2 wants 50m at a higher priority. Best effort is
    preempted, its Deployment makes it anew, and it is admitted first because its queue's share is the least.
    The description's own events (A1, A2: 100m; B1, B2: 50m; guaranteed 50m, then 100m) are the second replay.
    """

    @staticmethod
    def minimal(mechanism: Mechanism) -> Market:
        played = market(pool(1, 300), mechanism, "tenant-a", "best-effort")
        played.want(bid("a1", "tenant-a", 2, milli=250, priority=1))
        played.want(bid("best", "best-effort", 1, milli=50))
        played.tick(10)
        assert played.running("a1") and played.running("best")
        played.want(bid("a2", "tenant-a", 2, milli=50, priority=1))
        played.tick(TICKS)
        return played

    @staticmethod
    def described(mechanism: Mechanism) -> Market:
        played = market(pool(1, 300), mechanism, "best-a", "best-b", "guaranteed")
        for name, agent, milli in (("a1", "best-a", 100), ("a2", "best-a", 100)):
            played.want(bid(name, agent, 1, milli=milli))
        for name, agent, milli in (("b1", "best-b", 50), ("b2", "best-b", 50)):
            played.want(bid(name, agent, 1, milli=milli))
        played.tick(10)
        assert played.used_milli() == 300
        played.want(bid("g1", "guaranteed", 2, milli=50, priority=1))
        played.tick(10)
        played.want(bid("g2", "guaranteed", 2, milli=100, priority=1))
        played.tick(TICKS)
        return played

    def test_under_the_reported_rule_best_effort_is_preempted_for_ever(self) -> None:
        played = self.minimal(Requeueing(higher))
        assert evictions(played)["best"] > 20
        assert not played.starts("a2")

    @pytest.mark.parametrize("replay", ["minimal", "described"])
    def test_the_auction_displaces_once_and_the_preemptor_runs(self, replay: str) -> None:
        played: Market = getattr(self, replay)(Auction())
        assert max(evictions(played).values()) == 1
        assert played.running("a2" if replay == "minimal" else "g2")
        assert_chains_end(played)


def final_share(bid: Bid, lease: Lease, usage: Usage) -> bool:
    """LessThanOrEqualToFinalShare: the preemptor's share with it against the target's without the victim."""
    wanted = usage.get(bid.agent, 0) + bid.packages[0].total_milli
    return lease.agent != bid.agent and wanted <= usage.get(lease.agent, 0) - lease.total_milli


class TestKueue7101:
    """Infinite preemption with LessThanOrEqualToFinalShare (kubernetes-sigs/kueue#7101).

    Eight nodes. Project 1 has four pod groups of two pods. Project 2 asks for a group of 6, then 5, then 4,
    then 3: with the smaller ones the 33rd preemption was counted, and counting. The larger groups, which may
    not preempt, come back to the head of the queue each time something ends, and what was preempted is
    admitted again in the meantime.
    """

    @staticmethod
    def play(mechanism: Mechanism, price: float) -> Market:
        played = market(pool(8), mechanism, "proj-1", "proj-2")
        for number in range(4):
            played.want(bid(f"one-{number}", "proj-1", 1, devices=2))
        played.tick(10)
        assert played.used_milli() == 8000
        for devices in (6, 5, 4, 3):
            played.want(bid(f"two-{devices}", "proj-2", price, devices=devices))
            played.tick(10)
        played.tick(TICKS)
        return played

    def test_under_the_reported_rule_preemption_passes_the_thread_s_count(self) -> None:
        played = self.play(Requeueing(final_share), 1)
        assert sum(evictions(played).values()) > 33
        assert max(evictions(played).values()) > 5

    def test_at_equal_worth_nothing_is_displaced(self) -> None:
        assert not self.play(Auction(), 1).displaced

    @pytest.mark.parametrize("price", [1.12, 1.5, 3])
    def test_at_a_higher_worth_each_group_gives_way_once(self, price: float) -> None:
        played = self.play(Auction(), price)
        assert played.displaced
        assert max(evictions(played).values()) == 1
        assert any(played.running(f"two-{devices}") for devices in (6, 5, 4, 3))
        assert_chains_end(played)


class TestKueue13662:
    """Preemption thrashing by partial eviction and re-admission (kubernetes-sigs/kueue#13662).

    A preemptor needs the room of wlA and wlB of another queue. wlA is gone at once, wlB takes its time; in
    between wlA is admitted again to the room that it left, as its queue's share has dropped below that of the
    preemptor's, and so on in turn. The thread gives the order of events and no sizes: here cq1 has one device
    of three, wlA and wlB one each, and the preemptor wants both of these.
    """

    @staticmethod
    def play(mechanism: Mechanism) -> Market:
        played = market(pool(3), mechanism, "cq1", "cq2")
        played.want(bid("other", "cq1", 2))
        played.want(bid("wl-a", "cq2", 1), stops_ms=0)
        played.want(bid("wl-b", "cq2", 1))
        played.tick(10)
        assert played.used_milli() == 3000
        played.want(bid("preemptor", "cq1", 2, devices=2))
        played.tick(TICKS)
        return played

    def test_under_the_reported_rule_the_two_come_and_go_for_ever(self) -> None:
        def reclaims(bid: Bid, lease: Lease, usage: Usage) -> bool:
            return lease.agent != bid.agent and bid.agent == "cq1"

        played = self.play(Requeueing(reclaims))
        assert evictions(played)["wl-a"] > 20
        assert not played.starts("preemptor")

    def test_the_auction_holds_the_room_until_both_are_gone(self) -> None:
        played = self.play(Auction())
        assert evictions(played) == {"wl-a": 1, "wl-b": 1}
        displaced_ms = played.displaced[0].at_ms
        assert played.starts("preemptor") == [displaced_ms + RULES.notice_ms]
        assert played.starts("wl-a") == [played.starts("wl-a")[0]], "it is not admitted in between"
        assert_chains_end(played)


class TestKueue14543:
    """FairSharing: infinite preemption loop (kubernetes-sigs/kueue#14543).

    Targets in the preemptor's own queue lower its share, which makes others legal targets; then the own ones
    are filled back and the others stay: a preemption that is not legal by shares. In the real cluster the
    preempted was then admitted instead of the preemptor, again and again. The thread names this root cause
    and no sizes: here five devices, a1 of A (two) beside b1 of B (three), then a2 of A wants three.
    """

    @staticmethod
    def play(mechanism: Mechanism, price: float) -> Market:
        played = market(pool(5), mechanism, "a", "b")
        played.want(bid("a1", "a", 0.9, devices=2))
        played.want(bid("b1", "b", 1, devices=3))
        played.tick(10)
        assert played.used_milli() == 5000
        played.want(bid("a2", "a", price, devices=3))
        played.tick(TICKS)
        return played

    def test_under_the_reported_rule_the_preempted_is_admitted_in_place_of_the_preemptor(self) -> None:
        def share_without_own(bid: Bid, lease: Lease, usage: Usage) -> bool:
            return lease.agent == bid.agent or usage.get(bid.agent, 0) < usage.get(lease.agent, 0)

        played = self.play(Requeueing(share_without_own), 1)
        assert evictions(played)["b1"] > 20
        assert not played.starts("a2")

    @pytest.mark.parametrize(("price", "runs"), [(1, False), (1.09, False), (2, True), (4, True)])
    def test_in_the_auction_only_what_is_worth_enough_more_displaces(self, price: float, runs: bool) -> None:
        played = self.play(Auction(), price)
        assert bool(played.displaced) is played.running("a2") is runs
        assert max(evictions(played).values(), default=0) <= 1
        assert_chains_end(played)

    @pytest.mark.xfail(
        strict=True, reason="a gang's victims are chosen device by device, none is filled back"
    )
    def test_none_is_displaced_that_need_not_go(self) -> None:
        """b1's three devices are all that a2 needs, and 1.2 x 3 is enough for them alone."""
        played = self.play(Auction(), 1.2)
        assert evictions(played) == {"b1": 1}


def geometric(step: int) -> float:
    return round(1.11**step, 6)


@pytest.mark.parametrize("price", [geometric, lambda step: 1 + step / 20])
def test_a_chain_is_no_longer_than_its_growth_allows(price: Callable[[int], float]) -> None:
    """Twenty agents want one device, each for more than the last; all come back whenever displaced."""
    played = market(pool(1), Auction(), *(f"agent-{i}" for i in range(20)))
    for number in range(20):
        played.want(bid(f"b{number:02}", f"agent-{number}", price(number)))
        played.tick(6)
    played.tick(TICKS)
    chain = [step.by for step in played.displaced]
    assert len(chain) == len(set(chain)), "who displaced once and went does not displace again"
    for first, second in pairwise(played.displaced):
        assert second.bid == first.by
    assert_chains_end(played)
