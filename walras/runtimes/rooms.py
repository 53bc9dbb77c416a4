"""Who waits for room on a node: asked again when some of it may be free. Pure."""

from __future__ import annotations

from collections.abc import Callable

_Node = tuple[str, str]


class Rooms:
    """By cluster and node."""

    def __init__(self) -> None:
        self._waiting: dict[_Node, dict[Callable[[], None], None]] = {}

    def wait(self, node: _Node, again: Callable[[], None]) -> None:
        """Has `again` called whenever there may be more room, first come first; `forget` it in the end."""
        self._waiting.setdefault(node, {})[again] = None

    def forget(self, node: _Node, again: Callable[[], None]) -> None:
        waiting = self._waiting.get(node, {})
        waiting.pop(again, None)
        if not waiting:
            self._waiting.pop(node, None)

    def freed(self, node: _Node) -> None:
        """Something on the node was given back."""
        for again in list(self._waiting.get(node, ())):
            again()
