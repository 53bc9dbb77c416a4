"""What comes back of the market's revenue: all of it, by guarantee and weight, to the micro."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from walras.core.money import HOUR_MS, charge
from walras.ledger.budget import rebate

NAMES = st.sampled_from("abcdef")
WEIGHTS = st.dictionaries(NAMES, st.integers(1, 1_000_000), min_size=1)
GUARANTEES = st.dictionaries(NAMES, st.integers(0, 100_000))
REVENUE = st.integers(0, 10**15)
CAPACITY = st.integers(1, 200_000)


@given(REVENUE, WEIGHTS, GUARANTEES, CAPACITY)
def test_all_of_it_comes_back_and_nobody_is_more_than_a_micro_off(
    revenue: int, weights: dict[str, int], guaranteed: dict[str, int], capacity: int
) -> None:
    guaranteed = {name: milli for name, milli in guaranteed.items() if name in weights}
    parts = rebate(revenue, weights, guaranteed, capacity)
    assert sum(parts.values()) == revenue
    promised = sum(guaranteed.values())
    scale = Fraction(1, max(capacity, promised))
    rest = 1 - promised * scale
    for name, part in parts.items():
        by_weight = rest * Fraction(weights[name], sum(weights.values()))
        exact = revenue * (guaranteed.get(name, 0) * scale + by_weight)
        assert abs(part - exact) < 1, name


@given(REVENUE, WEIGHTS, CAPACITY)
def test_without_a_guarantee_it_is_by_weight_alone(
    revenue: int, weights: dict[str, int], capacity: int
) -> None:
    nobody = dict.fromkeys(weights, 0)
    assert rebate(revenue, weights, {}, capacity) == rebate(revenue, weights)
    assert rebate(revenue, weights, nobody, capacity) == rebate(revenue, weights)


@given(
    price=st.integers(0, 10**9),
    used=st.dictionaries(NAMES, st.integers(0, 50_000), min_size=1),
    own=st.integers(0, 50_000),
    idle=st.integers(0, 50_000),
)
def test_sold_out_at_one_price_a_guarantee_that_is_used_costs_nothing_and_one_that_is_not_earns(
    price: int, used: dict[str, int], own: int, idle: int
) -> None:
    """The owner uses `own` of own + idle that it is guaranteed; others use all the rest."""
    capacity = own + idle + sum(used.values())
    others = used | {next(iter(used)): next(iter(used.values())) + idle}
    paid = {name: charge(price, milli, HOUR_MS) for name, milli in (others | {"owner": own}).items()}
    back = rebate(sum(paid.values()), dict.fromkeys(used, 1), {"owner": own + idle}, capacity)
    worth_of_idle = charge(price, idle, HOUR_MS)
    assert back.get("owner", 0) - paid["owner"] >= worth_of_idle - len(paid) - 1


@given(REVENUE, WEIGHTS, CAPACITY, st.integers(0, 100_000), st.integers(0, 100_000))
def test_a_larger_guarantee_never_earns_less_but_for_a_micro(
    revenue: int, weights: dict[str, int], capacity: int, less: int, more: int
) -> None:
    name = next(iter(weights))
    small, large = sorted((less, more))
    before = rebate(revenue, weights, {name: small}, capacity)[name]
    assert rebate(revenue, weights, {name: large}, capacity)[name] >= before - 1
