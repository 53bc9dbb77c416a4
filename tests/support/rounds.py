"""Small traces of jobs on a cluster where a step takes a second and an epoch is 100 steps."""

from __future__ import annotations

from walras.sim.rounds.cluster import Moment
from walras.sim.rounds.training import Training
from walras.sim.traces.gavel import Profile, Throughputs, TraceJob

MODEL, BATCH = "ResNet-50", 1_000  # 100,000 samples are 100 batches


def job(
    number: int, *, left_s: float, gpus: int = 1, arrival_s: float = 0.0, steps_per_s: float = 1.0
) -> Training:
    """A job that takes so long on GPUs of its own."""
    rate: dict[Profile, float] = {("v100", MODEL, BATCH, gpus): steps_per_s}
    trace = TraceJob(number, MODEL, BATCH, round(left_s * steps_per_s), gpus, arrival_s)
    return Training(trace, Throughputs(rate), "v100")


def moment(*jobs: Training, gpus: int, now_s: float = 0.0) -> Moment:
    """The begin of a round of 100 s."""
    return Moment(now_s, gpus, 100.0, jobs)
