"""The reader of the openb trace: what a line says, and what is said of a line that is wrong."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
from support.traces import trace_file

from walras.core.errors import Invalid, NotFound
from walras.sim.traces.openb import Node, Pod, read_nodes, read_pods

NODES = "sn,cpu_milli,memory_mib,gpu,model\n"
SHORT = "name,cpu_milli,memory_mib,num_gpu,gpu_milli\n"
PODS = SHORT.strip() + ",gpu_spec,qos,pod_phase,creation_time,deletion_time,scheduled_time\n"


def file_of(folder: Path, text: str) -> Path:
    path = folder / "trace.csv"
    path.write_text(text)
    return path


def test_nodes_have_devices_of_one_model_or_none(tmp_path: Path) -> None:
    path = file_of(tmp_path, NODES + "a,32000,262144,0,\nb,64000,262144,2,P100\n")
    assert list(read_nodes(path)) == [Node("a", 32000, 262144, 0, ""), Node("b", 64000, 262144, 2, "P100")]


def test_pods_say_which_models_will_do_and_when_they_ran(tmp_path: Path) -> None:
    lines = (
        "p,6000,12288,1,460,V100M16|V100M32,LS,Running,427061,12902960,427061.0\nq,1,2,0,0,,BE,Pending,5,6,\n"
    )
    first, second = read_pods(file_of(tmp_path, PODS + lines))
    models = ("V100M16", "V100M32")
    assert first == Pod("p", 6000, 12288, 1, 460, models, "LS", "Running", 427061, 12902960, 427061)
    assert (second.total_milli, second.scheduled_s) == (0, None)


def test_variants_have_fewer_columns(tmp_path: Path) -> None:
    assert list(read_pods(file_of(tmp_path, SHORT + "p,12000,16384,8,1000\n"))) == [
        Pod("p", 12000, 16384, 8, 1000)
    ]


def test_lines_are_read_as_they_are_asked_for(tmp_path: Path) -> None:
    pods = read_pods(file_of(tmp_path, SHORT + "p,1,1,1,1000\n" * 3 + "broken\n"))
    assert len(list(islice(pods, 3))) == 3
    with pytest.raises(Invalid, match=r"trace\.csv:5: 1 cells where the header has 5"):
        next(pods)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("p,1,1,1", "4 cells"),
        (",1,1,1,1000", "name is empty"),
        ("p,-1,1,1,1000", "cpu_milli is '-1'"),
        ("p,1.5,1,1,1000", "cpu_milli is '1.5'"),
        ("p,1,²,1,1000", "memory_mib is '²'"),
        ("p,1,1,1,0", "1 to 1000"),
        ("p,1,1,1,1001", "1 to 1000"),
        ("p,1,1,2,500", "only whole ones"),
        (f"p,1,{'9' * 16},1,1000", "memory_mib"),
    ],
)
def test_a_line_that_is_wrong_is_named_with_what_is_wrong(tmp_path: Path, line: str, says: str) -> None:
    path = file_of(tmp_path, SHORT + "p,1,1,1,1000\n" + line + "\n")
    with pytest.raises(Invalid) as error:
        list(read_pods(path))
    assert error.value.message.startswith(f"{path}:3: ")
    assert says in error.value.message


@pytest.mark.parametrize("line", ["a,1,1,2,", "a,1,1,0,T4"])
def test_a_node_has_devices_and_a_model_or_neither(tmp_path: Path, line: str) -> None:
    with pytest.raises(Invalid, match=r"trace\.csv:2: "):
        list(read_nodes(file_of(tmp_path, NODES + line + "\n")))


@pytest.mark.parametrize("time", ["soon", "nan", "inf"])
def test_a_time_is_a_number_of_seconds(tmp_path: Path, time: str) -> None:
    with pytest.raises(Invalid, match="creation_time"):
        list(read_pods(file_of(tmp_path, PODS + f"p,1,1,1,1000,,LS,Running,{time},1,1\n")))


def test_a_file_that_is_none_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="No such file"):
        list(read_nodes(tmp_path / "none.csv"))
    with pytest.raises(NotFound, match="Is a directory"):
        list(read_nodes(tmp_path))
    for text in ("", "a,b\n"):
        with pytest.raises(Invalid, match=r"trace\.csv:1: no column sn"):
            list(read_nodes(file_of(tmp_path, text)))
    path = tmp_path / "binary.csv"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(Invalid, match=r"binary\.csv:1: "):
        list(read_pods(path))


def test_the_real_cluster_has_6212_devices_on_1213_nodes_of_1523() -> None:
    nodes = list(read_nodes(trace_file("openb/openb_node_list_all_node.csv")))
    with_gpus = list(read_nodes(trace_file("openb/openb_node_list_gpu_node.csv")))
    assert len(nodes) == 1523
    assert sum(node.gpus > 0 for node in nodes) == len(with_gpus) == 1213
    assert sum(node.gpus for node in with_gpus) == 6212


def test_every_real_variant_can_be_read() -> None:
    files = sorted(trace_file("openb/openb_pod_list_default.csv").parent.glob("openb_pod_list_*.csv"))
    assert files
    for path in files:
        with path.open() as file:
            lines = sum(1 for _ in file)
        assert sum(1 for _ in read_pods(path)) == lines - 1
