"""How many replicas an agent holds: for what comes and waits, and a while longer."""

from __future__ import annotations

import pytest

from walras.sim.world.autoscaler import KEEP_MS, WITHDRAW_MS, Autoscaler


@pytest.mark.parametrize(
    ("load_milli", "waiting_ms", "need"),
    [(0, 0, 0), (1, 0, 1), (900, 0, 1), (910, 0, 2), (0, 10_000, 1), (1_800, 25_000, 5), (90_000, 0, 8)],
)
def test_replicas_are_nine_tenths_busy_and_work_off_what_waits_in_ten_seconds(
    load_milli: int, waiting_ms: int, need: int
) -> None:
    assert Autoscaler(1_000, most=8).look(0, load_milli, waiting_ms) == need


def test_replicas_on_a_part_of_a_device_are_more() -> None:
    assert Autoscaler(250, most=8).look(0, 900, 0) == 4


def test_what_a_burst_needed_is_kept_for_half_a_minute_and_bid_for_shorter() -> None:
    scaler = Autoscaler(1_000, most=8)
    assert [scaler.look(0, 4_500, 0), scaler.look(1_000, 900, 0)] == [5, 1]
    for now_ms in range(2_000, KEEP_MS, 1_000):
        scaler.look(now_ms, 900, 0)
        assert scaler.needed_within(KEEP_MS) == 5
        assert scaler.needed_within(WITHDRAW_MS) == (5 if now_ms < WITHDRAW_MS else 1)
    scaler.look(KEEP_MS, 900, 0)
    assert scaler.needed_within(KEEP_MS) == 1
