"""Lists: consistent pages of what there is, or was at a revision."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from walras.core.errors import BadRequest, Cause, Expired, Timeout, Unclassified
from walras.kube import versions
from walras.kube.api import API
from walras.kube.context import EVERY_CLUSTER
from walras.kube.conversion.answers import Conversions
from walras.kube.events import Matcher, in_cluster
from walras.kube.options import invalid, quoted
from walras.kube.record import Key, Object, Record, parse
from walras.kube.registry import Resource
from walras.kube.selectors import field_terms, parse_fields, parse_labels
from walras.kube.state import Cluster
from walras.kube.watch import too_old

_TOKEN_VERSION: Final = "meta.k8s.io/v1"  # noqa: S105
_CHUNK: Final = 500
_NAME: Final = re.compile(r"[A-Za-z0-9.:_-]+")
Where = tuple[str, str]
# For labels and for fields, as texts.
Selectors = tuple[str, str]
# What objects are in the version of whoever selects.
Seen = Callable[[list[Object]], list[Object]]


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list. `remaining` counts what follows, where that is known without looking at it.

    Its items are the objects of `records`, unless they are `converted` from what is stored.
    """

    records: Sequence[Record] = ()
    resource_version: str = ""
    continue_: str = ""
    remaining: int | None = None
    converted: list[Object] | None = None

    @property
    def items(self) -> list[Object]:
        return [record.object for record in self.records] if self.converted is None else self.converted


def matcher(resource: Resource, label_selector: str, field_selector: str) -> Matcher | None:
    """Whether an object is selected; None when all are. Raises BadRequest."""
    labels = parse_labels(label_selector) if label_selector else None
    fields = parse_fields(field_selector, resource) if field_selector else None
    if not labels and not fields:
        return None

    def matches(obj: Object) -> bool:
        return (not labels or labels.matches(obj["metadata"].get("labels"))) and (
            not fields or fields.matches(obj)
        )

    return matches


def named(field_selector: str) -> str:
    """The name of the one object that a selector of nothing else selects; "" for any other selector."""
    name = field_selector.removeprefix("metadata.name=")
    return name if name != field_selector and _NAME.fullmatch(name) else ""


def parse_revision(text: str) -> int:
    """A resourceVersion from outside; "" is 0. Raises Unclassified, as upstream for reads of one object."""
    if text in ("", "0"):
        return 0
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        shown = quoted(text[:64])
        why = f"strconv.ParseUint: parsing {shown}: invalid syntax"
        raise Unclassified(f"resourceVersion: Invalid value: {shown}: {why}")
    return int(text)


def not_yet(wanted: int, current: int, *, soon: bool = True) -> Timeout:
    """The answer to a resourceVersion that this server has not reached, which it may do `soon`."""
    return Timeout(
        f"Timeout: Too large resource version: {wanted}, current: {current}",
        causes=(Cause("ResourceVersionTooLarge", "Too large resource version"),),
        retry_after_s=1 if soon else None,
    )


@dataclass(frozen=True, slots=True)
class _Token:
    """Where a list goes on: beyond `start`, at revision `rv`."""

    rv: int
    start: Where

    def text(self) -> str:
        body = {"v": _TOKEN_VERSION, "rv": self.rv, "start": "\0".join(self.start)}
        return base64.urlsafe_b64encode(msgspec.json.encode(body)).rstrip(b"=").decode()

    @classmethod
    def parse(cls, text: str) -> _Token:
        try:
            body = parse(base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True))
        except ValueError as error:
            raise _bad_token(f": {error}") from None
        if not isinstance(body, dict) or body.get("v") != _TOKEN_VERSION:
            version = body.get("v", "") if isinstance(body, dict) else ""
            raise _bad_token(f": server does not recognize this encoded version {str(version)[:64]}")
        try:
            namespace, name = body["start"].split("\0")
            if type(body["rv"]) is not int or not 0 < body["rv"] < 2**62:
                raise ValueError
        except (ValueError, KeyError, TypeError, AttributeError):
            raise _bad_token(
                f": incorrect encoded start resourceVersion (version {_TOKEN_VERSION})"
            ) from None
        return cls(body["rv"], (namespace, name))


def _bad_token(why: str) -> BadRequest:
    return BadRequest(f"invalid continue token: continue key is not valid{why}")


class Lister:
    """Lists one resource of one cluster, or of every one."""

    def __init__(self, api: API) -> None:
        self._api = api

    def page(
        self,
        cluster: str,
        resource: Resource,
        namespace: str,
        selectors: Selectors,
        *,
        limit: int,
        continue_: str,
        resource_version: str,
        match: str,
        initial_events: bool = False,
        conversions: Conversions | None = None,
    ) -> Page:
        """The page, as it is stored. What a webhook converts is selected by what it is in the version.

        Raises BadRequest, Invalid, Expired for a revision that is gone, Timeout for one to come; Unconverted.
        """
        if selectors[0]:
            parse_labels(selectors[0])
        field_terms(selectors[1])
        _check_versions(continue_, resource_version, match, initial_events)
        matches = matcher(resource, *selectors)
        if cluster == EVERY_CLUSTER:
            return self._everywhere(resource, namespace, matches)
        counters = self._api.state.cluster(cluster)
        token = _Token.parse(continue_) if continue_ else None
        if token and resource_version not in ("", "0"):
            raise BadRequest("specifying resource version is not allowed when using continue")
        try:
            wanted = token.rv if token else parse_revision(resource_version)
        except Unclassified as error:
            raise BadRequest(f"invalid resource version: {error.message}") from None
        if wanted > counters.revision:
            # Upstream waits for it in its cache, of which it makes no pages.
            raise not_yet(wanted, counters.revision, soon=not limit and match != "Exact")
        if resource_version == "0":
            # Upstream answers out of its cache, of which it makes no pages.
            limit = 0
        # A page of a revision that is named is of that one, from before there was a word for it.
        paged = limit > 0 and wanted > 0 and not match
        exact = token is not None or match == "Exact" or paged
        at = wanted if exact else counters.revision
        seen: Seen | None = None
        if resource.converter is not None and matches is not None:

            def seen(found: list[Object]) -> list[Object]:
                return versions.all_served(resource, found, conversions)

        return self._at(counters, resource.storage.key, namespace, matches, at, token, limit, seen)

    def _at(
        self,
        cluster: Cluster,
        resource: str,
        namespace: str,
        matches: Matcher | None,
        at: int,
        token: _Token | None,
        limit: int,
        seen: Seen | None,
    ) -> Page:
        collection = self._api.state.collection(cluster.name, resource)
        after = token.start if token else None
        remaining: Callable[[int], int | None] = lambda _: None  # noqa: E731
        if self._api.state.changed(cluster.name, resource) <= at:
            listed = collection.listed(namespace, after) if collection else []
            records = iter(listed)
            if matches is None:
                remaining = lambda taken: len(listed) - taken  # noqa: E731
        else:
            if at < cluster.compacted:
                raise _gone(token, at, cluster.compacted)
            records = self._with_defaults(cluster.name, resource, namespace, at, after)
        if seen is not None and matches is not None:
            candidates = list(records)
            shown = seen([record.object for record in candidates])
            records = iter([record for record, obj in zip(candidates, shown, strict=True) if matches(obj)])
            matches = None
        found: list[Record] = []
        for taken, record in enumerate(records):
            if limit and len(found) == limit:
                last = found[-1].key
                token = _Token(at, (last.namespace, last.name))
                return Page(found, str(at), token.text(), remaining(taken))
            if matches is None or matches(record.object):
                found.append(record)
        return Page(found, str(at))

    def _with_defaults(
        self, cluster: str, resource: str, namespace: str, at: int, after: Where | None
    ) -> Iterator[Record]:
        """What was stored, and in its place in the order what the cluster had without storing it."""
        past = self._past(cluster, resource, namespace, at, after)
        defaults = self._api.state.defaults.get(resource)
        if not defaults:
            return past
        stored = {(record.key.namespace, record.key.name): record for record in past}
        found = {**defaults, **stored}
        wanted = [where for where in found if (not after or where > after) and namespace in ("", where[0])]
        return iter([found[where] for where in sorted(wanted)])

    def _past(
        self, cluster: str, resource: str, namespace: str, at: int, after: Where | None
    ) -> Iterator[Record]:
        start = after or ("", "")
        while True:
            rows = self._api.store.snapshot(cluster, resource, namespace, at=at, after=start, limit=_CHUNK)
            for row in rows:
                yield Record(Key(cluster, resource, row.namespace, row.name), row.revision, row.data)
            if len(rows) < _CHUNK:
                return
            start = (rows[-1].namespace, rows[-1].name)

    def _everywhere(self, resource: Resource, namespace: str, matches: Matcher | None) -> Page:
        items = [
            in_cluster(record.key.cluster, record.object)
            for record in self._api.everywhere_stored(resource.storage.key, namespace)
            if matches is None or matches(record.object)
        ]
        return Page((), str(self._api.state.total_revision()), converted=items)


def _gone(token: _Token | None, at: int, compacted: int) -> Expired:
    if token is None:
        return too_old(at, compacted)
    return Expired(
        "The provided continue parameter is too old to display a consistent list result. "
        "You can start a new list without the continue parameter."
    )


def _check_versions(continue_: str, resource_version: str, match: str, initial_events: bool) -> None:
    """Raises BadRequest or Invalid for combinations that mean nothing."""
    said: list[tuple[str, str]] = []
    if match:
        if not resource_version:
            said.append(("Forbidden", "resourceVersionMatch is forbidden unless resourceVersion is provided"))
        if continue_:
            said.append(("Forbidden", "resourceVersionMatch is forbidden when continue is provided"))
        if match not in ("Exact", "NotOlderThan"):
            supported = 'supported values: "Exact", "NotOlderThan", ""'
            said.append((f'Unsupported value: "{match[:64]}"', supported))
        if match == "Exact" and resource_version == "0":
            said.append(("Forbidden", 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"'))
    causes = [_cause(*each) for each in said]
    if initial_events:
        why = "Forbidden: sendInitialEvents is forbidden for list"
        causes.append(Cause("FieldValueForbidden", why, "sendInitialEvents"))
    if causes:
        raise invalid("ListOptions", *causes)


def _cause(head: str, rest: str) -> Cause:
    reason = "FieldValueForbidden" if head == "Forbidden" else "FieldValueNotSupported"
    return Cause(reason, f"{head}: {rest}", "resourceVersionMatch")
