"""Jobs of Gavel's traces on unlike GPUs: as fast as measured, the same by a seed, and a line a policy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from support.traces import trace_file

from walras.cli.main import main
from walras.cli.studies import models_of, study_of
from walras.core.errors import Invalid, NotFound
from walras.sim.mixed import gavel, table
from walras.sim.mixed.maxmin import divide
from walras.sim.traces.gavel import Throughputs
from walras.sim.traces.measured import measured
from walras.sim.world.fleet import mixed
from walras.sim.world.study import workload
from walras.sim.world.training import JobRun
from walras.sim.world.world import World

RATES = Throughputs(
    {
        ("v100", "LM", 10, 1): 100.0,
        ("p100", "LM", 10, 1): 50.0,
        ("k80", "LM", 10, 1): 150.0,
        ("v100", "LM", 10, 4): 100.0,
        ("p100", "LM", 10, 4): 60.0,
        ("k80", "A3C", None, 1): 7.0,
    }
)
POOL = {"V100": 2, "P100": 4, "K80": 4}


def trace(folder: Path, *jobs: tuple[str, int, float, int]) -> Path:
    path = folder / "some.trace"
    lines = [f"{kind}\tpython train.py\t-n\t1\t{steps}\t{at}\t{gpus}\n" for kind, steps, at, gpus in jobs]
    path.write_text("".join(lines))
    return path


def test_a_job_has_its_work_in_time_of_v100_and_speeds_by_its_rates(tmp_path: Path) -> None:
    path = trace(tmp_path, ("LM (batch size 10)", 1_000, 3.0, 1))
    (job,) = measured({"some": path}, RATES, POOL).source.jobs
    assert (job.work_ms, job.arrival_ms) == (10_000, 3_000)
    assert dict(job.speeds) == {"V100": 1000, "P100": 500, "K80": 1500}


def test_a_gang_runs_on_models_alone_that_have_room_and_a_rate_for_it(tmp_path: Path) -> None:
    path = trace(tmp_path, ("LM (batch size 10)", 1_000, 0.0, 4))
    (job,) = measured({"some": path}, RATES, POOL).source.jobs
    assert job.work_ms == 40_000 and dict(job.speeds) == {"P100": 600}


def test_a_job_of_which_v100_was_not_measured_is_left_out_and_counted(tmp_path: Path) -> None:
    path = trace(tmp_path, ("LM (batch size 10)", 1_000, 0.0, 1), ("A3C", 10, 1.0, 1))
    found = measured({"some": path}, RATES, POOL)
    assert (len(found.source.jobs), found.left_out) == (1, 1)


def test_the_pool_is_as_fast_as_all_the_work_is_there_on_average(tmp_path: Path) -> None:
    kind = "LM (batch size 10)"
    path = trace(tmp_path, (kind, 1_000, 0.0, 1), (kind, 1_000, 1.0, 4))
    speeds = measured({"some": path}, RATES, POOL).speeds
    # 10 s and 40 s of V100 take 20 s and 66.7 s on P100; the gang has no rate on K80, and no room on V100.
    assert speeds == {"V100": 1000, "P100": 576, "K80": 1500}


def test_a_model_that_was_not_measured_and_a_trace_without_jobs_for_the_pool_are_errors(
    tmp_path: Path,
) -> None:
    path = trace(tmp_path, ("A3C", 10, 0.0, 1))
    with pytest.raises(Invalid, match="no H100; a pool for it has some of V100"):
        measured({"some": path}, RATES, {"H100": 1})
    with pytest.raises(NotFound, match="no job of"):
        measured({"some": path}, RATES, POOL)


@pytest.mark.parametrize(
    "said", ["", "x", "0", "4:", ":V100", "4:V100,2", "4:V100,4:V100", "0:V100", "-1", "100001"]
)
def test_devices_that_cannot_be_are_refused(said: str) -> None:
    with pytest.raises(Invalid, match="--gpus"):
        models_of(said)


def test_a_trace_of_training_jobs_on_several_models_is_played_in_the_simulated_pool() -> None:
    study = study_of(f"gavel:{trace_file('gavel/51b7ef.trace')}", "2:V100,2:K80", None)
    first, again = (study.run("auction:own", seed=0, load=1.0, progress=lambda _: None) for _ in range(2))
    assert first.metrics == again.metrics
    assert first.metrics["unserved"] == 0 and "utilisation_K80" in first.metrics
    assert "left out" in study.notes[0]


def test_a_way_to_ask_is_for_unlike_devices_and_one_that_there_is() -> None:
    study = study_of("synthetic:minutes=1,serving=0", "2:A100,2:T4", None)
    with pytest.raises(NotFound, match='no policy "fifo:some"'):
        study.run("fifo:some", seed=0, load=1.0, progress=lambda _: None)
    with pytest.raises(NotFound, match='no policy "fifo:own"'):
        study_of("synthetic:minutes=1", "2", None).run("fifo:own", seed=0, load=1.0, progress=lambda _: None)
    with pytest.raises(NotFound, match='no policy "lottery"'):
        list(table.rows(Path(), policies=["lottery"]))


def test_a_model_that_nobody_knows_counts_as_the_slowest_and_a_note_says_so() -> None:
    study = study_of("synthetic:minutes=1,serving=0", "1:H100,1:T4000", None)
    assert study.notes == ("how fast T4000 is is not known; it counts as 60, as the slowest does",)
    assert not study_of("synthetic:minutes=1,serving=0", "1:H100,1:T4", None).notes


def test_made_up_jobs_load_a_pool_by_what_its_devices_can_do() -> None:
    study = study_of("synthetic:minutes=20,serving=0,job_s_max=300", "4:H100,4:T4", None)
    metrics = study.run("fifo", seed=1, load=0.5, progress=lambda _: None).metrics
    # Half of what it can do, and the last jobs end after the span.
    assert 35 < metrics["goodput_pct"] <= 50


def test_max_min_parts_are_near_the_optimum_that_can_be_computed_by_hand() -> None:
    # One job is nearly as fast on the second model, the other a tenth: with halves of the first each has as
    # much as on half of both, and no division gives both more.
    found = divide(np.array([[1, 0.9], [1, 0.1]]), np.ones(2), np.ones(2), np.ones(2))
    levels = (found * [[1, 0.9], [1, 0.1]]).sum(axis=1) / [0.95, 0.55]
    assert 0.96 < levels.min() <= 1 + 1e-9


@given(
    st.lists(
        st.tuples(
            st.integers(1, 1000), st.integers(0, 1000), st.sampled_from((1, 2, 4, 8)), st.integers(1, 9)
        ),
        min_size=1,
        max_size=8,
    )
)
@settings(max_examples=100, deadline=None)
def test_parts_are_of_the_time_and_of_the_devices_that_there_are(
    kinds: list[tuple[int, int, int, int]],
) -> None:
    devices = np.array([8.0, 16.0])
    speeds = np.array([kind[:2] for kind in kinds], float)
    gpus, count = (np.array([kind[at] for kind in kinds], float) for at in (2, 3))
    found = divide(speeds, gpus, count, devices)
    assert (found >= 0).all() and (found.sum(axis=1) <= 1 + 1e-6).all()
    assert ((gpus * count) @ found <= devices + 1e-6).all()
    # Nobody has to be worse off than with as many parts of everything as there are jobs.
    least = ((found * speeds).sum(axis=1) * gpus / (speeds @ devices / devices.sum())).min()
    alike = min(gpus.min(), devices.sum() / count.sum())
    # An equal division may not fit gangs that take all of a model at once; most of its level must be there.
    assert least >= 0.9 * min(alike, (devices / count.sum()).min() * 2)


def under_gavel(path: Path) -> tuple[World, list[JobRun]]:
    """The jobs of a trace, played on a V100 and a P100."""
    jobs = measured({"some": path}, RATES, {"V100": 1, "P100": 1})
    load = workload(jobs.source, 2, 0)
    world = World(
        load, "fifo", mixed({"V100": 1, "P100": 1}, jobs.speeds), rules=table.GAVEL_RULES, asking="own"
    )
    world.market.decide_by(gavel.NAME, gavel.Gavel(world.market))
    world.until_ms = 24 * 3_600_000
    runs: list[JobRun] = []
    world.arrived = runs.append
    world.run()
    return world, runs


def test_under_gavel_every_job_runs_in_turn_and_none_is_charged(tmp_path: Path) -> None:
    world, runs = under_gavel(trace(tmp_path, *[("LM (batch size 10)", 500_000, 0.0, 1)] * 6))
    first_ms = [run.first_ms for run in runs]
    # Six jobs on two models are twelve pairs, of which each round of five minutes has two.
    assert all(first is not None and first <= 31 * 60_000 for first in first_ms)
    assert all(run.done_ms is not None for run in runs)
    assert world.bank.ledger.accounts["revenue"].balance == 0


def test_gavel_waits_while_there_is_nobody_to_divide_among(tmp_path: Path) -> None:
    kind = "LM (batch size 10)"
    _, runs = under_gavel(trace(tmp_path, (kind, 1_000, 0.0, 1), (kind, 1_000, 6 * 3_600.0, 1)))
    assert len(runs) == 2 and all(run.done_ms is not None for run in runs)


def test_the_table_has_a_line_a_policy_and_json_says_what_was_asked() -> None:
    data = str(trace_file("gavel/51b7ef.trace").parent.parent)
    args = ["sim", "compare", "mixed", "--data", data, "--gpus", "8:V100,8:K80", "--hours", "6"]
    text = CliRunner().invoke(main, [*args, "--policy", "fifo:own"])
    assert text.exit_code == 0 and len(text.stdout.splitlines()) == 2
    told = json.loads(CliRunner().invoke(main, [*args, "--policy", "auction:own", "--json"]).stdout)
    assert told["gpus"] == {"V100": 8, "K80": 8} and list(told["policies"]) == ["auction:own"]
    assert 0 < told["policies"]["auction:own"]["utilisation_V100"] <= 1
