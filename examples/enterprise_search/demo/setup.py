"""The three sides: by which rules devices are shared, and what the same users ask for under them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from demo.manifests import Share, Worth

SEARCH_AGENTS = ("search-acme", "search-globex", "search-initech")
TRAIN_AGENTS = ("train-a", "train-b")
BATCH_AGENT = "batch"
AGENTS = (*SEARCH_AGENTS, *TRAIN_AGENTS, BATCH_AGENT)

# Credits; the permanent pod outbids bursts, so that these never displace it.
KEEP = Worth("latency", "600.00")
BURST = Worth("latency", "400.00")
TRAINING = {"train-a": Worth("batch", "80.00", "0.01"), "train-b": Worth("batch", "60.00", "0.01")}
EMBEDDING = Worth("batch", "20.00")
BUDGETS: dict[str, dict[str, Any]] = {
    **{name: {"income": "200/h", "balance": "20", "weight": 1} for name in SEARCH_AGENTS},
    **{name: {"income": "100/h", "balance": "5", "weight": 1} for name in TRAIN_AGENTS},
    BATCH_AGENT: {"income": "20/h", "balance": "2", "weight": 1},
}
_RULES = {"tick": "500ms", "reservePrice": "5.00", "minimumQuantum": "2s", "notice": "1s"}


@dataclass(frozen=True, slots=True)
class Setup:
    """One side. Shares are of one pod. A finite Job does a piece of work, then the next is submitted."""

    name: str
    title: str
    pool: dict[str, Any]
    keep: Share
    burst: Share
    bursts_max: int
    train: Share
    train_parallelism: int
    batch: Share
    finite_device_seconds: float = 0.0


MARKET = Setup(
    name="market",
    title="Walras: auction, fractions",
    pool={"mechanism": "auction", "sharing": "fractional", **_RULES},
    # Little is kept, as more is to be had in a second: a quarter of a device.
    keep=Share(250),
    burst=Share(500),
    bursts_max=3,
    train=Share(500),
    train_parallelism=4,
    batch=Share(250),
)
FIFO = Setup(
    name="fifo",
    title="Queue, the same fractions",
    pool={"mechanism": "fifo", "sharing": "fractional", **_RULES},
    # Nothing is taken back in a queue, so search keeps half a device and training comes in pieces.
    keep=Share(500),
    burst=Share(500),
    bursts_max=3,
    train=Share(500),
    train_parallelism=4,
    batch=Share(500),
    finite_device_seconds=10.0,
)
WHOLE = Setup(
    name="whole",
    title="Queue, whole GPUs",
    pool={"mechanism": "fifo", "sharing": "whole", **_RULES},
    keep=Share(1000),
    burst=Share(1000),
    bursts_max=2,
    train=Share(1000),
    train_parallelism=1,
    batch=Share(1000),
    finite_device_seconds=10.0,
)
SIDES = (MARKET, FIFO, WHOLE)
