"""What this machine can do, measured before the sides: so that demand exceeds supply on any."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import corpus
import numpy as np
from encoder import Encoder
from search import Index
from train import BATCH, Model, as_bytes, batches

from demo.load import Rates

# Demand of one search agent, in devices.
CALM_DEVICES = 0.1
BURST_DEVICES = 1.2
# A pod's work around the embedding: HTTP and JSON.
_HANDLING_S = 0.004
_SAMPLES = 15
_STEPS = 60


@dataclass(frozen=True, slots=True)
class Speed:
    """CPU seconds of a query, and what one core does of the other work in a second."""

    query_cpu_s: float
    tokens_per_cpu_s: float
    documents_per_cpu_s: float

    def rates(self, cpu_per_device: float) -> Rates:
        """Queries a second of one search agent on devices of so many cores."""
        device = cpu_per_device / self.query_cpu_s
        return Rates(CALM_DEVICES * device, BURST_DEVICES * device)


def measure(
    encoder: Encoder, index: Index, questions: Sequence[str], documents: Sequence[corpus.Document]
) -> Speed:
    """Time each kind of work on one core. Takes about two seconds."""
    index.search(encoder, questions[0])
    query = statistics.median(_cpu_s(index.search, encoder, q) for q in questions[:_SAMPLES])
    texts = [each.text for each in documents[:: max(1, len(documents) // _SAMPLES)]]
    embedding = statistics.mean(_cpu_s(encoder.encode, [t]) for t in texts)
    model, source = Model.fresh(1), batches(as_bytes(documents), np.random.default_rng(1))
    step = statistics.median(_cpu_s(model.step, *next(source), 0.2) for _ in range(_STEPS))
    return Speed(query + _HANDLING_S, BATCH / step, 1 / embedding)


def _cpu_s(work: Callable[..., object], *arguments: object) -> float:
    begin = time.process_time()
    work(*arguments)
    return time.process_time() - begin
