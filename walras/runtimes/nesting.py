"""User namespaces of a sandbox of which one is inside the other, as bubblewrap makes them for a plain user.

The outer one owns the sandbox's other namespaces and has no process left in it; the program is in the inner
one. Whoever comes from outside has to enter them in this order.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

_GET_USER_NAMESPACE: Final = 0xB701
_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Nesting:
    """Descriptors of both."""

    outer: int
    inner: int

    def close(self) -> None:
        os.close(self.outer)
        os.close(self.inner)


def nesting_of(pid: int) -> Nesting | None:
    """Of the sandbox that the process is in; None where there are not two. Raises OSError."""
    owned = os.open(f"/proc/{pid}/ns/ipc", _FLAGS)
    try:
        inner = os.open(f"/proc/{pid}/ns/user", _FLAGS)
        try:
            outer = fcntl.ioctl(owned, _GET_USER_NAMESPACE)
        except OSError:
            os.close(inner)
            raise
    finally:
        os.close(owned)
    os.set_inheritable(outer, False)
    found = Nesting(outer, inner)
    with suppress(OSError):
        if os.fstat(outer).st_ino != os.fstat(inner).st_ino:
            return found
    found.close()
    return None
