"""The compiled engine is made ready beside a market that has become large, and not before."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from walras.exchange.warming import Warming
from walras.market.large import loading


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    deferred, wanted = loading.deferred, loading.wanted
    loading.wanted = False
    yield
    loading.deferred, loading.wanted = deferred, wanted


def test_nothing_is_loaded_until_a_clearing_would_have_used_it() -> None:
    async def story() -> None:
        warming = Warming()
        warming.look()
        await warming.cancel()

    asyncio.run(story())
    assert loading.deferred


def test_once_wanted_it_is_compiled_elsewhere_and_then_used() -> None:
    async def story() -> None:
        warming = Warming()
        loading.wanted = True
        warming.look()
        warming.look()
        async with asyncio.timeout(300):
            while loading.deferred:  # noqa: ASYNC110 (it tells nobody)
                await asyncio.sleep(0.05)
        await warming.cancel()

    asyncio.run(story())
    assert not loading.deferred


def test_a_server_that_stops_does_not_wait_for_the_compiler() -> None:
    async def story() -> None:
        warming = Warming()
        loading.wanted = True
        warming.look()
        await asyncio.sleep(0)
        await warming.cancel()

    asyncio.run(story())
    assert loading.deferred
