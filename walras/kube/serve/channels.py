"""exec and attach over a WebSocket: Kubernetes' channel protocols v5, v4 and the first (KEP-4006).

The first byte of a message is its channel: 0 input, 1 output, 2 errors, 3 the status at the end, 4 the size
of the terminal; in v5 255 says which channel has come to its end. In the first protocol the status is a text,
and nothing where all went well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import msgspec

from walras.core.errors import BadRequest, WalrasError
from walras.kube.serve import status
from walras.kube.serve.ports import Session, Stream, Wish
from walras.kube.serve.sockets import Socket, SocketGone

Object = dict[str, Any]

V5: Final = "v5.channel.k8s.io"
V4: Final = "v4.channel.k8s.io"
V1: Final = "channel.k8s.io"
PROTOCOLS: Final = (V5, V4, V1)
STDIN, STATUS, RESIZE, CLOSE = 0, 3, 4, 255
_CHANNELS: Final[Mapping[Stream, int]] = {"stdout": 1, "stderr": 2}
COMMAND_MAX: Final = 1024
_RESIZE_BYTES_MAX: Final = 256
_encode: Final = msgspec.json.Encoder().encode


def wish(flags: Mapping[str, bool]) -> Wish:
    """What the query of a request asks for. Raises BadRequest in kubelet's words."""
    stdin, stdout, stderr = flags["stdin"], flags["stdout"], flags["stderr"]
    if not (stdin or stdout or stderr):
        raise BadRequest("you must specify at least 1 of stdin, stdout, stderr")
    if flags["tty"] and stderr:
        raise BadRequest("tty and stderr cannot both be true")
    return Wish(stdin, stdout, stderr, flags["tty"])


async def converse(
    socket: Socket, session: Session, wanted: Wish, protocol: str, *, tells_code: bool = True
) -> None:
    """Carries the streams both ways until the program has ended or the client has gone.

    `tells_code`: whether it is the program's failure that is told at its end, or success whatever came of it.
    """
    speaking = [asyncio.ensure_future(_speak(socket, session, stream)) for stream in session.outputs]
    hearing = asyncio.ensure_future(_hear(socket, session, wanted, protocol))
    ending = asyncio.ensure_future(session.wait())
    try:
        await asyncio.wait((ending, hearing), return_when=asyncio.FIRST_COMPLETED)
        if not ending.done():
            return
        await asyncio.gather(*speaking)
        await tell(socket, outcome(ending.result() if tells_code else 0), protocol)
    except SocketGone:
        return
    finally:
        for task in (*speaking, hearing, ending):
            task.cancel()
        await asyncio.gather(*speaking, hearing, ending, return_exceptions=True)


async def _speak(socket: Socket, session: Session, stream: Stream) -> None:
    channel = bytes((_CHANNELS[stream],))
    while data := await session.read(stream):
        await socket.send(channel + data)


async def _hear(socket: Socket, session: Session, wanted: Wish, protocol: str) -> None:
    """Returns when the client has gone."""
    with suppress(SocketGone):
        while True:
            message = await socket.receive()
            if not message:
                continue
            channel, data = message[0], message[1:]
            if channel == STDIN and wanted.stdin:
                await session.write(data)
            elif channel == RESIZE and wanted.tty:
                _resize(session, data)
            elif channel == CLOSE and protocol == V5 and data[:1] == bytes((STDIN,)):
                session.end_input()


def _resize(session: Session, data: bytes) -> None:
    try:
        size = msgspec.json.decode(data[:_RESIZE_BYTES_MAX])
        columns, rows = int(size["Width"]), int(size["Height"])
    except (msgspec.DecodeError, KeyError, TypeError, ValueError):
        return
    if 0 <= columns < 1 << 16 and 0 <= rows < 1 << 16:
        session.resize(columns, rows)


def outcome(code: int) -> Object:
    """The Status with which a program's end is told."""
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "message": f"command terminated with non-zero exit code: exit code {code}",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def failure(error: WalrasError) -> Object:
    """The Status of a program that could not be started."""
    said: Object = status.failure(error)
    said["message"] = f"error executing command in container: {error.message}"
    return said


async def tell(socket: Socket, said: Object, protocol: str) -> None:
    """Sends a Status. Raises SocketGone."""
    if protocol != V1:
        await socket.send(bytes((STATUS,)) + _encode(said))
    elif said["status"] != "Success":
        await socket.send(bytes((STATUS,)) + str(said["message"]).encode())
