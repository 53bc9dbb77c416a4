"""Where the public traces are; a test that needs one is skipped where it is not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.docs import ROOT


def trace_file(name: str) -> Path:
    """A file of WALRAS_TRACES, else of shared/data beside the checkout; skips the test without it."""
    beside = [ROOT.parent / "shared" / "data", ROOT.parent.parent / "shared" / "data"]
    folders = [Path(os.environ["WALRAS_TRACES"])] if "WALRAS_TRACES" in os.environ else beside
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    pytest.skip(f"the public trace {name} is not here; WALRAS_TRACES names the folder that has it")
