"""What one step of the exchange changes: objects, leases, money and usage in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from walras.core.errors import NotFound
from walras.cost import usage
from walras.exchange.demand import BIDS, PODS, pods_with_nodes
from walras.exchange.holding import LEASES, Holding
from walras.exchange.journal import Reader
from walras.exchange.nodes import NODES
from walras.exchange.treasury import Treasury
from walras.kube.api import API
from walras.kube.record import Key, Object
from walras.kube.transaction import Transaction
from walras.market import types as market
from walras.tenants.events import Recorder

MIGRATIONS: Final = ("CREATE TABLE leases (id TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID",)


@dataclass(frozen=True, slots=True)
class Notice:
    """A Kubernetes Event to record once the step is durable."""

    cluster: str
    about: Object
    type: str
    reason: str
    message: str


@dataclass
class Effects:
    """Staged changes. `commit` makes all of them durable at once, or none of them.

    `along` stages what is to be stored with them, if there are any.
    """

    api: API
    treasury: Treasury
    holdings: dict[str, Holding]
    recorder: Recorder
    tx: Transaction
    along: Callable[[Transaction], None]
    # Bids that won in this step: their objects say so only once it is committed.
    won: set[str] = field(default_factory=set)
    _touched: dict[str, Holding] = field(default_factory=dict)
    _gone: set[str] = field(default_factory=set)
    _usage: list[tuple[object, ...]] = field(default_factory=list)
    _notices: list[Notice] = field(default_factory=list)
    # By cluster and node: nothing comes in between while a step decides.
    _pods: dict[str, dict[str, list[Object]]] = field(default_factory=dict)

    def market_leases(self) -> tuple[market.Lease, ...]:
        """Every lease, as the market reads it."""
        return tuple(
            holding.as_market(self.treasury.available(holding.agent)) for holding in self.holdings.values()
        )

    def keep(self, holding: Holding) -> None:
        """Store the lease's row as it is at commit."""
        self._touched[holding.id] = holding

    def forget(self, holding: Holding) -> None:
        self._gone.add(holding.id)

    def use(self, *row: object) -> None:
        """Add a row to the usage table; see cost.usage."""
        self._usage.append(row)

    def tell(
        self, cluster: str, about: Object | None, reason: str, message: str, *, warn: bool = False
    ) -> None:
        if about is not None:
            self._notices.append(Notice(cluster, about, "Warning" if warn else "Normal", reason, message))

    def tell_bidder(
        self, cluster: str, bid: Object, reason: str, message: str, *, warn: bool = False
    ) -> None:
        """As `tell`, on the bid and on the pod that it is for: that is where its owner looks."""
        self.tell(cluster, bid, reason, message, warn=warn)
        metadata = bid["metadata"]
        pod = self._find(cluster, PODS, metadata["namespace"], metadata["name"])
        if pod is not None and any(
            owner.get("uid") == pod["metadata"]["uid"] for owner in metadata.get("ownerReferences") or ()
        ):
            self.tell(cluster, pod, reason, message, warn=warn)

    def project(self, holding: Holding) -> None:
        """Bring the GPULease object up to date, if it is still there."""

        def change(lease: Object) -> None:
            spec = holding.spec()
            resale = lease["spec"].get("resalePrice")
            lease["spec"] = spec | ({"resalePrice": resale} if resale else {})
            lease["status"] = holding.status()

        self.edit(holding.agent, LEASES, holding.namespace, holding.name, change)

    def edit(
        self, cluster: str, resource: str, namespace: str, name: str, change: Callable[[Object], None]
    ) -> None:
        """Stage an edit of an object that may have gone."""
        if self.api.has_cluster(cluster):
            try:
                self.tx.edit(cluster, resource, namespace, name, change)
            except NotFound:
                return

    def delete(
        self, cluster: str, resource: str, namespace: str, name: str, grace_seconds: int | None = None
    ) -> None:
        """Stage the deletion of an object that may have gone."""
        if self.api.has_cluster(cluster):
            try:
                self.tx.delete(cluster, resource, namespace, name, grace_seconds=grace_seconds)
            except NotFound:
                return

    def set_bid(self, cluster: str, namespace: str, name: str, **status: object) -> None:
        """Stage fields of a Bid's status; None removes one."""

        self.edit(cluster, BIDS, namespace, name, lambda bid: _set_status(bid, status))

    def set_bid_of(self, holding: Holding, **status: object) -> None:
        """The same of the bid that won the lease; another that has its name by now is left alone."""

        def change(bid: Object) -> None:
            if _has_won(bid, holding):
                _set_status(bid, status)

        self.edit(holding.agent, BIDS, holding.namespace, holding.bid, change)

    def is_changing(self, cluster: str, resource: str, obj: Object) -> bool:
        """Whether another state of it, or its end, is on its way to the disk."""
        metadata = obj["metadata"]
        key = Key(cluster, resource, metadata["namespace"], metadata["name"])
        return self.api.state.latest(key) is not self.api.state.visible(key)

    def lease(self, holding: Holding) -> Object | None:
        return self._find(holding.agent, LEASES, holding.namespace, holding.name)

    def bid(self, holding: Holding) -> Object | None:
        """The bid that won the lease; None where it is gone, whoever has its name by now."""
        found = self._find(holding.agent, BIDS, holding.namespace, holding.bid)
        return found if found is not None and _has_won(found, holding) else None

    def pods_on(self, holding: Holding) -> list[Object]:
        """The unfinished pods on the lease's node, as they were when this step first asked."""
        if holding.agent not in self._pods:
            self._pods[holding.agent] = self._by_node(holding.agent)
        return self._pods[holding.agent].get(holding.node, [])

    def _by_node(self, cluster: str) -> dict[str, list[Object]]:
        found: dict[str, list[Object]] = {}
        for pod in pods_with_nodes(self.api, cluster) if self.api.has_cluster(cluster) else ():
            if pod.get("status", {}).get("phase") not in ("Succeeded", "Failed"):
                found.setdefault(pod["spec"]["nodeName"], []).append(pod)
        return found

    def had_node(self, holding: Holding, bid: Object) -> bool:
        """Whether the lease's bid is of a pod that does not wait any more: it goes with its pod."""
        if not bid["metadata"].get("ownerReferences"):
            return False
        pod = self._find(holding.agent, PODS, holding.namespace, holding.bid)
        return pod is None or bool(pod["spec"].get("nodeName")) or "deletionTimestamp" in pod["metadata"]

    def node(self, holding: Holding) -> Object | None:
        return self._find(holding.agent, NODES, "", holding.node)

    def _find(self, cluster: str, resource: str, namespace: str, name: str) -> Object | None:
        return self.api.find(cluster, resource, namespace, name) if self.api.has_cluster(cluster) else None

    async def commit(self) -> None:
        """Raises StorageError; then nothing of this step happened."""
        rows = [
            (holding.id, msgspec.json.encode(holding))
            for holding in self._touched.values()
            if holding.id not in self._gone
        ]
        if rows:
            self.tx.execute("INSERT OR REPLACE INTO leases VALUES (?, ?)", rows)
        if self._gone:
            self.tx.execute("DELETE FROM leases WHERE id = ?", [(lease,) for lease in self._gone])
        if self._usage:
            self.tx.execute(usage.ADD, self._usage)
        self.treasury.store(self.tx)
        if not self.tx.is_empty:
            self.along(self.tx)
        await self.tx.commit()
        for notice in self._notices:
            self.recorder.event(notice.cluster, notice.about, notice.type, notice.reason, notice.message)


def stored(database: Reader) -> dict[str, Holding]:
    """The leases that `commit` made durable, by id."""
    rows = database.query("SELECT body FROM leases")
    found = (msgspec.json.decode(body, type=Holding) for (body,) in rows)
    return {holding.id: holding for holding in found}


def _has_won(bid: Object, holding: Holding) -> bool:
    return (bid.get("status") or {}).get("lease") == holding.name


def _set_status(bid: Object, changes: Mapping[str, object]) -> None:
    current = bid.setdefault("status", {})
    for key, value in changes.items():
        if value is None:
            current.pop(key, None)
        else:
            current[key] = value
