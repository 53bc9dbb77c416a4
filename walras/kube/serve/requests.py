"""One HTTP request, as the handlers see it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Final, Literal
from urllib.parse import parse_qsl

from walras.core.errors import BadRequest
from walras.kube import bodies, options
from walras.kube.access.authoriser import Authoriser, Decision
from walras.kube.context import Context, Identity
from walras.kube.serve.paths import Route
from walras.kube.steps import BYTES_MIN, Aside, Steps

_QUERY_BYTES_MAX: Final = 64 * 1024
_PARAMETERS_MAX: Final = 100
_NUMBER: Final = re.compile(r"[+-]?[0-9]+", re.ASCII)
_VALIDATIONS: Final[Mapping[str, Literal["Strict", "Warn", "Ignore"]]] = {
    "Strict": "Strict",
    "Ignore": "Ignore",
}


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
    # Raises NotFound once another cluster has the name: to be called after waiting.
    still: Callable[[], None] | None = None
    # What stands before the paths of the API as the caller writes them: /clusters/NAME, or nothing.
    prefix: str = ""
    # What access control made of it, once it was asked.
    decision: Decision | None = None
    # What everybody who asks for this is warned of.
    deprecation: str = ""
    # The last context made, whose warnings go out with whatever is answered.
    asked: Context | None = None
    # Whether what was sent is so much that it has long steps; and who is told what those take.
    is_large: bool = False
    charge: Callable[[int], None] | None = None
    # Takes its long steps, once it is its turn.
    aside: Aside | None = None

    @property
    def cluster(self) -> str:
        return self.route.cluster

    def header(self, name: bytes) -> str:
        return self.headers.get(name, b"").decode("latin-1")

    async def body(self, limit: int = bodies.BODY_BYTES_MAX) -> bytes:
        """The undecoded body. Raises RequestEntityTooLarge, Timeout, BadRequest, NotFound."""
        found = await bodies.read(self.receive, self.headers.get(b"content-length"), limit)
        self.check_still()
        self.is_large = len(found) >= BYTES_MIN
        if self.is_large and self.asked is not None:
            self.asked.steps = Steps()
        return found

    def check_media(self) -> None:
        """Raises UnsupportedMediaType for a body of no type that is read."""
        bodies.media_type(self.header(b"content-type"))

    async def decoded(self, kind: str = "", limit: int = bodies.BODY_BYTES_MAX) -> bodies.Body:
        """The object in the body, to be a `kind`. Raises BadRequest, UnsupportedMediaType and as `body`."""
        body, take = await self.body(limit), partial(self.aside.take, self) if self.aside else None
        found = await bodies.decode(body, self.header(b"content-type"), kind, take)
        self.check_still()
        return found

    def check_still(self) -> None:
        """Raises NotFound where the cluster that the caller was let into is gone."""
        if self.still is not None:
            self.still()

    def context(self, kind: str = "", media: str = "") -> Context:
        """The caller, the cluster and the parameters that all writes share.

        `kind` names them where it is a write, such as "PatchOptions" with the patch's `media` type. Raises
        Invalid.
        """
        query = self.query
        if kind:
            options.check_write(kind, query, media)
        self.asked = Context(
            identity=self.identity,
            cluster=self.route.cluster,
            dry_run=bool(kind) and query.get("dryRun") == "All",
            field_manager=query.get("fieldManager") or _agent(self.header(b"user-agent")),
            field_validation=_VALIDATIONS.get(query.get("fieldValidation", ""), "Warn"),
            still=self.still,
            access=self.access,
            steps=Steps() if self.is_large else None,
            charge=self.charge,
        )
        return self.asked


def _agent(header: str) -> str:
    """What a client calls itself, as far as it can be a manager's name."""
    return _printable(header.partition("/")[0][: options.MANAGER_BYTES_MAX])


@lru_cache(maxsize=256)
def _printable(text: str) -> str:
    name, size = "", 0
    for char in text:
        size += len(char.encode())
        if size > options.MANAGER_BYTES_MAX:
            break
        name += char if char.isprintable() else ""
    return name


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
    """An integer parameter, 0 when absent. Raises BadRequest, in the words of Go's parser."""
    text = query.get(name)
    if text is None:
        return 0
    if not _NUMBER.fullmatch(text):
        raise BadRequest(f"strconv.ParseInt: parsing {options.quoted(text[:64])}: invalid syntax")
    number = int(text[:32])
    if not -(2**63) <= number < 2**63:
        raise BadRequest(f"strconv.ParseInt: parsing {options.quoted(text[:64])}: value out of range")
    return number


def flag(query: Mapping[str, str], name: str) -> bool:
    """A boolean parameter as apimachinery reads it: present and not "false" or "0"."""
    return name in query and query[name].lower() not in ("false", "0")


def delete_options(query: Mapping[str, str]) -> dict[str, Any]:
    """DeleteOptions of the query, for a request without a body. Raises BadRequest."""
    found: dict[str, Any] = {}
    if "gracePeriodSeconds" in query:
        found["gracePeriodSeconds"] = whole_number(query, "gracePeriodSeconds")
    if "propagationPolicy" in query:
        found["propagationPolicy"] = query["propagationPolicy"]
    if "orphanDependents" in query:
        found["orphanDependents"] = flag(query, "orphanDependents")
    if "dryRun" in query:
        found["dryRun"] = [query["dryRun"]]
    return found
