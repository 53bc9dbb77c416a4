"""Traces and throughput tables as Gavel and Shockwave write them, and what is said of those that are not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from walras.core.errors import Invalid, NotFound
from walras.sim.traces.gavel import TraceJob, read_throughputs, read_trace

GAVEL = "Transformer (batch size 128)\tcd %s && python3 train.py\t-step\t1\t14612\t11.000000\t2"
SHOCKWAVE = "LM (batch size 10)\tpython3\tmodeling\t--steps\t1\t134583\t4\tgns\t1\t-1.000000\t1418\t55"
PROFILES = {
    "v100": {"('LM (batch size 10)', 1)": {"null": 44.3, "('A3C', 1)": [1.0, 2.0]}, "('A3C', 1)": {"null": 3}}
}


def write(folder: Path, *lines: str) -> Path:
    path = folder / "a.trace"
    path.write_text("".join(line + "\n" for line in lines))
    return path


def test_the_columns_of_gavel_are_a_job_that_keeps_its_batch_size(tmp_path: Path) -> None:
    (read,) = read_trace(write(tmp_path, GAVEL))
    assert read == TraceJob(0, "Transformer", 128, 14_612, 2, 11.0)


def test_the_columns_of_shockwave_say_how_a_job_adapts_and_how_long_it_takes(tmp_path: Path) -> None:
    (read,) = read_trace(write(tmp_path, SHOCKWAVE))
    assert read == TraceJob(0, "LM", 10, 134_583, 4, 55.0, "gns", 1.0, 1_418.0)


def test_a_model_with_only_one_batch_size_names_none(tmp_path: Path) -> None:
    (read,) = read_trace(write(tmp_path, GAVEL.replace("Transformer (batch size 128)", "CycleGAN")))
    assert (read.model, read.batch_size) == ("CycleGAN", None)


def test_jobs_are_read_a_line_at_a_time(tmp_path: Path) -> None:
    """The first one is there before a fault in the second is found."""
    jobs = read_trace(write(tmp_path, GAVEL, "rubbish"))
    assert next(jobs).number == 0
    with pytest.raises(Invalid, match=r"a\.trace:2: has 1 columns"):
        next(jobs)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (GAVEL + "\t1", "has 8 columns with tabs between; Gavel's traces have 7, Shockwave's 12"),
        (GAVEL.replace("14612", "14612.5"), 'total steps "14612.5" is not a whole number above 0'),
        (GAVEL.replace("14612", "0"), 'total steps "0" is not a whole number above 0'),
        (GAVEL[:-1] + "-2", 'scale factor "-2" is not a whole number above 0'),
        (GAVEL.replace("11.000000", "nan"), 'arrival "nan" is not a number from 0 on'),
        (GAVEL.replace("11.000000", "soon"), 'arrival "soon" is not a number from 0 on'),
        (GAVEL.replace("11.000000", "3"), "arrives at 3 s, before the job above it"),
        (
            GAVEL.replace("size 128)", "size big)"),
            'job type "Transformer (batch size big)" is not of the form',
        ),
        (SHOCKWAVE.replace("gns", "magic"), 'mode "magic" is none of static, accordion, gns'),
        (SHOCKWAVE.replace("1418", "-1"), 'duration "-1" is not a number from 0 on'),
        ("", "has 1 columns"),
    ],
)
def test_a_fault_is_told_with_its_file_and_line(tmp_path: Path, line: str, says: str) -> None:
    with pytest.raises(Invalid) as fault:
        list(read_trace(write(tmp_path, GAVEL, line)))
    assert fault.value.message.startswith(f"{tmp_path}/a.trace:2: ")
    assert says in fault.value.message


def test_a_trace_that_is_not_there_or_not_text_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="cannot read the trace"):
        list(read_trace(tmp_path / "none"))
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(Invalid, match="not UTF-8"):
        list(read_trace(tmp_path / "binary"))


def test_throughputs_are_those_of_jobs_alone(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text(json.dumps(PROFILES))
    read = read_throughputs(path)
    assert read.steps_per_s("v100", "LM", 10, 1) == 44.3
    assert read.steps_per_s("v100", "A3C", None, 1) == 3
    with pytest.raises(NotFound, match=r'no "LM \(batch size 10\)" on 2 v100'):
        read.steps_per_s("v100", "LM", 10, 2)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"v100":\n {]', r"t\.json:2: "),
        ("[]", "is not a JSON object"),
        ('{"v100": 3}', r"t\.json: v100: is not a JSON object"),
        ('{"v100": {"LM": {"null": 1}}}', '"LM" is not of the form'),
        ("""{"v100": {"('LM', 1)": {}}}""", "is not of the form"),
        ("""{"v100": {"('LM', 1)": {"null": "fast"}}}""", "is not of the form"),
        ("""{"v100": {"('LM', 1)": 7}}""", "is not of the form"),
    ],
)
def test_a_faulty_table_is_told_with_its_place(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "t.json"
    path.write_text(text)
    with pytest.raises(Invalid, match=says):
        read_throughputs(path)


def test_a_table_that_is_not_there_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="cannot read the throughputs"):
        read_throughputs(tmp_path / "none")
