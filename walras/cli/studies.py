"""Which study a trace is for, by the scheme of its name, such as azure:FILE."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Final

import click
from click.shell_completion import CompletionItem

from walras.core.errors import Invalid
from walras.devices.classes import SLOWEST_MILLI, SPEED_MILLI, SPEED_UNIT
from walras.market.types import Device
from walras.sim.study import Study
from walras.sim.traces import own, requests, source, synthetic
from walras.sim.traces.gavel import read_throughputs
from walras.sim.traces.measured import measured
from walras.sim.world.fleet import Fleet, mixed
from walras.sim.world.study import WorldStudy
from walras.sim.world.world import devices

GPUS: Final = 8
GPUS_MAX: Final = 100_000
TICK_MS: Final = 1_000
MIXED_TICK_MS: Final = 300_000
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


def study_of(trace: str, gpus: str | None, tick_ms: int | None) -> Study:
    """The study for a trace, on as many devices as it has unless that is said, as in "8" or "8:V100,16:P100".

    Raises Invalid for a scheme that there is not, for devices that cannot be or for what a file holds,
    NotFound, OSError.
    """
    scheme, colon, rest = trace.partition(":")
    if not colon or scheme not in SCHEMES:
        raise Invalid(f'"{trace}" is not a trace; write one of {", ".join(f"{name}:" for name in SCHEMES)}')
    if scheme in _OF_FILES:
        return _of_files(scheme, rest, gpus, tick_ms)
    pool, tick_ms = _pool(gpus), TICK_MS if tick_ms is None else tick_ms
    notes = _notes(pool)
    if scheme == "synthetic":
        spec = synthetic.parse(rest)
        speed = Fleet(pool).mean_speed_milli
        return WorldStudy(
            lambda n, load, chance: synthetic.source(spec, n, load * speed / SPEED_UNIT, chance),
            pool,
            tick_ms=tick_ms,
            notes=notes,
        )
    path = Path(rest)
    readers: dict[str, Callable[[], source.Source]] = {
        "azure": lambda: requests.source(requests.azure(path), path),
        "mooncake": lambda: requests.source(requests.mooncake(path), path),
        "csv": lambda: own.source(path),
    }
    read = readers[scheme]()
    return WorldStudy(
        lambda n, load, chance: source.scaled(read, n, load, chance), pool, tick_ms=tick_ms, notes=notes
    )


def models_of(gpus: str) -> dict[str, int]:
    """The devices that "8:V100,16:P100" says, by model; "" is the model of a number alone. Raises Invalid."""
    found: dict[str, int] = {}
    for part in gpus.split(","):
        number, colon, model = part.partition(":")
        if not (number.isascii() and number.isdigit()) or bool(colon) != bool(model) or model in found:
            raise Invalid(f'--gpus "{gpus[:128]}" is neither a number nor such as 8:V100,16:P100')
        found[model] = int(number)
    if (
        not 1 <= sum(found.values()) <= GPUS_MAX
        or min(found.values()) < 1
        or ("" in found and len(found) > 1)
    ):
        raise Invalid(f"--gpus takes 1 to {GPUS_MAX} devices, each of a model where there are several")
    return found


def _pool(gpus: str | None) -> tuple[Device, ...]:
    models = {"": GPUS} if gpus is None else models_of(gpus)
    return devices(models[""]) if "" in models else mixed(models)


def _notes(pool: tuple[Device, ...]) -> tuple[str, ...]:
    unknown = sorted({device.model for device in pool} - SPEED_MILLI.keys())
    if not unknown:
        return ()
    return (
        f"how fast {', '.join(unknown)} is is not known; it counts as {SLOWEST_MILLI}, as the slowest does",
    )


def _of_files(scheme: str, files: str, gpus: str | None, tick_ms: int | None) -> Study:
    package, function, other, first = _OF_FILES[scheme]
    # The names of some published traces have commas in them.
    name, comma, second = (files, "", "") if Path(files).is_file() else files.rpartition(",")
    paths = [Path(name), Path(second)] if comma else [Path(files), Path(files).parent / other]
    make = getattr(import_module(f"{package}.study"), function)
    if first:
        if gpus is not None:
            raise Invalid(f"{scheme}: traces say themselves which devices there are; leave --gpus out")
        study: Study = make(*reversed(paths))
        return study
    models = models_of(gpus) if gpus is not None else {}
    if models and "" not in models:
        return _on_models(paths, models, MIXED_TICK_MS if tick_ms is None else tick_ms)
    played: Study = make(*paths, models[""]) if models else make(*paths)
    return played


def _on_models(paths: Sequence[Path], models: Mapping[str, int], tick_ms: int) -> Study:
    """A trace of training jobs on devices of several models, in the simulated pool."""
    found = measured({paths[0].stem: paths[0]}, read_throughputs(paths[1]), models)
    left_out = (
        f"{found.left_out} jobs are left out: no model of the pool has room and a measured rate for them"
    )
    return WorldStudy(
        lambda n, load, chance: source.scaled(found.source, n, load, chance),
        mixed(models, found.speeds),
        tick_ms=tick_ms,
        notes=(left_out,) if found.left_out else (),
    )


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
