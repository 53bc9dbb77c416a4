"""Max-min fairness over unlike devices as in Gavel's section 4, by prices, without a solver.

The least throughput of any job, over that on an equal part of every model, is as high as can be, or nearly
(Narayanan et al., OSDI 2020).
"""

from __future__ import annotations

from typing import Final

import numpy as np

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

HALVINGS: Final = 10
STEPS: Final = 60
RATE: Final = 0.3
# Loads that are above the pool by no more than this count as fitting, and are cut down to it.
WITHIN: Final = 1.02


def divide(speeds: Floats, gpus: Floats, count: Floats, devices: Floats) -> Floats:
    """The part of its time that a job of each kind has on each model: rows of kinds, that sum to at most 1.

    speeds: by kind and model, 0 where it does not run; on some model it does. gpus, count: of each kind, how
    many devices a job takes at once and how many jobs there are. devices: of each model.
    """
    alike = speeds @ devices / devices.sum()
    need = alike / gpus  # of throughput, at a level of 1
    low, high = 0.0, float((speeds.max(axis=1) / need).min())
    found = _fitting(high, speeds, need, gpus * count, devices)
    if found is not None:
        return found
    best: Floats = np.zeros_like(speeds)
    for _ in range(HALVINGS):
        level = (low + high) / 2
        found = _fitting(level, speeds, need, gpus * count, devices)
        low, high = (low, level) if found is None else (level, high)
        best = best if found is None else found
    return best


def _fitting(level: float, speeds: Floats, need: Floats, gpus: Floats, devices: Floats) -> Floats | None:
    """Parts with which every job has that level, or None where no prices of models were found to show them.

    By multiplicative weights: each kind takes the cheapest mix of models, prices follow what is asked for,
    and the mean over all steps comes near the optimum (Plotkin, Shmoys and Tardos, 1995).
    """
    mixes = _mixes(speeds, level * need)
    prices, total = 1 / devices, np.zeros_like(speeds)
    kinds = np.arange(len(speeds))
    for step in range(1, STEPS + 1):
        prices = prices / (prices @ devices)
        costs = mixes @ prices
        chosen = mixes[kinds, np.argmin(costs, axis=1)]
        if (gpus * costs.min(axis=1)).sum() > WITHIN:
            return None  # at these prices all that there is does not pay for the level
        total += chosen
        load = gpus @ total / step / devices
        if load.max() <= WITHIN:
            found: Floats = total / step / max(1.0, float(load.max()))
            return found
        now = gpus @ chosen / devices
        prices = prices * np.exp(RATE * now / max(1.0, float(now.max())))
    return None


def _mixes(speeds: Floats, need: Floats) -> Floats:
    """Every way to have a throughput on one model for a part of the time, or on two for all of it: kinds by
    ways by models. Ways that do not do have parts that nobody can pay."""
    kinds, models = speeds.shape
    ways = []
    for fast in range(models):
        for slow in range(models):
            way = np.full((kinds, models), np.inf)
            with np.errstate(divide="ignore", invalid="ignore"):
                if fast == slow:
                    part = need / speeds[:, fast]
                    does = part <= 1 + 1e-9
                    rest = np.zeros_like(part)
                else:
                    part = (need - speeds[:, slow]) / (speeds[:, fast] - speeds[:, slow])
                    does = (speeds[:, fast] >= need) & (speeds[:, slow] < need) & (speeds[:, slow] > 0)
                    rest = 1 - part
            way[does] = 0.0
            way[does, slow] = rest[does]
            way[does, fast] = part[does]
            ways.append(way)
    return np.stack(ways, axis=1)
