"""Jobs and requests over a pool, under any mechanism: the study of azure:, mooncake:, csv: and synthetic:"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import Final

from walras.core.errors import NotFound
from walras.core.money import MICROS
from walras.market.mechanisms.registry import MECHANISMS
from walras.market.types import Device, Rules
from walras.sim.study import Progress, Result
from walras.sim.traces.chances import log_uniform
from walras.sim.traces.source import Source
from walras.sim.traces.synthetic import strategy_of
from walras.sim.world.figures import Figures
from walras.sim.world.fleet import ASKING
from walras.sim.world.jobs import Jobs
from walras.sim.world.recorder import Recorder
from walras.sim.world.showing import series
from walras.sim.world.workload import Agent, Job, Workload
from walras.sim.world.world import World

MIXED: Final = ("auction", "auction:own", "fifo:any", "fifo:own", "priority:own")
DEFAULT: Final = ("auction", "fifo", "priority", "drf", "fairshare")
SAMPLES: Final = 200
# What agents earn together an hour for each GPU; they begin with an hour of it and keep four at most.
INCOME_MICROS: Final = 2 * MICROS
CAP_HOURS: Final = 4
# Between what a GPU-hour is worth to agents whose trace does not say.
SERVING_WORTH: Final = (2 * MICROS, 8 * MICROS)
TRAINING_WORTH: Final = (MICROS // 2, 4 * MICROS)

Drawn = Callable[[int, float, Random], Source]


class WorldStudy:
    """`drawn` gives the source for so many devices and that load, from a generator of chances.

    load: of what the trace holds if that says how large it is, else of what the pool can do while it arrives.
    """

    def __init__(
        self, drawn: Drawn, pool: tuple[Device, ...], *, tick_ms: int = 1_000, notes: Sequence[str] = ()
    ) -> None:
        self.notes: Sequence[str] = notes
        self._drawn, self._pool = drawn, pool
        self._rules = Rules(tick_ms=tick_ms)

    @property
    def policies(self) -> Sequence[str]:
        """Mechanisms; where devices are unlike, also with a colon and how jobs ask for them."""
        names = (*DEFAULT, *(name for name in MECHANISMS if name not in DEFAULT))
        return (*MIXED, *(name for name in names if name not in MIXED)) if self._unlike else names

    @property
    def _unlike(self) -> bool:
        return len({device.model for device in self._pool}) > 1

    def run(self, policy: str, *, seed: int, load: float, progress: Progress) -> Result:
        """Play the trace once. Raises NotFound for a policy that it does not have, Invalid for a load."""
        mechanism, colon, asking = policy.partition(":")
        if mechanism not in MECHANISMS or (colon and not (self._unlike and asking in ASKING)):
            raise NotFound(f'there is no policy "{policy}"; there are {", ".join(self.policies)}')
        gpus = len(self._pool)
        load_of = workload(self._drawn(gpus, load, Random(f"{seed}:load")), gpus, seed)  # noqa: S311
        world = World(load_of, mechanism, self._pool, rules=self._rules, asking=asking or ASKING[0])
        recorder = Recorder(world, max(1, load_of.span_ms // SAMPLES))
        world.noted = recorder.note
        world.run(progress)
        figures = Figures(world, recorder)
        return Result(figures.metrics(), series(figures))


def workload(source: Source, gpus: int, seed: int) -> Workload:
    """The source with agents that have money, and worth where it names none."""
    chance = Random(f"{seed}:worth")  # noqa: S311 - to be the same again is what it is for
    serving = {stream.agent for stream in source.streams}
    prices, agents = dict(source.prices), []
    income = gpus * INCOME_MICROS // max(1, len(source.agents))
    for name in source.agents:
        drawn = log_uniform(chance, *(SERVING_WORTH if name in serving else TRAINING_WORTH))
        agent = Agent(
            name=name,
            value_micros=prices.get(name, drawn),
            income_micros_per_hour=income,
            balance_micros=income,
            cap_micros=CAP_HOURS * income,
            strategy=strategy_of(name),
        )
        agents.append(agent)
    worth = {agent.name: agent.value_micros for agent in agents}
    jobs = Jobs(_worth(job, worth[job.agent], chance) for job in source.jobs)
    return Workload(tuple(agents), jobs, source.streams, source.span_ms)


def _worth(job: Job, agent_micros: int, chance: Random) -> Job:
    """A job whose trace names no price is worth between half and double of what its agent's others are."""
    drawn = log_uniform(chance, 500, 2_000)
    return job if job.value_micros else replace(job, value_micros=agent_micros * drawn // 1000)
