"""A training job as it runs: steps done, batch size, and how long it would take alone."""

from __future__ import annotations

import math
from typing import Final

from walras.core.errors import NotFound
from walras.sim.rounds.adaptation import (
    SAMPLES,
    next_batch_size,
    planned_batch_sizes,
    steps_per_epoch,
)
from walras.sim.traces.gavel import Throughputs, TraceJob

_OVERTIME: Final = 1.5


class Training:
    """One job of a trace and how far it is. `ran_s` is how long it had its GPUs, without restarts.

    alone_s: how long its planned epochs take on GPUs of its own, as Shockwave profiles it.
    """

    def __init__(self, job: TraceJob, throughputs: Throughputs, worker: str) -> None:
        """Raises NotFound when the table has not measured it."""
        self.job = job
        self.batch_size = job.batch_size
        self.steps = job.steps
        self.done_steps = 0
        self.ran_s = 0.0
        self._throughputs = throughputs
        self._worker = worker
        self._asks_for = job.batch_size
        self.steps_per_s = throughputs.steps_per_s(worker, job.model, job.batch_size, job.gpus)
        self.epoch_s = self._planned_epochs_s()
        self.alone_s = sum(self.epoch_s)

    @property
    def left_steps(self) -> int:
        """At the present batch size."""
        return self.steps - self.done_steps

    @property
    def left_s(self) -> float:
        """On its GPUs, if it goes on as fast as now."""
        return self.left_steps / self.steps_per_s

    @property
    def planned_left_s(self) -> float:
        """On its GPUs, if its epochs take as long as planned."""
        epochs, first = len(self.epoch_s), self._steps_per_epoch()
        done = min(self.done_steps / first, float(epochs))
        whole = int(done)
        rest = self.epoch_s[whole] * (1 - done + whole) if whole < epochs else 0.0
        return rest + sum(self.epoch_s[whole + 1 :])

    def train(self, steps: int, seconds: float) -> bool:
        """Note steps made in so many seconds, and say whether all are made now.

        Then the batch size asked for before is taken. What takes half as long again as planned is ended, as
        Shockwave does.
        """
        self.done_steps += steps
        self.ran_s += seconds
        over = self.left_steps <= 0 or self.ran_s > int(self.alone_s * _OVERTIME)
        self._resize()
        return over or self.left_steps <= 0

    def look(self) -> None:
        """Ask for the batch size that suits the epoch; it comes when the next round that it runs in ends."""
        if self.batch_size is not None and self.job.batch_size is not None:
            epoch = math.ceil(self.done_steps / self._steps_per_epoch())
            self._asks_for = next_batch_size(
                self.job.mode, self.job.model, self.job.batch_size, self.batch_size, self.job.gpus, epoch
            )

    def _steps_per_epoch(self) -> int:
        return steps_per_epoch(self.job.model, self.batch_size or 1)

    def _planned_epochs_s(self) -> list[float]:
        job = self.job
        if job.model not in SAMPLES:
            raise NotFound(f'the epochs of model "{job.model}" are not known; known are {", ".join(SAMPLES)}')
        epochs = math.ceil(job.steps / self._steps_per_epoch())
        if job.batch_size is None:
            return [self._steps_per_epoch() / self.steps_per_s] * epochs
        sizes = planned_batch_sizes(job.mode, job.model, job.batch_size, job.gpus, epochs)
        seconds = {size: self._epoch_s(size) for size in set(sizes)}
        return [seconds[size] for size in sizes]

    def _epoch_s(self, size: int) -> float:
        """With that batch size, or the first where it was not measured."""
        job, first = self.job, self.job.batch_size
        assert first is not None
        size = size if self._throughputs.has(self._worker, job.model, size, job.gpus) else first
        rate = self._throughputs.steps_per_s(self._worker, job.model, size, job.gpus)
        return SAMPLES[job.model] / size / rate

    def _resize(self) -> None:
        """Take the batch size asked for, if it was measured. Whole epochs stay as many as they are."""
        job, old, new = self.job, self.batch_size, self._asks_for
        if old is None or new is None or old == new:
            return
        self._asks_for = old
        if not self._throughputs.has(self._worker, job.model, new, job.gpus):
            return
        self._asks_for = new
        before, after = steps_per_epoch(job.model, old), steps_per_epoch(job.model, new)
        epochs = math.ceil(self.steps / before)
        steps = math.ceil(self.steps * old / new)
        self.steps = steps if math.ceil(steps / after) == epochs else epochs * after
        self.done_steps = math.ceil(self.done_steps / before) * after
        self.batch_size = new
        self.steps_per_s = self._throughputs.steps_per_s(self._worker, job.model, new, job.gpus)
