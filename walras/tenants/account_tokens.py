"""Secrets of type kubernetes.io/service-account-token: filled with a token that lasts as long as they do."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from walras.kube.access.accounts import Accounts
from walras.kube.api import API, Change
from walras.tenants.controller import Key, Manager
from walras.tenants.objects import SECRETS, SERVICE_ACCOUNTS, Object, deleting, uid
from walras.tenants.tokens import encode

TYPE: Final = "kubernetes.io/service-account-token"
NAME: Final = "kubernetes.io/service-account.name"
UID: Final = "kubernetes.io/service-account.uid"
_KEYS: Final = ("ca.crt", "namespace", "token")


class AccountTokenController:
    """Fills them, and removes those whose account is gone."""

    def __init__(self, api: API, manager: Manager, accounts: Accounts, ca_pem: str) -> None:
        self._api = api
        self._manager = manager
        self._accounts = accounts
        self._ca_pem = ca_pem

    def watch(self) -> list[Callable[[], None]]:
        return [
            self._api.subscribe(SECRETS, self._secret_changed),
            self._api.subscribe(SERVICE_ACCOUNTS, self._account_changed),
        ]

    def _secret_changed(self, change: Change) -> None:
        if change.object.get("type") == TYPE and change.type != "DELETED":
            self._add(change.cluster, change.object)

    def _account_changed(self, change: Change) -> None:
        if change.type != "DELETED" or not self._api.has_cluster(change.cluster):
            return
        metadata = change.object["metadata"]
        for secret in self._api.list(change.cluster, SECRETS, metadata["namespace"]):
            if secret.get("type") == TYPE and _account(secret) == metadata["name"]:
                self._add(change.cluster, secret)

    def _add(self, cluster: str, secret: Object) -> None:
        metadata = secret["metadata"]
        self._manager.add(self, Key(cluster, metadata["namespace"], metadata["name"]))

    async def reconcile(self, cluster: str, namespace: str, name: str) -> int | None:
        secret = self._api.find(cluster, SECRETS, namespace, name)
        if secret is None or deleting(secret) or secret.get("type") != TYPE:
            return None
        account = self._api.find(cluster, SERVICE_ACCOUNTS, namespace, _account(secret))
        given = _annotations(secret).get(UID)
        if account is None or given not in (None, uid(account)):
            await self._api.delete(cluster, SECRETS, namespace, name)
        elif given is None or not all((secret.get("data") or {}).get(key) for key in _KEYS):
            token = self._accounts.issue(cluster, account, lifetime_s=0, bound=secret)
            values = {"ca.crt": self._ca_pem, "namespace": namespace, "token": token}
            await self._api.edit(cluster, SECRETS, namespace, name, partial(_fill, values, uid(account)))
        return None


def _annotations(secret: Object) -> dict[str, Any]:
    return secret["metadata"].get("annotations") or {}


def _account(secret: Object) -> str:
    return str(_annotations(secret).get(NAME) or "")


def _fill(values: dict[str, str], account_uid: str, secret: Object) -> None:
    secret["metadata"]["annotations"] = {**_annotations(secret), UID: account_uid}
    data = secret["data"] = {**(secret.get("data") or {})}
    for key, value in values.items():
        if not data.get(key):
            data[key] = encode(value)
