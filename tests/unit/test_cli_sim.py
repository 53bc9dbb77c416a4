"""`walras sim run`: one JSON object, the same on every run, a table, and errors that say what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from support.traces import trace_file

from walras.cli.main import main
from walras.cli.studies import complete_trace

SMALL = "synthetic:minutes=1,job_s_min=10,job_s_max=60"
NAMED = [
    "allocation_pct",
    "unserved",
    "evictions",
    "jct_mean_s",
    "rho_worst",
    "unfair_pct",
    "makespan_s",
    "wait_p99_s",
    "utilisation",
]


def run(*args: str) -> Result:
    return CliRunner().invoke(main, ["sim", "run", *args])


def test_json_has_a_key_a_policy_and_all_metrics() -> None:
    done = run("--trace", SMALL, "--policy", "auction", "--policy", "fifo", "--load", "1.5", "--json")
    assert done.exit_code == 0
    told = json.loads(done.stdout)
    assert list(told) == ["auction", "fifo"]
    assert all(set(NAMED) <= set(metrics) for metrics in told.values())


def test_a_seed_gives_the_same_json_in_processes_that_hash_differently() -> None:
    code = "import sys; from walras.cli.main import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", code, "sim", "run", "--trace", SMALL, "--seed", "7", "--json"]
    said = {
        subprocess.run(
            command, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1


def test_the_table_has_a_column_a_policy_and_the_first_five_by_themselves(tmp_path: Path) -> None:
    done = run("--trace", SMALL, "--gpus", "4", "--report", str(tmp_path))
    heading = done.stdout.splitlines()[0].split()
    assert heading == ["METRIC", "AUCTION", "FIFO", "PRIORITY", "DRF", "FAIRSHARE"]
    assert "allocation_pct" in done.stdout
    assert (tmp_path / "report.html").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--trace", "azure"), "is not a trace; write one of azure:"),
        (("--trace", "philly:x"), "is not a trace"),
        (("--trace", "synthetic:hours=3"), 'has no "hours"; it has'),
        (("--trace", "csv:nowhere.csv"), "nowhere.csv"),
        (("--trace", SMALL, "--policy", "lottery"), 'no policy "lottery"; there are auction'),
        (("--trace", SMALL, "--load", "0"), "a load is more than 0"),
        (("--trace", "gavel:nowhere.trace"), "nowhere.trace"),
        (("--trace", "openb:nowhere.csv", "--gpus", "4"), "openb:"),
        (("--trace", SMALL, "--gpus", "0"), "--gpus"),
    ],
)
def test_what_cannot_be_run_is_told_in_a_line(args: tuple[str, ...], said: str) -> None:
    done = run(*args)
    assert done.exit_code in (1, 2)
    assert said in done.stderr and done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1


def test_a_trace_of_training_jobs_is_played_by_the_study_in_rounds() -> None:
    name = "120_0.2_5_100_40_25_0,0.5,0.5_0.6,0.3,0.09,0.01_multigpu_dynamic.trace"
    done = run("--trace", f"shockwave:{trace_file(f'shockwave/{name}')}", "--policy", "fifo", "--json")
    assert json.loads(done.stdout)["fifo"]["makespan_s"] > 0


def test_traces_are_completed_by_scheme_then_by_file(tmp_path: Path) -> None:
    (tmp_path / "load.csv").touch()
    assert [each.value for each in complete_trace(None, None, "sy")] == ["synthetic:"]  # type: ignore[arg-type]
    found = complete_trace(None, None, f"csv:{tmp_path}/lo")  # type: ignore[arg-type]
    assert [each.value for each in found] == [f"csv:{tmp_path}/load.csv"]
