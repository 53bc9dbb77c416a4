"""Gavel's rounds (OSDI 2020, section 5): policies give each job a part of the time, priorities see to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from walras.sim.rounds.cluster import Moment
from walras.sim.rounds.training import Training

RESET_S: Final = 1_000.0
"""A policy is asked no more often than this, so jobs that have just come may wait for it."""


class Allocation(Protocol):
    """A policy that divides time."""

    def divide(self, moment: Moment) -> Mapping[int, float]:
        """By job number, from 0 to 1: the part of the time in which the job runs, on all its GPUs."""


class GavelRounds:
    """A Scheduler: the job goes first that has had least of its part of the time.

    As Gavel has it, a job that the policy has not been asked about yet takes up room and does not run.
    """

    def __init__(self, policy: Allocation, *, reset_s: float = RESET_S) -> None:
        self._policy = policy
        self._reset_after_s = reset_s
        self._seen: dict[int, Training] = {}
        self._known: frozenset[int] = frozenset()
        self._parts: Mapping[int, float] = {}
        self._deficit_s: dict[int, float] = {}
        self._reset_s = 0.0
        self._ran_s: dict[int, float] = {}  # by the last reset
        self._credit_s = (
            0.0  # what all are taken to have had at the reset, so that nothing is divided by nothing
        )

    def choose(self, moment: Moment) -> Sequence[int]:
        self._seen.update((each.job.number, each) for each in moment.jobs)
        since_s = moment.now_s - self._reset_s
        present = frozenset(each.job.number for each in moment.jobs)
        if present != self._known and (since_s >= self._reset_after_s or self._reset_s == 0):
            self._reset(moment, since_s)
            self._known, self._parts = present, self._policy.divide(moment)
        had_s = {number: self._since_reset_s(number) for number in self._seen}
        all_s = sum(had_s.values()) + self._credit_s

        def rank(training: Training) -> tuple[float, float, float]:
            number = training.job.number
            part = self._parts.get(number, 0.0)
            had = (had_s[number] + moment.round_s / 2) / all_s
            return (part / had, self._deficit_s.get(number, 0.0), part)

        room, chosen = moment.gpus, []
        for training in sorted(moment.jobs, key=rank, reverse=True):
            if training.job.gpus <= room:
                room -= training.job.gpus
                if training.job.number in self._parts:
                    chosen.append(training.job.number)
        return chosen

    def _since_reset_s(self, number: int) -> float:
        return self._seen[number].ran_s - self._ran_s.get(number, 0.0)

    def _reset(self, moment: Moment, since_s: float) -> None:
        """Settle what each job should have had and what it had, and begin to count anew."""
        for training in moment.jobs:
            number = training.job.number
            owed_s = self._parts.get(number, 0.0) * since_s - self._since_reset_s(number)
            self._deficit_s[number] = self._deficit_s.get(number, 0.0) + owed_s
        self._ran_s = {number: training.ran_s for number, training in self._seen.items()}
        self._credit_s = len(moment.jobs) * moment.round_s / 2
        self._reset_s = moment.now_s
