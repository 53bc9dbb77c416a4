"""Plain HTTP to one logical cluster, with the credentials of a kubeconfig."""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import yaml

Object = dict[str, Any]
MANAGER = "demo"
TIMEOUT_S = 60.0


class Refused(Exception):
    """The API server's Status, with its message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Cluster:
    """One agent's cluster, or the fleet."""

    def __init__(self, kubeconfig: str) -> None:
        config = yaml.safe_load(kubeconfig)
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self.url = str(cluster["server"]).rstrip("/")
        self._http = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {user['token']}"},
            verify=ssl.create_default_context(cadata=authority),
            timeout=TIMEOUT_S,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=32),
            trust_env=False,
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def get(self, path: str, **query: str) -> Any:
        """The JSON at a path below the cluster. Raises Refused, httpx.HTTPError."""
        answer = await self._http.get(f"{self.url}/{path}", params=query)
        return _body(answer)

    async def apply(self, path: str, obj: Object) -> Object:
        """Server-side apply to `path`/NAME. Raises Refused."""
        answer = await self._http.patch(
            f"{self.url}/{path}/{obj['metadata']['name']}",
            params={"fieldManager": MANAGER, "force": "true"},
            content=json.dumps(obj),
            headers={"Content-Type": "application/apply-patch+yaml"},
        )
        found: Object = _body(answer)
        return found

    async def merge(self, path: str, change: Mapping[str, Any]) -> Object:
        """A JSON merge patch. Raises Refused."""
        answer = await self._http.patch(
            f"{self.url}/{path}",
            content=json.dumps(change),
            headers={"Content-Type": "application/merge-patch+json"},
        )
        found: Object = _body(answer)
        return found

    async def delete(self, path: str) -> None:
        """Delete with dependents; one that is gone already is fine. Raises Refused."""
        answer = await self._http.request(
            "DELETE", f"{self.url}/{path}", content=json.dumps({"propagationPolicy": "Background"})
        )
        if answer.status_code != 404:
            _body(answer)

    async def watch(self, path: str, **query: str) -> AsyncIterator[tuple[str, Object]]:
        """(type, object) of all that is there and then of each change, until the server ends it."""
        address = f"{self.url}/{path}"
        async with self._http.stream("GET", address, params={**query, "watch": "1"}, timeout=None) as answer:
            if answer.status_code != 200:
                raise Refused(answer.status_code, "the watch was refused")
            async for line in answer.aiter_lines():
                event = json.loads(line)
                yield event["type"], event["object"]


def _body(answer: httpx.Response) -> Any:
    try:
        found = answer.json()
    except ValueError:
        found = {"message": answer.text[:200]}
    if answer.status_code >= 400:
        raise Refused(answer.status_code, str(found.get("message", answer.status_code)))
    return found
