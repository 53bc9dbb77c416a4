"""Whole runs of two or three jobs, with every second accounted for by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from support.rounds import job, moment

from walras.core.errors import Invalid
from walras.market.mechanisms.registry import MECHANISMS
from walras.market.strategies.fixed import Fixed
from walras.market.strategies.slack import Slack
from walras.sim.rounds.cluster import Moment, Played, Scheduler, play
from walras.sim.rounds.gavel import GavelRounds
from walras.sim.rounds.market import Market
from walras.sim.rounds.policies import Fifo, GandivaFair, ShortestFirst
from walras.sim.rounds.training import Training


def run(scheduler: Scheduler, *jobs: Training, gpus: int = 1) -> Played:
    return play(jobs, scheduler, gpus=gpus, round_s=100.0)


def market(**options: Any) -> Market:
    return Market(MECHANISMS["auction"], Slack(), **options)


def test_fifo_to_the_second() -> None:
    """Job 0 runs for two rounds. Job 1 loses 20 s of its first to a restart, so it needs two and a fifth."""
    played = run(GavelRounds(Fifo()), job(0, left_s=200), job(1, left_s=200))
    assert played.jct_s == pytest.approx({0: 200, 1: 420})
    assert played.rho == pytest.approx({0: 200 / 400, 1: 420 / 400})
    assert played.makespan_s == pytest.approx(420)
    assert [work for *_, work in played.busy] == pytest.approx([100, 100, 80, 100, 20])
    assert played.restarts == 1


def test_equal_parts_to_the_second() -> None:
    """Who had less is next: job 0 100 s; job 1 80 s after a restart, then, having had less, 100 s; job 0 80
    s.

    Now both had 180 s, and the older one goes on for its last 20 s. Rounds that short are not charged for a
    restart.
    """
    played = run(GavelRounds(GandivaFair()), job(0, left_s=200), job(1, left_s=200))
    assert [work for *_, work in played.busy] == pytest.approx([100, 80, 100, 80, 20, 20])
    assert played.jct_s == pytest.approx({0: 420, 1: 440})


def test_a_round_is_over_when_the_last_of_it_is() -> None:
    """Job 1 has only 30 s to go, yet job 2 begins with the next round."""
    jobs = [job(0, left_s=200), job(1, left_s=30), job(2, left_s=50)]
    played = run(ShortestFirst(), *jobs, gpus=2)
    assert played.jct_s == pytest.approx({1: 30, 2: 50, 0: 50 + 200 + 20})


def test_nothing_runs_between_the_end_of_all_and_the_next_arrival() -> None:
    played = run(ShortestFirst(), job(0, left_s=50), job(1, left_s=50, arrival_s=500.0))
    assert played.jct_s == pytest.approx({0: 50, 1: 50})
    assert played.makespan_s == pytest.approx(550)


def test_the_market_keeps_a_lease_for_its_term_and_gives_the_next_to_who_is_further_behind() -> None:
    """Job 0 has three rounds, 300 s. Then job 1 is 50 s past its fair end, job 0 far from its own.

    Job 1 loses 20 s: 80 and 20 s. Job 0 has 700 s to go and loses 20 s: 80, six times 100, 20.
    """
    played = run(market(), job(0, left_s=1_000), job(1, left_s=100, arrival_s=50.0))
    assert played.jct_s == pytest.approx({0: 300 + 120 + 720, 1: 420 - 50})


def test_who_claims_less_work_than_it_has_is_served_first() -> None:
    """Money never binds here. Of two that have time to spare the shorter is first, by its own word."""
    jobs = (job(0, left_s=2_000), job(1, left_s=3_000))
    assert list(market().choose(moment(*jobs, gpus=1))) == [0]
    assert list(market(claims={1: 0.5}).choose(moment(*jobs, gpus=1))) == [1]


def test_a_lease_is_not_renewed_by_what_it_was_won_by() -> None:
    """Alone, job 0 has no time to spare. With job 1 its fair end is later, and it is 50 s into its margin.

    Job 1 is 150 s into its own: its end is 500 s after it would be done, of 600 s and a tenth of its work.
    """
    auction, first = market(lease_rounds=1), job(0, left_s=1_000)
    assert list(auction.choose(moment(first, gpus=1))) == [0]
    first.train(100, 100.0)
    both = moment(first, job(1, left_s=500, arrival_s=100.0), gpus=1, now_s=100.0)
    assert list(auction.choose(both)) == [1]


def test_in_the_market_a_gang_has_all_its_gpus_at_once() -> None:
    """Three jobs due at once on two GPUs: single ones with less to go are more behind; the gang is next."""
    played = run(market(), job(0, left_s=300, gpus=2), job(1, left_s=100), job(2, left_s=100), gpus=2)
    assert played.jct_s == pytest.approx({1: 100, 2: 100, 0: 100 + 320})
    assert [work for *_, work in played.busy] == pytest.approx([200, 160, 200, 200, 40])


def test_the_finish_time_mechanism_serves_first_who_has_waited_longest_for_its_size() -> None:
    """At 100 s job 1 has waited for a quarter of what it takes alone, job 2 for a tenth."""
    early, short, long = job(0, left_s=100), job(1, left_s=400), job(2, left_s=1_000)
    played = run(Market(MECHANISMS["finishtime"], Fixed()), early, short, long)
    assert played.jct_s[0] == pytest.approx(100)
    assert played.jct_s[1] < played.jct_s[2]


def test_a_job_that_is_larger_than_the_cluster_is_refused() -> None:
    with pytest.raises(Invalid, match="job 0 wants 4 GPUs; the cluster has 2"):
        run(ShortestFirst(), job(0, left_s=1, gpus=4), gpus=2)


def test_a_scheduler_that_never_gives_work_is_found_out() -> None:
    class Idle:
        def choose(self, moment: Moment) -> Sequence[int]:
            return ()

    with pytest.raises(AssertionError, match="waiting for ever"):
        run(Idle(), job(0, left_s=1))
