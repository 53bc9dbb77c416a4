"""The arithmetic of the demo's figures, and when it asks for more pods."""

from __future__ import annotations

import pytest
from demo.measure import Audit, Meters, figures, percentile
from demo.searching import wanted


@pytest.mark.parametrize(
    ("percent", "expected"), [(50, 50), (99, 99), (100, 100), (1, 1), (0.5, 1), (98.5, 99)]
)
def test_a_percentile_is_the_nearest_rank(percent: float, expected: float) -> None:
    assert percentile([float(each) for each in range(100, 0, -1)], percent) == expected


def test_percentiles_of_few_values() -> None:
    assert percentile([], 99) == 0
    assert percentile([7.0], 50) == 7
    assert percentile([1.0, 2.0], 50) == 1
    assert percentile([1.0, 2.0], 51) == 2


def audit(*, ledger: int = 5, meters: int = 5, cost: int = 5, books: bool = True) -> Audit:
    return Audit(ledger, meters, {"agent": 5, "pod": cost}, books)


def test_an_audit_agrees_only_when_every_report_says_the_same() -> None:
    assert audit().agrees
    assert not audit(ledger=6).agrees
    assert not audit(meters=4).agrees
    assert not audit(cost=6).agrees
    assert not audit(books=False).agrees


def test_figures_are_what_happened_between_two_readings() -> None:
    before = Meters(10, 4, 100, 3.0, 8, 1, 100.0, 50.0, {"a": 1_000_000})
    after = Meters(50, 14, 700, 2.0, 24, 6, 117.0, 52.0, {"a": 1_500_000, "b": 250_000})
    found = figures(before, after, [10.0, 20.0, 30.0], 1, 10.0, 4, 0.5, None)
    assert found.gpu_leased == 1.0  # 40 of 4 devices x 10 s
    assert found.gpu_utilisation == 0.5  # 10 of 20 core-seconds
    assert (found.train_tokens, found.documents_embedded, found.displacements) == (600, 16, 5)
    assert found.other_cores == 0.5  # 17 s worked, 2 by server and driver, 10 by leases
    assert found.spend == {"a": 0.5, "b": 0.25}
    assert (found.queries, found.query_p50_ms, found.query_p99_ms) == (3, 20.0, 30.0)
    assert "audit" not in found.as_object()


def test_more_pods_are_asked_for_what_waits_and_kept_for_what_comes() -> None:
    def ask(load: float, waiting: float, ready: float = 0.25, now: int = 0) -> int:
        return wanted(load, waiting, ready, keep=0.25, piece=0.5, most=3, now=now)

    assert ask(0.1, 0.0) == 0
    assert ask(0.1, 0.1) == 0  # soon answered
    assert ask(1.0, 0.0) == 0  # a moment of many queries that nobody waits for
    assert ask(0.1, 0.5) == 1
    assert ask(1.0, 0.0, ready=1.25, now=2) == 2  # nothing waits because enough are there: they are kept
    assert ask(0.1, 0.0, ready=1.25, now=2) == 0
    assert ask(5.0, 9.0) == 3
