"""Every error Walras raises on purpose, each one Kubernetes `Status` reason.

WalrasError                         code reason
├── BadRequest                      400  BadRequest
├── Unauthorized                    401  Unauthorized
├── Forbidden                       403  Forbidden
├── NotFound                        404  NotFound
├── MethodNotAllowed                405  MethodNotAllowed
├── NotAcceptable                   406  NotAcceptable
├── AlreadyExists                   409  AlreadyExists
├── Conflict                        409  Conflict
├── Expired                         410  Expired
├── RequestEntityTooLarge           413  RequestEntityTooLarge
├── UnsupportedMediaType            415  UnsupportedMediaType
├── Invalid                         422  Invalid
│   ├── InsufficientFunds           422  Invalid
│   └── MoneyError                  422  Invalid
├── TooManyRequests                 429  TooManyRequests
├── InternalError                   500  InternalError
│   └── StorageError                500  InternalError
├── Unclassified                    500  (none)
├── ServiceUnavailable              503  ServiceUnavailable
├── Timeout                         504  Timeout
└── Denied                          of who refuses: a webhook, a policy
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Cause:
    """One field's fault, as in `Status.details.causes`."""

    reason: str
    message: str
    field: str = ""


class WalrasError(Exception):
    """Base of all; `details` and `causes` end up in `Status.details`."""

    code: int = 500
    reason: str = "InternalError"

    def __init__(
        self,
        message: str,
        *,
        causes: tuple[Cause, ...] = (),
        details: dict[str, Any] | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.causes = causes
        self.details = details or {}
        self.retry_after_s = retry_after_s


class BadRequest(WalrasError):
    code, reason = 400, "BadRequest"


class Unauthorized(WalrasError):
    code, reason = 401, "Unauthorized"


class Forbidden(WalrasError):
    code, reason = 403, "Forbidden"


class NotFound(WalrasError):
    code, reason = 404, "NotFound"


class MethodNotAllowed(WalrasError):
    code, reason = 405, "MethodNotAllowed"


class NotAcceptable(WalrasError):
    code, reason = 406, "NotAcceptable"


class AlreadyExists(WalrasError):
    code, reason = 409, "AlreadyExists"


class Conflict(WalrasError):
    code, reason = 409, "Conflict"


class Expired(WalrasError):
    code, reason = 410, "Expired"


class RequestEntityTooLarge(WalrasError):
    code, reason = 413, "RequestEntityTooLarge"


class UnsupportedMediaType(WalrasError):
    code, reason = 415, "UnsupportedMediaType"


class Invalid(WalrasError):
    code, reason = 422, "Invalid"


class MoneyError(Invalid):
    """An amount, price or rate that cannot be read or must not be negative."""


class InsufficientFunds(Invalid):
    """The account cannot cover the transfer."""


class TooManyRequests(WalrasError):
    code, reason = 429, "TooManyRequests"


class InternalError(WalrasError):
    code, reason = 500, "InternalError"


class StorageError(InternalError):
    """The store refused the commit (disk full, read-only, corrupt); nothing of it was applied."""


class Unclassified(WalrasError):
    """What upstream answers with a bare error, where the fault is the client's."""

    code, reason = 500, ""


class ServiceUnavailable(WalrasError):
    code, reason = 503, "ServiceUnavailable"


class Timeout(WalrasError):
    code, reason = 504, "Timeout"


class Denied(WalrasError):
    """Refused by somebody else's rules, with the code and the reason that they give."""

    def __init__(self, message: str, code: int, reason: str, *, causes: tuple[Cause, ...] = (),
                 details: dict[str, Any] | None = None) -> None:  # fmt: skip
        super().__init__(message, causes=causes, details=details)
        self.code = code
        self.reason = reason


def bare(error: WalrasError) -> WalrasError:
    """The error without the frames that it came through, in place.

    They hold all that it is about, and mostly the error itself: a circle which only the collector finds.
    """
    each: BaseException | None = error
    while each is not None:
        each.__traceback__ = None
        each = each.__context__
    return error
