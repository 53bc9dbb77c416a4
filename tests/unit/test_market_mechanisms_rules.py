"""The rules of each mechanism in small markets: who gets what, what is taken from whom, and what it says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from walras.core.errors import NotFound
from walras.devices.placement import Shape
from walras.market.eviction import evict
from walras.market.ground import Ask, Ground
from walras.market.mechanisms.drf import Drf
from walras.market.mechanisms.fairshare import FairShare
from walras.market.mechanisms.finishtime import FinishTime
from walras.market.mechanisms.karma import Karma
from walras.market.mechanisms.posted import PostedPrice
from walras.market.mechanisms.priority import Priority
from walras.market.mechanisms.proportional import ProportionalShare
from walras.market.mechanisms.registry import MECHANISMS
from walras.market.mechanisms.static import StaticSplit, parts
from walras.market.placement import Board
from walras.market.types import (
    AgentFacts,
    Bid,
    Constraint,
    Device,
    Displacement,
    JobClass,
    Lease,
    Memory,
    Outcome,
    Package,
    Reason,
    Rules,
    Share,
    Snapshot,
)

CREDIT = 1_000_000
HOUR = 3_600_000
NOW = 1_000_000
RULES = Rules(quantum_ms=5_000, notice_ms=2_000)


def bid(
    name: str,
    milli: int = 1000,
    *,
    devices: int = 1,
    price: int = CREDIT,
    job_class: JobClass = "batch",
    priority: int = 0,
    age_ms: int = 0,
    memory_mib: int = 1,
    funds: int = 100 * CREDIT,
    term_ms: int = 60_000,
) -> Bid:
    """Of the agent that its name begins with: "a-1" is one of agent a's."""
    package = Package(devices, milli, memory_mib, term_ms, price)
    agent = name.split("-", maxsplit=1)[0]
    return Bid(name, agent, job_class, (package,), 0, NOW - age_ms, funds, priority=priority)


def lease(
    name: str,
    *shares: tuple[str, int],
    left_ms: int = 30_000,
    age_ms: int = 60_000,
    job_class: JobClass = "batch",
    priority: int = 0,
    price: int = 0,
    most: int = CREDIT,
    funds: int = 100 * CREDIT,
) -> Lease:
    return Lease(
        id=name,
        bid=f"bid-{name}",
        agent=name.split("-", maxsplit=1)[0],
        job_class=job_class,
        shares=tuple(Share(device, milli, 1) for device, milli in shares),
        price_micros=price,
        max_price_micros=most,
        restart_cost_micros=0,
        term_ms=60_000,
        start_ms=NOW - age_ms,
        end_ms=NOW + left_ms,
        funds_micros=funds,
        priority=priority,
    )


def market(
    *bids: Bid,
    leases: tuple[Lease, ...] = (),
    devices: int = 1,
    facts: dict[str, AgentFacts] | None = None,
    posted: int = 0,
    memory: Memory | None = None,
) -> Snapshot:
    pool = tuple(Device(f"d{i}", "n", "m", i, 80_000) for i in range(devices))
    return Snapshot(NOW, RULES, pool, leases, bids, posted, agents=facts or {}, memory=memory or Memory())


def won(outcome: Outcome) -> list[str]:
    return [award.bid for award in outcome.awards]


def why(outcome: Outcome) -> dict[str, Reason]:
    return {refusal.bid: refusal.explanation.reason for refusal in outcome.refusals}


@pytest.mark.parametrize("name", sorted(MECHANISMS))
def test_a_bid_that_is_not_pending_cannot_be_decided(name: str) -> None:
    with pytest.raises(NotFound):
        MECHANISMS[name].express(market(), "a-1")


@pytest.mark.parametrize("name", sorted(MECHANISMS))
def test_a_market_with_nothing_in_it_clears(name: str) -> None:
    outcome = MECHANISMS[name].clear(market(devices=0))
    assert not (outcome.awards or outcome.refusals or outcome.renewals or outcome.displacements)


@pytest.mark.parametrize("name", sorted(MECHANISMS))
def test_a_bid_that_no_empty_pool_could_hold_is_told_so(name: str) -> None:
    """And one that asks for nothing, or is late."""
    late = replace(bid("c-1"), deadline_ms=NOW)
    outcome = MECHANISMS[name].clear(market(bid("a-1", devices=2), bid("b-1", 0), late))
    assert why(outcome) == {"a-1": Reason.TOO_LARGE, "b-1": Reason.INVALID, "c-1": Reason.EXPIRED}


@pytest.mark.parametrize("name", sorted(set(MECHANISMS) - {"auction"}))
def test_another_package_is_taken_where_the_first_has_no_room(name: str) -> None:
    one = bid("a-1", 1000)
    either = replace(one, packages=(*one.packages, replace(one.packages[0], milli_gpu=500)))
    facts = {"a": AgentFacts(spend_micros_per_hour=100 * CREDIT)}
    there = lease("a-0", ("d0", 500))
    award = MECHANISMS[name].clear(market(either, leases=(there,), facts=facts)).awards[0]
    assert (award.package, award.total_milli) == (1, 500)


# Priority


def test_the_higher_class_ends_the_lower_one_with_notice() -> None:
    running = lease("b-1", ("d0", 1000))
    outcome = Priority().express(market(bid("a-1", job_class="latency"), leases=(running,)), "a-1")
    assert outcome.displacements == (Displacement("b-1", "a-1", NOW + 2_000, "priority"),)
    award = outcome.awards[0]
    assert (award.displaces, award.starts_now, award.price_micros) == (("b-1",), False, 0)


def test_a_number_counts_before_the_class_and_equals_do_not_displace() -> None:
    running = lease("b-1", ("d0", 1000), priority=1)
    equal, lower = bid("a-1", priority=1), bid("c-1", job_class="latency")
    assert not Priority().clear(market(equal, lower, leases=(running,))).awards
    higher = bid("a-2", priority=2)
    assert won(Priority().clear(market(equal, lower, higher, leases=(running,)))) == ["a-2"]


def test_nobody_is_preempted_before_its_quantum_is_over() -> None:
    running = lease("b-1", ("d0", 1000), age_ms=4_000)
    assert not Priority().clear(market(bid("a-1", priority=9), leases=(running,))).awards


def test_the_lowest_priority_goes_even_where_it_is_more() -> None:
    """Not the smaller lease of the middle level."""
    low, middle = lease("l-1", ("d0", 1000)), lease("m-1", ("d1", 500), priority=5)
    high = bid("a-1", 500, priority=9)
    other = lease("o-1", ("d1", 500), priority=9)
    outcome = Priority().clear(market(high, leases=(low, middle, other), devices=2))
    assert [each.lease for each in outcome.displacements] == ["l-1"]


def test_a_lease_up_for_renewal_gives_way_to_priority_and_goes_on_without() -> None:
    due = lease("b-1", ("d0", 1000), left_ms=2_000)
    assert [each.lease for each in Priority().clear(market(bid("a-1"), leases=(due,))).renewals] == ["b-1"]
    outcome = Priority().clear(market(bid("a-1", priority=1), leases=(due,)))
    assert (won(outcome), outcome.renewals) == (["a-1"], ())


# Static split


def test_what_an_agent_does_not_use_stays_idle() -> None:
    facts = {agent: AgentFacts() for agent in "ab"}
    outcome = StaticSplit().clear(market(bid("a-1"), bid("a-2"), devices=2, facts=facts))
    assert (won(outcome), why(outcome)) == (["a-1"], {"a-2": Reason.OVER_SHARE})
    assert outcome.refusals[0].explanation.constraint is Constraint.SHARE


def test_parts_are_whole_devices_as_far_as_they_go() -> None:
    facts = {"a": AgentFacts(weight=2), "b": AgentFacts(weight=1)}
    owned = parts(market(devices=2, facts=facts))
    assert owned == {
        "a": {"d0": Shape(1000, 80_000), "d1": Shape(333, 26_640)},
        "b": {"d1": Shape(667, 53_360)},
    }


def test_a_part_that_shrank_lets_its_lease_end_with_the_term() -> None:
    """Agent a had all; b came. d1 is b's from the end of a's term on."""
    due = lease("a-1", ("d0", 1000), ("d1", 1000), left_ms=2_500)
    outcome = StaticSplit().clear(market(bid("b-1"), leases=(due,), devices=2))
    assert outcome.displacements == (Displacement("a-1", None, NOW + 2_500, "share"),)
    later = StaticSplit().clear(market(bid("b-1"), leases=(replace(due, state="draining"),), devices=2))
    assert [share.device for share in later.awards[0].shares] == ["d1"]


def test_a_lease_within_its_part_is_renewed_beside_the_agents_own_bids() -> None:
    due = lease("a-1", ("d0", 500), left_ms=2_500)
    outcome = StaticSplit().clear(market(bid("a-2", 500, job_class="latency"), leases=(due,)))
    assert (won(outcome), [each.lease for each in outcome.renewals]) == (["a-2"], ["a-1"])


# DRF


def test_drf_decides_as_the_example_of_its_paper() -> None:
    """9 CPUs and 18 GB; A's tasks take (1, 4) and B's (3, 1): three tasks for A, two for B (section 4.1)."""
    pool = (Device("d0", "n", "m", 0, 18, 9),)
    bids = [bid(f"a-{n}", 1, memory_mib=4) for n in range(9)] + [
        bid(f"b-{n}", 3, memory_mib=1) for n in range(9)
    ]
    got = won(Drf().clear(replace(market(*bids), devices=pool)))
    assert (sum(name[0] == "a" for name in got), sum(name[0] == "b" for name in got)) == (3, 2)


def test_who_has_most_gives_way_when_its_term_ends() -> None:
    """Of three devices of agent a one is enough for b; a keeps its two."""
    held = tuple(lease(f"a-{n}", (f"d{n}", 1000), left_ms=2_000, age_ms=60_000 - n) for n in range(3))
    outcome = Drf().clear(market(bid("b-1"), leases=held, devices=3))
    assert outcome.displacements == (Displacement("a-2", None, NOW + 2_000, "share"),)
    assert (won(outcome), outcome.awards[0].starts_now) == (["b-1"], False)
    assert [each.lease for each in outcome.renewals] == ["a-0", "a-1"]


def test_the_place_taken_is_that_of_the_agent_with_more_not_the_smaller_lease() -> None:
    """b has 300, a has 1000 and another 700: what goes is a's, though b's would do."""
    held = (
        lease("a-1", ("d0", 1000), left_ms=2_000),
        lease("a-2", ("d1", 700), left_ms=2_000, age_ms=50_000),
        lease("b-1", ("d1", 300), left_ms=2_000, age_ms=40_000),
    )
    outcome = Drf().clear(market(bid("c-1", 300), leases=held, devices=2))
    assert [each.lease for each in outcome.displacements] == ["a-2"]


def test_a_running_term_is_nobodys_to_take() -> None:
    held = tuple(lease(f"a-{n}", (f"d{n}", 1000)) for n in range(2))
    assert why(Drf().clear(market(bid("b-1"), leases=held, devices=2))) == {"b-1": Reason.NO_CAPACITY}


def test_a_reserved_lease_counts_and_a_draining_one_does_not() -> None:
    """a has one reserved, b one that drains: b is next."""
    reserved = replace(lease("a-0", ("d0", 1000)), state="reserved")
    drains = replace(lease("b-0", ("d0", 1000)), state="draining", drains_at_ms=NOW + 1)
    outcome = Drf().clear(market(bid("a-1"), bid("b-1"), leases=(reserved, drains), devices=2))
    assert won(outcome) == ["b-1"]


def test_room_on_several_devices_comes_from_a_lease_on_several() -> None:
    gang = lease("a-1", ("d0", 600), ("d1", 600), ("gone", 600), left_ms=2_000)
    other = lease("a-2", ("d0", 400), left_ms=2_000)
    ground = Ground(Device(name, "node", "H100", 0, 80_000) for name in ("d0", "d1"))
    ask = Ask({"d0": Shape(500, 1), "d1": Shape(500, 1)}, 2, 2)
    found = evict(ask, Board(ground, [gang, other]), [gang, other], lambda each: each.total_milli)
    assert found is not None and set(found.devices) == {"d0", "d1"} and found.victims == (gang,)


# Fair share


def test_use_since_the_last_clearing_counts_and_old_use_halves() -> None:
    held = (lease("a-1", ("d0", 500)), replace(lease("b-1", ("d0", 500)), state="reserved"))
    was = Memory("fairshare", NOW - 5_000, {"b": 1_000_000, "c": 1})
    memory = FairShare(half_life_ms=5_000).clear(market(leases=held, memory=was)).memory
    assert memory == Memory("fairshare", NOW, {"a": 500 * 5_000, "b": 500_000})


def test_time_in_which_nobody_served_is_no_use() -> None:
    was = Memory("fairshare", NOW - HOUR, {})
    memory = FairShare().clear(market(leases=(lease("a-1", ("d0", 500)),), memory=was)).memory
    assert memory.amounts == {"a": 500 * 10_000}


def test_anothers_memory_is_not_read() -> None:
    was = Memory("karma", NOW - 1_000, {"a": 10**12})
    outcome = FairShare().clear(market(bid("a-1"), memory=was))
    assert outcome.memory == Memory("fairshare", NOW, {})
    assert FairShare().express(market(bid("a-1"), memory=was), "a-1").memory == was


# Karma


def test_a_guarantee_needs_no_credits_and_what_is_beyond_it_does() -> None:
    """Two agents: 500 each by weight, 250 of it guaranteed."""
    facts = {agent: AgentFacts() for agent in "ab"}
    broke = Memory("karma", NOW, {"a": 0, "b": 0})
    outcome = Karma().clear(market(bid("a-1", 250), bid("a-2", 250), facts=facts, memory=broke))
    assert (won(outcome), why(outcome)) == (["a-1"], {"a-2": Reason.OVER_SHARE})
    rich = Memory("karma", NOW, {"a": 250 * 60_000, "b": 0})
    assert won(Karma().clear(market(bid("a-1", 250), bid("a-2", 250), facts=facts, memory=rich))) == [
        "a-1",
        "a-2",
    ]


def test_who_has_more_credits_borrows_first() -> None:
    facts = {agent: AgentFacts(guaranteed_milli=0) for agent in "ab"}
    credits = Memory("karma", NOW, {"a": 10**9, "b": 2 * 10**9})
    assert won(Karma().clear(market(bid("a-1"), bid("b-1"), facts=facts, memory=credits))) == ["b-1"]


def test_a_lender_gets_its_guarantee_back_when_the_borrowers_term_ends() -> None:
    facts = {agent: AgentFacts(guaranteed_milli=500) for agent in "ab"}
    credits = Memory("karma", NOW, {"a": 10**9, "b": 0})
    due = (lease("a-1", ("d0", 500), left_ms=2_000), lease("a-2", ("d0", 500), left_ms=2_000, age_ms=1))
    outcome = Karma().clear(market(bid("b-1", 500), leases=due, facts=facts, memory=credits))
    assert (won(outcome), [each.lease for each in outcome.displacements]) == (["b-1"], ["a-2"])


def test_a_borrower_without_credits_is_not_renewed() -> None:
    facts = {"a": AgentFacts(guaranteed_milli=0)}
    due = lease("a-1", ("d0", 500), left_ms=2_000)
    outcome = Karma().clear(market(leases=(due,), facts=facts, memory=Memory("karma", NOW, {"a": 1})))
    assert outcome.displacements == (Displacement("a-1", None, NOW + 2_000, "share"),)


def test_the_borrower_pays_the_lender() -> None:
    """a uses 700 of its 500 for a second; b lends 500: 200 a millisecond change hands."""
    facts = {agent: AgentFacts(guaranteed_milli=500) for agent in "ab"}
    was = Memory("karma", NOW - 1_000, {"a": 10**6, "b": 0})
    memory = Karma().clear(market(leases=(lease("a-1", ("d0", 700)),), facts=facts, memory=was)).memory
    assert memory.amounts == {"a": 10**6 - 200_000, "b": 200_000}


def test_guarantees_beyond_what_there_is_shrink_alike_and_the_new_begin_with_the_average() -> None:
    facts = {"a": AgentFacts(guaranteed_milli=3000), "b": AgentFacts(guaranteed_milli=1000)}
    was = Memory("karma", NOW, {"a": 100})
    outcome = Karma().clear(market(bid("a-1", 750), bid("b-1", 250), facts=facts, memory=was))
    assert (sorted(won(outcome)), dict(outcome.memory.amounts)) == (["a-1", "b-1"], {"a": 100, "b": 100})


def test_the_first_agents_begin_with_an_hour_of_their_parts() -> None:
    facts = {"a": AgentFacts(weight=3), "b": AgentFacts()}
    assert Karma().clear(market(facts=facts)).memory.amounts == {"a": 750 * HOUR, "b": 250 * HOUR}


# Posted price


def test_first_come_at_the_posted_price() -> None:
    older, newer = bid("a-1", 600, age_ms=9, price=2 * CREDIT), bid("b-1", 600, price=9 * CREDIT)
    outcome = PostedPrice().clear(market(newer, older, posted=CREDIT))
    assert (won(outcome), outcome.awards[0].price_micros) == (["a-1"], CREDIT)
    assert why(outcome) == {"b-1": Reason.NO_CAPACITY}


def test_who_offers_less_is_told_the_price_and_who_lacks_funds_that() -> None:
    cheap, poor, none = bid("a-1", price=CREDIT), bid("b-1", price=9 * CREDIT, funds=9), bid("c-1", price=1)
    outcome = PostedPrice().clear(market(cheap, poor, none, posted=2 * CREDIT))
    told = {refusal.bid: refusal.explanation for refusal in outcome.refusals}
    assert (told["a-1"].reason, told["a-1"].winning_price_micros) == (Reason.OUTBID, 2 * CREDIT)
    assert (told["b-1"].reason, told["b-1"].winning_price_micros) == (Reason.INSUFFICIENT_FUNDS, None)
    assert (told["c-1"].reason, told["c-1"].winning_price_micros) == (Reason.BELOW_RESERVE, 2 * CREDIT)
    bought = PostedPrice().clear(market(bid("a-1", price=2 * CREDIT), posted=2 * CREDIT))
    assert won(bought) == ["a-1"]


def test_no_price_wins_where_nothing_is_free() -> None:
    running = lease("b-1", ("d0", 1000))
    outcome = PostedPrice().clear(market(bid("a-1", price=CREDIT), leases=(running,), posted=2 * CREDIT))
    assert outcome.refusals[0].explanation.winning_price_micros is None


def test_a_lease_is_renewed_at_the_price_of_the_day_or_ends() -> None:
    due = [
        lease(f"{agent}-1", (f"d{n}", 1000), left_ms=2_000, most=most, funds=funds)
        for n, (agent, most, funds) in enumerate(
            (("a", 3 * CREDIT, CREDIT), ("b", CREDIT, CREDIT), ("c", 3 * CREDIT, 9))
        )
    ]
    outcome = PostedPrice().clear(market(leases=tuple(due), devices=3, posted=2 * CREDIT))
    assert [(each.lease, each.price_micros) for each in outcome.renewals] == [("a-1", 2 * CREDIT)]
    assert {each.lease: each.reason for each in outcome.displacements} == {"b-1": "price", "c-1": "funds"}


def test_too_short_a_time_for_a_whole_micro_adds_up() -> None:
    two = (bid("a-1"), bid("b-1"))
    was, at = Memory("posted", NOW - 5), replace(RULES, reserve_micros=0)
    first = PostedPrice().clear(replace(market(*two, posted=1_000, memory=was), rules=at))
    assert (first.price_micros, first.memory) == (1_000, was)
    later = replace(market(*two, posted=1_000, memory=was), rules=at, now_ms=NOW + 2_000)
    assert PostedPrice().clear(later).price_micros == 1_001


# Proportional share


def test_spend_rates_buy_parts_and_set_the_price() -> None:
    """3 and 1 credits an hour for one device: a price of 4, 750 and 250."""
    facts = {"a": AgentFacts(spend_micros_per_hour=3 * CREDIT), "b": AgentFacts(spend_micros_per_hour=CREDIT)}
    bids = [bid(f"{agent}-{n}", 250, price=9 * CREDIT) for agent in "ab" for n in range(4)]
    outcome = ProportionalShare().clear(market(*bids, facts=facts))
    assert abs(outcome.price_micros - 4 * CREDIT) < 20_000
    assert sorted(won(outcome)) == ["a-0", "a-1", "a-2", "b-0"]


def test_without_competition_the_price_is_the_reserve() -> None:
    outcome = ProportionalShare().clear(market(bid("a-1", 500), facts={"a": AgentFacts()}))
    assert (won(outcome), outcome.price_micros) == (["a-1"], 100_000)


def test_of_two_that_want_most_of_it_one_gets_it() -> None:
    """Both pay 1.00 at most; at any higher price nothing would be sold."""
    facts = {agent: AgentFacts(spend_micros_per_hour=9 * CREDIT) for agent in "ab"}
    outcome = ProportionalShare().clear(market(bid("a-1", 600), bid("b-1", 600, age_ms=9), facts=facts))
    assert (won(outcome), outcome.price_micros) == (["b-1"], CREDIT)
    assert why(outcome) == {"a-1": Reason.NO_CAPACITY}


def test_what_leases_take_at_locked_prices_is_spent_already() -> None:
    """1 credit an hour, half of it locked: 250 more at a price of 2, which nobody else pays."""
    facts = {"a": AgentFacts(spend_micros_per_hour=CREDIT)}
    running = lease("a-0", ("d0", 500), price=CREDIT)
    bids = [bid(f"a-{n}", 250, price=3 * CREDIT) for n in (1, 2)]
    snapshot = replace(
        market(*bids, leases=(running,), facts=facts), rules=replace(RULES, reserve_micros=2 * CREDIT)
    )
    outcome = ProportionalShare().clear(snapshot)
    assert (won(outcome), why(outcome)) == (["a-1"], {"a-2": Reason.OVER_SHARE})
    assert outcome.refusals[0].explanation.winning_price_micros is None


def test_an_agent_with_less_than_its_part_takes_the_place_of_one_with_more() -> None:
    facts = {agent: AgentFacts(spend_micros_per_hour=2 * CREDIT) for agent in "ab"}
    due = tuple(lease(f"a-{n}", ("d0", 250), left_ms=2_000, most=9 * CREDIT) for n in range(4))
    bids = [bid(f"b-{n}", 250, price=9 * CREDIT) for n in range(4)]
    outcome = ProportionalShare().clear(market(*bids, leases=due, facts=facts))
    assert len(outcome.renewals) == len(outcome.awards) == 2
    assert {each.reason for each in outcome.displacements} == {"share"}


# Finish-time fairness


def test_the_worst_rho_is_next() -> None:
    """Both have half a device; a should be done long ago, b has just begun."""
    facts = {
        "a": AgentFacts(started_ms=NOW - HOUR, ideal_ms=HOUR // 2, work_milli_ms=1000 * HOUR),
        "b": AgentFacts(started_ms=NOW, ideal_ms=HOUR, work_milli_ms=1000 * HOUR),
    }
    held = (lease("a-0", ("d0", 250)), lease("b-0", ("d0", 250)))
    outcome = FinishTime().clear(market(bid("b-1", 500, age_ms=9), bid("a-1", 500), leases=held, facts=facts))
    assert won(outcome) == ["a-1"]


def test_of_those_with_nothing_who_waited_longest_for_its_size_is_next() -> None:
    """A minute's wait is long for a minute's work, not for an hour's."""
    short, long = bid("a-1", age_ms=60_000), bid("b-1", age_ms=90_000, term_ms=HOUR)
    assert won(FinishTime().clear(market(long, short))) == ["a-1"]
    assert won(FinishTime().express(market(long, short), "b-1")) == ["b-1"]
