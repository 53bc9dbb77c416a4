"""Kernels: functions over arrays that numba compiles on their first call and keeps on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numba
import numpy as np
import numpy.typing as npt

P = ParamSpec("P")
R = TypeVar("R")

Ints = npt.NDArray[np.int64]
Grid = np.ndarray[Any, np.dtype[np.int64]]  # of two dimensions
NONE = -1  # no row
LIMIT = (1 << 62) - 1  # above every key, cost and memory size


@cache
def _fingerprint(folder: Path) -> str:
    """numba looks at a kernel's own file when it asks whether what it kept is still true, not at the files of
    the kernels that it calls; so all kernels' names carry the text of all files that have any, of their own
    folder and of this one."""
    digest = hashlib.blake2s()
    for path in sorted({*folder.glob("*.py"), *Path(__file__).parent.glob("*.py")}):
        text = path.read_bytes()
        if b"\n@kernel" in text or b"\n@part" in text or b"\n@step" in text:
            digest.update(text)
    return digest.hexdigest()[:12]


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """The function compiled for the types of its first call. It must be a plain function over arrays."""
    return _compiled(function)


def part(function: Callable[P, R]) -> Callable[P, R]:
    """A kernel that makes no arrays and keeps none: it need not count references to those it is given.

    Counting takes two locked instructions for each array of each call, most of the time of a small one.
    """
    return _compiled(function, forceinline=True, _nrt=False)


def step(function: Callable[P, R]) -> Callable[P, R]:
    """A `part` that is called and not copied into its callers, for what is rare and large."""
    return _compiled(function, _nrt=False)


def _compiled(function: Callable[P, R], **options: Any) -> Callable[P, R]:
    function.__qualname__ += f"_{_fingerprint(Path(function.__code__.co_filename).parent)}"
    compiled: Callable[P, R] = numba.njit(cache=True, error_model="numpy", **options)(function)
    return compiled


@part
def mixed(key: int) -> int:
    """The key with its high bits in its low ones too, for tables whose size is a power of two."""
    key ^= key >> 29
    return key ^ (key >> 17) ^ (key >> 9)
