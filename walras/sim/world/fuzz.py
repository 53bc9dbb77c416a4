"""Searches for a seed with which the simulation breaks a promise, and plays one again exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from random import Random
from typing import Final

import numpy as np

from walras.core.money import MICROS
from walras.market.mechanisms.registry import MECHANISMS
from walras.market.types import Device, JobClass, Payments, Rules
from walras.sim.world.auditor import Promise
from walras.sim.world.faults import ROGUE, Fault, Faults, provider_of
from walras.sim.world.fleet import ASKING
from walras.sim.world.workload import Agent, Job, Stream, Workload
from walras.sim.world.world import World, devices

PRICE_MAX: Final = 20 * MICROS
PATIENT: Final = "patient"
STRATEGIES: Final = ("fixed", "pacing", "deadline", "slo")
TERMS_MS: Final = (5_000, 20_000, 60_000)
MODELS: Final = (("H100", 1000), ("T4", 80))
CLASSES: Final[tuple[JobClass, ...]] = ("latency", "standard", "batch")


@dataclass(frozen=True, slots=True)
class Options:
    """Everything that is drawn before a run; `drawn` gives them for a seed."""

    seed: int
    mechanism: str
    payments: Payments
    gpus: int
    node_gpus: int
    tick_ms: int
    quantum_ms: int
    notice_ms: int
    epsilon_percent: int
    span_s: int
    agents: int
    jobs: int
    requests: int
    node_failures: int
    vanishing: bool
    clock_jumps: int
    rogue_acts: int
    patient: int  # the devices of an agent that must not starve; 0 without one
    models: int  # of the devices, as fast as MODELS says

    def __str__(self) -> str:
        return " ".join(f"{field.name}={getattr(self, field.name)}" for field in fields(self))


def drawn(seed: int) -> Options:
    """Half of all runs are of the auction, a third of those with an agent that must not starve."""
    chance = Random(f"{seed}:options")  # noqa: S311 - to be the same again is what it is for
    unlike = Random(f"{seed}:models")  # noqa: S311
    mechanism = chance.choice((*MECHANISMS, *["auction"] * (len(MECHANISMS) - 2)))
    gpus = chance.choice((1, 2, 4, 8))
    patient = chance.choice((0, 0, 1, max(1, gpus // 2))) if mechanism == "auction" else 0
    return Options(
        seed=seed,
        mechanism=mechanism,
        payments=chance.choice(("uniform", "uniform", "critical")),
        gpus=gpus,
        node_gpus=chance.choice((1, 2, 4)),
        tick_ms=chance.choice((500, 1_000, 1_000, 3_000)),
        quantum_ms=chance.choice((0, 5_000, 20_000)),
        notice_ms=chance.choice((0, 2_000, 10_000)),
        epsilon_percent=chance.choice((1, 10, 50)),
        span_s=chance.choice((60, 120, 240)),
        agents=chance.randint(1, 5),
        jobs=chance.randint(0, 30),
        requests=chance.choice((0, 100, 1_000)),
        node_failures=chance.choice((0, 0, 1, 4)),
        vanishing=chance.random() < 0.2,
        clock_jumps=chance.choice((0, 0, 0, 2)),
        rogue_acts=0 if patient else chance.choice((0, 0, 10, 40)),
        patient=patient,
        models=1 if patient or gpus == 1 else unlike.choice((1, 1, 2)),
    )


def world_of(options: Options) -> tuple[World, Faults]:
    """The world of those options, with all that will go wrong in it."""
    chance = Random(f"{options.seed}:world")  # noqa: S311
    pool = devices(options.gpus, options.node_gpus)
    unlike = Random(f"{options.seed}:unlike")  # noqa: S311
    if options.models > 1:
        pool = tuple(_of_model(device, number % options.models) for number, device in enumerate(pool))
    rules = Rules(
        quantum_ms=options.quantum_ms,
        notice_ms=options.notice_ms,
        tick_ms=options.tick_ms,
        epsilon_percent=options.epsilon_percent,
        payments=options.payments,
    )
    load = _workload(options, chance)
    if options.models > 1:
        load = replace(load, jobs=tuple(_on_models(job, unlike) for job in load.jobs), streams=())
    world = World(load, options.mechanism, pool, rules=rules, asking=unlike.choice(ASKING))
    world.auditor.every = 0
    nodes = sorted({device.node for device in pool})
    span_ms = 1000 * options.span_s
    faults = [
        Fault(chance.randrange(span_ms), "node", chance.choice(nodes), chance.randint(1, 60_000))
        for _ in range(options.node_failures)
    ]
    if options.vanishing:
        faults.append(Fault(chance.randrange(span_ms), "provider", provider_of(chance.choice(pool))))
    faults += [
        Fault(chance.randrange(span_ms), "clock", for_ms=chance.choice((-30_000, -1_500, 700, 5_000, 90_000)))
        for _ in range(options.clock_jumps)
    ]
    faults += [Fault(chance.randrange(span_ms), "rogue") for _ in range(options.rogue_acts)]
    if options.patient:
        # As docs/concepts/promises.md has it, for one that need not save up first.
        wait_ms = max(TERMS_MS) + options.notice_ms + 4 * options.tick_ms
        world.auditor.promise = Promise(PATIENT, wait_ms)
    return world, Faults(world, tuple(faults), chance, price_max_micros=PRICE_MAX)


def play(seed: int, tell: Callable[[str], None] | None = None) -> str | None:
    """Run the world of a seed; what went wrong, or None. `tell` has each transition as a line."""
    world, faults = world_of(drawn(seed))
    if tell is not None:
        world.auditor.tell = faults.told = tell
    try:
        world.run()
        world.auditor.close()
    except Exception as error:  # whatever it is, it is what is searched for
        return f"{world.now_ms:>9} {type(error).__name__}: {error}"
    return None


def _workload(options: Options, chance: Random) -> Workload:
    span_ms = 1000 * options.span_s
    names = [f"t{number}" for number in range(options.agents)]
    agents = [_agent(name, chance) for name in names]
    jobs = [_job(f"j{n}", chance.choice(names), options, chance) for n in range(options.jobs)]
    streams = tuple(
        _stream(name, options.requests, span_ms, chance) for name in names[:2] if options.requests
    )
    if options.rogue_acts:
        agents.append(_agent(ROGUE, chance))
    if options.patient:
        rich = 10**6 * MICROS
        agents.append(Agent(PATIENT, value_micros=PRICE_MAX, balance_micros=rich, cap_micros=rich))
        every_ms = max(1, span_ms // 4)
        jobs += [
            Job(
                f"p{number}", PATIENT, number * every_ms, 10_000, gpus=options.patient, value_micros=PRICE_MAX
            )
            for number in range(4)
        ]
    jobs.sort(key=lambda job: (job.arrival_ms, job.name))
    return Workload(tuple(agents), tuple(jobs), streams, span_ms)


def _of_model(device: Device, number: int) -> Device:
    model, speed = MODELS[number]
    return replace(device, model=model, speed_milli=speed)


def _on_models(job: Job, chance: Random) -> Job:
    """The job with speeds of its own, or with those of the pool, or on one model alone."""
    own = tuple((model, chance.choice((1, 130, 999, 1000, 4_000))) for model, _ in MODELS)
    return replace(job, speeds=chance.choice(((), own, own[:1], own[1:])))


def _agent(name: str, chance: Random) -> Agent:
    return Agent(
        name=name,
        value_micros=chance.randint(0, PRICE_MAX // 2),
        weight=chance.choice((1, 1, 2, 5)),
        income_micros_per_hour=chance.choice((0, MICROS, 20 * MICROS)),
        balance_micros=chance.choice((0, 1_000, MICROS, 100 * MICROS)),
        cap_micros=chance.choice((0, MICROS, 100 * MICROS)),
        strategy=chance.choice(STRATEGIES),
    )


def _job(name: str, agent: str, options: Options, chance: Random) -> Job:
    gpus = chance.choice((1, 1, 1, 2, options.gpus))
    arrival_ms = chance.randrange(1000 * options.span_s)
    return Job(
        name=name,
        agent=agent,
        arrival_ms=arrival_ms,
        work_ms=chance.choice((1, 999, 10_000, 60_000, 300_000)),
        gpus=gpus,
        gpus_min=chance.choice((0, 0, 1)),
        checkpoint_ms=chance.choice((0, 1_000, 30_000)),
        restart_ms=chance.choice((0, 500, 10_000)),
        value_micros=chance.randint(0, PRICE_MAX // 2),
        deadline_ms=chance.choice((None, None, arrival_ms + chance.randint(1, 100_000))),
        job_class=chance.choice(CLASSES),
        priority=chance.choice((0, 0, 1, 5)),
        milli=chance.choice((1000, 1000, 500, 250, 333)),
        term_ms=chance.choice(TERMS_MS),
    )


def _stream(agent: str, requests: int, span_ms: int, chance: Random) -> Stream:
    arrivals = sorted(chance.randrange(span_ms) for _ in range(requests))
    works = [chance.randint(1, 1_500) for _ in arrivals]
    milli, term_ms = chance.choice((1000, 500)), chance.choice(TERMS_MS)
    return Stream(agent, np.array(arrivals, np.int64), np.array(works, np.int64), 1_000, milli, term_ms)
