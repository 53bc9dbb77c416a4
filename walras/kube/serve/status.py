"""Errors and outcomes as Kubernetes `Status` objects (metav1.Status)."""

from __future__ import annotations

from typing import Any

from walras.core.errors import NotAcceptable, WalrasError
from walras.kube.serve import negotiate
from walras.kube.serve.answers import Answer

NOT_SERVED = "the server could not find the requested resource"
METHOD_NOT_ALLOWED = "the server does not allow this method on the requested resource"


def failure(error: WalrasError) -> dict[str, Any]:
    """The Status of an error: its code, reason, message, details and causes."""
    details: dict[str, Any] = dict(error.details)
    if error.causes:
        details["causes"] = [
            {
                **({"reason": cause.reason} if cause.reason else {}),
                "message": cause.message,
                **({"field": cause.field} if cause.field else {}),
            }
            for cause in error.causes
        ]
    if error.retry_after_s is not None:
        details["retryAfterSeconds"] = error.retry_after_s
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": error.message,
        **({"reason": error.reason} if error.reason else {}),
        **({"details": details} if details or _has_details(error) else {}),
        "code": error.code,
    }


def _has_details(error: WalrasError) -> bool:
    """Whether upstream writes details though there are none; kubectl looks into them without asking."""
    by_route = error.message.startswith(f"{error.code}: ")
    return error.code in (404, 405) or by_route or (error.code == 422 and not error.causes)


def success(code: int = 200) -> dict[str, Any]:
    """What a binding or an eviction answers."""
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": code}


def answer(error: WalrasError, accept: str = "") -> Answer:
    """The HTTP answer of an error, with Retry-After where the error says when to come back."""
    headers: list[tuple[bytes, bytes]] = []
    if error.retry_after_s is not None:
        headers.append((b"retry-after", str(error.retry_after_s).encode()))
    if error.code == 401:
        headers.append((b"www-authenticate", b'Bearer realm="walras"'))
    try:
        shape = negotiate.representation(accept)
    except NotAcceptable:
        shape = negotiate.PLAIN
    # On a line of its own, as Go ends what it encodes: clients show the body of an error as it comes.
    body = shape.encode(failure(error)).removesuffix(b"\n") + b"\n"
    return Answer(body, error.code, shape.content_type, tuple(headers))
