"""The committed objects of one resource in one cluster."""

from __future__ import annotations

import sys
from bisect import bisect_left, insort
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from walras.kube.record import Key, Record

Where = tuple[str, str]
# Objects of a resource that every cluster has without storing them, by (namespace, name). Their key names no
# cluster.
Defaults = Mapping[Where, Record]
NO_DEFAULTS: Final[Defaults] = MappingProxyType({})


class Collection:
    """Records by (namespace, name), in that order once somebody lists them.

    `defaults` are there from the start and again when what the cluster put in their place is removed.
    """

    __slots__ = ("_defaults", "_order", "changed", "records")

    def __init__(self, defaults: Defaults = NO_DEFAULTS) -> None:
        self._defaults = defaults
        self.records: dict[Where, Record] = dict(defaults)
        # Kept from the first listing on; most resources of most clusters are never listed.
        self._order: list[Where] | None = None
        # The revision of the last change, deletions too.
        self.changed = 0

    def share(self, defaults: Defaults) -> None:
        """Has these from now on, where the cluster has put nothing in their place."""
        own = {where: record for where, record in self.records.items() if not is_default(record)}
        self.records = {**defaults, **own}
        self._defaults, self._order = defaults, None

    def put(self, record: Record) -> None:
        cluster, resource, namespace, name = record.key
        known = self.records.get((namespace, name))
        if known is not None and known.key.cluster:
            # Few strings for many versions.
            record.key = known.key
        else:
            record.key = Key(cluster, sys.intern(resource), sys.intern(namespace), name)
        where = (record.key.namespace, record.key.name)
        if known is None and self._order is not None:
            insort(self._order, where)
        self.records[where] = record
        self.changed = record.revision

    def remove(self, where: Where, revision: int) -> None:
        if where in self._defaults:
            self.records[where] = self._defaults[where]
        elif self.records.pop(where, None) is not None and self._order is not None:
            del self._order[bisect_left(self._order, where)]
        self.changed = revision

    def listed(self, namespace: str = "", after: Where | None = None) -> list[Record]:
        """Records in order, of one namespace or of all, beyond the place `after`."""
        if self._order is None:
            self._order = sorted(self.records)
        order, start, end = self._order, 0, len(self._order)
        if namespace:
            start, end = bisect_left(order, (namespace, "")), bisect_left(order, (namespace + "\0", ""))
        if after is not None:
            start = max(start, bisect_left(order, (after[0], after[1] + "\0")))
        records = self.records
        return [records[where] for where in order[start:end]]

    def stored(self) -> list[Record]:
        """The records of the cluster's own, in no order."""
        return [record for record in self.records.values() if not is_default(record)]


def is_default(record: Record) -> bool:
    """Whether the record is what every cluster has without storing it."""
    return not record.key.cluster
