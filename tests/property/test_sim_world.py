"""The promises of the market in whole simulations, with faults; `walras sim fuzz` searches further."""

from __future__ import annotations

import pytest

from walras.sim.world.fuzz import play


@pytest.mark.parametrize("first", range(0, 48, 8))
def test_no_seed_breaks_a_promise(first: int) -> None:
    assert [play(seed) for seed in range(first, first + 8)] == [None] * 8
