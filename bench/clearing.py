"""How fast and how well the compiled engine clears: `scripts/bench clearing` prints one line of JSON.

Milliseconds are medians of warm runs in this process, on one thread. Limits measured in the same run: sorting
the bids' densities alone, one pass over the devices, importing with and without numba.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import numpy as np

from bench.manipulation import SEEDS, misreport_gain_max
from bench.welfare import book_of, instance, optimum, worth_of
from walras.devices.placement import Shape
from walras.market.engine.book import Book
from walras.market.engine.clearing import Cleared, accept, clear
from walras.market.engine.express import Express
from walras.market.engine.jit import Ints
from walras.market.engine.leases import Leases
from walras.market.engine.sorting import sort_rows
from walras.market.engine.terms import Terms

NOW = 1_700_000_000_000
POSTED = 1_000_000
CAPACITIES = (Shape(1000, 81_559), Shape(1000, 81_920), Shape(1000, 40_960), Shape(1000, 23_034))
EVERY, FAST, H100 = 0b1111, 0b0011, 0b0001  # classes that bids take


@dataclass
class Market:
    """A pool of nodes of eight and a source of bids for it."""

    book: Book
    chance: np.random.Generator
    kinds: Ints
    weights: np.ndarray[tuple[int], np.dtype[np.float64]]
    agents: int

    @classmethod
    def of(cls, nodes: int, agents: int = 2_000, seed: int = 1) -> Market:
        chance = np.random.default_rng(seed)
        of_node = chance.choice(len(CAPACITIES), size=nodes, p=(0.4, 0.3, 0.2, 0.1))
        book = Book(CAPACITIES, np.repeat(of_node, 8), np.repeat(np.arange(nodes), 8), reserve_micros=100_000)
        book.set_funds(np.arange(agents), chance.integers(10**8, 10**10, agents))
        weights = {}
        for milli, weight in ((50, 4), (100, 8), (125, 4), (200, 6), (250, 10), (330, 4), (500, 8), (810, 2)):
            for memory in (0, 2_048, 10_240, 20_480):
                for classes in (EVERY, FAST, H100):
                    weights[book.catalogue.kind(1, milli, memory, classes)] = weight * (
                        1.0 if memory else 2.0
                    )
        for classes in (EVERY, FAST, H100):
            weights[book.catalogue.kind(1, 1000, 0, classes)] = 30.0
            for devices in (2, 4, 8):
                weights[book.catalogue.kind(devices, 250, 0, classes)] = 1.5
                weights[book.catalogue.kind(devices, 1000, 0, classes, together=True)] = 1.5
        shares = np.array(list(weights.values())) / sum(weights.values())
        return cls(book, chance, np.array(list(weights), np.int64), shares, agents)

    def columns(self, count: int) -> dict[str, Ints]:
        """Bids as columns: all kinds, prices log-normal, one of five of the latency class."""
        chance = self.chance
        return {
            "agent": chance.integers(0, self.agents, count),
            "kind": chance.choice(self.kinds, count, p=self.weights),
            "price": self.prices(count),
            "term_ms": chance.choice(np.array([60_000, 600_000, 3_600_000]), count),
            "submitted_ms": NOW - np.sort(chance.integers(0, 600_000, count))[::-1],
            "latency": (chance.random(count) < 0.2).astype(np.int64),
        }

    def prices(self, count: int) -> Ints:
        return self.chance.lognormal(14.2, 0.6, count).astype(np.int64)

    def add(self, count: int) -> Ints:
        """Pending bids, one of twenty with a second package; returns their rows."""
        several = count // 20
        rows = [self.book.add_bids(**self.columns(count - several))]
        first, second = self.columns(several), self.columns(several)
        for at in range(several):
            packages = [(int(each["kind"][at]), int(each["price"][at]), 60_000) for each in (first, second)]
            added = self.book.add_packages(int(first["agent"][at]), packages, submitted_ms=NOW, latency=False)
            rows.append(added[:1])
        return np.concatenate(rows)


def timed(work: Callable[[], object]) -> float:
    """Milliseconds that it took."""
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1000


def full(bids: int, nodes: int, runs: int) -> float:
    """A book that was just filled, cleared."""
    found = []
    for run in range(runs):
        market = Market.of(nodes, seed=run)
        market.add(bids)
        found.append(timed(lambda market=market: clear(market.book, POSTED)))  # type: ignore[misc]
    return median(found)


class Running:
    """A market after its first clearing: what was won is leased, the other bids go on waiting."""

    def __init__(self, bids: int, nodes: int) -> None:
        self.market = Market.of(nodes)
        self.pending = self.market.add(bids)
        self.leases = Leases(self.market.book)
        self.held = np.empty(0, np.int64)
        self.reserved = self.draining = np.empty(0, np.int64)
        self.price, self.now_ms = 0, NOW
        self.accept(clear(self.market.book, POSTED))
        # As many wait as in a full clearing.
        self.pending = np.concatenate((self.pending, self.market.add(bids - self.pending.size)))
        self.accept(clear(self.market.book, POSTED))
        # Leases are somewhere in their terms.
        terms, ends = self.leases.table["term"][self.held], self.leases.table["end"]
        left = self.market.chance.random(self.held.size) * terms
        ends[self.held] = NOW + left.astype(np.int64)
        self.leases.table["start"][self.held] = ends[self.held] - terms

    def accept(self, cleared: Cleared) -> float:
        """Turn what was won into leases; the milliseconds that it took."""
        won = self.market.book.options().head[cleared.won.options]
        self.pending, self.price = np.setdiff1d(self.pending, won), cleared.price_micros
        added = []
        took = timed(lambda: added.append(accept(self.market.book, self.leases, cleared, self.now_ms)))
        self.held = np.concatenate((self.held, *added))
        self.reserved = added[0][cleared.won.now == 0]
        return took

    def change(self, bids: Callable[[], None], decide: Callable[[], Cleared]) -> tuple[float, Cleared]:
        """Changes and a clearing: 250 bids go, 250 come, 500 change price; and what `bids` does."""
        market, chance = self.market, self.market.chance
        gone = chance.choice(self.pending.size, 250, replace=False)
        columns, prices = market.columns(250), market.prices(500)
        singles = self.pending[market.book.options().several[self.pending] == 0]
        changed = chance.choice(np.setdiff1d(singles, self.pending[gone]), 500, replace=False)
        found: list[Cleared] = []

        def work() -> None:
            market.book.remove_bids(self.pending[gone])
            added = market.book.add_bids(**columns)
            market.book.reprice(changed, prices)
            bids()
            found.append(decide())
            self.pending = np.concatenate((np.delete(self.pending, gone), added))

        return timed(work), found[0]

    def incremental(self) -> tuple[float, float]:
        """A tick in which 300 leases end and none is up for renewal; and accepting what it decided."""
        ended = np.unique(self.market.chance.choice(self.held.size, 300))
        took, cleared = self.change(
            lambda: self.leases.end(self.held[ended]), lambda: clear(self.market.book, POSTED)
        )
        self.held = np.delete(self.held, ended)
        return took, self.accept(cleared)

    def turn_over(self) -> tuple[float, int, int, int]:
        """A tick a second later, in which leases are renewed, given up and displaced; how many of each."""
        self.now_ms += 1000
        leases, terms = self.leases, Terms(5_000, 10, 2_000, 1_000)

        def lapse() -> None:
            leases.end(self.draining)
            leases.start(self.reserved)

        took, cleared = self.change(
            lapse, lambda: clear(self.market.book, self.price, leases, terms, self.now_ms)
        )
        gone = cleared.gone
        leases.renew(cleared.renewed, self.now_ms)
        self.held = np.setdiff1d(self.held, self.draining)
        self.draining = np.concatenate((gone.logged, gone.ended))
        leases.drain(self.draining)
        self.accept(cleared)
        return took, cleared.renewed.size, gone.given.size + gone.ended.size, gone.displaced.size

    def express(self, samples: int) -> tuple[list[float], float]:
        """Milliseconds from a latency bid's arrival to its answer, and how many of a hundred won."""
        book, express = self.market.book, Express(self.market.book, self.leases, Terms(5_000, 10))
        found, won = [], 0
        columns = self.market.columns(samples)
        for at in range(samples):
            agent, kind, price, term = (
                int(columns[name][at]) for name in ("agent", "kind", "price", "term_ms")
            )
            started = time.perf_counter()
            row = book.add_bid(agent, kind, 3 * price, term, submitted_ms=NOW, latency=True)
            won += express.decide(row, self.price, self.now_ms + 60_000).option >= 0
            found.append((time.perf_counter() - started) * 1000)
            book.remove_bids(np.array([row]))
        return found, 100 * won / samples


def reclear(bids: int, nodes: int) -> float:
    """Everything decided anew after 1,000 changes, in the order that was kept."""
    market = Market.of(nodes)
    rows = market.add(bids)
    rows = rows[market.book.options().several[rows] == 0]
    clear(market.book, POSTED)
    found = []
    for _ in range(9):
        changed = market.chance.choice(rows, 1000, replace=False)
        market.book.reprice(changed, market.prices(1000))
        found.append(timed(lambda: clear(market.book, POSTED)))
    return median(found)


def limits(bids: int, nodes: int) -> dict[str, float]:
    """What the hardware does at best with the parts of the work."""
    market = Market.of(nodes)
    market.add(bids)
    clear(market.book, POSTED)
    options, devices = market.book.options(), market.book.devices
    rows = np.flatnonzero(options.density)

    def over_devices() -> int:
        return int((devices.class_milli[devices.kind] - devices.later_milli).max())

    sorts = [timed(lambda: options.density.argsort(kind="stable")) for _ in range(9)]
    radix = [timed(lambda: sort_rows(rows, options.density, options.rank, options.told)) for _ in range(9)]
    passes = [timed(over_devices) for _ in range(9)]
    return {"sort_ms": median(sorts), "radix_sort_ms": median(radix), "device_pass_ms": median(passes)}


def started(statement: str) -> float:
    """Milliseconds of a Python of its own that runs it, beyond one that does nothing."""

    def run(code: str) -> float:
        command = [sys.executable, "-c", code]
        return median(timed(lambda: subprocess.run(command, check=True)) for _ in range(3))

    return run(statement) - run("pass")


def welfare(instances: int, steps: int, seconds: float) -> dict[str, float]:
    """What the winners are worth against the most that they could be, greedily and with the search."""
    greedy, improved, took, proven = [], [], [], 0
    for seed in range(instances):
        asked = instance(seed)
        book = book_of(asked)
        best = optimum(asked, seconds)
        proven += best.proven
        greedy.append(worth_of(book, clear(book, 0)) / best.worth)
        took.append(timed(lambda book=book: clear(book, 0, improve_steps=steps)))  # type: ignore[misc]
        improved.append(worth_of(book, clear(book, 0, improve_steps=steps)) / best.worth)
    return {
        "welfare_mean": float(np.mean(improved)),
        "welfare_min": min(improved),
        "welfare_greedy_mean": float(np.mean(greedy)),
        "welfare_greedy_min": min(greedy),
        "welfare_steps": steps,
        "welfare_ms": median(took),
        "welfare_proven": proven,
        "welfare_instances": instances,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bids", type=int, default=100_000)
    parser.add_argument("--nodes", type=int, default=1_250)
    parser.add_argument("--instances", type=int, default=50)
    parser.add_argument("--steps", type=int, default=30_000)
    parser.add_argument("--seconds", type=float, default=60.0, help="for HiGHS on one instance")
    parser.add_argument("--no-million", action="store_true")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="of economies in which somebody lies")
    asked = parser.parse_args()
    full(1_000, 20, 1)
    figures: dict[str, float] = {"full_ms": full(asked.bids, asked.nodes, 5)}
    running = Running(asked.bids, asked.nodes)
    running.incremental()
    running.express(200)
    ticks = [running.incremental() for _ in range(15)]
    express, won = running.express(2_000)
    running.turn_over()
    turned = [running.turn_over() for _ in range(15)]
    figures |= {
        "incremental_ms": median(tick for tick, _ in ticks),
        "accept_ms": median(taken for _, taken in ticks),
        "turn_over_ms": median(took for took, *_ in turned),
        "turn_over_renewed": median(renewed for _, renewed, _, _ in turned),
        "turn_over_ended": median(ended for _, _, ended, _ in turned),
        "turn_over_displaced": median(displaced for *_, displaced in turned),
        "reclear_ms": reclear(asked.bids, asked.nodes),
        "express_p50_ms": float(np.percentile(express, 50)),
        "express_p99_ms": float(np.percentile(express, 99)),
        "express_won_percent": won,
    }
    figures |= limits(asked.bids, asked.nodes)
    if not asked.no_million:
        figures["million_ms"] = full(1_000_000, 12_500, 3)
        figures["million_rss_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figures["import_ms"] = started("import walras.market.auction")
    figures["import_engine_ms"] = started("import walras.market.engine.clearing")
    if asked.instances:
        figures |= welfare(asked.instances, asked.steps, asked.seconds)
    if asked.seeds > 1:
        lies = misreport_gain_max(range(asked.seeds))
        figures |= {name: lies[name] for name in ("misreport_gain_max", "misreport_gain_sure")}
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
