"""The policies that Shockwave (NSDI 2023) is compared with, as divisions of time, without a solver."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from walras.sim.rounds.centre import centre
from walras.sim.rounds.cluster import Moment
from walras.sim.rounds.training import Training

_OSSP_FROM_S: Final = 100.0
_OSSP_TO_S: Final = 1_000_000.0
_OSSP_WITHIN: Final = 1.05
_ALLOX_ALPHA: Final = 0.2
_HALVINGS: Final = 60
# Of the order of ECOS' tolerance, with which the published numbers were made.
_RESIDUE: Final = 1e-9


class GandivaFair:
    """The same part for every job, whatever its size (Chaudhary et al., EuroSys 2020)."""

    def divide(self, moment: Moment) -> Mapping[int, float]:
        part = min(1.0, moment.gpus / len(moment.jobs))
        return {each.job.number: part for each in moment.jobs}


class MaxMinFairness:
    """Gavel's default: the least GPU time of any job as much as can be (Narayanan et al., OSDI 2020)."""

    def divide(self, moment: Moment) -> Mapping[int, float]:
        sizes = [each.job.gpus for each in moment.jobs]
        least = min(*sizes, moment.gpus / len(sizes))
        return _parts(moment.jobs, centre([least / size for size in sizes], sizes, moment.gpus))


class Themis:
    """Finish-time fairness as Gavel states it (Mahajan et al., NSDI 2020): the worst rho as little as can be.

    rho is the estimated end as shared over that on a part of the cluster of its own. It knows the present
    speed of a job, not that it will change.
    """

    def __init__(self) -> None:
        # By job: how long what is done would have taken on a part of its own, and how fast it is on that.
        self._alone_s: dict[int, float] = {}
        self._steps_per_s: dict[int, float] = {}
        self._left_steps: dict[int, int] = {}

    def divide(self, moment: Moment) -> Mapping[int, float]:
        jobs, sizes = moment.jobs, [each.job.gpus for each in moment.jobs]
        waited, own = [], []
        for each in jobs:
            number = each.job.number
            if number in self._left_steps:
                made = self._left_steps[number] - each.left_steps
                self._alone_s[number] = self._alone_s.get(number, 0.0) + made / self._steps_per_s[number]
            rate = each.steps_per_s * min(1.0, moment.gpus / len(jobs) / each.job.gpus)
            waited.append(moment.now_s - each.job.arrival_s)
            # Steps of other batch sizes are no measure of what is done: less than what is left it cannot be.
            own.append(max(each.left_s, self._alone_s.get(number, 0.0) + each.left_steps / rate))
            self._left_steps[number], self._steps_per_s[number] = each.left_steps, rate

        def needs(rho: float) -> list[float] | None:
            """The parts with which nobody's rho is worse; None where somebody's is, whatever it gets."""
            left = [rho * own_s - waited_s for own_s, waited_s in zip(own, waited, strict=True)]
            if any(left_s < each.left_s for left_s, each in zip(left, jobs, strict=True)):
                return None
            return [each.left_s / left_s for left_s, each in zip(left, jobs, strict=True)]

        least = _least(needs, sizes, moment.gpus)
        return _parts(jobs, centre(least, sizes, moment.gpus, conic=True))


class Ossp:
    """The last job's end as early as can be, within 5% (Gavel's minimum makespan; "OSSP" in Shockwave)."""

    def divide(self, moment: Moment) -> Mapping[int, float]:
        sizes = [each.job.gpus for each in moment.jobs]

        def needs(end_s: float) -> list[float]:
            return [each.left_s / end_s for each in moment.jobs]

        low, high = _OSSP_FROM_S, _OSSP_TO_S
        while not _fits(needs(high), sizes, moment.gpus):
            low, high = high, 10 * high
        while _OSSP_WITHIN * low < high:
            middle = (low + high) / 2
            low, high = (low, middle) if _fits(needs(middle), sizes, moment.gpus) else (middle, high)
        return _parts(moment.jobs, centre(needs(high), sizes, moment.gpus))


class MaxSumThroughput:
    """Steps a second of all jobs as many as can be ("MST" in Shockwave): most steps for a GPU first.

    Jobs that the optimum gives nothing are left with what a solver's tolerance leaves them, in inverse
    proportion to what each of their parts would lose: that orders them for GPUs that are over.
    """

    def divide(self, moment: Moment) -> Mapping[int, float]:
        room, parts = float(moment.gpus), dict[int, float]()
        order = sorted(moment.jobs, key=_steps_per_gpu, reverse=True)
        for each in order:
            parts[each.job.number] = min(1.0, room / each.job.gpus)
            room -= parts[each.job.number] * each.job.gpus
        served = [each for each in order if parts[each.job.number] > 0]
        without = order[len(served) :]
        if without:
            last = _steps_per_gpu(served[-1])
            partly = parts[served[-1].job.number] < 1
            dual = last if partly else (last + _steps_per_gpu(without[0])) / 2
            for each in without:
                loss = dual * each.job.gpus - each.steps_per_s
                parts[each.job.number] = _RESIDUE / max(_RESIDUE, loss)
        return parts


class AlloX:
    """The least mean completion time (Le et al., EuroSys 2020): what is soonest done first, to its end.

    It knows only jobs of one GPU: a larger one is given one GPU's time, and may lose it. Of those that wait,
    it looks at as many as GPUs are free, or a fifth if that is more, the oldest ones.
    """

    def __init__(self) -> None:
        self._parts: dict[int, float] = {}

    def divide(self, moment: Moment) -> Mapping[int, float]:
        waiting = [each for each in moment.jobs if self._parts.get(each.job.number) != 1.0]
        free = moment.gpus - (len(moment.jobs) - len(waiting))
        waiting.sort(key=lambda each: each.job.arrival_s)
        eligible = waiting[: max(int(_ALLOX_ALPHA * len(waiting)), free)]
        self._parts = {each.job.number: self._parts.get(each.job.number, 0.0) for each in moment.jobs}
        for each in sorted(eligible, key=lambda each: each.left_s)[:free]:
            self._parts[each.job.number] = 1.0 / each.job.gpus
        return dict(self._parts)


class Fifo:
    """All the time to whoever came first, as far as there is room."""

    def divide(self, moment: Moment) -> Mapping[int, float]:
        room, parts = moment.gpus, dict[int, float]()
        for each in moment.jobs:
            parts[each.job.number] = float(each.job.gpus <= room)
            room -= each.job.gpus if each.job.gpus <= room else 0
        return parts


class ShortestFirst:
    """A Scheduler without Gavel's rounds: at each, what is soonest done, at its present speed."""

    def choose(self, moment: Moment) -> Sequence[int]:
        room, chosen = moment.gpus, []
        for each in sorted(moment.jobs, key=lambda each: each.left_s):
            if each.job.gpus <= room:
                room -= each.job.gpus
                chosen.append(each.job.number)
        return chosen


def _parts(jobs: Sequence[Training], parts: Sequence[float]) -> dict[int, float]:
    return {each.job.number: part for each, part in zip(jobs, parts, strict=True)}


def _fits(parts: Sequence[float], sizes: Sequence[int], gpus: int) -> bool:
    return max(parts) <= 1 and sum(part * size for part, size in zip(parts, sizes, strict=True)) <= gpus


def _least(needs: Callable[[float], list[float] | None], sizes: Sequence[int], gpus: int) -> list[float]:
    """What is needed at the least level at which all of it fits."""

    def fitting(level: float) -> list[float] | None:
        parts = needs(level)
        return parts if parts is not None and _fits(parts, sizes, gpus) else None

    low, high = 0.0, 1.0
    while (found := fitting(high)) is None:
        low, high = high, 2 * high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if (parts := fitting(middle)) is not None:
            high, found = middle, parts
        else:
            low = middle
    return found


def _steps_per_gpu(training: Training) -> float:
    return training.steps_per_s / training.job.gpus
