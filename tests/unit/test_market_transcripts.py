"""The market's rules as transcripts: tests/unit/transcripts/*.txt, each a market, a command and its outcome.

    device ID [milli=1000] [memory=80000] [node=node] [nvlink=] [speed=1000] [mig=MODEL]
    rules [reserve=0.10] [epsilon=10] [quantum=5s] [notice=2s] [tick=1s] [payments=uniform]
    agent NAME funds=50
    lease ID AGENT CLASS DEVICE:MILLI[:MIB],... max=1.00 [price=0.10] [restart=0] [age=60s] [left=30s]
          [term=60s] [state=active] [resale=3.00] [mig=PROFILE@START]
    bid ID AGENT CLASS [LEAST-]DEVICESxMILLI[:MIB]|... max=2.00[|...] [term=60s] [restart=0] [age=0s]
        [deadline=60s] [decaying=30s] [topology=any] [mig=PROFILE]
    posted PRICE
    later TIME                          what is kept for gangs stays kept, leases are so much nearer their end
    clear | fifo | express BID          what happens is between ---- and an empty line

A line of a later section replaces that of the same id; `drop ID` removes one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from walras.core.money import format_credits, parse_credits
from walras.core.quantity import format_duration, parse_duration_ms
from walras.devices.mig import MigInstance
from walras.devices.mig_profiles import geometry_of
from walras.devices.topology import Affinity
from walras.market.auction import Auction
from walras.market.mechanisms.fifo import Fifo
from walras.market.types import (
    Bid,
    Device,
    Escrow,
    Lease,
    Outcome,
    Package,
    Payments,
    Rules,
    Share,
    Snapshot,
)

NOW = 1_000_000
FILES = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))


class World:
    def __init__(self) -> None:
        self.devices: dict[str, Device] = {}
        self.funds: dict[str, int] = {}
        self.leases: dict[str, dict[str, Any]] = {}
        self.bids: dict[str, dict[str, Any]] = {}
        self.rules = Rules()
        self.posted = 0
        self.escrows: tuple[Escrow, ...] = ()

    def line(self, words: list[str]) -> None:
        kind, *plain = [word for word in words if "=" not in word]
        options = dict(word.split("=", 1) for word in words if "=" in word)
        getattr(self, f"_{kind}")(plain, options)

    def _device(self, plain: list[str], options: dict[str, str]) -> None:
        memory, milli = int(options.get("memory", 80000)), int(options.get("milli", 1000))
        self.devices[plain[0]] = Device(
            plain[0],
            options.get("node", "node"),
            "H100",
            len(self.devices),
            memory,
            milli,
            attributes={"nvlinkDomain": options.get("nvlink", "")},
            speed_milli=int(options.get("speed", 1000)),
            mig=geometry_of(options.get("mig", "")),
        )

    def _rules(self, _plain: list[str], options: dict[str, str]) -> None:
        self.rules = Rules(
            reserve_micros=parse_credits(options.get("reserve", "0.10")),
            epsilon_percent=int(options.get("epsilon", 10)),
            quantum_ms=parse_duration_ms(options.get("quantum", "5s")),
            notice_ms=parse_duration_ms(options.get("notice", "2s")),
            tick_ms=parse_duration_ms(options.get("tick", "1s")),
            payments=cast(Payments, options.get("payments", "uniform")),
        )

    def _agent(self, plain: list[str], options: dict[str, str]) -> None:
        self.funds[plain[0]] = parse_credits(options["funds"])

    def _posted(self, plain: list[str], _options: dict[str, str]) -> None:
        self.posted = parse_credits(plain[0])

    def _drop(self, plain: list[str], _options: dict[str, str]) -> None:
        for name in plain:
            self.leases.pop(name, None)
            self.bids.pop(name, None)

    def _lease(self, plain: list[str], options: dict[str, str]) -> None:
        shares = []
        for share in plain[3].split(","):
            device, milli, *memory = share.split(":")
            profile, _, start = options.get("mig", "").partition("@")
            cut = MigInstance(profile, int(start)) if profile else None
            shares.append(Share(device, int(milli), int(memory[0]) if memory else int(milli) * 80, cut))
        self.leases[plain[0]] = {
            "id": plain[0],
            "bid": f"bid-{plain[0]}",
            "agent": plain[1],
            "job_class": plain[2],
            "shares": tuple(shares),
            "price_micros": parse_credits(options.get("price", "0.10")),
            "max_price_micros": parse_credits(options["max"]),
            "restart_cost_micros": parse_credits(options.get("restart", "0")),
            "term_ms": parse_duration_ms(options.get("term", "60s")),
            "start_ms": NOW - parse_duration_ms(options.get("age", "60s")),
            "end_ms": NOW + parse_duration_ms(options.get("left", "30s")),
            "state": options.get("state", "active"),
            "drains_at_ms": NOW + 2000 if options.get("state") == "draining" else None,
            "resale_micros": parse_credits(options["resale"]) if "resale" in options else None,
        }

    def _later(self, plain: list[str], _options: dict[str, str]) -> None:
        passed = parse_duration_ms(plain[0])
        for lease in self.leases.values():
            lease["start_ms"] -= passed
            lease["end_ms"] -= passed
            lease["drains_at_ms"] = lease["drains_at_ms"] and lease["drains_at_ms"] - passed
        self.escrows = tuple(replace(each, starts_ms=each.starts_ms - passed) for each in self.escrows)

    def _bid(self, plain: list[str], options: dict[str, str]) -> None:
        packages = []
        shapes, prices = plain[3].split("|"), options["max"].split("|")
        for shape, price in zip(shapes, prices * (len(shapes) // len(prices)), strict=True):
            devices, _, share = shape.partition("x")
            least, _, most = devices.rpartition("-")
            milli, *memory = share.split(":")
            packages.append(
                Package(
                    devices=int(most),
                    devices_min=int(least or 0),
                    milli_gpu=int(milli),
                    memory_mib=int(memory[0]) if memory else 0,
                    term_ms=parse_duration_ms(options.get("term", "60s")),
                    price_micros=parse_credits(price),
                    affinity=Affinity(options.get("topology", "any")),
                    mig_profile=options.get("mig", ""),
                )
            )
        deadline = options.get("deadline")
        self.bids[plain[0]] = {
            "id": plain[0],
            "agent": plain[1],
            "job_class": plain[2],
            "packages": tuple(packages),
            "restart_cost_micros": parse_credits(options.get("restart", "0")),
            "submitted_ms": NOW - parse_duration_ms(options.get("age", "0s")),
            "deadline_ms": NOW + parse_duration_ms(deadline) if deadline else None,
            "decays_ms": NOW - parse_duration_ms(options["decaying"]) if "decaying" in options else None,
        }

    def snapshot(self) -> Snapshot:
        return Snapshot(
            now_ms=NOW,
            rules=self.rules,
            devices=tuple(self.devices.values()),
            leases=tuple(
                Lease(**each, funds_micros=self.funds[each["agent"]]) for each in self.leases.values()
            ),
            bids=tuple(Bid(**each, funds_micros=self.funds[each["agent"]]) for each in self.bids.values()),
            price_micros=self.posted,
            escrows=self.escrows,
        )


def _share(share: Share) -> str:
    cut = f":{share.mig.profile}@{share.mig.start}" if share.mig else ""
    return f"{share.device}:{share.milli}{cut}"


def render(outcome: Outcome) -> Iterator[str]:
    for award in outcome.awards:
        shares = ",".join(_share(share) for share in award.shares)
        yield (
            f"award {award.bid} {shares} at {format_credits(award.price_micros)} "
            f"{'now' if award.starts_now else 'after the drain'}"
            + (f" displaces {','.join(award.displaces)}" if award.displaces else "")
            + (f" pays {format_credits(award.compensations_micros)}" if award.compensations_micros else "")
        )
    for renewal in outcome.renewals:
        left = format_duration(renewal.end_ms - NOW)
        yield f"renew {renewal.lease} at {format_credits(renewal.price_micros)} until {left}"
    for gone in outcome.displacements:
        wait = format_duration(gone.drains_at_ms - NOW)
        yield (
            f"drain {gone.lease} in {wait} {gone.reason}"
            + (f" by {gone.by}" if gone.by else "")
            + (f" for {format_credits(gone.compensation_micros)}" if gone.compensation_micros else "")
        )
    for refusal in outcome.refusals:
        why = refusal.explanation
        winning = "none" if why.winning_price_micros is None else format_credits(why.winning_price_micros)
        yield f"refuse {refusal.bid} {why.reason} {why.constraint} winning {winning} place {why.position}"
        yield f"  {why.message}"
    for escrow in outcome.escrows:
        shares, wait = ",".join(map(_share, escrow.shares)), format_duration(escrow.starts_ms - NOW)
        yield f"keep {shares} for {escrow.bid} within {wait}"
    yield f"price {format_credits(outcome.price_micros)}"


def run(command: list[str], world: World) -> Outcome:
    if command[0] == "express":
        return Auction().express(world.snapshot(), command[1])
    outcome = (Auction() if command[0] == "clear" else Fifo()).clear(world.snapshot())
    world.escrows = outcome.escrows
    return outcome


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_market_decides_as_the_transcript_says(path: Path) -> None:
    world, expected, actual = World(), [], []
    lines = iter(path.read_text().splitlines())
    for line in lines:
        words = line.split()
        expected.append(line)
        actual.append(line)
        if not words or line.startswith("#"):
            continue
        if words[0] not in ("clear", "fifo", "express"):
            world.line(words)
            continue
        assert next(lines) == "----"
        for said in lines:
            if not said:
                break
            expected.append(said)
        actual.extend(render(run(words, world)))
    assert actual == expected


def test_there_are_transcripts() -> None:
    assert len(FILES) >= 8
