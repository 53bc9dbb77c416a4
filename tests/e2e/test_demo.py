"""The demo runs from beginning to end and its books balance; what it shows is for a quiet machine to say."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
def test_a_short_market_side_answers_queries_and_balances() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "demo", "--only", "market", "--seconds", "6", "--json"],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "PYTHONPATH": str(ROOT / "examples/enterprise_search")},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["ledger_balanced"] is True
    market = found["market"]
    assert market["queries"] > 0
    assert market["query_p99_ms"] >= market["query_p50_ms"] > 0
    assert 0 < market["gpu_utilisation"] <= 1.1
    assert market["displacements"] >= 0
    assert market["train_tokens"] >= 0
