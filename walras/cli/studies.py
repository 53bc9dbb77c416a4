"""Which study a trace is for, by the scheme of its name, such as azure:FILE."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Final

import click
from click.shell_completion import CompletionItem

from walras.core.errors import Invalid
from walras.sim.study import Study
from walras.sim.traces import own, requests, source, synthetic
from walras.sim.world.study import WorldStudy

GPUS: Final = 8
# scheme -> (package, function, the second file if none is named, whether that is the devices and goes first)
_OF_FILES: Final = {
    "openb": ("walras.sim.packing", "openb_study", "openb_node_list_gpu_node.csv", True),
    "gavel": ("walras.sim.rounds", "gavel_study", "simulation_throughputs.json", False),
    "shockwave": ("walras.sim.rounds", "gavel_study", "tacc_throughputs.json", False),
}
SCHEMES: Final = {
    "azure": "requests of Azure's LLM inference trace of 2023 (CSV)",
    "mooncake": "requests of a Mooncake trace (JSON lines)",
    "csv": "jobs and requests of your own",
    "synthetic": "load that is made up, such as synthetic:minutes=10",
    "openb": "pods of Alibaba's GPU cluster trace of 2023, packed onto its nodes",
    "gavel": "training jobs of a Gavel trace, in rounds",
    "shockwave": "training jobs of a Shockwave trace, in rounds",
}


def study_of(trace: str, gpus: int | None, tick_ms: int) -> Study:
    """The study for a trace, on as many devices as it has unless that is said.

    Raises Invalid for a scheme that there is not or for what a file holds, NotFound, OSError.
    """
    scheme, colon, rest = trace.partition(":")
    if not colon or scheme not in SCHEMES:
        raise Invalid(f'"{trace}" is not a trace; write one of {", ".join(f"{name}:" for name in SCHEMES)}')
    if scheme in _OF_FILES:
        return _of_files(scheme, rest, gpus)
    gpus = GPUS if gpus is None else gpus
    if scheme == "synthetic":
        spec = synthetic.parse(rest)
        return WorldStudy(
            lambda n, load, chance: synthetic.source(spec, n, load, chance), gpus=gpus, tick_ms=tick_ms
        )
    path = Path(rest)
    readers: dict[str, Callable[[], source.Source]] = {
        "azure": lambda: requests.source(requests.azure(path), path),
        "mooncake": lambda: requests.source(requests.mooncake(path), path),
        "csv": lambda: own.source(path),
    }
    read = readers[scheme]()
    return WorldStudy(
        lambda n, load, chance: source.scaled(read, n, load, chance), gpus=gpus, tick_ms=tick_ms
    )


def _of_files(scheme: str, files: str, gpus: int | None) -> Study:
    package, function, other, first = _OF_FILES[scheme]
    # The names of some published traces have commas in them.
    name, comma, second = (files, "", "") if Path(files).is_file() else files.rpartition(",")
    paths = [Path(name), Path(second)] if comma else [Path(files), Path(files).parent / other]
    make = getattr(import_module(f"{package}.study"), function)
    if first:
        if gpus is not None:
            raise Invalid(f"{scheme}: traces say themselves which devices there are; leave --gpus out")
        study: Study = make(*reversed(paths))
    else:
        study = make(*paths) if gpus is None else make(*paths, gpus)
    return study


def complete_trace(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Schemes, then the files that there are."""
    scheme, colon, rest = incomplete.partition(":")
    if not colon:
        return [
            CompletionItem(f"{name}:", help=text)
            for name, text in SCHEMES.items()
            if name.startswith(incomplete)
        ]
    folder = Path(rest if rest.endswith("/") else rest.rpartition("/")[0] or ".")
    names = sorted(folder.iterdir()) if folder.is_dir() else []
    begun = [f"{each}{'/' if each.is_dir() else ''}" for each in names]
    return [CompletionItem(f"{scheme}:{each}") for each in begun if each.startswith(rest)]
