"""What /proc says, also of processes that end while it is read."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from walras.runtimes import procfs

TREE = ["sh", "-c", "sleep 600 & sleep 600 & echo up; wait"]


@pytest.mark.parametrize("listed", [True, False], ids=["as the kernel lists them", "by their parents"])
def test_all_processes_below_one_are_found(monkeypatch: pytest.MonkeyPatch, listed: bool) -> None:
    monkeypatch.setattr(procfs, "_LISTS_CHILDREN", listed and procfs._LISTS_CHILDREN)
    with subprocess.Popen(TREE, stdout=subprocess.PIPE, start_new_session=True) as shell:
        try:
            assert shell.stdout is not None
            assert shell.stdout.readline() == b"up\n"
            assert len(procfs.children(shell.pid)) == 2
            assert {shell.pid, *procfs.children(shell.pid)} <= set(procfs.descendants(os.getpid()))
        finally:
            os.killpg(shell.pid, signal.SIGKILL)


def test_who_has_ended_has_no_children_whether_it_is_waited_for_or_not() -> None:
    with subprocess.Popen(["true"]) as ended:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        assert procfs.descendants(ended.pid) == []
    assert procfs.descendants(ended.pid) == []


def test_nothing_breaks_where_processes_end_while_they_are_looked_at() -> None:
    busy = "for i in $(seq 400); do (true) & done; wait"
    with subprocess.Popen(["sh", "-c", busy]) as shell:
        while shell.poll() is None:
            procfs.descendants(os.getpid())
