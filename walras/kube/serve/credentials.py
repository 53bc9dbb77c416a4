"""The bearer tokens that a server knows: those of whoever composed it, and those of service accounts."""

from __future__ import annotations

from walras.kube.access.accounts import Accounts, Reviewed
from walras.kube.access.keys import TOKEN_BYTES_MAX
from walras.kube.context import Identity
from walras.kube.serve.ports import Authenticator


class Credentials:
    """Who calls with a token, and whose a token is."""

    def __init__(self, auth: Authenticator, accounts: Accounts) -> None:
        self._auth = auth
        self.accounts = accounts

    def identify(self, token: str) -> Identity | None:
        """Whose token it is; None when it is nobody's."""
        if not token or len(token) > TOKEN_BYTES_MAX:
            return None
        return self.accounts.identify(token) or self._auth.identify(token)

    def review(self, token: str, cluster: str, audiences: tuple[str, ...]) -> Reviewed | None:
        """Whose it is in the cluster, for one of the audiences or, without any, for its API server.

        The operator's own token is nobody's in an agent's cluster: what it is, is not for agents to find out.
        """
        if not token or len(token) > TOKEN_BYTES_MAX:
            return None
        found = self.accounts.review(token, cluster, audiences)
        if found is not None:
            return found
        identity = self._auth.identify(token)
        own = self.accounts.issuer(cluster)
        if identity is None or identity.cluster != cluster or (audiences and own not in audiences):
            return None
        return Reviewed(identity, (own,) if audiences else ())
