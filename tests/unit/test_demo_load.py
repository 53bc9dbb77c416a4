"""The arrivals of the demo: the same for a seed, as many as the rates say, bursts where they should be."""

from __future__ import annotations

import pytest
from demo.load import BURST_S, WINDOW_S, Rates, arrivals, bursts

AGENTS = ("acme", "globex", "initech")
RATES = Rates(calm=2.0, burst=20.0)


def test_a_seed_gives_the_same_arrivals_and_another_seed_others() -> None:
    first = arrivals(7, AGENTS, 45, RATES, questions=100)
    assert first == arrivals(7, AGENTS, 45, RATES, questions=100)
    assert first != arrivals(8, AGENTS, 45, RATES, questions=100)


def test_arrivals_come_in_order_within_the_time_and_of_every_agent() -> None:
    found = arrivals(1, AGENTS, 45, RATES, questions=10)
    times = [each.at_s for each in found]
    assert times == sorted(times)
    assert times[0] >= 0 and times[-1] < 45
    assert {each.agent for each in found} == set(AGENTS)
    assert {each.question for each in found} == set(range(10))


def test_every_agent_bursts_once_a_window_and_for_as_long_as_it_should() -> None:
    for seed in range(50):
        for intervals in bursts(seed, AGENTS, 2 * WINDOW_S).values():
            assert len(intervals) == 2
            for number, (begin, end) in enumerate(intervals):
                assert end - begin == pytest.approx(BURST_S)
                assert number * WINDOW_S <= begin and end <= (number + 1) * WINDOW_S + 1e-9


def test_the_rates_are_kept_in_and_between_bursts() -> None:
    seconds, calm, busy, busy_s = 100 * WINDOW_S, 0, 0, 100 * BURST_S
    intervals = bursts(3, ("acme",), seconds)["acme"]
    for each in arrivals(3, ("acme",), seconds, RATES, questions=5):
        if any(begin <= each.at_s < end for begin, end in intervals):
            busy += 1
        else:
            calm += 1
    # Five standard deviations of a Poisson count.
    assert busy == pytest.approx(RATES.burst * busy_s, abs=5 * (RATES.burst * busy_s) ** 0.5)
    quiet = RATES.calm * (seconds - busy_s)
    assert calm == pytest.approx(quiet, abs=5 * quiet**0.5)


def test_a_short_run_still_has_a_burst_of_each() -> None:
    for intervals in bursts(1, AGENTS, 5).values():
        ((begin, end),) = intervals
        assert 0 <= begin < end <= 5
