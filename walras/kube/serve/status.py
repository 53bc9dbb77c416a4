"""Errors and outcomes as Kubernetes `Status` objects (metav1.Status)."""

from __future__ import annotations

from typing import Any

from walras.core.errors import WalrasError
from walras.kube.serve.answers import Answer, json_answer

NOT_SERVED = "the server could not find the requested resource"
METHOD_NOT_ALLOWED = "the server does not allow this method on the requested resource"


def failure(error: WalrasError) -> dict[str, Any]:
    """The Status of an error: its code, reason, message, details and causes."""
    details: dict[str, Any] = dict(error.details)
    if error.causes:
        details["causes"] = [
            {
                "reason": cause.reason,
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
        "reason": error.reason,
        # kubectl looks into the details of every NotFound without asking whether there are any.
        **({"details": details} if details or error.code == 404 else {}),
        "code": error.code,
    }


def success(code: int = 200) -> dict[str, Any]:
    """What a binding or an eviction answers."""
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": code}


def answer(error: WalrasError) -> Answer:
    """The HTTP answer of an error, with Retry-After where the error says when to come back."""
    headers: list[tuple[bytes, bytes]] = []
    if error.retry_after_s is not None:
        headers.append((b"retry-after", str(error.retry_after_s).encode()))
    if error.code == 401:
        headers.append((b"www-authenticate", b'Bearer realm="walras"'))
    return json_answer(failure(error), error.code, tuple(headers))
