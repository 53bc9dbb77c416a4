"""Traces of inference requests: Azure's (LLM inference 2023, CSV) and Mooncake's (JSON lines).

A request's work is what its tokens take of the reference device: prompt tokens at PREFILL, generated ones at
DECODE tokens a second, the latter over all requests of a batch. The model is that of an H100 which serves a
language model of some 10 billion weights; what a figure depends on is the ratio of the two.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from walras.core.errors import Invalid
from walras.sim.traces.source import Source, wrong
from walras.sim.world.workload import Stream

PREFILL: Final = 10_000
DECODE: Final = 1_000
# An anonymous trace is played to so many agents, each from another time of it on.
AGENTS: Final = 4

_HEADER: Final = "TIMESTAMP,ContextTokens,GeneratedTokens"
_MS: Final = timedelta(milliseconds=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Row = tuple[int, int, int]


def work_ms(context_tokens: int, generated_tokens: int) -> int:
    """Milliseconds of the reference device, rounded up, at least 1."""
    scaled = 1000 * (context_tokens * DECODE + generated_tokens * PREFILL)
    return max(1, -(-scaled // (PREFILL * DECODE)))


def azure(path: Path) -> Iterator[Row]:
    """Time in ms, prompt and generated tokens, a line at a time. Raises Invalid with the line, OSError."""
    with path.open(encoding="utf-8-sig") as lines:
        if (first := next(lines, "").strip()) != _HEADER:
            raise wrong(path, 1, f'the first line of an Azure LLM trace is "{_HEADER}", not "{first[:80]}"')
        for number, line in enumerate(lines, 2):
            try:
                stamp, context, generated = line.strip().split(",")
                at = datetime.fromisoformat(stamp[:23]).replace(tzinfo=UTC)
                row = (at - _EPOCH) // _MS, int(context), int(generated)
            except ValueError:
                raise wrong(path, number, f'"{line.strip()[:80]}" is not {_HEADER}') from None
            yield _checked(path, number, row)


class _Request(msgspec.Struct):
    timestamp: int
    input_length: int
    output_length: int


def mooncake(path: Path) -> Iterator[Row]:
    """The same of a Mooncake trace."""
    decoder = msgspec.json.Decoder(_Request)
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                read = decoder.decode(line)
            except msgspec.MsgspecError as error:
                raise wrong(path, number, f"not a request of a Mooncake trace: {error}") from None
            yield _checked(path, number, (read.timestamp, read.input_length, read.output_length))


def _checked(path: Path, number: int, row: Row) -> Row:
    if row[1] < 0 or row[2] < 0:
        raise wrong(path, number, "a request has no fewer than 0 tokens")
    return row


def source(rows: Iterator[Row], path: Path) -> Source:
    """The requests as one stream for each of some agents. Raises Invalid when there are none."""
    arrivals, works = array("q"), array("q")
    for at_ms, context, generated in rows:
        arrivals.append(at_ms)
        works.append(work_ms(context, generated))
    if not arrivals:
        raise Invalid(f"{path}: the trace is empty")
    come, work = np.frombuffer(arrivals, np.int64), np.frombuffer(works, np.int64)
    come = come - come.min()
    order = np.argsort(come, kind="stable")
    streams = tuple(Stream(f"serving-{n}", come[order], work[order]) for n in range(AGENTS))
    return Source(span_ms=int(come.max()) + 1, streams=streams)
