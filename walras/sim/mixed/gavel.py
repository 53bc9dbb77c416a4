"""Gavel on unlike devices (Narayanan et al., OSDI 2020): max-min fairness, carried out in rounds.

As in its section 5, at the begin of a round the pairs of a job and a model come first that have had least of
their part of the time. What no pair takes goes to jobs in order of arrival, each where it is fastest, so that
nothing idles that a job could use. Leases are free of charge; one whose job has no place in the next round
ends.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

import numpy as np

from walras.core.errors import NotFound
from walras.market.types import (
    Award,
    Bid,
    Device,
    Displacement,
    Lease,
    Memory,
    Outcome,
    Renewal,
    Share,
    Snapshot,
)
from walras.sim.mixed.maxmin import divide
from walras.sim.world.market import Market
from walras.sim.world.training import JobRun

NAME: Final = "gavel"
ROUND_MS: Final = 300_000
# The policy is asked anew no sooner, however many jobs come and go.
RESET_MS: Final = 1_000_000


class Gavel:
    """A mechanism for one run of jobs on whole devices, whose bids and leases the market says. It remembers.

    Between rounds it decides bids of jobs that move to another model, which come as their leases end.
    """

    def __init__(self, market: Market) -> None:
        self._market = market
        self._began_ms = self._asked_ms = -RESET_MS
        self._parts: dict[tuple[JobRun, str], float] = {}
        self._had_ms: Counter[tuple[JobRun, str]] = Counter()
        self._known: frozenset[JobRun] = frozenset()
        self._plan: dict[JobRun, str] = {}

    def express(self, snapshot: Snapshot, bid_id: str) -> Outcome:  # noqa: ARG002 (nothing depends on it)
        """Raises NotFound: it knows jobs alone, and none is served on its arrival."""
        raise NotFound(f'"{bid_id}" is of no job that waits for a round')

    def clear(self, snapshot: Snapshot) -> Outcome:
        """Who runs and where, if a round is over; then places for those that are to run and do not."""
        now_ms, models = snapshot.now_ms, {device.id: device.model for device in snapshot.devices}
        waiting = {self._run(self._market.pending[bid.id].claim): bid for bid in snapshot.bids}
        running = {
            self._run(self._market.leases[lease.id].claim): lease
            for lease in snapshot.leases
            if lease.state == "active"
        }
        renewals, ends = [], []
        if now_ms - self._began_ms >= ROUND_MS:
            places = {run: models[lease.shares[0].device] for run, lease in running.items()}
            self._begin(now_ms, [*running, *waiting], places, Counter(models.values()))
            for run, lease in running.items():
                if self._plan.get(run) == places[run]:
                    renewals.append(Renewal(lease.id, 0, max(lease.end_ms, now_ms) + lease.term_ms))
                else:
                    drains_ms = now_ms + snapshot.rules.notice_ms
                    ends.append(Displacement(lease.id, None, drains_ms, "share"))
        rooms = _Rooms(snapshot.devices, snapshot.leases, {each.lease for each in ends})
        awards = []
        for run, model in self._plan.items():
            if run in waiting and (found := rooms.take(model, run.job.gpus)) is not None:
                awards.append(_award(waiting[run], *found))
        memory = Memory(NAME, now_ms)
        return Outcome(tuple(awards), (), tuple(renewals), tuple(ends), 0, memory)

    @staticmethod
    def _run(claim: object) -> JobRun:
        assert isinstance(claim, JobRun), "only jobs are divided so"
        return claim

    def _begin(
        self, now_ms: int, runs: list[JobRun], places: dict[JobRun, str], devices: Counter[str]
    ) -> None:
        """Count the round that is over, ask the policy if it is time, and plan the next one."""
        for pair in places.items():
            self._had_ms[pair] += ROUND_MS
        self._began_ms, present = now_ms, frozenset(runs)
        if runs and present != self._known and now_ms - self._asked_ms >= RESET_MS:
            self._known, self._asked_ms, self._had_ms = present, now_ms, Counter()
            self._parts = parts(runs, devices)
        self._plan = self._planned(runs, devices.copy())

    def _planned(self, runs: list[JobRun], room: Counter[str]) -> dict[JobRun, str]:
        all_ms = self._had_ms.total() + len(runs) * ROUND_MS / 2

        def rank(pair: tuple[JobRun, str]) -> tuple[float, float, str]:
            part = self._parts[pair]
            return (-part * all_ms / (self._had_ms[pair] + ROUND_MS / 2), -part, pair[0].job.name)

        here = [run for run in runs if run in self._known]
        pairs = ((run, model) for run in here for model, _ in run.job.speeds)
        first = sorted((pair for pair in pairs if self._parts.get(pair, 0) > 0), key=rank)
        rest = [
            (run, model)
            for run in sorted(here, key=lambda run: (run.job.arrival_ms, run.job.name))
            for model, _ in sorted(run.job.speeds, key=lambda each: -each[1])
        ]
        plan: dict[JobRun, str] = {}
        for run, model in (*first, *rest):
            if run not in plan and room[model] >= run.job.gpus:
                room[model] -= run.job.gpus
                plan[run] = model
        return plan


def parts(runs: Iterable[JobRun], devices: Counter[str]) -> dict[tuple[JobRun, str], float]:
    """By job and model, the part of its time that max-min fairness gives it there."""
    kinds: dict[tuple[object, int], list[JobRun]] = {}
    for run in runs:
        kinds.setdefault((run.job.speeds, run.job.gpus), []).append(run)
    models, alike = list(devices), list(kinds.values())
    speeds = np.array([[dict(each[0].job.speeds).get(model, 0) for model in models] for each in alike], float)
    found = divide(
        speeds,
        np.array([each[0].job.gpus for each in alike], float),
        np.array([len(each) for each in alike], float),
        np.array([devices[model] for model in models], float),
    )
    return {
        (run, model): float(part)
        for each, row in zip(alike, found, strict=True)
        for model, part in zip(models, row, strict=True)
        for run in each
    }


def _award(bid: Bid, shares: tuple[Share, ...], starts_now: bool) -> Award:
    """Of its package for these devices."""
    at, package = next(
        (at, each)
        for at, each in enumerate(bid.packages)
        if each.eligible is None or shares[0].device in each.eligible
    )
    return Award(bid.id, at, shares, 0, package.price_micros, ROUND_MS, starts_now)


class _Rooms:
    """Devices by model that are free, and after those the ones that will be once what drains is gone."""

    def __init__(self, devices: Iterable[Device], leases: Iterable[Lease], ending: set[str]) -> None:
        self._drains: set[str] = set()
        taken: set[str] = set()
        for lease in leases:
            names = {share.device for share in lease.shares}
            (self._drains if lease.state == "draining" or lease.id in ending else taken).update(names)
        self._of: dict[str, list[Device]] = {}
        for device in sorted(devices, key=lambda each: each.id in self._drains):
            if device.id not in taken:
                self._of.setdefault(device.model, []).append(device)

    def take(self, model: str, gpus: int) -> tuple[tuple[Share, ...], bool] | None:
        """So many of a model, and whether all are free now; None where there are too few."""
        room = self._of.get(model, [])
        if len(room) < gpus:
            return None
        chosen, room[:gpus] = room[:gpus], []
        shares = tuple(Share(each.id, each.milli, each.memory_mib) for each in chosen)
        return shares, self._drains.isdisjoint(each.id for each in chosen)
