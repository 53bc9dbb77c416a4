"""What Shockwave's authors published for the trace of 120 jobs on 32 GPUs.

From uw-mad-dash/shockwave 8a44f4a2, scheduler/reproduce/pickles/tacc_32gpus/*_simulation.pickle.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

COLUMNS: Final = ("makespan_s", "jct_mean_s", "rho_worst", "unfair_pct", "utilisation")

_ROWS: Final[dict[str, tuple[float, float, float, float, float]]] = {
    "shockwave": (24_197, 9_958, 1.78379, 5.00, 0.8171),
    "themis": (31_929, 11_302, 3.43763, 22.50, 0.6187),
    "gavel": (33_208, 11_274, 2.94699, 25.00, 0.5949),
    "allox": (32_489, 9_926, 4.96351, 27.50, 0.6081),
    "gandiva-fair": (32_367, 12_574, 1.85361, 51.67, 0.6105),
    "ossp": (24_205, 19_807, 7.74147, 74.17, 0.8161),
    "mst": (31_909, 9_655, 4.97576, 25.00, 0.6191),
}

PUBLISHED: Final[Mapping[str, Mapping[str, float]]] = {
    policy: dict(zip(COLUMNS, row, strict=True)) for policy, row in _ROWS.items()
}
"""Metrics by policy, as `walras.sim.study.Result` names them."""
