"""What has lived long is set aside, and garbage is found all the same."""

import gc
import weakref

from walras.server import memory


class Node:
    def __init__(self) -> None:
        self.other: Node | None = None


def pair() -> weakref.ref[Node]:
    """Two nodes that hold each other, and that nobody else holds."""
    first, second = Node(), Node()
    first.other, second.other = second, first
    return weakref.ref(first)


def test_what_survives_is_set_aside_and_young_cycles_are_found() -> None:
    undo = memory.settle()
    try:
        aside = gc.get_freeze_count()
        kept = [Node() for _ in range(1000)]
        gone = pair()
        gc.collect()
        assert gone() is None
        assert gc.get_freeze_count() >= aside + len(kept)
    finally:
        undo()
    assert gc.get_freeze_count() == 0 and not [each for each in gc.callbacks if "settle" in repr(each)]


def test_a_cycle_that_was_set_aside_is_found_when_everything_is_looked_at() -> None:
    undo = memory.settle()
    try:
        holder, node = Node(), Node()
        holder.other, node.other = node, node
        found = weakref.ref(node)
        del node
        gc.collect()
        holder.other = None
        gc.collect()
        assert found() is not None, "it was set aside with its holder"
        for _ in range(memory.WHOLE_EVERY):
            gc.collect()
        assert found() is None
    finally:
        undo()
