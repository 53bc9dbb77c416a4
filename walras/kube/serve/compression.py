"""gzip, for answers that are worth it: those that kube-apiserver compresses too."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from walras.kube.serve.answers import Answer
from walras.kube.serve.callers import header

# Below this kube-apiserver leaves an answer as it is: what a client saves is less than what both spend.
SMALLEST_BYTES: Final = 128 << 10
LEVEL: Final = 1


def accepts_gzip(accept_encoding: bytes) -> bool:
    """Whether the header names gzip, or anything, with a weight above nothing."""
    for clause in accept_encoding.decode("latin-1").lower().split(","):
        coding, *parameters = (part.strip() for part in clause.split(";"))
        if coding in ("gzip", "*"):
            weights = [part[2:].strip() for part in parameters if part.startswith("q=")]
            return all(weight.strip("0.") != "" for weight in weights)
    return False


async def compressed(answer: Answer, scope: Mapping[str, Any]) -> Answer:
    """The answer to a request, with its body in gzip where that is large and the client takes it."""
    if len(answer.body) < SMALLEST_BYTES or not accepts_gzip(header(scope, b"accept-encoding")):
        return answer
    body = await asyncio.to_thread(gzip.compress, answer.body, LEVEL, mtime=0)
    headers = ((b"content-encoding", b"gzip"), (b"vary", b"Accept-Encoding"))
    return replace(answer, body=body, headers=(*answer.headers, *headers))
