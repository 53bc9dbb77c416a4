"""Readers of traces: what they make of good lines, and where they say that a line is wrong."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pytest
from support.traces import trace_file

from walras.core.errors import Invalid
from walras.core.money import MICROS
from walras.sim.traces import chances, own, requests, source, synthetic
from walras.sim.world.jobs import Jobs
from walras.sim.world.workload import Job

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "trace"
    path.write_text(text)
    return path


def test_azure_times_are_to_the_millisecond_and_work_is_by_tokens(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        AZURE + "2023-11-16 18:17:03.9799600,4808,10\n2023-11-16 18:17:04.0319600,3180,8\n",
    )
    read = requests.source(requests.azure(path), path)
    stream = read.streams[0]
    assert stream.arrivals_ms.tolist() == [0, 52]
    # 4808 of 10,000 and 10 of 1,000 a second: 480.8 + 10 ms, rounded up.
    assert stream.works_ms.tolist() == [491, 326]
    assert read.agents == [f"serving-{number}" for number in range(4)]


def test_mooncake_lines_are_requests(tmp_path: Path) -> None:
    line = '{"timestamp": %d, "input_length": 1000, "output_length": 5, "hash_ids": [1, 2]}\n'
    path = written(tmp_path, line % 40 + line % 0)
    read = requests.source(requests.mooncake(path), path)
    assert read.streams[0].arrivals_ms.tolist() == [0, 40]
    assert read.span_ms == 41


@pytest.mark.parametrize(
    ("reader", "text", "said"),
    [
        ("azure", "time,a,b\n", ":1: the first line"),
        ("azure", AZURE + "2023-11-16 18:17:03.9799600,4808,10\nyesterday,1,2\n", ":3: "),
        ("azure", AZURE + "2023-11-16 18:17:03.9799600,4808\n", ":2: "),
        ("azure", AZURE + "2023-11-16 18:17:03.9799600,-1,2\n", ":2: "),
        ("mooncake", '{"timestamp": 0, "input_length": 1}\n', ":1: not a request"),
        ("mooncake", '{"timestamp": 0, "input_length": 1, "output_length": 2}\n{\n', ":2: not a request"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, reader: str, text: str, said: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(Invalid, match=f"trace{said}"):
        list(getattr(requests, reader)(path))


def test_an_empty_trace_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, AZURE)
    with pytest.raises(Invalid, match="empty"):
        requests.source(requests.azure(path), path)


OWN = "arrival_ms,agent,kind,work_ms,gpus,gpus_min,price,deadline_ms\n"


def test_a_trace_of_ones_own_has_jobs_and_requests(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        OWN + "500,team-a,job,60000,4,2,1.50,90000\n100,chat,request,250,,,3,\n0,chat,request,200,,,,\n",
    )
    read = own.source(path)
    job = read.jobs[0]
    assert (job.agent, job.arrival_ms, job.work_ms, job.gpus, job.gpus_min) == ("team-a", 500, 60_000, 4, 2)
    assert (job.value_micros, job.deadline_ms) == (3 * MICROS // 2, 90_000)
    assert read.streams[0].arrivals_ms.tolist() == [0, 100]
    assert read.streams[0].works_ms.tolist() == [200, 250]
    assert dict(read.prices)["chat"] == 3 * MICROS
    assert read.span_ms == 501


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("arrival_ms,agent\n", ":1: .*lacks kind, work_ms"),
        ("arrival_ms,agent,kind,work_ms,colour\n", ":1: there is no column colour"),
        (OWN + "0,a,job,1,1,1,1,\n0,a,jog,1,1,1,1,\n", ":3: kind is"),
        (OWN + "0,a,job,0,1,1,1,\n", ":2: work_ms is a whole number from 1"),
        (OWN + "0,a,job,ten,1,1,1,\n", ":2: work_ms is a whole number"),
        (OWN + "0,a,job,5,2,3,1,\n", ":2: gpus_min is a whole number from 1 to 2"),
        (OWN + "0,a,job,5,2,2,-1,\n", ":2: .*negative"),
        (OWN + "9,a,job,5,2,2,1,9\n", ":2: deadline_ms"),
        (OWN + "9,,job,5,2,2,1,\n", ":2: agent is missing"),
        (OWN + "9,a,job,5,2,2,1,,,,\n", ":2: .*as many values"),
        (OWN, "empty"),
    ],
)
def test_a_bad_line_of_ones_own_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        own.source(written(tmp_path, text))


def test_a_trace_is_played_so_often_that_it_makes_the_load(tmp_path: Path) -> None:
    rows = iter([(1000 * second, 1000, 10) for second in range(100)])
    read = requests.source(rows, tmp_path)
    for load in (0.5, 1.0, 1.3):
        laid = source.scaled(read, 8, load, Random(5))
        assert laid.work_ms == pytest.approx(load * 8 * read.span_ms, rel=0.01)
        for stream in laid.streams:
            assert (np.diff(stream.arrivals_ms) >= 0).all()
            assert 0 <= stream.arrivals_ms.min() <= stream.arrivals_ms.max() < read.span_ms


def test_ones_own_trace_is_played_as_it_is_unless_a_load_is_asked_for(tmp_path: Path) -> None:
    path = written(tmp_path, OWN + "0,a,job,60000,1,1,1,70000\n5000,a,job,1000,1,1,1,\n")
    read = own.source(path)
    assert source.scaled(read, 8, 1.0, Random(1)) is read
    twice = source.scaled(read, 8, 2.0, Random(1))
    assert len(twice.jobs) == 4
    assert {job.deadline_ms - job.arrival_ms for job in twice.jobs if job.deadline_ms} == {70_000}


@pytest.mark.parametrize("text", ["minutes", "minutes=x", "hours=1", "minutes=0", "serving=0,training=0"])
def test_a_synthetic_spec_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        synthetic.parse(text)


def test_distributions_have_the_mean_and_the_bounds_that_they_say() -> None:
    chance = Random(1)
    gaps = [chances.exponential(chance, 10_000) for _ in range(20_000)]
    assert sum(gaps) / len(gaps) == pytest.approx(10_000, rel=0.03)
    # A third of the mean and less comes with 1 - exp(-1/3).
    assert sum(gap * 3 < 10_000 for gap in gaps) / len(gaps) == pytest.approx(0.2835, abs=0.02)
    sizes = [chances.log_uniform(chance, 10, 1_000) for _ in range(20_000)]
    assert 10 <= min(sizes) <= max(sizes) <= 1_000
    assert sum(size < 100 for size in sizes) / len(sizes) == pytest.approx(0.5, abs=0.02)
    assert chances.log_uniform_mean(10, 1_000) == pytest.approx(sum(sizes) / len(sizes), rel=0.05)


def test_the_public_traces_are_read_whole() -> None:
    azure = trace_file("azure-llm-2023/AzureLLMInferenceTrace_code.csv")
    assert len(requests.source(requests.azure(azure), azure).streams[0].works_ms) == 8_819
    mooncake = trace_file("mooncake/synthetic_trace.jsonl")
    assert len(requests.source(requests.mooncake(mooncake), mooncake).streams[0].works_ms) == 3_993


def test_jobs_in_columns_are_the_jobs_that_were_given() -> None:
    given = [
        Job("b", "x", 5, 10, gpus=2, gpus_min=1, deadline_ms=99, job_class="latency", priority=3),
        Job("c", "y", 5, 20, checkpoint_ms=7, restart_ms=8, value_micros=9, milli=500, term_ms=11),
        Job("a", "x", 5, 30),
        Job("d", "x", 1, 40, deadline_ms=0),
    ]
    jobs = Jobs(given)
    assert list(jobs) == given and len(jobs) == 4 and jobs[-1] == given[-1] and jobs[1:3] == given[1:3]
    assert [job.name for job in jobs.in_order()] == ["d", "b", "c", "a"]
    assert list(jobs.in_order(by_name=True)) == [given[3], given[2], given[0], given[1]]


def test_gangs_are_all_or_nothing_where_that_is_asked_for() -> None:
    for elastic in (0, 1):
        spec = synthetic.parse(f"minutes=10,serving=0,elastic={elastic}")
        jobs = synthetic.source(spec, 16, 1.0, Random(1)).jobs
        assert any(job.gpus_min < job.gpus for job in jobs) == bool(elastic)
