"""Python's garbage collector, set for a process that holds millions of objects for hours.

A full collection looks at every object that can be part of a cycle, and nothing else runs meanwhile: with
ten thousand clusters in memory for a second or so. What has survived one is set aside, so that the next looks
only at what has come since. What is set aside is still freed when the last reference goes; only cycles among
it stay, until a full collection that looks at everything again.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Final

from walras.kube.schema import definitions

# How many objects may come before the youngest are looked at, then how often that, then the next older.
THRESHOLDS: Final = (20_000, 10, 20)
# Every so many full collections everything is looked at.
WHOLE_EVERY: Final = 256


def settle() -> Callable[[], None]:
    """Sets aside what there is now, and from now on what survives a full collection; returns what ends it."""
    before, full = gc.get_threshold(), 0

    def collected(phase: str, info: dict[str, int]) -> None:
        nonlocal full
        if info["generation"] != 2:
            return
        if phase == "stop":
            gc.freeze()
            full += 1
        elif full % WHOLE_EVERY == WHOLE_EVERY - 1:
            gc.unfreeze()

    def undo() -> None:
        gc.callbacks.remove(collected)
        gc.set_threshold(*before)
        gc.unfreeze()

    # What every write needs is read now, so that it is set aside and the first write does not wait for it.
    definitions()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    gc.callbacks.append(collected)
    return undo
