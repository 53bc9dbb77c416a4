"""Callers in pods: they ask by the names that functions have in their own cluster, and are of it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from walras.core.errors import Unauthorized
from walras.functions.activator import WITHIN, Activator
from walras.functions.client import Client, Receive, Send
from walras.kube.serve.relay import Relay


class InsideFunctions:
    """The activator as pods see it: a connection's relay knows of which cluster it is."""

    def __init__(self, app: Activator) -> None:
        self._app = app
        self.relay: Relay[str] = Relay()

    async def close(self) -> None:
        """The requests are the activator's own."""

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        peer = scope.get("client") or ("", 0)
        cluster = self.relay.peers.get((str(peer[0]), int(peer[1])))
        if cluster is not None:
            await self._app({**scope, WITHIN: cluster}, receive, send)
        elif scope["type"] == "http":
            client = Client(receive, send, lambda: None)
            await client.refuse(Unauthorized("Unauthorized"))
            client.close()
        elif scope["type"] == "websocket":
            await receive()
            with suppress(Exception):
                await send({"type": "websocket.close", "code": 1008})
