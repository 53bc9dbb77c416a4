"""Acting for somebody else, as k8s.io/apiserver/pkg/endpoints/filters/impersonation allows it.

Whoever is impersonated stays in the cluster of the request and is never the operator: what the market keeps
from an agent it keeps from everybody whom that agent can be.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote

from walras.core.errors import BadRequest, Forbidden
from walras.kube.access.authoriser import Authoriser
from walras.kube.access.words import (
    ANONYMOUS,
    AUTHENTICATED,
    UNAUTHENTICATED,
    Attributes,
    account_groups,
    account_of,
)
from walras.kube.context import EVERY_CLUSTER, Identity

PREFIX: Final = b"impersonate-"
_EXTRA: Final = b"impersonate-extra-"
# Groups and extra values that one request may ask for.
VALUES_MAX: Final = 200


@dataclass(slots=True)
class Wanted:
    """Whom a request asks to be."""

    user: str = ""
    uid: str = ""
    groups: list[str] = field(default_factory=list)
    extra: dict[str, list[str]] = field(default_factory=dict)


def wanted(headers: Iterable[tuple[bytes, bytes]]) -> Wanted | None:
    """Whom the headers name; None where they name nobody. Raises BadRequest.

    A header of that family that is not known is refused: not to heed it would be to act with more rights.
    """
    given = [(name.lower(), raw) for name, raw in headers if name.lower().startswith(PREFIX)]
    if not given:
        return None
    if len(given) > VALUES_MAX:
        raise BadRequest(f"more than {VALUES_MAX} impersonation headers")
    found = Wanted()
    for name, raw in given:
        _read(found, name, raw)
    if not found.user:
        raise BadRequest("requested groups, extra or uid without impersonating a user")
    return found


def _read(found: Wanted, name: bytes, raw: bytes) -> None:
    try:
        value = raw.decode()
    except UnicodeDecodeError:
        raise BadRequest(f"{name.decode('latin-1')[:64]}: Invalid value: must be UTF-8") from None
    match name:
        case b"impersonate-user":
            if found.user or not value:
                raise BadRequest("Impersonate-User must name one user")
            found.user = value
        case b"impersonate-uid":
            if found.uid:
                raise BadRequest("Impersonate-Uid must be given once")
            found.uid = value
        case b"impersonate-group":
            found.groups.append(value)
        case _ if name.startswith(_EXTRA) and len(name) > len(_EXTRA):
            key = unquote(name.removeprefix(_EXTRA).decode("latin-1"))
            found.extra.setdefault(key.lower(), []).append(value)
        case _:
            raise BadRequest(f"the header {name.decode('latin-1')[:64]} is not known")


def become(identity: Identity, cluster: str, someone: Wanted, access: Authoriser) -> Identity:
    """Who the caller is from now on. Raises Forbidden."""
    if cluster in ("", EVERY_CLUSTER):
        raise Forbidden("impersonation is possible in one cluster at a time, at /clusters/NAME")
    for asked in _asked(someone):
        access.require(identity, cluster, asked)
    groups = tuple(dict.fromkeys(_groups(someone)))
    extra = tuple((key, tuple(values)) for key, values in sorted(someone.extra.items()))
    return Identity(someone.user, groups, cluster, someone.uid, extra, identity.actor or identity)


def _asked(someone: Wanted) -> Iterator[Attributes]:
    account = account_of(someone.user)
    if account is not None:
        yield Attributes("impersonate", resource="serviceaccounts", namespace=account[0], name=account[1])
    else:
        yield Attributes("impersonate", resource="users", name=someone.user)
    for group in someone.groups:
        yield Attributes("impersonate", resource="groups", name=group)
    for key, values in someone.extra.items():
        for value in values:
            yield Attributes("impersonate", "authentication.k8s.io", "userextras", key, name=value)
    if someone.uid:
        yield Attributes("impersonate", "authentication.k8s.io", "uids", name=someone.uid)


def _groups(someone: Wanted) -> Iterator[str]:
    account = account_of(someone.user)
    if account is not None and not someone.groups:
        yield from account_groups(account[0])
        return
    yield from someone.groups
    if someone.user == ANONYMOUS:
        yield UNAUTHENTICATED
    elif not {AUTHENTICATED, UNAUTHENTICATED} & set(someone.groups):
        yield AUTHENTICATED
