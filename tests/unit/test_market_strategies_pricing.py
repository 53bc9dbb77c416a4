"""What each strategy bids, and that pacing makes a budget last."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from walras.core.money import charge
from walras.market.strategies.deadline import Deadline
from walras.market.strategies.fixed import Fixed
from walras.market.strategies.pacing import MU_MAX, Pacing
from walras.market.strategies.registry import STRATEGIES
from walras.market.strategies.slack import Slack
from walras.market.strategies.slo import Curve, Slo
from walras.market.strategies.strategy import MU_ONE, Facts, PacingState, Strategy

CREDIT = 1_000_000
HOUR = 3_600_000
MINUTE = 60_000
FACTS = Facts(now_ms=HOUR, value_micros=4 * CREDIT, milli=1000, term_ms=MINUTE, available_micros=CREDIT)


@given(
    st.sampled_from([*STRATEGIES.values(), Slack()]),
    st.builds(
        Facts,
        now_ms=st.integers(0, 10**9),
        value_micros=st.integers(0, 10**9),
        milli=st.integers(1, 8_000),
        term_ms=st.integers(1, 10**9),
        available_micros=st.integers(-5, 10**9),
        posted_micros=st.integers(0, 10**9),
        job_class=st.sampled_from(["latency", "standard", "batch"]),
        submitted_ms=st.integers(0, 10**9),
        deadline_ms=st.none() | st.integers(0, 10**9),
        work_ms=st.integers(0, 10**9),
        latency_without_ms=st.none() | st.integers(0, 10**7),
        latency_with_ms=st.none() | st.integers(0, 10**7),
        pacing=st.builds(PacingState, mu=st.integers(0, MU_MAX)),
    ),
)
def test_no_strategy_bids_above_the_value_or_the_funds(strategy: Strategy, facts: Facts) -> None:
    price = strategy.price(facts)
    assert 0 <= price <= facts.value_micros
    assert charge(price, facts.milli, facts.term_ms) <= max(0, facts.available_micros)


def test_fixed_bids_the_value() -> None:
    assert Fixed().price(FACTS) == 4 * CREDIT


def test_no_more_is_bid_than_the_funds_cover_for_the_term() -> None:
    """A whole device for a minute costs a sixtieth of its price."""
    poor = replace(FACTS, available_micros=CREDIT // 60)
    assert charge(Fixed().price(poor), 1000, MINUTE) == poor.available_micros
    assert Fixed().price(replace(FACTS, available_micros=0)) < 60


def test_a_deadline_is_bid_for_low_at_first_and_at_the_value_when_slack_is_over() -> None:
    """Two hours from the start, half an hour of work: an hour and a half of slack."""
    facts = replace(FACTS, posted_micros=CREDIT, deadline_ms=3 * HOUR, submitted_ms=HOUR, work_ms=HOUR // 2)
    at = {minutes: Deadline().price(replace(facts, now_ms=HOUR + minutes * MINUTE)) for minutes in range(121)}
    assert at[0] == CREDIT // 2
    assert at[45] == CREDIT // 2 + (4 * CREDIT - CREDIT // 2) // 4
    assert at[90] == at[119] == 4 * CREDIT
    assert at[120] == 0
    assert all(at[minutes] <= at[minutes + 1] for minutes in range(119))


def test_a_deadline_that_leaves_no_slack_or_is_none_is_bid_for_at_the_value() -> None:
    assert Deadline().price(FACTS) == 4 * CREDIT
    late = replace(FACTS, deadline_ms=2 * HOUR, submitted_ms=HOUR, work_ms=2 * HOUR)
    assert Deadline().price(late) == 4 * CREDIT


def test_with_slack_the_shorter_bids_more_and_nobody_more_than_half() -> None:
    """An hour of work bids half of half; half an hour two thirds of it."""
    facts = replace(FACTS, value_micros=CREDIT, deadline_ms=9 * HOUR)
    assert Slack().price(replace(facts, work_ms=HOUR)) == CREDIT // 4
    assert Slack().price(replace(facts, work_ms=HOUR // 2)) == CREDIT // 3
    assert Slack().price(replace(facts, work_ms=0)) == Slack().price(replace(FACTS, value_micros=CREDIT))


def test_without_slack_who_is_further_behind_bids_more_also_past_the_deadline() -> None:
    """The margin of an hour of work is 10 + 6 minutes. With that much slack half is bid, later 3/4."""
    facts = replace(FACTS, value_micros=CREDIT, deadline_ms=9 * HOUR, work_ms=HOUR)
    begins = 8 * HOUR - 16 * MINUTE
    assert Slack().price(replace(facts, now_ms=begins - 1)) == CREDIT // 4
    assert Slack().price(replace(facts, now_ms=begins)) == CREDIT // 2
    assert Slack().price(replace(facts, now_ms=begins + HOUR)) == CREDIT * 3 // 4
    assert Slack().price(replace(facts, now_ms=begins + 3 * HOUR)) == CREDIT * 7 // 8


@pytest.mark.parametrize(
    ("without", "within", "part"),
    [(550, 100, 500), (2_000, 50, 1000), (90, 50, 0), (2_000, 1_500, 0), (100, 900, 0)],
)
def test_a_share_is_worth_the_latency_that_it_brings_back(without: int, within: int, part: int) -> None:
    facts = replace(FACTS, job_class="latency", latency_without_ms=without, latency_with_ms=within)
    assert Slo({"latency": Curve(100, 1_000)}).price(facts) == 4 * CREDIT * part // 1000


def test_an_objective_of_its_own_goes_before_that_of_the_class() -> None:
    facts = replace(FACTS, job_class="latency", latency_without_ms=6_000, latency_with_ms=3_000)
    assert Slo().price(facts) == 0
    own = replace(facts, slo_good_ms=2_000, slo_bad_ms=10_000)
    assert Slo().price(own) == 4 * CREDIT * (875 - 500) // 1000


def test_where_nobody_measures_the_latency_the_value_is_bid() -> None:
    assert Slo().price(FACTS) == Slo().price(replace(FACTS, latency_with_ms=5)) == 4 * CREDIT


def test_a_step_of_latency_is_a_curve_too() -> None:
    step = Curve(100, 100)
    assert [step.permille(at) for at in (99, 100, 101)] == [1000, 0, 0]


def test_pacing_bids_the_value_over_one_plus_mu() -> None:
    assert Pacing().price(FACTS) == 4 * CREDIT
    assert Pacing().price(replace(FACTS, pacing=PacingState(3 * MU_ONE))) == CREDIT


def test_mu_rises_by_one_when_twice_the_target_is_spent_for_the_gain() -> None:
    pacing, target = Pacing(gain_ms=5 * MINUTE), 12 * CREDIT
    twice = pacing.observe(PacingState(MU_ONE, 0), 5 * MINUTE, 2 * CREDIT, target)
    assert twice == PacingState(2 * MU_ONE, 5 * MINUTE)
    assert pacing.observe(twice, 10 * MINUTE, CREDIT, target).mu == 2 * MU_ONE
    assert pacing.observe(twice, 10 * MINUTE, 0, target).mu == MU_ONE


def test_mu_stays_within_its_bounds() -> None:
    assert Pacing().observe(PacingState(0, 0), HOUR, 0, CREDIT).mu == 0
    assert Pacing().observe(PacingState(0, 0), HOUR, 10**12, 0).mu == MU_MAX


def test_the_target_is_the_income_and_a_part_of_what_is_beyond_the_cushion() -> None:
    pacing = Pacing(horizon_ms=10 * HOUR, cushion_ms=HOUR)
    assert pacing.target(12 * CREDIT, 12 * CREDIT) == 12 * CREDIT
    assert pacing.target(12 * CREDIT, 32 * CREDIT) == 14 * CREDIT
    assert pacing.target(0, 20 * CREDIT) == 2 * CREDIT
    assert pacing.target(CREDIT, -100 * CREDIT) == 0


def auctions(seed: int, pacing: Pacing, budget: int, *, ticks: int, income: int = 0) -> tuple[int, list[int]]:
    """A share for a second in each tick, at the best of others' bids; what was spent, and the balances.

    Without income the target is the budget over all ticks, as in the paper; with it, what `target` says.
    """
    chance = random.Random(seed)
    state, left, spent, balances = PacingState(), budget, 0, []
    for tick in range(1, ticks + 1):
        left += income // 3_600
        facts = Facts(
            now_ms=tick * 1000,
            value_micros=chance.randint(0, 8 * CREDIT),
            milli=1000,
            term_ms=1000,
            available_micros=left,
            pacing=state,
        )
        rival = chance.randint(0, 8 * CREDIT)
        paid = charge(rival, 1000, 1000) if pacing.price(facts) > rival else 0
        target = pacing.target(income, left) if income else budget * 3_600 // ticks
        left, spent = left - paid, spent + paid
        assert left >= 0
        balances.append(left)
        state = pacing.observe(state, tick * 1000, paid, target)
    return spent, balances


@pytest.mark.parametrize("percent", [10, 30, 70])
@pytest.mark.parametrize("seed", range(3))
def test_pacing_spends_its_budget_over_the_horizon_and_never_more(percent: int, seed: int) -> None:
    """Bidding the value all the time would spend everything in that part of the time."""
    ticks = 4 * 3_600
    unpaced, _ = auctions(seed, Pacing(gain_ms=10**12), 10**12, ticks=ticks)
    budget = unpaced * percent // 100
    spent, balances = auctions(seed, Pacing(), budget, ticks=ticks)
    assert budget * 96 // 100 <= spent <= budget
    # Half of it is there at half time.
    assert abs(balances[ticks // 2] - budget // 2) < budget // 20


def test_with_an_income_pacing_spends_as_it_comes_and_keeps_a_cushion() -> None:
    ticks, income = 12 * 3_600, CREDIT // 2
    pacing = Pacing(horizon_ms=2 * HOUR, cushion_ms=HOUR)
    spent, balances = auctions(1, pacing, 3 * CREDIT, ticks=ticks, income=income)
    earned = income // 3_600 * ticks
    assert abs(earned + 3 * CREDIT - balances[-1] - spent) == 0
    assert abs(balances[-1] - income) < income // 5


def test_a_budget_that_is_more_than_can_be_spent_shades_nothing() -> None:
    spent, _ = auctions(5, Pacing(), 10**12, ticks=600)
    unpaced, _ = auctions(5, Pacing(gain_ms=10**12), 10**12, ticks=600)
    assert spent == unpaced
