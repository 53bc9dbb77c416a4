"""What may befall an exchange, drawn from a seed."""

from __future__ import annotations

from random import Random
from typing import Any, Final

NAMES: Final = ("a", "b", "c")
CLASSES: Final = ("latency", "latency", "standard", "batch")
PRICES: Final = ("0.05", "0.30", "0.90", "2.00", "7.50")
RULES: Final[tuple[dict[str, Any], ...]] = (
    {"minimumQuantum": "0s"},
    {"minimumQuantum": "5s"},
    {"notice": "0s"},
    {"notice": "10s"},
    {"speeds": {"A100": 500}},
    {"speeds": {}},
    {"tick": "3s"},
    {"tick": "1s"},
    {"payments": "critical"},
    {"payments": "uniform"},
    {"sharing": "whole"},
    {"sharing": "fractional"},
    {"reservePrice": "0.25"},
    {"reservePrice": "0.10", "reservePriceMax": "1.00"},
    *({"mechanism": name} for name in ("fifo", "priority", "karma", "posted", "proportional")),
    *({"mechanism": "auction"},) * 3,
)
Event = tuple[Any, ...]


def story(seed: int) -> list[Event]:
    """Some dozens of events, one more or less likely than another in each story."""
    rng = Random(seed)
    kinds = [*_ACTS]
    weights = [rng.choice((0, 1, 1, 4)) * _ACTS[kind] for kind in kinds]
    weights[kinds.index("bid")] = 12
    turns = rng.choice((0.3, 0.5, 0.7))

    def act() -> Event:
        (kind,) = rng.choices(kinds, weights)
        return (kind, *_how(rng, kind))

    def event() -> Event:
        if rng.random() < turns:
            return ("step", rng.choice((0, 1, 500, 1000, 1000, 3000, 19_000)))
        at = rng.random()
        if at < 0.1:
            return ("race", rng.random() < 0.5, act())
        if at < 0.15:
            back = rng.choice((1, 1500, 60_000))
            return rng.choice((("refused",), ("crash", True), ("crash", False), ("stop",), ("back", back)))
        return act()

    return [event() for _ in range(rng.randint(20, 120))]


_ACTS: Final = {
    "bid": 4, "edit": 2, "drop": 2, "again": 2, "sell": 2, "unlease": 1, "pod": 4, "bind": 4, "ended": 2,
    "remove": 2, "renew": 1, "slow": 1, "freed": 2, "taint": 2, "pool": 2, "join": 3, "leave": 1, "vanish": 1,
    "grant": 1, "ask": 1,
}  # fmt: skip


def _how(rng: Random, kind: str) -> Event:
    agent, bid, pod = rng.choice(NAMES), rng.choice(("b0", "b1", "b2")), rng.choice(("p0", "p1"))
    match kind:
        case "bid" | "again":
            return agent, bid, rng.choice(CLASSES), _spec(rng)
        case "edit":
            return agent, bid, rng.choice(PRICES)
        case "drop":
            return agent, bid
        case "sell":
            return agent, rng.randrange(4), rng.choice((None, *PRICES))
        case "unlease":
            return agent, rng.randrange(4)
        case "pod" | "renew":
            return agent, pod, rng.choice((250, 1000)), rng.choice(("", *PRICES)), rng.choice(CLASSES)
        case "ended" | "remove":
            return agent, pod
        case "bind" | "slow" | "join" | "leave" | "vanish":
            return (agent,)
        case "taint":
            return rng.randrange(3), rng.choice(("", "", "NoSchedule", "NoExecute"))
        case "pool":
            return (rng.choice(RULES),)
        case "ask":
            return agent, rng.choice(CLASSES), _spec(rng)
        case "grant":
            return agent, rng.choice((1, 1_000_000))
    return ()


def _spec(rng: Random) -> dict[str, Any]:
    packages = [
        {"term": rng.choice(("5s", "20s")), "maxPrice": rng.choice(PRICES), **_shape(rng)}
        for _ in range(rng.choice((1, 1, 2)))
    ]
    ends = {"deadline": f"2023-11-14T22:{rng.choice((13, 14, 15))}:45Z"} if rng.random() < 0.2 else {}
    if ends and rng.random() < 0.5:
        ends["decayFrom"] = "2023-11-14T22:13:25Z"
    return {
        **ends,
        "packages": packages,
        "restartCost": rng.choice(("0", "0", "0.002")),
        "priority": rng.choice((0, 0, 5)),
    }


def _shape(rng: Random) -> dict[str, Any]:
    match rng.randrange(5):
        case 0:
            return {"migProfile": rng.choice(("1g.10gb", "2g.20gb", "3g.40gb", "1g.10gb+me"))}
        case 1:
            lie = rng.choice(("any", "any", "node", "nvlink"))
            return {"devices": rng.choice((2, 3)), "devicesMin": rng.choice((1, 2)), "topology": lie}
        case 2:
            return {"devices": 2, "milliGPU": 500}
    return {"milliGPU": rng.choice((100, 300, 500, 1000, 1000))}
