"""Pods that nobody can enter, for tests of what else is done with them."""

from __future__ import annotations

from typing import Any

from walras.core.errors import NotFound
from walras.kube.serve.ports import Session, Wish


class Closed:
    """The part of PodAccess that is exec and attach."""

    async def exec(
        self, cluster: str, pod: Any, container: str, argv: tuple[str, ...], wish: Wish
    ) -> Session:
        raise NotFound(f'container not found ("{container}")')

    def attach(self, cluster: str, pod: Any, container: str, wish: Wish) -> Session:
        raise NotFound(f'container not found ("{container}")')
