"""Alibaba's openb: the nodes of a production GPU cluster and its pods over 149 days (Weng et al., ATC 2023).

Published as `cluster-trace-gpu-v2023` in alibaba/clusterdata on GitHub.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from walras.core.errors import Invalid, NotFound

DEVICE_MILLI: Final = 1000
DIGITS: Final = 12  # of an amount, so that sums of many fit 64 bits
Row = Mapping[str, str]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Node:
    """A node as it is when nothing runs on it. `model` is "" without GPUs."""

    name: str
    cpu_milli: int
    memory_mib: int
    gpus: int
    model: str


@dataclass(frozen=True, slots=True)
class Pod:
    """What a pod asks for: `gpus` devices with `gpu_milli` of each, of one of `models` where any are named.

    Times are in seconds from the trace's start; None where the trace has none.
    """

    name: str
    cpu_milli: int
    memory_mib: int
    gpus: int
    gpu_milli: int
    models: tuple[str, ...] = ()
    qos: str = ""
    phase: str = ""
    created_s: int | None = None
    deleted_s: int | None = None
    scheduled_s: int | None = None

    @property
    def total_milli(self) -> int:
        return self.gpus * self.gpu_milli


def read_nodes(path: Path) -> Iterator[Node]:
    """The nodes of a file with columns `sn,cpu_milli,memory_mib,gpu,model`, one at a time.

    Raises NotFound for a file that is not there, Invalid with file and line for one that is not such a file.
    """
    return _read(path, ("sn", "cpu_milli", "memory_mib", "gpu", "model"), _node)


def read_pods(path: Path) -> Iterator[Pod]:
    """The pods of a file with at least `name,cpu_milli,memory_mib,num_gpu,gpu_milli`, one at a time.

    Raises as `read_nodes` does.
    """
    return _read(path, ("name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli"), _pod)


def _read(path: Path, columns: tuple[str, ...], parse: Callable[[Row], T]) -> Iterator[T]:
    try:
        file = path.open(newline="")
    except OSError as error:
        raise NotFound(f"{path}: {error.strerror}; give the path of a file of the openb trace") from error
    with file:
        rows = csv.reader(file)
        try:
            header = next(rows, [])
            if missing := [column for column in columns if column not in header]:
                raise ValueError(f"no column {', '.join(missing)} among {', '.join(header) or 'none'}")
            for cells in rows:
                if len(cells) != len(header):
                    raise ValueError(f"{len(cells)} cells where the header has {len(header)}")
                yield parse(dict(zip(header, cells, strict=True)))
        except (ValueError, csv.Error) as error:
            line = max(1, rows.line_num)
            raise Invalid(f"{path}:{line}: {error}; correct the line or leave it out") from error


def _node(row: Row) -> Node:
    gpus, model = _amount(row, "gpu"), row["model"].strip()
    if bool(gpus) != bool(model):
        raise ValueError(f"{gpus} GPUs of model {model!r}")
    return Node(_name(row, "sn"), _amount(row, "cpu_milli"), _amount(row, "memory_mib"), gpus, model)


def _pod(row: Row) -> Pod:
    gpus, milli = _amount(row, "num_gpu"), _amount(row, "gpu_milli")
    if gpus > 0 and not 0 < milli <= DEVICE_MILLI:
        raise ValueError(f"gpu_milli is {milli}, where a pod with GPUs asks for 1 to {DEVICE_MILLI} of each")
    if gpus > 1 and milli != DEVICE_MILLI:
        raise ValueError(f"gpu_milli is {milli} of each of {gpus} GPUs; only whole ones come in numbers")
    return Pod(
        _name(row, "name"),
        _amount(row, "cpu_milli"),
        _amount(row, "memory_mib"),
        gpus,
        milli if gpus else 0,
        tuple(each for each in row.get("gpu_spec", "").split("|") if each) if gpus else (),
        row.get("qos", ""),
        row.get("pod_phase", ""),
        _time(row, "creation_time"),
        _time(row, "deletion_time"),
        _time(row, "scheduled_time"),
    )


def _name(row: Row, column: str) -> str:
    if not row[column]:
        raise ValueError(f"{column} is empty")
    return row[column]


def _amount(row: Row, column: str) -> int:
    text = row[column].strip()
    if not (text.isascii() and text.isdigit()) or len(text) > DIGITS:
        raise ValueError(f"{column} is {text[:40]!r}, not a whole number of at most {DIGITS} digits")
    return int(text)


def _time(row: Row, column: str) -> int | None:
    text = row.get(column, "").strip()
    if not text:
        return None
    try:
        return int(float(text))
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{column} is {text[:40]!r}, not a number of seconds") from error
