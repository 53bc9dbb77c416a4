"""Tests that only a card can pass; skipped, with the reason, where there is none that may be used."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from walras.devices.arrangement import Technique
from walras.runtimes.gpus import machine
from walras.runtimes.gpus.machine import Machine, Needed


@pytest.fixture(autouse=True)
def root() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root sets modes of cards and serves several users by MPS")


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Machine]:
    """The cards of this machine, left as they were found."""
    found = machine.here(tmp_path)
    if found is None:
        pytest.skip("no NVIDIA card answers through NVML")
    try:
        yield found
        for uuid in found.cards:
            found.arrange(uuid, Needed())
    finally:
        found.close()


@pytest.fixture
def cards(tmp_path: Path) -> int:
    """How many cards this machine has, for tests that leave them to a server."""
    found = machine.here(tmp_path)
    if found is None:
        pytest.skip("no NVIDIA card answers through NVML")
    found.close()
    return len(found.cards)


@pytest.fixture
def idle(here: Machine) -> str:
    """A card on which nothing runs."""
    for uuid in here.cards:
        if not here.read(uuid).uses:
            return uuid
    pytest.skip("every card is in use")


@pytest.fixture
def by_mps(here: Machine, idle: str) -> str:
    """An idle card whose parts are kept apart by MPS."""
    if here.shares_by is not Technique.MPS:
        pytest.skip(
            "nvidia-cuda-mps-control is not on the PATH, a card is older than Volta, or root may not mount "
            "anything here (CAP_SYS_ADMIN)"
        )
    return idle
