"""Parts and instances of a real card: what was sold is what programs get; who takes more fails alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from walras.devices.arrangement import Technique, Wanted
from walras.devices.mig import MigInstance
from walras.runtimes.environment import Gpu, gpu
from walras.runtimes.gpus.machine import Access, Machine, Needed

PROGRAM = Path(__file__).parents[1] / "support" / "cuda.py"
SECONDS = 10
# What a program may be off its share: thread percentages are rounded to multiprocessors.
OFF = 0.10
OUT_OF_MEMORY = 2


def given(here: Machine, access: Access, milli: int, memory_mib: int, enforcement: str) -> Gpu:
    """What a pod finds on a node with that share."""
    row = {
        "device": "local/gpu-0", "milliGPU": milli, "memoryMiB": memory_mib, "enforcement": enforcement,
        "uuid": access.uuid, "files": list(access.files),
    }  # fmt: skip
    node = {"metadata": {"annotations": {"walras.dev/devices": msgspec.json.encode([row]).decode()}}}
    return gpu(node, here.mps_directories)


def start(gpu: Gpu, seconds: float, mib: int = 0) -> subprocess.Popen[str]:
    """The program with what it was given, as a sandbox would give it."""
    program = [sys.executable, str(PROGRAM), str(seconds), str(mib)]
    if gpu.mounts:
        binds = " && ".join(
            f"mkdir -p {each.target} && mount --bind {each.source} {each.target}" for each in gpu.mounts
        )
        program = ["unshare", "--mount", "--", "sh", "-c", f'{binds} && exec "$@"', "sh", *program]
    return subprocess.Popen(program, env={**os.environ, **gpu.env}, stdout=subprocess.PIPE, text=True)


def said(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, _ = process.communicate(timeout=SECONDS * 6)
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


def test_two_programs_at_a_quarter_and_three_quarters_compute_in_that_proportion(
    here: Machine, by_mps: str
) -> None:
    card = here.cards[by_mps]
    access = here.arrange(by_mps, Needed(Wanted(Technique.MPS), 100, card.memory_mib))[None]
    alone = said(start(given(here, access, 1000, card.memory_mib, "mps"), SECONDS))["launches_per_s"]
    both = [
        start(given(here, access, milli, card.memory_mib * milli // 1000, "mps"), SECONDS)
        for milli in (250, 750)
    ]
    quarter, rest = (said(each)["launches_per_s"] for each in both)
    print(f"alone {alone:.1f}/s, at 250 milli-GPU {quarter:.1f}/s, at 750 {rest:.1f}/s")
    assert quarter / alone == pytest.approx(0.25, rel=OFF)
    assert rest / alone == pytest.approx(0.75, rel=OFF)


def test_who_takes_more_memory_than_its_share_is_the_only_one_to_fail(here: Machine, by_mps: str) -> None:
    total = here.cards[by_mps].memory_mib
    access = here.arrange(by_mps, Needed(Wanted(Technique.MPS), 75, total * 3 // 4))[None]
    quarter = given(here, access, 250, total // 4, "mps")
    neighbour = start(given(here, access, 750, total * 3 // 4, "mps"), SECONDS, total // 2)
    within = said(start(quarter, 1, total // 4 * 9 // 10))
    assert "launches_per_s" in within, "nine tenths of what it has"
    beyond = said(start(quarter, 1, total // 4 * 11 // 10))
    assert beyond == {"refused": "cuMemAlloc_v2", "code": OUT_OF_MEMORY}
    assert "launches_per_s" in said(neighbour) and neighbour.returncode == 0


def test_no_program_gets_by_the_daemon(here: Machine, by_mps: str) -> None:
    access = here.arrange(by_mps, Needed(Wanted(Technique.MPS), 50, 4096))[None]
    first = start(given(here, access, 500, 4096, "mps"), SECONDS)
    assert first.stdout is not None and first.stdout.readline().strip() == "began"
    around = Gpu({"CUDA_VISIBLE_DEVICES": access.uuid, "CUDA_MPS_PIPE_DIRECTORY": "/nowhere"}, ())
    assert "refused" in said(start(around, 1))
    assert "launches_per_s" in said(first)


def test_the_driver_tells_what_each_program_uses(here: Machine, by_mps: str) -> None:
    access = here.arrange(by_mps, Needed(Wanted(Technique.MPS), 50, 8192))[None]
    running = start(given(here, access, 500, 8192, "mps"), SECONDS, 2048)
    assert running.stdout is not None and running.stdout.readline().strip() == "began"
    uses = {use.pid: use for use in here.read(by_mps).uses}
    assert running.pid in uses and uses[running.pid].memory_mib >= 2048
    said(running)


def test_an_instance_is_made_used_and_destroyed(here: Machine, idle: str) -> None:
    geometry = here.cards[idle].mig
    if geometry is None:
        pytest.skip("the idle card has no MIG")
    smallest = geometry.profiles[-1]
    cuts = frozenset({MigInstance(smallest.name, start) for start in smallest.starts[:2]})
    access = here.arrange(idle, Needed(Wanted(Technique.MIG, cuts)))
    both = [start(given(here, access[cut], 142, smallest.memory_mib, "mig"), 2) for cut in sorted(cuts)]
    assert all("launches_per_s" in said(each) for each in both)
    beyond = said(start(given(here, access[min(cuts)], 142, 0, "mig"), 1, smallest.memory_mib * 2))
    assert beyond == {"refused": "cuMemAlloc_v2", "code": OUT_OF_MEMORY}
    here.arrange(idle, Needed(Wanted(Technique.EXCLUSIVE)))
    assert not here.arrangement(idle).mig
