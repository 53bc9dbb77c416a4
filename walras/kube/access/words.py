"""The words of access control: what is asked, of which types, by whom."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

Object = dict[str, Any]
# A PolicyRule as it is stored.
Rule = dict[str, Any]

GROUP: Final = "rbac.authorization.k8s.io"
ROLES: Final = f"roles.{GROUP}"
CLUSTER_ROLES: Final = f"clusterroles.{GROUP}"
ROLE_BINDINGS: Final = f"rolebindings.{GROUP}"
CLUSTER_ROLE_BINDINGS: Final = f"clusterrolebindings.{GROUP}"
# The label of roles that are part of an aggregated one, before that one's name.
AGGREGATE: Final = f"{GROUP}/aggregate-to-"

MASTERS: Final = "system:masters"
AUTHENTICATED: Final = "system:authenticated"
UNAUTHENTICATED: Final = "system:unauthenticated"
ANONYMOUS: Final = "system:anonymous"
ACCOUNT_PREFIX: Final = "system:serviceaccount:"
ACCOUNTS: Final = "system:serviceaccounts"


class Attributes(NamedTuple):
    """What is to be done: a verb on a resource, or on a `path` that is none."""

    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""

    @property
    def combined(self) -> str:
        """The resource as rules name it: "pods", "pods/log"."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource

    @property
    def key(self) -> str:
        """As `Resource.key`; "" for a path."""
        return f"{self.resource}.{self.group}" if self.group else self.resource


def account_name(namespace: str, name: str) -> str:
    """The user that a service account is."""
    return f"{ACCOUNT_PREFIX}{namespace}:{name}"


def account_of(user: str) -> tuple[str, str] | None:
    """Namespace and name of the service account that a user is; None when it is none."""
    if not user.startswith(ACCOUNT_PREFIX):
        return None
    namespace, _, name = user.removeprefix(ACCOUNT_PREFIX).partition(":")
    return (namespace, name) if namespace and name and ":" not in name else None


def account_groups(namespace: str) -> tuple[str, ...]:
    """The groups that every service account of a namespace is in."""
    return (ACCOUNTS, f"{ACCOUNTS}:{namespace}", AUTHENTICATED)
