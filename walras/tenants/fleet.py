"""The operator's cluster: made at the first start, with the operator's token in it."""

from __future__ import annotations

from walras.core.clock import Ids
from walras.kube.api import API
from walras.tenants.furniture import SYSTEM, furnish
from walras.tenants.objects import FLEET, NAMESPACES, SECRETS
from walras.tenants.tokens import OPERATOR_SECRET, SYSTEM_NAMESPACE, decode, encode


async def prepare_fleet(api: API, ids: Ids, ca_pem: str) -> str:
    """Makes the operator's cluster if there is none; the operator's token."""
    if not api.has_cluster(FLEET):
        await api.create_cluster(FLEET)
    transaction = api.transaction()
    if api.find(FLEET, NAMESPACES, "", SYSTEM) is None:
        furnish(transaction, FLEET, ca_pem)
    if api.find(FLEET, NAMESPACES, "", SYSTEM_NAMESPACE) is None:
        transaction.create(FLEET, NAMESPACES, {"metadata": {"name": SYSTEM_NAMESPACE}})
    secret = api.find(FLEET, SECRETS, SYSTEM_NAMESPACE, OPERATOR_SECRET)
    token = decode(secret, "token") if secret is not None else ""
    if not token:
        token = ids.token()
        metadata = {"name": OPERATOR_SECRET, "namespace": SYSTEM_NAMESPACE}
        data = {"token": encode(token)}
        if secret is None:
            transaction.create(
                FLEET, SECRETS, {"metadata": metadata, "type": "walras.dev/operator", "data": data}
            )
        else:
            transaction.edit(
                FLEET, SECRETS, SYSTEM_NAMESPACE, OPERATOR_SECRET, lambda latest: latest.update(data=data)
            )
    await transaction.commit()
    return token
