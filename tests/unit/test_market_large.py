"""Large snapshots: when the compiled engine decides them, and that it decides as the auction does."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from walras.devices.topology import Affinity
from walras.market.auction import Auction, _clear, _express
from walras.market.engine.supports import knows
from walras.market.large import decided, is_large, load, loading
from walras.market.types import Bid, Device, Lease, Package, Rules, Share, Snapshot

NOW = 10**12
ROOT = Path(__file__).parents[2]


def crowd(bids: int = 210, devices: int = 100, seed: int = 1) -> Snapshot:
    """Bids for three times what there is, a tenth of the devices under leases that are up for renewal."""
    chance = random.Random(seed)
    every = tuple(Device(f"d{i:03}", f"n{i // 8}", "m", i % 8, 80_000) for i in range(devices))

    def package() -> Package:
        shape = chance.choice((250, 500, 1000))
        return Package(chance.choice((1, 1, 4)), shape, 0, 60_000, chance.randint(0, 4_000_000))

    asked = tuple(
        Bid(f"b{i}", f"a{i % 9}", chance.choice(("latency", "batch")), (package(),), 0, NOW - i, 10**9)
        for i in range(bids)
    )
    leases = tuple(
        Lease(
            *(f"l{i}", "b", f"a{i % 9}", "batch", (Share(f"d{i:03}", 500, 40_000),), 900_000, 900_000),
            *(100, 60_000, NOW - 60_000, NOW + 10, 10**9),
        )
        for i in range(devices // 10)
    )
    return Snapshot(NOW, Rules(), every, leases, asked, 500_000, frozenset())


def test_a_small_snapshot_is_left_to_the_auction() -> None:
    assert decided(crowd(20)) is None


def test_a_large_snapshot_is_decided_as_the_auction_decides_it() -> None:
    asked = crowd()
    assert is_large(asked)
    found, plain = decided(asked), _clear(asked)
    assert found is not None
    assert (found.awards, found.renewals) == (plain.awards, plain.renewals)
    assert (found.displacements, found.price_micros) == (plain.displacements, plain.price_micros)
    assert [each.bid for each in found.refusals] == [each.bid for each in plain.refusals]
    assert Auction().clear(asked).awards == plain.awards


def test_an_arrival_in_a_large_snapshot_is_decided_as_the_auction_decides_it() -> None:
    asked = crowd()
    for bid in asked.bids[:10]:
        found, plain = decided(asked, bid.id), _express(asked, bid.id)
        assert found is not None
        assert (found.awards, found.displacements) == (plain.awards, plain.displacements)
        assert Auction().express(asked, bid.id).awards == plain.awards


def first_bid(asked: Snapshot, **changes: object) -> Snapshot:
    bid = asked.bids[0]
    package = replace(bid.packages[0], **changes)  # type: ignore[arg-type]
    return replace(asked, bids=(replace(bid, packages=(package,)), *asked.bids[1:]))


def first_lease(asked: Snapshot, **changes: object) -> Snapshot:
    return replace(asked, leases=(replace(asked.leases[0], **changes), *asked.leases[1:]))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changed",
    [
        lambda asked: replace(asked, rules=Rules(payments="critical")),
        lambda asked: replace(
            asked, devices=(replace(asked.devices[0], speed_milli=2000), *asked.devices[1:])
        ),
        lambda asked: first_bid(asked, devices=4, devices_min=2),
        lambda asked: first_bid(asked, affinity=Affinity.NODE),
        lambda asked: first_bid(asked, mig_profile="1g.10gb"),
        lambda asked: first_lease(asked, resale_micros=5),
        lambda asked: first_lease(asked, shares=(Share("d000", 2000, 0),)),
        lambda asked: first_lease(asked, shares=()),
    ],
)
def test_what_the_engine_does_not_know_is_left_to_the_auction(changed) -> None:  # type: ignore[no-untyped-def]
    assert knows(crowd())
    assert not knows(changed(crowd()))
    assert decided(changed(crowd())) is None


def test_what_is_out_of_the_engines_bounds_is_left_to_the_auction() -> None:
    assert decided(first_bid(crowd(), price_micros=1 << 40)) is None


def test_a_deferred_engine_decides_nothing_until_it_is_loaded() -> None:
    try:
        loading.deferred, loading.wanted = True, False
        wanted = [decided(asked) is None and loading.wanted for asked in (crowd(20), crowd())]
        assert wanted == [False, True]
        load()
        assert decided(crowd()) is not None
    finally:
        loading.deferred = loading.wanted = False


COMPILED_MEANWHILE = """
import importlib, pkgutil
from numba.core.dispatcher import Dispatcher
from tests.unit.test_market_large import crowd
import walras.market.engine
from walras.market.auction import Auction
from walras.market.large import decided, load, loading

def signatures():
    found = {}
    for module in pkgutil.iter_modules(walras.market.engine.__path__, "walras.market.engine."):
        for name, kernel in vars(importlib.import_module(module.name)).items():
            if isinstance(kernel, Dispatcher):
                found[module.name, name] = len(kernel.signatures)
    return found

loading.deferred = True
assert decided(crowd()) is None and loading.wanted
load()
before = signatures()
for seed in range(3):
    asked = crowd(seed=seed)
    Auction().clear(asked)
    for bid in asked.bids[:5]:
        Auction().express(asked, bid.id)
after = signatures()
print({name: count for name, count in after.items() if count != before.get(name)})
"""


@pytest.mark.skipif(os.environ.get("NUMBA_DISABLE_JIT") == "1", reason="nothing is compiled")
def test_once_loaded_nothing_is_compiled_while_a_market_waits() -> None:
    command = [sys.executable, "-c", COMPILED_MEANWHILE]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "{}"), done.stderr
