"""Tokens of service accounts: made for one cluster, good only there, only while what they are bound to is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from walras.core.clock import parse_rfc3339
from walras.kube.access.certificates import cluster_id
from walras.kube.access.keys import SigningKey
from walras.kube.access.words import Object, account_groups, account_name
from walras.kube.api import API
from walras.kube.context import Identity
from walras.kube.objects import ACCOUNTS
from walras.kube.record import Key

LIFETIME_S: Final = 3600
# Where pods find the discovery documents of their own cluster; see serve/inside.py.
_ISSUERS: Final = "https://kubernetes.default.svc/clusters/"
# Something that is being deleted still counts for as long (jwt.DefaultLeeway of kube-apiserver).
LEEWAY_MS: Final = 60_000
_EXTRA: Final = "authentication.kubernetes.io/"
_BINDABLE: Final = {"Pod": "pods", "Secret": "secrets", "Node": "nodes"}


class Reference(msgspec.Struct, frozen=True, omit_defaults=True):
    """An object as a token names it."""

    name: str
    uid: str = ""


class Private(msgspec.Struct, frozen=True, omit_defaults=True):
    """What Kubernetes adds to the claims of RFC 7519."""

    namespace: str
    serviceaccount: Reference
    pod: Reference | None = None
    secret: Reference | None = None
    node: Reference | None = None


_NAMES: Final = {"kubernetes": "kubernetes.io", "cluster": "walras.dev/cluster"}


class Claims(msgspec.Struct, frozen=True, omit_defaults=True, rename=_NAMES):
    """Times are seconds since the epoch; `exp` 0 never ends.

    `cluster` tells the cluster from others that had its name, where the account's uid does not.
    """

    iss: str
    sub: str
    aud: tuple[str, ...]
    iat: int
    nbf: int
    jti: str
    kubernetes: Private
    exp: int = 0
    cluster: str = ""


@dataclass(frozen=True, slots=True)
class Reviewed:
    """Whose a token is, and for which of the audiences that were asked about."""

    identity: Identity
    audiences: tuple[str, ...]


class Accounts:
    """Issues and verifies the tokens of every cluster's service accounts; keeps none of them.

    Every cluster is an issuer of its own, so that a token of one is nobody's in another.
    """

    def __init__(self, api: API, key: SigningKey) -> None:
        self._api = api
        self._key = key

    def issuer(self, cluster: str) -> str:
        """Who issues the cluster's tokens, and the audience that stands for its API server."""
        return _ISSUERS + cluster

    def configuration(self, cluster: str) -> Object:
        """OpenID Provider Metadata of the cluster's issuer, as far as kube-apiserver gives it."""
        return {
            "issuer": self.issuer(cluster),
            "jwks_uri": f"{self.issuer(cluster)}/openid/v1/jwks",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        }

    def jwks(self) -> Object:
        """The keys that verify the tokens of every cluster."""
        return self._key.jwks()

    def issue(
        self,
        cluster: str,
        account: Object,
        *,
        audiences: Sequence[str] = (),
        lifetime_s: int = LIFETIME_S,
        bound: Object | None = None,
        node: Reference | None = None,
    ) -> str:
        """A token for the account, for the API server unless `audiences` says for whom.

        `bound` is the Pod, Secret or Node without which it is void, `node` the one that its pod is on.
        A lifetime of 0 seconds does not end.
        """
        metadata, now_s = account["metadata"], self._api.clock.now_ms() // 1000
        whose = Reference(metadata["name"], metadata["uid"])
        found = {"node": node}
        if bound is not None:
            found[str(bound["kind"]).lower()] = Reference(bound["metadata"]["name"], bound["metadata"]["uid"])
        claims = Claims(
            iss=self.issuer(cluster),
            sub=account_name(metadata["namespace"], metadata["name"]),
            aud=tuple(audiences) or (self.issuer(cluster),),
            iat=now_s,
            nbf=now_s,
            exp=now_s + lifetime_s if lifetime_s else 0,
            jti=self._api.ids.uid(),
            kubernetes=Private(metadata["namespace"], whose, **found),
            cluster=self._told_apart(cluster, metadata["namespace"], whose),
        )
        return self._key.sign(msgspec.to_builtins(claims))

    def is_news(self, token: str) -> bool:
        """Whether to find out whose the token is takes the time of verifying a signature."""
        return self._key.is_news(token)

    async def learn(self, token: str) -> bool:
        """Whether the token is signed as it has to be, which is known from then on."""
        return self._key.verified(token) is not None

    def identify(self, token: str) -> Identity | None:
        """Who calls the API with the token; None for nobody."""
        claims = self._claims(token)
        if claims is None:
            return None
        cluster = claims.iss.removeprefix(_ISSUERS)
        reviewed = self._review(claims, cluster, ())
        return reviewed.identity if reviewed else None

    def review(self, token: str, cluster: str, audiences: tuple[str, ...]) -> Reviewed | None:
        """Whose the token is in the cluster, for one of the audiences or, without any, for the API server."""
        claims = self._claims(token)
        return self._review(claims, cluster, audiences) if claims else None

    def _claims(self, token: str) -> Claims | None:
        raw = self._key.verified(token)
        if raw is None:
            return None
        try:
            return msgspec.json.decode(raw, type=Claims)
        except msgspec.ValidationError:
            return None

    def _review(self, claims: Claims, cluster: str, audiences: tuple[str, ...]) -> Reviewed | None:
        now_ms = self._api.clock.now_ms()
        if claims.iss != self.issuer(cluster) or not self._api.has_cluster(cluster):
            return None
        if claims.nbf * 1000 > now_ms or (claims.exp and claims.exp * 1000 <= now_ms):
            return None
        wanted = audiences or (self.issuer(cluster),)
        meant = tuple(each for each in wanted if each in claims.aud)
        if not meant or not self._is_live(claims, cluster, now_ms):
            return None
        return Reviewed(_identity(claims, cluster), meant)

    def _is_live(self, claims: Claims, cluster: str, now_ms: int) -> bool:
        """Whether the account, and what the token is bound to, are still the same objects."""
        private = claims.kubernetes
        namespace = private.namespace
        if claims.cluster != self._told_apart(cluster, namespace, private.serviceaccount):
            return False
        needed = [(ACCOUNTS, namespace, private.serviceaccount)]
        if private.secret is not None:
            needed.append(("secrets", namespace, private.secret))
        if private.pod is not None:
            needed.append(("pods", namespace, private.pod))
        elif private.node is not None:
            needed.append(("nodes", "", private.node))
        return all(self._is_there(cluster, *each, now_ms) for each in needed)

    def _told_apart(self, cluster: str, namespace: str, account: Reference) -> str:
        """By what the cluster is told from others, where the account is alike in all; else ""."""
        shared = self._api.state.default(Key(cluster, ACCOUNTS, namespace, account.name))
        if shared is None or shared.object["metadata"]["uid"] != account.uid:
            return ""
        return cluster_id(self._api, cluster)

    def _is_there(
        self, cluster: str, resource: str, namespace: str, reference: Reference, now_ms: int
    ) -> bool:
        found = self._api.find(cluster, resource, namespace, reference.name)
        if found is None or found["metadata"]["uid"] != reference.uid:
            return False
        deleted = found["metadata"].get("deletionTimestamp")
        return deleted is None or parse_rfc3339(deleted) + LEEWAY_MS >= now_ms


def _identity(claims: Claims, cluster: str) -> Identity:
    private = claims.kubernetes
    extra = [("credential-id", f"JTI={claims.jti}")]
    for kind, reference in (("node", private.node), ("pod", private.pod)):
        if reference is not None:
            extra.append((f"{kind}-name", reference.name))
            if reference.uid:
                extra.append((f"{kind}-uid", reference.uid))
    return Identity(
        account_name(private.namespace, private.serviceaccount.name),
        account_groups(private.namespace),
        cluster,
        private.serviceaccount.uid,
        tuple((_EXTRA + key, (value,)) for key, value in extra),
    )


def bindable(kind: str) -> str:
    """The resource of a kind that a token may be bound to; "" for another."""
    return _BINDABLE.get(kind, "")


def node_of(api: API, cluster: str, pod: Object) -> Reference | None:
    """The node that a pod is on; only its name when the node is gone."""
    name = str(pod["spec"].get("nodeName") or "")
    if not name:
        return None
    node = api.find(cluster, "nodes", "", name)
    return Reference(name, node["metadata"]["uid"] if node else "")
