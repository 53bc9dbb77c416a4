"""Inference beside training, and what budgets buy: the loads, the tables, and traces that are not there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from support.simulated import stream
from support.traces import trace_file

from walras.cli.main import main
from walras.core.errors import Invalid, NotFound
from walras.core.money import MICROS
from walras.sim.sharing import budgets, load, paying, published, table
from walras.sim.sharing.published import Traces
from walras.sim.world.workload import Job, Workload

SPAN_MS = 240_000


def traces() -> Traces:
    """A request of half a second each second and one of three each two, and jobs of 20 s on 1 and 4 GPUs."""
    azure = stream("azure", list(range(0, 100_000, 1_000)), [500] * 100)
    mooncake = stream("mooncake", list(range(0, 60_000, 2_000)), [3_000] * 30)
    jobs = [
        Job(f"j{number}", "training-vc", 1_000 * number, 20_000 * gpus, gpus=gpus)
        for number, gpus in enumerate([1, 1, 4] * 20)
    ]
    return Traces({"azure": azure, "mooncake": mooncake}, {"vc": tuple(jobs)})


def parts(of: Workload, gpus: int) -> tuple[float, float]:
    """Of what the pool can do, what requests and what jobs come to."""
    serving = sum(int(each.works_ms.sum()) for each in of.streams)
    return serving / (gpus * SPAN_MS), sum(job.work_ms for job in of.jobs) / (gpus * SPAN_MS)


@pytest.mark.parametrize("gpus", [16, 64, 128])
def test_the_load_is_as_large_a_part_of_a_pool_of_any_size(gpus: int) -> None:
    made = load.mixed(traces(), gpus, SPAN_MS, seed=1)
    serving, training = parts(made, gpus)
    assert serving == pytest.approx(load.SERVING, rel=0.1)
    assert training == pytest.approx(load.TRAINING, rel=0.1)
    assert len({each.agent for each in made.streams}) == max(2, gpus // 16)
    assert all(0 <= job.arrival_ms < SPAN_MS for job in made.jobs)
    assert all(np.all((each.arrivals_ms >= 0) & (each.arrivals_ms < SPAN_MS)) for each in made.streams)
    assert {each.slo_ms for each in made.streams} == {2_000, 10_000}


def test_requests_come_all_the_time_although_a_trace_is_shorter() -> None:
    made = load.mixed(traces(), 64, SPAN_MS, seed=1)
    for each in made.streams:
        quarters = np.bincount(each.arrivals_ms * 4 // SPAN_MS, minlength=4)
        assert quarters.min() > 0.8 * quarters.max()


def test_some_large_jobs_are_gangs_and_others_are_workers_with_a_lease_each() -> None:
    made = load.mixed(traces(), 64, SPAN_MS, seed=1)
    assert {job.gpus for job in made.jobs} == {1, 4}
    worker = next(job for job in made.jobs if job.name.endswith("/3"))
    assert (worker.gpus, worker.work_ms) == (1, 20_000)
    assert {job.value_micros for job in made.jobs} == {load.TRAINING_WORTH}
    least = min(each.value_micros for each in made.agents if each.name.startswith("serving"))
    assert least > 8 * 1.1 * load.TRAINING_WORTH


def test_a_seed_makes_the_same_load_and_another_seed_another() -> None:
    first, again, other = (load.mixed(traces(), 16, SPAN_MS, seed=seed) for seed in (1, 1, 2))
    assert (first.agents, list(first.jobs)) == (again.agents, list(again.jobs))
    assert list(first.jobs) != list(other.jobs)
    assert np.array_equal(first.streams[0].arrivals_ms, again.streams[0].arrivals_ms)


def test_every_policy_has_the_same_notice_and_training_does_its_work_beside_inference() -> None:
    made = load.mixed(traces(), 16, SPAN_MS, seed=3)
    found = {policy: table.play(made, policy, 16) for policy in ("auction", "fifo")}
    for metrics in found.values():
        assert metrics["serving_pct"] + metrics["goodput_pct"] == pytest.approx(metrics["at_work_pct"])
        assert metrics["at_work_pct"] <= metrics["allocation_pct"]
        assert metrics["lost_pct"] == 0
    assert found["auction"]["gpu_wait_p99_s"] <= 1.0 < found["fifo"]["gpu_wait_p99_s"]


def test_what_is_not_saved_on_notice_is_lost() -> None:
    made = load.mixed(traces(), 16, SPAN_MS, seed=3, checkpoint_ms=15_000)
    assert {job.checkpoint_ms for job in made.jobs} == {15_000}
    assert table.play(made, "priority", 16)["lost_pct"] > 0


def test_agents_that_serve_bid_by_the_strategy_behind_the_colon() -> None:
    made = load.mixed(traces(), 16, SPAN_MS, seed=3)
    bidding = {each.name: each.strategy for each in table.bidding(made, "slo").agents}
    assert {bidding[each.agent] for each in made.streams} == {"slo"}
    assert bidding["training-vc"] == "fixed"
    assert table.bidding(made, "") == made


def row(policy: str, goodput: float) -> table.Row:
    return table.Row(policy, {"goodput_pct": goodput})


def test_ours_is_put_beside_the_best_that_leaves_nothing_idle() -> None:
    found = [row("auction", 38.0), row("fifo", 40.0), row("drf", 39.0), row("static", 60.0)]
    assert list(table.summary(found)) == ["under auction training does 95.0 % of what it does under fifo"]
    assert list(table.summary(found[:1])) == []


# The traces as they are published


def folder(root: Path) -> Path:
    """A small trace of each kind."""
    for name in ("azure-llm-2023", "mooncake", "gavel"):
        (root / name).mkdir()
    lines = [f"2023-11-16 18:17:{second:02}.0000000,2000,300" for second in range(60)]
    (root / published.AZURE).write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "\n".join(lines))
    asked = [{"timestamp": 2_000 * at, "input_length": 9_000, "output_length": 600} for at in range(30)]
    (root / published.MOONCAKE).write_text("\n".join(map(json.dumps, asked)))
    rates = {"v100": {"('A3C', 1)": {"null": 1.0}, "('A3C', 4)": {"null": 2.0}}}
    (root / published.THROUGHPUTS).write_text(json.dumps(rates))
    jobs = [f"A3C\tcmd\t-n\t1\t{4_800 * (1 + at % 4)}\t{600.0 * at}\t{1 + 3 * (at % 2)}" for at in range(40)]
    # One that nobody has measured and one that takes a year: both are left out.
    jobs += ["LM\tcmd\t-n\t1\t4800\t0.0\t1", "A3C\tcmd\t-n\t1\t31536000\t0.0\t1"]
    (root / "gavel" / "vc.trace").write_text("\n".join(jobs) + "\n")
    return root


def test_published_files_are_read_as_they_are(tmp_path: Path) -> None:
    found = published.read(folder(tmp_path))
    assert {name: len(each.arrivals_ms) for name, each in found.requests.items()} == {
        "azure": 60,
        "mooncake": 30,
    }
    jobs = found.clusters["vc"]
    assert len(jobs) == 40
    # 4,800 steps at one a second are 80 minutes, played in 20 s; 9,600 at two a second on four GPUs as well.
    assert (jobs[0].arrival_ms, jobs[0].work_ms, jobs[0].gpus) == (0, 20_000, 1)
    assert (jobs[1].arrival_ms, jobs[1].work_ms, jobs[1].gpus) == (2_500, 80_000, 4)


@pytest.mark.parametrize(
    "name", [published.AZURE, published.MOONCAKE, published.THROUGHPUTS, "gavel/vc.trace"]
)
def test_a_trace_that_is_missing_is_told_with_where_it_is_published(name: str, tmp_path: Path) -> None:
    (folder(tmp_path) / name).unlink()
    with pytest.raises(NotFound, match=r"is not there; it is published in .* on GitHub"):
        published.read(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("gavel/vc.trace", "A3C\tcmd\t-n\t1\tmany\t0.0\t1\n", "vc.trace:1: is not a job of a Gavel trace"),
        (published.THROUGHPUTS, "[]", "has no throughputs of v100"),
        (published.AZURE, "when,what\n", "the first line of an Azure LLM trace"),
    ],
)
def test_a_file_that_cannot_be_read_is_told(name: str, text: str, said: str, tmp_path: Path) -> None:
    (folder(tmp_path) / name).write_text(text)
    with pytest.raises(Invalid, match=said):
        published.read(tmp_path)


def compare(*args: str) -> Result:
    return CliRunner().invoke(main, ["sim", "compare", *args])


def test_the_command_prints_a_line_a_policy_and_the_same_as_json(tmp_path: Path) -> None:
    given = ("sharing", "--data", str(folder(tmp_path)), "--gpus", "16", "--minutes", "2")
    chosen = ("--policy", "fifo", "--policy", "auction")
    done = compare(*given, *chosen)
    assert done.exit_code == 0, done.output
    heading, fifo, auction, last = done.stdout.splitlines()
    assert heading.startswith("policy") and fifo.startswith("fifo") and auction.startswith("auction")
    assert "of what it does under fifo" in last
    told = json.loads(compare(*given, *chosen, "--json").stdout)
    assert list(told["policies"]) == ["fifo", "auction"]
    assert f"{told['policies']['fifo']['goodput_pct']:.1f}" in fifo.split()
    assert (told["gpus"], told["minutes"], told["seeds"]) == (16, 2, 1)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--policy", "lottery"), 'no policy "lottery"; there are auction'),
        (("--policy", "auction:luck"), "names no strategy; there are"),
        (("--gpus", "0"), "--gpus"),
        (("--checkpoint", "often"), "is not a duration"),
    ],
)
def test_what_cannot_be_compared_is_told_in_a_line(args: tuple[str, ...], said: str, tmp_path: Path) -> None:
    refused = compare("sharing", "--data", str(folder(tmp_path)), *args)
    assert refused.exit_code in (1, 2)
    assert said in refused.stderr and refused.stderr.count("\n") == 1


def test_the_published_traces_are_a_load_within_the_pool() -> None:
    data = trace_file(published.AZURE).parents[1]
    trace_file(published.MOONCAKE), trace_file(published.THROUGHPUTS)
    made = load.mixed(published.read(data), 64, SPAN_MS, seed=0)
    serving, training = parts(made, 64)
    assert serving == pytest.approx(load.SERVING, rel=0.2)
    assert training == pytest.approx(load.TRAINING, rel=0.2)
    metrics = table.play(made, "auction", 64)
    assert metrics["gpu_wait_p99_s"] < 3.0
    assert metrics["evictions"] > 0


# What budgets buy


def test_correlation_and_gini_are_the_textbooks() -> None:
    assert budgets.pearson([1, 2, 3], [2, 4, 6]) == pytest.approx(1)
    assert budgets.pearson([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert budgets.pearson([1, 1, 1], [1, 2, 3]) == 0
    assert budgets.gini([5, 5, 5, 5]) == 0
    assert budgets.gini([0, 0, 0, 8]) == pytest.approx(0.75)
    assert budgets.gini([0, 0]) == 0


def test_agents_differ_in_income_alone_and_one_has_twice_its_own() -> None:
    agents = budgets.load_of(1, double=5).agents
    assert [each.income_micros_per_hour * 2 // MICROS for each in agents] == [
        1,
        2,
        3,
        4,
        1,
        4,
        3,
        4,
        1,
        2,
        3,
        4,
    ]
    assert {each.weight for each in agents} == {1}
    weighted = budgets.load_of(1, weighted=True)
    assert [each.weight for each in weighted.agents[:4]] == [1, 2, 3, 4]
    work: dict[str, int] = {}
    for job in weighted.jobs:
        work[job.agent] = work.get(job.agent, 0) + job.work_ms
    assert len(set(work.values())) == 1


def test_money_decides_who_is_served_and_nothing_is_paid_under_fifo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budgets, "SPAN_MS", 600_000)
    found = {name: paying._measured(paying.VARIANTS[name], 1) for name in ("no rebate", "fifo")}
    paid, wealth = found["no rebate"]
    assert paid["r_spent_service"] > 0.8 > found["fifo"][0]["r_income_service"]
    assert found["fifo"][0]["r_spent_service"] == found["fifo"][0]["price"] == 0
    assert found["fifo"][0]["double_buys"] == 1
    assert len(wealth) == 1 + 600_000 // budgets.WEALTH_MS
    # All begin with a quarter of an hour's income.
    assert wealth[0] == pytest.approx(budgets.gini([1, 2, 3, 4]))
    assert replace(paying.VARIANTS["fifo"], mechanism="auction") == paying.VARIANTS["rebate alike"]


def test_the_table_of_budgets_has_a_line_a_variant_and_wealth_over_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(budgets, "SPAN_MS", 300_000)
    few = {name: paying.VARIANTS[name] for name in ("no rebate", "fifo")}
    monkeypatch.setattr(paying, "VARIANTS", few)
    done = compare("budgets", "--seeds", "1")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert [line[:17].strip() for line in lines] == ["", *few, "", "Gini of balances", *few]
    assert lines[4].split()[3:] == ["0", "min", "5", "min"]
    told = json.loads(compare("budgets", "--seeds", "1", "--json").stdout)
    assert set(told["variants"]) == set(few)
    assert f"{told['variants']['no rebate']['price']:.2f}" == lines[1].split()[-1]
