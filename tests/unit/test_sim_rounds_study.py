"""The study as the command line sees it, and the trace of the Shockwave paper where it is at hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.traces import trace_file

from walras.cli.compare import compare
from walras.cli.main import main
from walras.core.errors import Invalid, NotFound
from walras.sim.rounds.published import COLUMNS, PUBLISHED
from walras.sim.rounds.study import GavelStudy, gavel_study
from walras.sim.rounds.table import THROUGHPUTS, TRACE
from walras.sim.study import Study

SIZES = (64, 128)
PROFILES = {"v100": {f"('ResNet-50 (batch size {size})', 1)": {"null": 200 / size} for size in SIZES}}


@pytest.fixture
def study(tmp_path: Path) -> GavelStudy:
    """Nine jobs of one and two epochs, one a minute, on two GPUs."""
    lines = [
        f"ResNet-50 (batch size 64)\tpy\tdir\t-n\t1\t{1563 * (1 + at % 2)}\t1\tstatic\t1\t-1\t9\t{60 * at}"
        for at in range(9)
    ]
    (tmp_path / "a.trace").write_text("\n".join(lines) + "\n")
    (tmp_path / "t.json").write_text(json.dumps(PROFILES))
    return gavel_study(tmp_path / "a.trace", tmp_path / "t.json", gpus=2)


def play(study: Study, policy: str, seed: int = 0, load: float = 1.0) -> dict[str, float]:
    result = study.run(policy, seed=seed, load=load, progress=lambda done: None)
    assert all(len({len(column) for column in each.columns.values()}) == 1 for each in result.series.values())
    assert set(result.series) == {"jct", "rho", "utilisation"}
    return dict(result.metrics)


def test_every_policy_plays_the_trace_to_its_end_and_the_same_way_again(study: GavelStudy) -> None:
    """13 epochs of 500 s on two GPUs take 3250 s at least."""
    for policy in (*study.policies, "gavel+prompt"):
        metrics = play(study, policy)
        assert metrics == play(study, policy)
        assert metrics["makespan_s"] >= 3_250
        assert 0 < metrics["utilisation"] <= 1


def test_a_seed_shifts_arrivals_the_same_way_each_time(study: GavelStudy) -> None:
    assert play(study, "market", seed=3) == play(study, "market", seed=3)
    assert play(study, "market", seed=3) != play(study, "market", seed=4)


def test_at_a_small_load_nobody_waits_for_anybody(study: GavelStudy) -> None:
    """A job that has the cluster to itself is done in what it takes and a restart."""
    assert play(study, "shortest-first", load=0.01)["jct_mean_s"] == pytest.approx(13 / 9 * 500, rel=0.1)
    assert play(study, "shortest-first")["jct_mean_s"] > 1_000


def test_progress_ends_at_all_of_it(study: GavelStudy) -> None:
    seen: list[float] = []
    study.run("market", progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_what_cannot_be_run_is_said(study: GavelStudy, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match='no policy "gurobi"; there are market, '):
        study.run("gurobi")
    with pytest.raises(NotFound, match='no policy "market\\+prompt"'):
        study.run("market+prompt")
    with pytest.raises(Invalid, match="load 0 is not above 0"):
        study.run("market", load=0.0)
    with pytest.raises(Invalid, match="0 GPUs"):
        gavel_study(tmp_path / "a.trace", tmp_path / "t.json", gpus=0)
    with pytest.raises(NotFound, match=r'a\.trace:1: the throughput table has no "ResNet-50 .*" on 1 k80'):
        gavel_study(tmp_path / "a.trace", tmp_path / "t.json", worker="k80")
    (tmp_path / "empty").write_text("")
    with pytest.raises(Invalid, match="empty: has no jobs"):
        gavel_study(tmp_path / "empty", tmp_path / "t.json")


def test_jobs_that_no_table_has_measured_are_left_out_and_counted(tmp_path: Path) -> None:
    """Of four jobs the second asks for two GPUs, of which the table knows nothing."""
    lines = [f"ResNet-50 (batch size 64)\tpy\t-n\t1\t1563\t{at}\t{2 if at == 1 else 1}" for at in range(4)]
    (tmp_path / "a.trace").write_text("\n".join(lines) + "\n")
    (tmp_path / "t.json").write_text(json.dumps(PROFILES))
    some = gavel_study(tmp_path / "a.trace", tmp_path / "t.json", gpus=2)
    assert [job.number for job in some.jobs] == [0, 2, 3]
    assert len(some.notes) == 1
    assert some.notes[0].startswith("1 of 4 jobs are left out") and "a.trace:2: " in some.notes[0]
    given = ["sim", "run", "--trace", f"gavel:{tmp_path}/a.trace,{tmp_path}/t.json", "--policy", "fifo"]
    done = CliRunner().invoke(main, given)
    assert done.exit_code == 0 and done.stderr.startswith("note: 1 of 4 jobs are left out")


def test_a_trace_of_very_many_rounds_says_how_many_and_how_long_a_market_takes(tmp_path: Path) -> None:
    """Two jobs, the second four weeks later: 20,160 rounds of two minutes."""
    week_s = 7 * 24 * 3600
    lines = [f"ResNet-50 (batch size 64)\tpy\t-n\t1\t1563\t{at}\t1" for at in (0, 4 * week_s)]
    (tmp_path / "a.trace").write_text("\n".join(lines) + "\n")
    (tmp_path / "t.json").write_text(json.dumps(PROFILES))
    (note,) = gavel_study(tmp_path / "a.trace", tmp_path / "t.json", gpus=2).notes
    assert note.startswith("2 jobs in 20,160 rounds and more") and note.endswith("some 3 minutes")


def test_the_compiled_engine_decides_a_market_in_rounds_as_it_is_decided_without(
    study: GavelStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = play(study, "market")
    monkeypatch.setattr("walras.sim.rounds.study.ENGINE_FROM", 1)
    assert play(study, "market") == plain


def test_a_cluster_of_microsofts_is_played_as_published() -> None:
    some = gavel_study(trace_file("gavel/23dbec.trace"), trace_file("gavel/simulation_throughputs.json"))
    assert len(some.jobs) == 8
    assert play(some, "market")["utilisation"] > 0


def test_without_the_data_the_command_says_what_is_missing(tmp_path: Path) -> None:
    refused = CliRunner().invoke(compare, ["shockwave", "--data", str(tmp_path)])
    assert isinstance(refused.exception, NotFound) and "cannot read the trace" in str(refused.exception)


def test_the_table_has_a_line_for_each_policy_beside_what_was_published() -> None:
    data = trace_file(TRACE).parent.parent
    given = ["shockwave", "--data", str(data), "--policy", "gavel"]
    done = CliRunner().invoke(compare, given)
    names = [line[:24].strip() for line in done.stdout.splitlines()]
    assert names == ["policy", "shockwave, published", "gavel, published", "gavel"]
    moved = CliRunner().invoke(
        compare, ["shockwave", "--data", str(data), "--policy", "gavel", "--seed", "1"]
    )
    assert [line[:24].strip() for line in moved.stdout.splitlines()] == ["policy", "gavel"]


@pytest.fixture
def shockwave() -> GavelStudy:
    """The trace of the paper; skips the test without it."""
    return gavel_study(trace_file(TRACE), trace_file(THROUGHPUTS))


def test_the_published_numbers_come_out_again(shockwave: GavelStudy) -> None:
    """Within 5% of each published number but one: OSSP leaves open who waits longest."""
    for policy, published in PUBLISHED.items():
        if policy != "shockwave":
            metrics = play(shockwave, policy)
            for name in COLUMNS:
                within = 0.1 if (policy, name) == ("ossp", "rho_worst") else 0.05
                assert metrics[name] == pytest.approx(published[name], rel=within), (policy, name)


@pytest.mark.parametrize("policy", ["market", "market-planned"])
def test_the_market_does_better_than_the_best_published(shockwave: GavelStudy, policy: str) -> None:
    metrics, best = play(shockwave, policy), PUBLISHED["shockwave"]
    for name in ("makespan_s", "jct_mean_s", "rho_worst", "unfair_pct"):
        assert metrics[name] < best[name], name
    assert metrics["utilisation"] > best["utilisation"]
