"""Training on a real card gives way to inference: from pod to first kernel in under two seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.live import Live, eventually, phase, serving

PROGRAM = (Path(__file__).parents[1] / "support" / "cuda.py").read_text()
WITHIN_S = 2.0


def a_pod(name: str, milli: int, job_class: str, price: str, seconds: int) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "annotations": {"walras.dev/class": job_class, "walras.dev/max-price": price},
        },
        "spec": {
            "restartPolicy": "Never",
            "containers": [
                {
                    "name": "c",
                    "image": "none",
                    "command": ["python", "-c", PROGRAM, str(seconds)],
                    "resources": {"limits": {"walras.dev/milligpu": str(milli)}},
                }
            ],
        },
    }


def began(live: Live, kubeconfig: Path, name: str) -> Callable[[], bool]:
    return lambda: "began" in live.kubectl(kubeconfig, "logs", name, check=False)


@pytest.mark.e2e
@pytest.mark.parametrize("milli", [1000, 500], ids=["a whole card", "a part of it"])
def test_inference_runs_within_two_seconds_on_a_card_that_training_had(
    cards: int, tmp_path: Path, milli: int
) -> None:
    with serving(tmp_path, "auto") as live:
        spec = '{"spec": {"notice": "200ms", "minimumQuantum": "1s"}}'
        live.kubectl(live.operator, "patch", "pool", "default", "--type", "merge", "-p", spec)
        train, serve = live.agent("train"), live.agent("serve")
        for at in range(cards):
            live.apply(train, a_pod(f"epoch-{at}", 1000, "batch", "0.50", 600))
        for at in range(cards):
            eventually(began(live, train, f"epoch-{at}"), "training to compute")
        time.sleep(2)
        since = time.monotonic()
        live.apply(serve, a_pod("query", milli, "latency", "5.00", 5))
        eventually(began(live, serve, "query"), "inference to compute")
        took_s = time.monotonic() - since
        print(f"displacement to running inference of {milli} milli-GPU: {took_s:.2f} s")
        assert took_s < WITHIN_S
        eventually(lambda: phase(live, serve, "query") == "Succeeded", "inference to end")
