"""How each policy divides a small cluster, by hand; and the middle of what it leaves open."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.rounds import job, moment

from walras.sim.rounds.centre import centre
from walras.sim.rounds.gavel import GavelRounds
from walras.sim.rounds.policies import (
    AlloX,
    Fifo,
    GandivaFair,
    MaxMinFairness,
    MaxSumThroughput,
    Ossp,
    ShortestFirst,
    Themis,
)


def test_gandiva_gives_jobs_of_any_size_the_same_part() -> None:
    jobs = [job(at, left_s=100, gpus=gpus) for at, gpus in enumerate((1, 1, 2, 4))]
    assert GandivaFair().divide(moment(*jobs, gpus=2)) == dict.fromkeys(range(4), 0.5)
    assert GandivaFair().divide(moment(jobs[0], gpus=2)) == {0: 1.0}


def test_max_min_fairness_gives_large_jobs_less_time() -> None:
    """Two GPUs for three jobs are 2/3 of a GPU each; that of two GPUs runs for half as long."""
    jobs = [job(at, left_s=100, gpus=gpus) for at, gpus in enumerate((1, 1, 2))]
    assert MaxMinFairness().divide(moment(*jobs, gpus=2)) == pytest.approx({0: 2 / 3, 1: 2 / 3, 2: 1 / 3})


def test_themis_lets_who_has_waited_catch_up() -> None:
    """Two alike, one of which has waited as long as it takes: u and 1 - u with 1/u = 1 + 1/(1 - u)."""
    jobs = [job(0, left_s=100), job(1, left_s=100, arrival_s=100)]
    parts = Themis().divide(moment(*jobs, gpus=1, now_s=100.0))
    late = (3 - math.sqrt(5)) / 2
    assert parts == pytest.approx({0: 1 - late, 1: late})


def test_themis_counts_what_was_done_at_the_rate_it_was_done() -> None:
    """Half of each is done, on half of the GPU that was its own: 100 s of 200, and 100 s are over."""
    jobs, themis = [job(0, left_s=100), job(1, left_s=100)], Themis()
    themis.divide(moment(*jobs, gpus=1))
    jobs[0].train(50, 50.0)
    jobs[1].train(50, 50.0)
    assert themis.divide(moment(*jobs, gpus=1, now_s=100.0)) == pytest.approx({0: 0.5, 1: 0.5})


def test_the_shortest_makespan_gives_time_by_the_work_that_is_left() -> None:
    """300 s and 100 s on one GPU take 400 s; 5% more may be left."""
    parts = Ossp().divide(moment(job(0, left_s=300), job(1, left_s=100), gpus=1))
    assert 300 / 420 <= parts[0] <= 0.75 + 0.02
    assert 100 / 420 <= parts[1] <= 0.25 + 0.05
    assert sum(parts.values()) <= 1


def test_the_most_steps_go_to_most_steps_for_a_gpu() -> None:
    """4 steps a second on one GPU are more for it than 6 on two; 1 is least, and gets next to nothing."""
    jobs = [job(0, left_s=9, steps_per_s=6, gpus=2), job(1, left_s=9, steps_per_s=4), job(2, left_s=9)]
    parts = MaxSumThroughput().divide(moment(*jobs, gpus=2))
    assert (parts[0], parts[1]) == (0.5, 1.0)
    assert 0 < parts[2] < 1e-8


def test_allox_takes_the_shorter_of_the_oldest() -> None:
    """With one GPU it looks at a fifth of ten, two; that the last is shortest of all it does not see."""
    jobs = [job(at, left_s=1_000 - 90 * at, arrival_s=at) for at in range(10)]
    parts = AlloX().divide(moment(*jobs, gpus=1, now_s=10.0))
    assert [number for number, part in parts.items() if part] == [1]


def test_allox_leaves_what_runs_until_it_is_done() -> None:
    allox, long = AlloX(), job(0, left_s=1_000)
    allox.divide(moment(long, gpus=1))
    assert allox.divide(moment(long, job(1, left_s=1), gpus=1)) == {0: 1.0, 1: 0.0}


def test_fifo_lets_a_later_job_by_only_where_it_fits() -> None:
    jobs = [job(0, left_s=9, gpus=2), job(1, left_s=9, gpus=4), job(2, left_s=9, gpus=2)]
    assert Fifo().divide(moment(*jobs, gpus=4)) == {0: 1.0, 1: 0.0, 2: 1.0}


def test_shortest_first_fills_what_is_left_with_the_next_that_fits() -> None:
    jobs = [job(0, left_s=90), job(1, left_s=50, gpus=2), job(2, left_s=60, gpus=2)]
    assert list(ShortestFirst().choose(moment(*jobs, gpus=3))) == [1, 0]


def test_in_gavels_rounds_who_has_had_least_of_its_part_is_next() -> None:
    first, second = job(0, left_s=900), job(1, left_s=900)
    rounds = GavelRounds(GandivaFair())
    assert list(rounds.choose(moment(first, second, gpus=1))) == [0]
    first.train(100, 100.0)
    assert list(rounds.choose(moment(first, second, gpus=1, now_s=100.0))) == [1]


def test_in_gavels_rounds_a_newcomer_waits_for_the_next_reset_and_takes_up_room() -> None:
    """At 100 s the policy is asked for the second job; so for the third it is not before 1100 s."""
    jobs = [job(at, left_s=9_000, arrival_s=100.0 * at) for at in range(3)]
    rounds, prompt = GavelRounds(GandivaFair()), GavelRounds(GandivaFair(), reset_s=0.0)
    for scheduler in (rounds, prompt):
        scheduler.choose(moment(jobs[0], gpus=3))
        scheduler.choose(moment(*jobs[:2], gpus=3, now_s=100.0))
    assert sorted(rounds.choose(moment(*jobs, gpus=3, now_s=200.0))) == [0, 1]
    assert sorted(prompt.choose(moment(*jobs, gpus=3, now_s=200.0))) == [0, 1, 2]
    assert sorted(rounds.choose(moment(*jobs, gpus=3, now_s=1_000.0))) == [0, 1]
    assert sorted(rounds.choose(moment(*jobs, gpus=3, now_s=1_100.0))) == [0, 1, 2]


def test_the_centre_is_where_logarithms_of_slacks_are_largest() -> None:
    """2 log x + log(1 - x) is largest at 2/3; with log(1 - x) once more, for the capacity, at 1/2."""
    assert centre([0.0], [1.0], 1e9) == pytest.approx([2 / 3])
    assert centre([0.0], [1.0], 1.0) == pytest.approx([0.5])
    assert centre([0.4, 0.6], [1.0, 1.0], 1.0) == [0.4, 0.6]
    assert centre([1.0], [1.0], 2.0) == [1.0]


@given(
    st.lists(st.tuples(st.floats(0, 1), st.integers(1, 8)), min_size=1, max_size=9),
    st.floats(0, 9),
    st.booleans(),
)
def test_the_centre_keeps_to_its_bounds(jobs: list[tuple[float, int]], spare: float, conic: bool) -> None:
    least, sizes = [low for low, _ in jobs], [float(size) for _, size in jobs]
    capacity = sum(low * size for low, size in jobs) + spare
    found = centre(least, sizes, capacity, conic=conic)
    assert all(low <= x <= 1 for low, x in zip(least, found, strict=True))
    assert sum(size * x for size, x in zip(sizes, found, strict=True)) <= capacity * (1 + 1e-6) + 1e-9
