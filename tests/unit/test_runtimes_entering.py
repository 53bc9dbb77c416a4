"""Streams of programs, where the server has no descriptors left."""

from __future__ import annotations

import os
from typing import Any

import pytest

from walras.runtimes import entering
from walras.runtimes.base import Wish


# A pipe for each stream and one to tell of the start; two copies of each end of a terminal, and the pipe.
@pytest.mark.parametrize(
    ("tty", "there"), [*((False, number) for number in range(4)), *((True, number) for number in range(5))]
)
def test_streams_that_cannot_all_be_had_leave_no_descriptor_behind(
    monkeypatch: pytest.MonkeyPatch, tty: bool, there: int
) -> None:
    left = there

    def scarce(real: Any) -> Any:
        def made(*arguments: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise OSError("too many open files")
            return real(*arguments)

        return made

    before = os.listdir("/proc/self/fd")
    for name in ("pipe2", "dup"):
        monkeypatch.setattr(os, name, scarce(getattr(os, name)))
    with pytest.raises(OSError, match="too many"):
        entering.opened(Wish(stdin=True, tty=tty))
    assert os.listdir("/proc/self/fd") == before
