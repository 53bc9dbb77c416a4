"""Whatever befalls an exchange: devices hold what is sold, each bid wins once, and no credit is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from support.live_market import tell
from support.market_events import story


@pytest.mark.parametrize("first", range(0, 60, 10))
def test_whatever_befalls_a_live_exchange_its_promises_hold(first: int, tmp_path: Path) -> None:
    for seed in range(first, first + 10):
        asyncio.run(tell(tmp_path / f"{seed}.db", story(seed)))
