"""gRPC to functions on a real server: clients and servers of grpcio, with the server of Walras between."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.live import DEADLINE_S, Live, eventually, phase, processes, serving

pytestmark = pytest.mark.e2e
Object = dict[str, Any]

PROGRAM = """
import os, sys, time
from concurrent import futures
import grpc

def echo(data, context):
    context.set_trailing_metadata((("said-last", "bye"),))
    if data == b"fail":
        context.abort(grpc.StatusCode.NOT_FOUND, "no such thing: 100 %")
    if data == b"sleep":
        time.sleep(30)
    metadata = dict(context.invocation_metadata())
    return data + b" from " + os.environ["K_REVISION"].encode() + b" to " + metadata.get("who", "?").encode()

def count(data, context):
    for number in range(int(data)):
        yield str(number).encode()

def gather(pieces, context):
    return str(sum(map(len, pieces))).encode()

def talk(pieces, context):
    context.send_initial_metadata((("said-first", "hello"),))
    for piece in pieces:
        yield piece.upper()

class Handler(grpc.GenericRpcHandler):
    def service(self, details):
        return {
            "/demo/Echo": grpc.unary_unary_rpc_method_handler(echo),
            "/demo/Count": grpc.unary_stream_rpc_method_handler(count),
            "/demo/Gather": grpc.stream_unary_rpc_method_handler(gather),
            "/demo/Talk": grpc.stream_stream_rpc_method_handler(talk),
        }.get(details.method)

server = grpc.server(futures.ThreadPoolExecutor(32), options=[("grpc.max_receive_message_length", -1)])
server.add_generic_rpc_handlers((Handler(),))
server.add_insecure_port(f"127.0.0.1:{os.environ['PORT']}")
server.start()
server.wait_for_termination()
"""


def function(**annotations: str) -> Object:
    prefix = "autoscaling.knative.dev/"
    said = {"window": "2s", "scale-to-zero-pod-retention-period": "0s", "initial-scale": "0", **annotations}
    container = {
        "image": "none",
        "command": [sys.executable, "-c", PROGRAM],
        "ports": [{"name": "h2c", "containerPort": 8080}],
    }
    metadata = {"annotations": {prefix + key: value for key, value in said.items()}}
    spec = {"containers": [container], "terminationGracePeriodSeconds": 1}
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": "speaker"},
        "spec": {"template": {"metadata": metadata, "spec": spec}},
    }


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with serving(tmp_path_factory.mktemp("grpc"), "emulated:2") as server:
        yield server


@pytest.fixture(scope="module")
def agent(live: Live) -> Iterator[Path]:
    found = live.agent("acme", "--balance", "10")
    live.apply(found, function())
    live.kubectl(found, "wait", "ksvc/speaker", "--for=condition=Ready", "--timeout=30s")
    yield found
    live.walras("agent", "delete", "acme", "--yes")
    eventually(lambda: not processes("add_insecure_port"), "the agent's programs to be gone")


@pytest.fixture
def channel(live: Live, agent: Path) -> Iterator[grpc.Channel]:
    with opened(live, "functions_http2") as made:
        yield made


def opened(live: Live, listener: str) -> grpc.Channel:
    domain, _, port = str(live.ready[listener]).rpartition(":")
    options = [
        ("grpc.default_authority", f"speaker.default.acme.{domain}:{port}"),
        ("grpc.enable_http_proxy", 0),
        ("grpc.max_receive_message_length", -1),
    ]
    return grpc.insecure_channel(f"127.0.0.1:{port}", options)


def pods(live: Live, agent: Path) -> int:
    return len(live.get(agent, "pods", "-l", "serving.knative.dev/revision")["items"])


def test_the_url_of_a_function_that_speaks_grpc_is_where_it_is_spoken(live: Live, agent: Path) -> None:
    eventually(
        lambda: (
            live.get(agent, "ksvc", "speaker")["status"]["url"]
            == f"http://speaker.default.acme.{live.ready['functions_http2']}"
        ),
        "the URL to be of the listener for HTTP/2",
    )


def test_a_call_wakes_a_function_and_comes_back_with_its_trailers(
    live: Live, agent: Path, channel: grpc.Channel
) -> None:
    eventually(lambda: not pods(live, agent), "the function to be at zero")
    echo = channel.unary_unary("/demo/Echo")
    answer, call = echo.with_call(b"hello", timeout=DEADLINE_S, metadata=(("who", "me"),))
    assert answer == b"hello from speaker-00001 to me"
    assert dict(call.trailing_metadata())["said-last"] == "bye"


def test_a_talk_wakes_a_function_and_goes_both_ways_at_once(
    live: Live, agent: Path, channel: grpc.Channel
) -> None:
    eventually(lambda: not pods(live, agent), "the function to be at zero")
    heard: list[bytes] = []

    def has_heard(count: int) -> bool:
        return len(heard) == count

    def turns() -> Iterator[bytes]:
        """Says the next word only when the last one has been answered."""
        for number in range(20):
            eventually(partial(has_heard, number), "an answer to the last word")
            yield b"word %d" % number

    call = channel.stream_stream("/demo/Talk")(turns(), timeout=DEADLINE_S)
    assert dict(call.initial_metadata())["said-first"] == "hello"
    for word in call:
        heard.append(word)
    assert heard == [b"WORD %d" % number for number in range(20)]
    assert call.code() is grpc.StatusCode.OK


def test_large_bodies_and_many_messages_pass_both_ways(channel: grpc.Channel) -> None:
    pieces = (b"x" * 1_000_000 for _ in range(20))
    assert channel.stream_unary("/demo/Gather")(pieces, timeout=DEADLINE_S) == b"20000000"
    counted = list(channel.unary_stream("/demo/Count")(b"3000", timeout=DEADLINE_S))
    assert counted == [str(number).encode() for number in range(3000)]
    big = b"y" * 3_000_000
    assert channel.unary_unary("/demo/Echo")(big, timeout=DEADLINE_S).startswith(big)


def test_calls_at_once_on_one_connection_are_each_answered(channel: grpc.Channel) -> None:
    echo = channel.unary_unary("/demo/Echo")
    calls = [echo.future(b"%d" % number, timeout=DEADLINE_S) for number in range(200)]
    assert [call.result().split(b" ")[0] for call in calls] == [b"%d" % number for number in range(200)]


def failure(call: Callable[[], Any]) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


def test_what_a_function_refuses_and_what_walras_refuses_arrive_as_grpc_says_it(
    live: Live, channel: grpc.Channel
) -> None:
    echo = channel.unary_unary("/demo/Echo")
    refused = failure(lambda: echo(b"fail", timeout=DEADLINE_S))
    assert (refused.code(), refused.details()) == (grpc.StatusCode.NOT_FOUND, "no such thing: 100 %")
    assert dict(refused.trailing_metadata())["said-last"] == "bye"
    unknown = failure(lambda: channel.unary_unary("/demo/Nothing")(b"", timeout=DEADLINE_S))
    assert unknown.code() is grpc.StatusCode.UNIMPLEMENTED
    late = failure(lambda: echo(b"sleep", timeout=1))
    assert late.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    with opened(live, "functions") as other:
        wrong = failure(lambda: other.unary_unary("/demo/Echo")(b"", timeout=DEADLINE_S))
    port = str(live.ready["functions_http2"]).rpartition(":")[2]
    assert wrong.code() is grpc.StatusCode.UNIMPLEMENTED and f"port {port}" in wrong.details()


def curl(*asked: str) -> str:
    command = ["curl", "--silent", "--noproxy", "*", *asked]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=DEADLINE_S).stdout


def test_http_that_is_no_grpc_passes_too_and_old_http_is_told_so(live: Live, agent: Path) -> None:
    domain, _, port = str(live.ready["functions_http2"]).rpartition(":")
    host = ("--header", f"Host: speaker.default.acme.{domain}")
    # grpcio resets what is no gRPC.
    said = curl("--http2-prior-knowledge", "--include", *host, f"http://127.0.0.1:{port}/")
    assert said.startswith("HTTP/2 502") and "it reset the stream" in said
    assert "HTTP/2 is spoken here" in curl(f"http://127.0.0.1:{port}/")


def test_clients_that_flood_or_say_nothing_do_not_hurt_others(live: Live, channel: grpc.Channel) -> None:
    port = int(str(live.ready["functions_http2"]).rpartition(":")[2])
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
    ping = bytes((0, 0, 8, 6, 0, 0, 0, 0, 0)) + bytes(8)
    enemies = (preface[:5], preface, preface + ping * 20_000, preface + b"\xff" * 9, b"nonsense" * 1000)
    made = [socket.create_connection(("127.0.0.1", port)) for _ in range(60)]
    try:
        for number, each in enumerate(made):
            each.setblocking(False)
            # What does not fit stays unsaid: nobody reads what is answered.
            with suppress(OSError):
                each.sendall(enemies[number % len(enemies)])
        for _ in range(20):
            assert channel.unary_unary("/demo/Echo")(b"hello", timeout=DEADLINE_S).startswith(b"hello")
    finally:
        for each in made:
            each.close()


def test_pods_speak_grpc_to_functions_of_their_own_cluster_by_name(live: Live, agent: Path) -> None:
    script = """
import grpc
channel = grpc.insecure_channel("speaker.default.svc.cluster.local:80", [("grpc.enable_http_proxy", 0)])
print(channel.unary_unary("/demo/Echo")(b"hello", timeout=20).decode())
"""
    caller = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "caller"},
        "spec": {
            "restartPolicy": "Never",
            "containers": [{"name": "main", "image": "none", "command": [sys.executable, "-c", script]}],
        },
    }
    live.apply(agent, caller)
    eventually(lambda: phase(live, agent, "caller") in ("Succeeded", "Failed"), "the caller to be done")
    assert live.kubectl(agent, "logs", "caller").strip() == "hello from speaker-00001 to ?"
    live.kubectl(agent, "delete", "pod", "caller")
