"""How many objects an agent's cluster may hold, by its own hand or by what controllers make for it."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final

import msgspec

from walras.kube.api import API
from walras.kube.bounds import bytes_of
from walras.kube.verbs import default_quota
from walras.tenants.objects import AGENTS, FLEET

# How long a controller waits for room before it looks again.
RETRY_MS: Final = 10_000


def object_quota(api: API) -> Callable[[str], int]:
    """The `spec.controlPlane.quota.objects` of the agent whose cluster it is, as it is when asked."""

    def quota(cluster: str) -> int:
        record = api.record(FLEET, AGENTS, "", cluster)
        declared = _declared(record.raw) if record is not None else None
        return default_quota(cluster) if declared is None else declared

    return quota


class _Quota(msgspec.Struct):
    objects: int | float | None = None


class _ControlPlane(msgspec.Struct):
    quota: _Quota | None = None


class _Spec(msgspec.Struct):
    controlPlane: _ControlPlane | None = None  # noqa: N815  as it is written


class _Agent(msgspec.Struct):
    spec: _Spec | None = None


_read: Final = msgspec.json.Decoder(_Agent).decode


# Asked with every object that is made, mostly by the same few; of an agent only this is decoded.
@lru_cache(maxsize=256)
def _declared(agent: bytes) -> int | None:
    spec = _read(agent).spec
    declared = spec.controlPlane.quota if spec and spec.controlPlane else None
    return None if declared is None or declared.objects is None else int(declared.objects)


class Room:
    """What controllers ask before they make objects because an agent's object says so."""

    def __init__(self, api: API) -> None:
        self._api = api
        self._quota = object_quota(api)

    def left(self, cluster: str) -> int:
        """How many more objects the cluster may hold."""
        state, quota = self._api.state.cluster(cluster), self._quota(cluster)
        return max(0, quota - state.objects) if state.bytes < bytes_of(quota) else 0

    def refusal(self, cluster: str) -> str:
        """What an Event says where `left` is less than is wanted."""
        return (
            f"Error creating: exceeded quota: objects, limited: count/objects={self._quota(cluster)}; "
            f"looked at again in {RETRY_MS // 1000} s"
        )
