"""Which images are removed to make room, by the kubelet's rules. Pure.

As k8s.io/kubernetes/pkg/kubelet/images/image_gc_manager.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

# In percent of the disk that the images are on: from which on they are removed, and down to where.
HIGH: Final = 85
LOW: Final = 80
# One that was used or came so shortly ago stays.
AGE_MIN_S: Final = 120.0
_IMPORTED: Final = "localhost/"


@dataclass(frozen=True, slots=True)
class Stored:
    """An image on disk. `kept`: a container uses it, or no registry has it to be pulled from again.

    `named`: whether anybody can find it.
    """

    id: str
    size_bytes: int
    kept: bool = False
    named: bool = True


def stored(images: Iterable[Mapping[str, Any]], containers: Iterable[Mapping[str, Any]]) -> list[Stored]:
    """From the engine's lists."""
    used = {str(each.get("ImageID")) for each in containers}
    return [
        Stored(
            str(each["Id"]),
            int(each.get("Size") or 0),
            str(each["Id"]) in used or any(tag.startswith(_IMPORTED) for tag in each.get("RepoTags") or ()),
            any(
                "<none>" not in name
                for name in (*(each.get("RepoTags") or ()), *(each.get("RepoDigests") or ()))
            ),
        )
        for each in images
    ]


def to_free(capacity_bytes: int, available_bytes: int) -> int:
    """Bytes by which a disk that is too full is beyond where it should be; 0 for one that is not."""
    used_bytes = capacity_bytes - available_bytes
    if not capacity_bytes or used_bytes * 100 < capacity_bytes * HIGH:
        return 0
    return used_bytes - capacity_bytes * LOW // 100


def victims(
    images: Sequence[Stored], used_s: Mapping[str, float], now_s: float, wanted_bytes: int
) -> list[str]:
    """Ids of unused images, longest unused first, until they make up what is wanted."""
    found = []
    for each in sorted(images, key=lambda image: (used_s.get(image.id, now_s), image.id)):
        if wanted_bytes <= 0:
            break
        if not each.kept and now_s - used_s.get(each.id, now_s) >= AGE_MIN_S:
            found.append(each.id)
            wanted_bytes -= each.size_bytes
    return found
