"""Inference beside training, as real arrivals: `scripts/bench mixed` prints one line of JSON.

Azure's and Mooncake's requests, two agents each, come to 40 % of 64 GPUs; eight virtual clusters of the
Philly trace of Microsoft (as Gavel has them) are training agents, whose jobs are drawn until they come to
70 %. An hour of the Philly trace is a quarter of a minute here, of which each cluster's first ones are
played, and jobs of more than 16 GPUs are left out. Every mechanism has the same agents, jobs and requests;
agents that serve bid what a GPU-hour is worth to them, and under auction:slo what another replica does for
their latency. The traces are read from WALRAS_TRACES, else from shared/data beside the checkout.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np

from walras.sim.traces import requests
from walras.sim.traces.source import Source, scaled
from walras.sim.world.figures import Figures
from walras.sim.world.recorder import Recorder
from walras.sim.world.study import workload
from walras.sim.world.workload import Job, Stream, Workload
from walras.sim.world.world import World, devices

POLICIES = ("auction", "auction:slo", "fifo", "priority", "static", "drf", "fairshare", "karma")
SHOWN = (
    "gpu_wait_p99_s", "slo_pct", "request_p99_s", "goodput_pct", "utilisation", "allocation_pct", "jain",
    "evictions", "lost_gpu_h", "jct_mean_s",
)  # fmt: skip
HOUR_AS_MS = 15_000
GANG_MAX = 16
SERVING, TRAINING = 0.4, 0.7
CHECKPOINT_MS, RESTART_MS = 60_000, 5_000


def folder() -> Path:
    named = os.environ.get("WALRAS_TRACES")
    root = Path(__file__).parents[1]
    beside = [root.parent / "shared" / "data", root.parent.parent / "shared" / "data"]
    return Path(named) if named else next((each for each in beside if each.is_dir()), beside[0])


def philly(path: Path, rates: dict[str, dict[str, float]], span_ms: int) -> Iterator[Job]:
    """The jobs that come within the span, as long as the table says that they take on V100."""
    with path.open() as lines:
        for number, line in enumerate(lines):
            kind, _, _, _, steps, arrival, gpus = line.rstrip("\n").split("\t")
            arrival_ms = round(float(arrival) * HOUR_AS_MS / 3600)
            rate = rates.get(f"('{kind}', {gpus})", {}).get("null", 0.0)
            if arrival_ms >= span_ms or not rate or int(gpus) > GANG_MAX:
                continue
            alone_ms = max(1_000, round(int(steps) / rate * HOUR_AS_MS / 3600))
            yield Job(
                name=f"{path.stem}-{number}",
                agent=f"training-{path.stem}",
                arrival_ms=arrival_ms,
                work_ms=alone_ms * int(gpus),
                gpus=int(gpus),
                checkpoint_ms=CHECKPOINT_MS,
                restart_ms=RESTART_MS,
            )


def streams(data: Path, span_ms: int) -> list[tuple[Stream, ...]]:
    """The requests of each trace that come within the span."""
    found = []
    azure, mooncake = (
        data / "azure-llm-2023/AzureLLMInferenceTrace_code.csv",
        data / "mooncake/synthetic_trace.jsonl",
    )
    for name, rows, path, slo_ms in (
        ("azure", requests.azure(azure), azure, 2_000),
        ("mooncake", requests.mooncake(mooncake), mooncake, 10_000),
    ):
        whole = requests.source(rows, path).streams[0]
        kept = whole.arrivals_ms < span_ms
        cut = Stream(name, whole.arrivals_ms[kept], whole.works_ms[kept], slo_ms)
        found.append(tuple(replace(cut, agent=f"serving-{name}-{number}") for number in range(2)))
    return found


def source(data: Path, gpus: int, span_ms: int, seed: int) -> Source:
    chance = Random(seed)
    table = json.loads((data / "gavel/simulation_throughputs.json").read_text())["v100"]
    jobs: list[Job] = []
    traces = sorted((data / "gavel").glob("*.trace"))
    for path in traces:
        of_cluster = Source(span_ms, tuple(philly(path, table, span_ms)))
        jobs += scaled(of_cluster, gpus, TRAINING / len(traces), chance).jobs
    jobs.sort(key=lambda job: (job.arrival_ms, job.name))
    served: list[Stream] = []
    for pair in streams(data, span_ms):
        served += scaled(Source(span_ms, streams=pair), gpus, SERVING / 2, chance).streams
    return Source(span_ms, tuple(jobs), tuple(served), relative=False)


def with_strategy(load: Workload, strategy: str) -> Workload:
    """The same, with agents that serve bidding by that strategy, if one is named."""
    serve = {stream.agent for stream in load.streams} if strategy else set()
    agents = [replace(each, strategy=strategy) if each.name in serve else each for each in load.agents]
    return replace(load, agents=tuple(agents))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpus", type=int, default=64)
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--policies", default=",".join(POLICIES))
    asked = parser.parse_args()
    span_ms = asked.minutes * 60_000
    load = workload(source(folder(), asked.gpus, span_ms, asked.seed), asked.gpus, asked.seed)
    told: dict[str, object] = {
        "gpus": asked.gpus,
        "minutes": asked.minutes,
        "jobs": len(load.jobs),
        "requests": sum(len(stream.arrivals_ms) for stream in load.streams),
        "load": round(load.work_ms / (asked.gpus * span_ms), 3),
        "load_serving": round(
            sum(int(np.sum(each.works_ms)) for each in load.streams) / (asked.gpus * span_ms), 3
        ),
    }
    for policy in asked.policies.split(","):
        mechanism, _, strategy = policy.partition(":")
        world = World(
            with_strategy(load, strategy), mechanism, devices(asked.gpus), until_ms=span_ms + span_ms // 4
        )
        recorder = Recorder(world, 60_000)
        world.noted = recorder.note
        world.run()
        metrics = Figures(world, recorder).metrics()
        told[policy] = {name: round(metrics[name], 3) for name in SHOWN}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
