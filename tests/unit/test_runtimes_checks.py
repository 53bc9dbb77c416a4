from __future__ import annotations

from pathlib import Path

from walras.runtimes.checks import checks


def test_every_ability_is_reported_and_what_is_missing_comes_with_advice(tmp_path: Path) -> None:
    found = checks(tmp_path)
    known = {check.name for check in found}
    assert {"kernel", "sandbox", "pod network", "CPU shares", "memory limits"} <= known
    assert {"process limits", "open files", "GPUs"} <= known
    assert all(check.detail for check in found)
    assert all(check.ok or check.advice for check in found)


def test_looking_leaves_nothing_behind(tmp_path: Path) -> None:
    checks(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert not list(Path("/sys/fs/cgroup").glob("**/walras-check-*"))
