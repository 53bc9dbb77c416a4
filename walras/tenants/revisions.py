"""Revisions of a stateful or daemon set's template: ControllerRevisions, numbered, trimmed, found again."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from walras.kube.api import API
from walras.kube.record import copy
from walras.kube.transaction import Transaction
from walras.tenants.dependents import Dependents
from walras.tenants.membership import adopting, selector_of
from walras.tenants.objects import REVISIONS, Object, controller_of, deleting, labels, owner_reference
from walras.tenants.rollout import template_hash

HISTORY_MAX = 10


@dataclass(frozen=True, slots=True)
class Revised:
    """A workload's revisions, oldest first with `newest` last, and how many names were taken by others."""

    newest: Object
    revisions: tuple[Object, ...]
    collisions: int

    def named(self, name: str) -> Object | None:
        return next((each for each in self.revisions if each["metadata"]["name"] == name), None)


def patch_of(template: Mapping[str, Any]) -> Object:
    """What a revision holds: a strategic merge patch that makes a workload's template this one.

    Its keys are sorted, as Go writes a map: clients compare its bytes with those that they make themselves.
    """
    patch = {"spec": {"template": {**template, "$patch": "replace"}}}
    sorted_patch: Object = msgspec.json.decode(msgspec.json.encode(patch, order="sorted"))
    return sorted_patch


def template_in(revision: Object) -> Object:
    """The template that a revision holds; empty where it holds something else."""
    data = revision.get("data")
    held = (data.get("spec") or {}).get("template") if isinstance(data, dict) else None
    return {key: value for key, value in held.items() if key != "$patch"} if isinstance(held, dict) else {}


def number_of(revision: Mapping[str, Any]) -> int:
    return int(revision.get("revision") or 0)


class History:
    """The ControllerRevisions of one kind of workload; `hash_label` names the one that tells them apart."""

    def __init__(self, api: API, dependents: Dependents, hash_label: str) -> None:
        self._api = api
        self._dependents = dependents
        self._hash_label = hash_label

    def revise(self, transaction: Transaction, cluster: str, owner: Object) -> Revised:
        """The revisions with one of the template as it is now, made or raised to the newest.

        Raises AlreadyExists where its name is on its way to the disk.
        """
        found = sorted(self._of(transaction, cluster, owner), key=number_of)
        collisions = int((owner.get("status") or {}).get("collisionCount") or 0)
        template = owner["spec"]["template"]
        same = [each for each in found if template_in(each) == template]
        if same and same[-1] is found[-1]:
            return Revised(same[-1], tuple(found), collisions)
        number = number_of(found[-1]) + 1 if found else 1
        if same:
            newest = self._raise(transaction, cluster, same[-1], number)
            found.remove(same[-1])
        else:
            newest, collisions = self._make(transaction, cluster, owner, number, collisions)
        return Revised(newest, (*found, newest), collisions)

    def trim(
        self, transaction: Transaction, cluster: str, owner: Object, revised: Revised, live: Collection[str]
    ) -> None:
        """Deletes the oldest of those that are not `live`, beyond revisionHistoryLimit."""
        live = {*live, revised.newest["metadata"]["name"]}
        idle = [each for each in revised.revisions if each["metadata"]["name"] not in live]
        limit = owner["spec"].get("revisionHistoryLimit", HISTORY_MAX)
        for each in idle[: max(0, len(idle) - limit)]:
            metadata = each["metadata"]
            transaction.delete(cluster, REVISIONS, metadata["namespace"], metadata["name"])

    def _of(self, transaction: Transaction, cluster: str, owner: Object) -> Sequence[Object]:
        found = [
            each for each in self._dependents.controlled(cluster, owner, REVISIONS) if not deleting(each)
        ]
        if found:
            return found
        # A set that was deleted without its revisions and made again takes them in.
        selector, namespace = selector_of(owner), owner["metadata"]["namespace"]
        return [
            transaction.edit(cluster, REVISIONS, namespace, each["metadata"]["name"], adopting(owner))
            for each in self._api.list(cluster, REVISIONS, namespace)
            if controller_of(each) is None
            and not deleting(each)
            and selector is not None
            and selector.matches(labels(each))
            and each["metadata"]["name"].startswith(f"{owner['metadata']['name']}-")
        ]

    def _raise(self, transaction: Transaction, cluster: str, revision: Object, number: int) -> Object:
        metadata = revision["metadata"]

        def renumber(latest: Object) -> None:
            latest["revision"] = number

        return transaction.edit(cluster, REVISIONS, metadata["namespace"], metadata["name"], renumber)

    def _make(
        self, transaction: Transaction, cluster: str, owner: Object, number: int, collisions: int
    ) -> tuple[Object, int]:
        metadata, template = owner["metadata"], copy(owner["spec"]["template"])
        while True:
            digest = template_hash(template, collisions)
            name = f"{metadata['name'][:223]}-{digest}"
            if self._api.find(cluster, REVISIONS, metadata["namespace"], name) is None:
                break
            collisions += 1
        described = (template.get("metadata") or {}).get("labels") or {}
        revision: Object = {
            "metadata": {
                "name": name,
                "namespace": metadata["namespace"],
                "labels": {**described, self._hash_label: digest},
                "ownerReferences": [owner_reference(owner)],
            },
            "data": patch_of(template),
            "revision": number,
        }
        if metadata.get("annotations"):
            revision["metadata"]["annotations"] = dict(metadata["annotations"])
        return transaction.create(cluster, REVISIONS, revision), collisions
