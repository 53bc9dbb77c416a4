"""How batch sizes change in training: by Accordion (MLSys 2021), and by the gradient noise scale (GNS).

Rules and tables are those of Shockwave's authors (uw-mad-dash/shockwave, scheduler/utils.py, MIT).
"""

from __future__ import annotations

import math
from typing import Final

from walras.sim.traces.gavel import Mode

SAMPLES: Final = {
    "ResNet-18": 50_000,
    "ResNet-50": 100_000,
    "Transformer": 10_000,
    "LM": 59_675,
    "Recommendation": 117_907,
    "CycleGAN": 6_287,
    "A3C": 4,
}
"""Of each model's data set: an epoch goes through all of them once."""

LARGEST: Final = {"ResNet-18": 256, "ResNet-50": 128, "LM": 80, "Recommendation": 8_192}
"""The largest batch size of the models that adapt."""

# By model, first batch size and GPUs: the epochs at which the noise has grown enough to double it.
_DOUBLES: Final[dict[tuple[str, int, int], tuple[int, ...]]] = {
    ("ResNet-18", 16, 1): (31, 41, 51, 71),
    ("ResNet-18", 32, 1): (21, 31, 51),
    ("ResNet-18", 64, 1): (11, 31),
    ("ResNet-18", 128, 1): (11,),
    ("ResNet-18", 16, 2): (21, 31, 91, 111),
    ("ResNet-18", 32, 2): (11, 21, 41),
    ("ResNet-18", 64, 2): (21, 41),
    ("ResNet-18", 128, 2): (41,),
    ("ResNet-18", 16, 4): (11, 21, 81, 91),
    ("ResNet-18", 32, 4): (21, 31, 61),
    ("ResNet-18", 64, 4): (11, 61),
    ("ResNet-18", 128, 4): (11,),
    ("ResNet-50", 64, 1): (101,),
    ("ResNet-50", 32, 2): (101, 111),
    ("ResNet-50", 64, 2): (81,),
    ("ResNet-50", 32, 4): (131, 221),
    ("ResNet-50", 64, 4): (191,),
    ("LM", 5, 1): (31, 41, 61, 71),
    ("LM", 10, 1): (11, 21, 41),
    ("LM", 20, 1): (11, 41),
    ("LM", 40, 1): (11,),
    ("LM", 5, 2): (31, 51, 61, 71),
    ("LM", 10, 2): (11, 31, 41),
    ("LM", 20, 2): (31, 41),
    ("LM", 40, 2): (11,),
    ("LM", 5, 4): (11, 31, 71, 91),
    ("LM", 10, 4): (11, 31, 61),
    ("LM", 20, 4): (11, 61),
    ("LM", 40, 4): (61,),
    ("Recommendation", 512, 1): (21, 41, 71, 91),
    ("Recommendation", 1_024, 1): (21, 51, 91),
    ("Recommendation", 2_048, 1): (21, 41),
    ("Recommendation", 4_096, 1): (41,),
}


def steps_per_epoch(model: str, batch_size: int) -> int:
    """Of whole batches, the last one perhaps not full."""
    return math.ceil(SAMPLES[model] / batch_size)


def next_batch_size(mode: Mode, model: str, first: int, now: int, gpus: int, epoch: int) -> int:
    """What a job that trains with `now` in that epoch asks for; `first` was its first batch size.

    Accordion trains with the first batch size in critical regimes and with the largest outside of them; by
    the noise scale a job doubles, once at a time, one epoch ahead.
    """
    largest = LARGEST.get(model, first)
    if first == largest or mode == "static":
        return now
    if mode == "gns":
        wanted = _by_noise(model, first, gpus, epoch + 1)
        return 2 * now if wanted > now and now < largest else now
    return first if _critical(model, first, epoch) else largest


def planned_batch_sizes(mode: Mode, model: str, first: int, gpus: int, epochs: int) -> list[int]:
    """Of each epoch, as Shockwave profiles a job ahead; what runs differs a little, in Shockwave too.

    Its profile keeps Accordion's first batch size for the first 30% of the epochs, and that of the last epoch
    if by then the noise scale has doubled it twice.
    """
    if mode == "gns":
        sizes = [_by_noise(model, first, gpus, epoch) for epoch in range(epochs)]
        twice = _DOUBLES.get((model, first, gpus), ())[1:2]
        if twice and epochs > twice[0]:
            sizes[-1] = first
        return sizes
    if mode == "accordion":
        largest = LARGEST.get(model, first)
        return [
            largest if epoch > epochs * 0.3 and not _profiled_critical(model, first, epoch) else first
            for epoch in range(epochs)
        ]
    return [first] * epochs


def _by_noise(model: str, first: int, gpus: int, epoch: int) -> int:
    doubled = sum(epoch >= at for at in _DOUBLES.get((model, first, gpus), ()))
    return min(first << doubled, LARGEST[model]) if doubled else first


def _critical(model: str, first: int, epoch: int) -> bool:
    match model:
        case "LM":
            return epoch < 10
        case "Recommendation":
            return epoch < {512: 30, 1_024: 30, 2_048: 40}.get(first, 10)
        case "ResNet-50":
            return epoch % 30 < 10
        case "ResNet-18":
            return epoch < 10 or 150 <= epoch < 160 or 250 <= epoch < 260
    return True


def _profiled_critical(model: str, first: int, epoch: int) -> bool:
    again = model == "Recommendation" and (60 <= epoch < 70 or 80 <= epoch < 90)
    return again or _critical(model, first, epoch)
