"""One HTTP request, as the handlers see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal
from urllib.parse import parse_qsl

from walras.core.errors import BadRequest
from walras.kube import bodies
from walras.kube.access.authoriser import Authoriser, Decision
from walras.kube.context import Context, Identity
from walras.kube.serve.paths import Route

_QUERY_BYTES_MAX: Final = 64 * 1024
_PARAMETERS_MAX: Final = 100
FieldValidation = Literal["Strict", "Warn", "Ignore"]
_FIELD_VALIDATIONS: Final[Mapping[str, FieldValidation]] = {
    "": "Warn",
    "Strict": "Strict",
    "Warn": "Warn",
    "Ignore": "Ignore",
}
_MANAGER_MAX: Final = 128


@dataclass(slots=True)
class Request:
    """`headers` have lower-case names; `query` keeps the first value of each parameter."""

    method: str
    route: Route
    query: dict[str, str]
    query_string: str
    headers: Mapping[bytes, bytes]
    receive: bodies.Receive
    identity: Identity
    access: Authoriser | None = None
    # What access control made of it, once it was asked.
    decision: Decision | None = None
    # What everybody who asks for this is warned of.
    deprecation: str = ""

    def header(self, name: bytes) -> str:
        return self.headers.get(name, b"").decode("latin-1")

    async def body(self, limit: int = bodies.BODY_BYTES_MAX) -> bytes:
        """The undecoded body. Raises RequestEntityTooLarge, Timeout, ClientGone."""
        return await bodies.read(self.receive, self.headers.get(b"content-length"), limit)

    async def decoded(self, limit: int = bodies.BODY_BYTES_MAX) -> bodies.Body:
        """The object in the body. Raises BadRequest, UnsupportedMediaType and what `body` raises."""
        return await bodies.decode(await self.body(limit), self.header(b"content-type"))

    def context(self) -> Context:
        """The caller, the cluster and the parameters that all writes share. Raises BadRequest."""
        query = self.query
        manager = query.get("fieldManager") or self.header(b"user-agent").partition("/")[0].strip()
        return Context(
            identity=self.identity,
            cluster=self.route.cluster,
            dry_run=dry_run(query.get("dryRun", "")),
            field_manager=manager[:_MANAGER_MAX],
            field_validation=_field_validation(query.get("fieldValidation", "")),
            access=self.access,
        )


def dry_run(value: str) -> bool:
    if value not in ("", "All"):
        raise BadRequest(f'dryRun: Unsupported value: "{value[:64]}": supported values: "All"')
    return value == "All"


def _field_validation(value: str) -> FieldValidation:
    known = _FIELD_VALIDATIONS.get(value)
    if known is None:
        raise BadRequest(
            f'fieldValidation: Unsupported value: "{value[:64]}": '
            'supported values: "Ignore", "Strict", "Warn"'
        )
    return known


def parse_query(raw: bytes) -> dict[str, str]:
    """The parameters of a query string, the first value of each. Raises BadRequest."""
    if not raw:
        return {}
    if len(raw) > _QUERY_BYTES_MAX:
        raise BadRequest("the query string is too long")
    try:
        pairs = parse_qsl(raw.decode("latin-1"), keep_blank_values=True, max_num_fields=_PARAMETERS_MAX)
    except ValueError:
        raise BadRequest("the query string cannot be read") from None
    found: dict[str, str] = {}
    for name, value in pairs:
        found.setdefault(name, value)
    return found


def whole_number(query: Mapping[str, str], name: str) -> int:
    """A parameter that is zero or more, 0 when absent. Raises BadRequest."""
    text = query.get(name, "")
    if not text:
        return 0
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise BadRequest(f"{name}: Invalid value: {text[:64]!r}: must be a whole number")
    return int(text)


def delete_options(request: Request, body: Mapping[str, Any]) -> dict[str, Any]:
    """DeleteOptions of the body, else of the query. Raises BadRequest."""
    query, options = request.query, dict(body)
    if body:
        return options
    if "gracePeriodSeconds" in query:
        options["gracePeriodSeconds"] = whole_number(query, "gracePeriodSeconds")
    if query.get("propagationPolicy"):
        options["propagationPolicy"] = query["propagationPolicy"]
    if query.get("orphanDependents") in ("true", "false"):
        options["propagationPolicy"] = "Orphan" if query["orphanDependents"] == "true" else "Background"
    return options
