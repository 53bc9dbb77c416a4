"""The published traces of the mix: requests of Azure and Mooncake, jobs of Philly as Gavel has them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from walras.core.errors import Invalid, NotFound
from walras.sim.traces import requests
from walras.sim.traces.source import wrong
from walras.sim.world.workload import Job, Stream

AZURE: Final = "azure-llm-2023/AzureLLMInferenceTrace_code.csv"
MOONCAKE: Final = "mooncake/synthetic_trace.jsonl"
THROUGHPUTS: Final = "gavel/simulation_throughputs.json"
PHILLY: Final = "gavel/*.trace"
WHERE: Final[Mapping[str, str]] = {
    AZURE: "data/ of Azure/AzurePublicDataset on GitHub",
    MOONCAKE: "FAST25-release/traces/ of kvcache-ai/Mooncake on GitHub",
    THROUGHPUTS: "scheduler/ of stanford-futuredata/gavel on GitHub",
    PHILLY: "scheduler/traces/msr/seed=0/ of stanford-futuredata/gavel on GitHub",
}
"""By file of the folder, where it is published."""

SLO_MS: Final[Mapping[str, int]] = {"azure": 2_000, "mooncake": 10_000}
"""In which time a request of which trace has to be answered."""

# An hour of Philly is played in this time; what takes longer than LONGEST_MS then is left out.
HOUR_AS_MS: Final = 15_000
LONGEST_MS: Final = 600_000

_READERS: Final[Mapping[str, tuple[str, Callable[[Path], Iterator[requests.Row]]]]] = {
    "azure": (AZURE, requests.azure),
    "mooncake": (MOONCAKE, requests.mooncake),
}


@dataclass(frozen=True, slots=True)
class Traces:
    """The requests of each trace as the stream of an agent of its name, and the jobs by virtual cluster."""

    requests: Mapping[str, Stream]
    clusters: Mapping[str, tuple[Job, ...]]


def read(data: Path) -> Traces:
    """Raises NotFound where a trace is missing, with where it is published, and Invalid for what is none."""
    for name, where in WHERE.items():
        if not any(data.glob(name)):
            raise NotFound(f"{data / name} is not there; it is published in {where}")
    streams = {}
    for name, (file, rows) in _READERS.items():
        whole = requests.source(rows(data / file), data / file).streams[0]
        streams[name] = replace(whole, agent=name)
    rates = _rates(data / THROUGHPUTS)
    return Traces(streams, {path.stem: tuple(_philly(path, rates)) for path in sorted(data.glob(PHILLY))})


def _rates(path: Path) -> Mapping[str, Mapping[str, float]]:
    """Steps a second alone on V100, by kind of job and GPUs."""
    try:
        found = json.loads(path.read_text())["v100"]
    except (ValueError, KeyError, TypeError):
        found = None
    if not isinstance(found, dict):
        raise Invalid(f"{path}: has no throughputs of v100; give Gavel's file as it is published")
    return found


def _philly(path: Path, rates: Mapping[str, Mapping[str, float]]) -> Iterator[Job]:
    """The jobs that the table says how long take on V100, as fast as they are played here."""
    with path.open() as lines:
        for number, line in enumerate(lines, 1):
            try:
                kind, _, _, _, total, arrival, scale = line.rstrip("\n").split("\t")
                steps, arrival_s, gpus = int(total), float(arrival), int(scale)
            except ValueError:
                raise wrong(path, number, "is not a job of a Gavel trace, which has seven columns") from None
            rate = rates.get(f"('{kind}', {gpus})", {}).get("null", 0.0)
            alone_ms = max(1_000, round(steps / rate * HOUR_AS_MS / 3600)) if rate else 0
            if 0 < alone_ms <= LONGEST_MS:
                yield Job(
                    name=f"{path.stem}-{number}",
                    agent=f"training-{path.stem}",
                    arrival_ms=round(arrival_s * HOUR_AS_MS / 3600),
                    work_ms=alone_ms * gpus,
                    gpus=gpus,
                )
