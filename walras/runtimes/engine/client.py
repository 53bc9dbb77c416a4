"""A client of an engine's API (Docker Engine API 1.41) on a Unix socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import suppress
from typing import Any, Final
from urllib.parse import urlencode

import httpx
import msgspec

from walras.core.errors import InternalError

_VERSION: Final = "/v1.41"
_TIMEOUT_S: Final = 60.0
_HEAD_MAX: Final = 65_536
_PIECE_BYTES: Final = 1 << 20
_LOOK_AGAIN_S: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
Params = Mapping[str, str | int]
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class EngineError(InternalError):
    """The engine refused or cannot be reached (`status` 0); the message is its own."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Engine:
    """Calls of one engine. Paths are without the version."""

    def __init__(self, socket: str) -> None:
        self.socket = socket
        self._http = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=socket, limits=httpx.Limits(max_connections=None)),
            base_url="http://engine",
            timeout=_TIMEOUT_S,
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def call(self, method: str, path: str, *, body: Any = None, params: Params | None = None) -> Any:
        """The decoded answer, None for an empty one. Raises EngineError."""
        content = None if body is None else msgspec.json.encode(body)
        headers = {} if body is None else {"Content-Type": "application/json"}
        answer = await self._send(method, path, content=content, headers=headers, params=params)
        return msgspec.json.decode(answer) if answer.strip() else None

    async def look(self, engine_id: str) -> dict[str, Any]:
        """What there is of a container. Raises EngineError."""
        for pause_s in _LOOK_AGAIN_S:
            try:
                return dict(await self.call("GET", f"/containers/{engine_id}/json"))
            except EngineError as error:
                if not has_just_ended(error):
                    raise
            await asyncio.sleep(pause_s)
        return dict(await self.call("GET", f"/containers/{engine_id}/json"))

    async def load(self, archive: bytes, name: str) -> None:
        """Makes an image of a file system, under a name with a tag. Raises EngineError."""
        await self._send("POST", "/images/create", content=archive, params={"fromSrc": "-", "repo": name})

    async def _send(self, method: str, path: str, **told: Any) -> bytes:
        """The body of the answer. Raises EngineError."""
        try:
            answer = await self._http.request(method, _VERSION + path, **told)
        except (httpx.HTTPError, RuntimeError) as error:  # RuntimeError: closed meanwhile
            raise EngineError(f"the container engine does not answer: {_why(error)}") from error
        if answer.status_code >= 400:
            raise EngineError(_message(answer.content), answer.status_code)
        return answer.content

    async def lines(
        self, path: str, params: Params, headers: Mapping[str, str]
    ) -> AsyncGenerator[dict[str, Any], None]:
        """What a long POST says of its progress, an object a line. Raises EngineError."""
        try:
            async with self._http.stream(
                "POST",
                _VERSION + path,
                params=params,
                headers=headers,
                timeout=httpx.Timeout(_TIMEOUT_S, read=None),
            ) as answer:
                if answer.status_code >= 400:
                    raise EngineError(_message(await answer.aread()), answer.status_code)
                async for line in answer.aiter_lines():
                    with suppress(msgspec.DecodeError):
                        said = msgspec.json.decode(line)
                        if isinstance(said, dict):
                            yield said
        except (httpx.HTTPError, RuntimeError) as error:  # RuntimeError: closed meanwhile
            raise EngineError(f"the container engine does not answer: {_why(error)}") from error

    async def pieces(self, path: str, params: Params) -> AsyncIterator[bytes]:
        """The body of a long answer to a GET. Raises EngineError."""
        try:
            async with self._http.stream("GET", _VERSION + path, params=params) as answer:
                if answer.status_code >= 400:
                    raise EngineError(_message(await answer.aread()), answer.status_code)
                async for piece in answer.aiter_bytes(_PIECE_BYTES):
                    yield piece
        except (httpx.HTTPError, RuntimeError) as error:  # RuntimeError: closed meanwhile
            raise EngineError(f"the container engine does not answer: {_why(error)}") from error

    async def hijack(self, path: str, *, body: Any = None, params: Params | None = None) -> Streams:
        """A POST whose connection becomes the streams of a program. Raises EngineError."""
        content = b"" if body is None else msgspec.json.encode(body)
        query = f"?{urlencode(params)}" if params else ""
        head = (
            f"POST {_VERSION}{path}{query} HTTP/1.1\r\nHost: engine\r\n"
            "Connection: Upgrade\r\nUpgrade: tcp\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        try:
            reader, writer = await asyncio.open_unix_connection(self.socket, limit=_HEAD_MAX)
            try:
                writer.write(head.encode() + content)
                async with asyncio.timeout(_TIMEOUT_S):
                    answer = await reader.readuntil(b"\r\n\r\n")
                status = int(answer.partition(b" ")[2][:3])
                if status not in (101, 200):
                    raise EngineError(_message(await _rest(reader, answer)), status)
            except BaseException:
                writer.close()
                raise
        except (OSError, EOFError, TimeoutError, ValueError, asyncio.LimitOverrunError) as error:
            raise EngineError(f"the container engine does not answer: {error}") from error
        return reader, writer


async def _rest(reader: asyncio.StreamReader, head: bytes) -> bytes:
    """The body of a refusal."""
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return await reader.readexactly(min(int(line.partition(b":")[2]), _HEAD_MAX))
    async with asyncio.timeout(_TIMEOUT_S):
        return await reader.read(_HEAD_MAX)


def _why(error: Exception) -> str:
    return str(error) or type(error).__name__


def _message(body: bytes) -> str:
    with suppress(msgspec.DecodeError):
        said = msgspec.json.decode(body)
        if isinstance(said, dict) and said.get("message"):
            return str(said["message"])
    # What is left of an answer in chunks.
    text = body.decode(errors="replace").strip()
    start, end = text.find("{"), text.rfind("}")
    if 0 <= start < end and text[start : end + 1] != text:
        return _message(text[start : end + 1].encode())
    return text or "the container engine gave no reason"


def has_just_ended(error: EngineError) -> bool:
    """Whether Podman looked for a program that it takes to run, and that had ended by then."""
    return "/proc/" in error.message and "no such process" in error.message
