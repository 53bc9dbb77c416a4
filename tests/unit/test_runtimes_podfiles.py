"""What is written below /etc of a pod, and who goes before it."""

from __future__ import annotations

from walras.runtimes.base import Mount
from walras.runtimes.podfiles import beside

FILES = (
    Mount("/pods/u/etc/hosts", "/etc/hosts", True),
    Mount("/pods/u/etc/resolv.conf", "/etc/resolv.conf", True),
)


def test_what_a_container_mounts_in_the_place_of_such_a_file_stands_there_alone() -> None:
    own = (Mount("/pods/u/volumes/v/conf", "/etc/resolv.conf"), Mount("/pods/u/volumes/w", "/data"))
    assert beside(own, FILES) == FILES[:1]
    assert beside((), FILES) == FILES
