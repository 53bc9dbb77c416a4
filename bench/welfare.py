"""Random small pools, and the most that they can be worth, by HiGHS."""

from __future__ import annotations

import random
from dataclasses import dataclass

import highspy
import numpy as np

from walras.devices.placement import Shape
from walras.market.engine.book import Book
from walras.market.engine.clearing import Cleared

CAPACITIES = (Shape(1000, 81_920), Shape(1000, 40_960))


@dataclass(frozen=True, slots=True)
class Want:
    """A bid of one package: devices, milli and memory on each, classes that it takes, price."""

    devices: int
    milli: int
    memory: int
    classes: int
    price: int


@dataclass(frozen=True, slots=True)
class Instance:
    """A pool and its bids."""

    device_class: tuple[int, ...]
    wants: tuple[Want, ...]


def instance(seed: int, bids: int = 60, devices: int = 16) -> Instance:
    """Bids for some three times what there is: fractions, gangs of up to half the pool, memory, bids for one
    class only, prices that differ by a factor of some ten."""
    chance = random.Random(seed)
    classes = tuple(int(number >= devices // 2) for number in range(devices))
    wants = []
    for _ in range(bids):
        count = chance.choice((1, 1, 1, 1, 2, 4, 8))
        milli = chance.choice((100, 200, 250, 400, 500, 800, 1000))
        memory = chance.choice((0, 0, 5_000, 10_000))
        takes = chance.choice((3, 3, 3, 1, 2))
        wants.append(Want(count, milli, memory, takes, round(chance.lognormvariate(14.0, 0.6))))
    return Instance(classes, tuple(wants))


def book_of(asked: Instance) -> Book:
    """The instance as the engine has it, to one agent that can pay for all."""
    devices = np.array(asked.device_class, np.int64)
    book = Book(CAPACITIES, devices, np.arange(devices.size) // 8)
    book.set_funds(np.array([0]), np.array([10**15]))
    kinds = [book.catalogue.kind(want.devices, want.milli, want.memory, want.classes) for want in asked.wants]
    none = np.zeros(len(kinds), np.int64)
    prices = np.array([want.price for want in asked.wants], np.int64)
    book.add_bids(
        agent=none, kind=np.array(kinds), price=prices, term_ms=none + 60_000, submitted_ms=none, latency=none
    )
    return book


def memory_on(want: Want, number: int) -> int:
    """What a want takes of a class's memory."""
    size = CAPACITIES[number]
    return want.memory or size.memory_mib * want.milli // size.milli


@dataclass(frozen=True, slots=True)
class Best:
    """What an instance can be worth at most, in micros x milli an hour: an upper bound unless proven."""

    worth: float
    proven: bool


def optimum(asked: Instance, seconds: float) -> Best:
    """The best packing by HiGHS, to one part in ten thousand, or the bound that it got to in that time."""
    model = highspy.Highs()  # type: ignore[no-untyped-call]
    model.setOptionValue("output_flag", False)
    model.setOptionValue("threads", 1)
    model.setOptionValue("time_limit", seconds)
    model.setOptionValue("mip_rel_gap", 1e-4)
    devices = range(len(asked.device_class))
    wins = [model.addBinary() for _ in asked.wants]
    uses: list[list[highspy.highs_var | None]] = []
    for want, win in zip(asked.wants, wins, strict=True):
        row = [
            model.addBinary() if want.classes >> asked.device_class[device] & 1 else None
            for device in devices
        ]
        row = [
            use
            if use is not None
            and memory_on(want, asked.device_class[device])
            <= CAPACITIES[asked.device_class[device]].memory_mib
            else None
            for device, use in zip(devices, row, strict=True)
        ]
        uses.append(row)
        model.addConstr(sum(use for use in row if use is not None) == want.devices * win)
        for use in row:
            if use is not None:
                model.addConstr(use <= win)
    for device in devices:
        number = asked.device_class[device]
        held = [(want, row[device]) for want, row in zip(asked.wants, uses, strict=True)]
        here = [(want, use) for want, use in held if use is not None]
        model.addConstr(sum(want.milli * use for want, use in here) <= CAPACITIES[number].milli)
        model.addConstr(
            sum(memory_on(want, number) * use for want, use in here) <= CAPACITIES[number].memory_mib
        )
    worth = sum(
        want.price * want.milli * want.devices / 1e9 * win
        for want, win in zip(asked.wants, wins, strict=True)
    )
    model.maximize(worth)
    proven = model.getModelStatus() == highspy.HighsModelStatus.kOptimal
    return Best(float(model.getInfo().mip_dual_bound) * 1e9, proven)


def worth_of(book: Book, cleared: Cleared) -> int:
    """What the winners are worth an hour, in micros x milli."""
    options, kinds, rows = book.options(), book.catalogue.columns(), cleared.won.options
    kind = options.kind[rows]
    return int((options.price[rows] * kinds.devices[kind] * kinds.milli[kind]).sum())
