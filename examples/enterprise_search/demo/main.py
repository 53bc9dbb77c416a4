"""The demo's command: three sides, one table, one line of JSON."""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from rich.console import Console

# Before numpy is loaded: its threads would take what calibration measures.
os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")

import corpus
from encoder import Encoder
from search import Index

from demo import calibrate, load, machine, server
from demo.kube import Refused
from demo.measure import Figures
from demo.setup import SEARCH_AGENTS, SIDES, Setup
from demo.show import Screen, comparison
from demo.side import NotReady, Side, Work
from walras.exchange.supply import HEADROOM_PERCENT

DOCUMENTS_EACH = 100
_FONT_FACE = re.compile(r"@font-face\s*\{.*?\}\s*", re.DOTALL)
PICTURE_COLUMNS = 112
QUESTION_CHARACTERS = 300
CONFIG_MAP_CHARACTERS = 600_000


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    parser.add_argument("--seconds", type=float, default=45.0, help="how long each side is measured (45)")
    parser.add_argument("--gpus", type=int, default=4, help="emulated devices (4)")
    parser.add_argument("--seed", type=int, default=1, help="of the arrivals (1)")
    parser.add_argument("--only", choices=[each.name for each in SIDES], help="run one side only")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--svg", type=Path, help="write the last table as a picture")
    told = parser.parse_args(arguments)
    if told.seconds < 1:
        parser.error("--seconds: at least 1")
    if not 4 <= told.gpus <= 16:
        parser.error("--gpus: between 4 and 16, as three search agents keep a whole one each")
    return told


def prepare(told: argparse.Namespace, cores: frozenset[int], console: Console) -> Work:
    """Documents, indexes and arrivals, the same for all sides."""
    console.print("reading the documents, embedding those of the search agents, measuring this machine")
    everything = corpus.documents()
    encoder = Encoder()
    questions = ask(everything)
    indexes, index = {}, None
    for part, agent in enumerate(SEARCH_AGENTS):
        own = corpus.shard(everything, part, len(SEARCH_AGENTS))[:DOCUMENTS_EACH]
        index, file = Index.build(encoder, own), io.BytesIO()
        index.save(file)
        indexes[agent] = file.getvalue()
    assert index is not None
    speed = calibrate.measure(encoder, index, questions, everything)
    cpu_per_device = len(cores) * (100 - HEADROOM_PERCENT) / 100 / told.gpus
    rates = speed.rates(cpu_per_device)
    arrivals = load.arrivals(told.seed, SEARCH_AGENTS, told.seconds, rates, len(questions))
    console.print(
        f"{told.gpus} emulated devices of {cpu_per_device:.2f} cores; a query costs"
        f" {speed.query_cpu_s * 1000:.1f} ms of a core, a core trains {speed.tokens_per_cpu_s:,.0f} tokens a"
        f" second; each search agent is asked {rates.calm:.1f} times a second, in bursts {rates.burst:.1f}:"
        f" {len(arrivals)} queries in all",
        highlight=False,
        soft_wrap=True,
    )
    some, size = [], 0
    for document in everything:
        size += len(document.text) + len(document.name) + 30
        if size > CONFIG_MAP_CHARACTERS:
            break
        some.append(document)
    return Work(arrivals, questions, indexes, corpus.dump(some), speed, told.seconds, cpu_per_device)


def ask(documents: Sequence[corpus.Document]) -> list[str]:
    """Questions as long as people write them to an assistant: the beginnings of longer documents."""
    long = [each.text for each in documents if len(each.text) >= QUESTION_CHARACTERS]
    return [f"How do I do this: {text[:QUESTION_CHARACTERS]}?" for text in long[:200]]


def run(
    setup: Setup, told: argparse.Namespace, work: Work, cores: frozenset[int], folder: Path, console: Console
) -> Figures:
    """One side, on a fresh server. Raises ServerFailed, NotReady, Refused."""
    console.print(f"\n[bold]{setup.title}[/]: starting a server, agents and search pods")
    with (
        server.running(folder / setup.name, told.gpus, cores) as started,
        Screen(console) as screen,
    ):
        return asyncio.run(Side(setup, started, work, screen.show).run())


def main(arguments: Sequence[str] | None = None) -> int:
    told = options(arguments)
    console = Console(record=bool(told.svg), stderr=told.json, width=PICTURE_COLUMNS if told.svg else None)
    signal.signal(signal.SIGTERM, _interrupted)
    if shutil.which("bwrap") is None:
        # Its search pods all listen on one port, each in a network of its own.
        console.print("the demo needs bubblewrap: apt install bubblewrap, or dnf install bubblewrap")
        return 1
    setups = [each for each in SIDES if told.only in (None, each.name)]
    found: dict[str, Figures] = {}
    try:
        with tempfile.TemporaryDirectory(prefix="walras-demo-") as folder:
            cores = machine.cores()
            work = prepare(told, cores, console)
            machine.step_aside(cores)
            for setup in setups:
                found[setup.name] = run(setup, told, work, cores, Path(folder), console)
    except KeyboardInterrupt:
        console.print("stopped")
        return 130
    except (server.ServerFailed, NotReady, Refused) as error:
        console.print(f"[bold red]the demo failed:[/] {error}")
        return 1
    return report(told, setups, found, console)


def report(
    told: argparse.Namespace, setups: Sequence[Setup], found: dict[str, Figures], console: Console
) -> int:
    """Print it all; 0 if the books of every side balance."""
    console.print()
    if told.svg:
        console.export_text(clear=True)
    console.print(comparison(setups, found))
    if told.svg:
        told.svg.parent.mkdir(parents=True, exist_ok=True)
        # Without the web fonts that rich names: a picture should fetch nothing.
        told.svg.write_text(_FONT_FACE.sub("", console.export_svg(title="scripts/demo")))
    balanced = all(each.audit is not None and each.audit.agrees for each in found.values())
    if told.json:
        sides = {name: each.as_object() for name, each in found.items()}
        print(json.dumps({**sides, "ledger_balanced": balanced}), flush=True)
    return 0 if balanced else 1


def _interrupted(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt
