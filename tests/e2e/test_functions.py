"""Functions on a real server: kubectl makes them, clients ask them, processes on emulated GPUs answer."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import websocket
from support.live import DEADLINE_S, Live, eventually, phase, processes, serving

pytestmark = pytest.mark.e2e
Object = dict[str, Any]

PROGRAM = """
import os, sys, time
from base64 import b64encode
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/events":
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            for number in range(3):
                event = f"data: {number}\\n\\n".encode()
                self.wfile.write(b"%x\\r\\n%b\\r\\n" % (len(event), event))
                time.sleep(0.2)
            self.wfile.write(b"0\\r\\n\\r\\n")
            return
        if self.path == "/talk":
            key = self.headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
            self.send_response(101)
            self.send_header("upgrade", "websocket")
            self.send_header("connection", "upgrade")
            self.send_header("sec-websocket-accept", b64encode(sha1(key.encode()).digest()).decode())
            self.end_headers()
            while True:
                first, second = self.rfile.read(2)
                mask, data = self.rfile.read(4), self.rfile.read(second & 127)
                data = bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))
                self.wfile.write(bytes((first, len(data))) + data)
                if first & 15 == 8:
                    self.close_connection = True
                    return
        if self.path.startswith("/sleep/"):
            time.sleep(float(self.path.removeprefix("/sleep/")))
        if self.path == "/die":
            os._exit(1)
        self.say(f"{os.environ['SAYS']} {os.environ['K_REVISION']} {os.environ['HOSTNAME']}".encode())

    def do_POST(self):
        size = 0
        while line := int(self.rfile.readline(), 16):
            size += len(self.rfile.read(line))
            self.rfile.readline()
        self.rfile.readline()
        self.say(str(size).encode())

    def say(self, body):
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass

class Server(ThreadingHTTPServer):
    request_queue_size = 64

Server(("", int(os.environ["PORT"])), Handler).serve_forever()
"""


def function(name: str = "hello", *, says: str = "one", milli: int = 100, **annotations: str) -> Object:
    prefix = "autoscaling.knative.dev/"
    quick = {"window": "2s", "scale_to_zero_pod_retention_period": "0s", **annotations}
    container = {
        "image": "none",
        "command": ["python3", "-c", PROGRAM],
        "env": [
            {"name": "SAYS", "value": says},
            {"name": "HOSTNAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ],
        "resources": {"limits": {"walras.dev/milligpu": milli}} if milli else {},
    }
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {
            "template": {
                "metadata": {
                    "annotations": {
                        "walras.dev/max-price": "2.00",
                        **{prefix + key.replace("_", "-"): value for key, value in quick.items()},
                    }
                },
                "spec": {"containers": [container], "terminationGracePeriodSeconds": 1},
            }
        },
    }


class Caller:
    """Calls functions of a server by their hosts."""

    def __init__(self, live: Live) -> None:
        self.domain = str(live.ready["functions"])
        self.port = int(self.domain.rpartition(":")[2])

    def host(self, name: str, agent: str = "acme") -> str:
        return f"{name}.default.{agent}.{self.domain}"

    def get(self, name: str = "hello", path: str = "/", **headers: str) -> httpx.Response:
        url = f"http://127.0.0.1:{self.port}{path}"
        asked = {"host": self.host(name), **headers}
        return httpx.get(url, headers=asked, timeout=DEADLINE_S, trust_env=False)

    def many(self, count: int, path: str, name: str = "hello") -> Counter[tuple[int, str]]:
        """So many requests at once: (status, body) of each."""

        async def run() -> list[httpx.Response]:
            limits = httpx.Limits(max_connections=count)
            async with httpx.AsyncClient(timeout=DEADLINE_S, trust_env=False, limits=limits) as client:
                url, headers = f"http://127.0.0.1:{self.port}{path}", {"host": self.host(name)}
                return await asyncio.gather(*(client.get(url, headers=headers) for _ in range(count)))

        return Counter((answer.status_code, answer.text) for answer in asyncio.run(run()))


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with serving(tmp_path_factory.mktemp("functions"), "emulated:2") as server:
        yield server


@pytest.fixture
def agent(live: Live) -> Iterator[Path]:
    yield live.agent("acme", "--balance", "10")
    live.walras("agent", "delete", "acme", "--yes")
    eventually(lambda: not processes("ThreadingHTTPServer"), "the agent's programs to be gone")


def applied(live: Live, agent: Path, made: Object) -> Caller:
    """The function is there and ready."""
    live.apply(agent, made)
    name = made["metadata"]["name"]
    live.kubectl(agent, "wait", f"ksvc/{name}", "--for=condition=Ready", "--timeout=20s")
    return Caller(live)


def pods(live: Live, agent: Path, revision: str = "") -> list[Object]:
    selector = f"serving.knative.dev/revision={revision}" if revision else "serving.knative.dev/revision"
    found = live.get(agent, "pods", "-l", selector)["items"]
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


def at_zero(live: Live, agent: Path) -> None:
    eventually(lambda: not live.get(agent, "pods")["items"], "no pod to be left")
    eventually(
        lambda: all(each["status"]["phase"] == "Ended" for each in live.get(agent, "gpuleases")["items"]),
        "no lease to be left",
    )


def test_a_function_goes_to_zero_with_its_lease_and_the_next_request_is_held_and_answered(
    live: Live, agent: Path
) -> None:
    caller = applied(live, agent, function(window="8s"))
    said = caller.get()
    assert said.status_code == 200 and said.text.startswith("one hello-00001")
    (lease,) = [each for each in live.get(agent, "gpuleases")["items"] if each["status"]["phase"] == "Active"]
    assert lease["spec"]["class"] == "latency"
    at_zero(live, agent)
    rows = live.kubectl(agent, "get", "ksvc,rev")
    assert "http://hello.default.acme.functions.localhost" in rows
    assert caller.get().text.startswith("one hello-00001")
    assert len(pods(live, agent)) == 1


def test_requests_at_once_make_more_instances_and_fewer_again(live: Live, agent: Path) -> None:
    made = function(target="1", target_utilization_percentage="100", max_scale="4", milli=400)
    made["spec"]["template"]["spec"]["containerConcurrency"] = 2
    caller = applied(live, agent, made)
    answers = caller.many(16, "/sleep/1.5")
    assert {status for status, _ in answers} == {200}
    assert len({text for _, text in answers}) == 4
    at_zero(live, agent)


def test_traffic_is_split_rolled_forward_and_rolled_back(live: Live, agent: Path) -> None:
    caller = applied(live, agent, function(min_scale="1"))
    made = function(says="two", min_scale="1")
    made["spec"]["traffic"] = [
        {"revisionName": "hello-00001", "percent": 80},
        {"latestRevision": True, "percent": 20, "tag": "next"},
    ]
    applied(live, agent, made)

    def said(count: int) -> Counter[str]:
        return Counter(caller.get().text.split(" ")[0] for _ in range(count))

    assert said(50) == {"one": 40, "two": 10}
    assert caller.get("next-hello").text.startswith("two")
    made["spec"]["traffic"] = [{"latestRevision": True, "percent": 100}]
    applied(live, agent, made)
    assert said(10) == {"two": 10}
    eventually(lambda: not pods(live, agent, "hello-00001"), "the old revision to be at zero")
    made["spec"]["traffic"] = [{"revisionName": "hello-00001", "percent": 100}]
    applied(live, agent, made)
    assert said(10) == {"one": 10}


def test_streams_go_both_ways_as_they_come(live: Live, agent: Path) -> None:
    caller = applied(live, agent, function(min_scale="1", milli=0))
    url = f"http://127.0.0.1:{caller.port}"
    headers = {"host": caller.host("hello")}
    with httpx.stream("GET", f"{url}/events", headers=headers, trust_env=False, timeout=10) as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        # The first event is here while the instance still sleeps before the last.
        first = next(answer.iter_raw())
        assert first == b"data: 0\n\n"

    def pieces() -> Iterator[bytes]:
        for _ in range(64):
            yield b"x" * 65_536

    sent = httpx.post(url, content=pieces(), headers=headers, trust_env=False, timeout=20)
    assert sent.text == str(64 * 65_536)


def test_a_websocket_wakes_a_function_and_keeps_it(live: Live, agent: Path) -> None:
    caller = applied(live, agent, function(initial_scale="0", milli=0))
    talk = websocket.create_connection(
        f"ws://127.0.0.1:{caller.port}/talk", host=caller.host("hello"), timeout=20
    )
    try:
        for text in ("one", "two"):
            talk.send(text)
            assert talk.recv() == text
        time.sleep(4)
        talk.send("three")
        assert talk.recv() == "three"
    finally:
        talk.close()
    at_zero(live, agent)


def test_an_instance_that_dies_loses_its_own_request_alone_and_is_there_again(
    live: Live, agent: Path
) -> None:
    caller = applied(live, agent, function(min_scale="2", milli=0))
    eventually(lambda: len(caller.many(2, "/sleep/0.2")) == 2, "both instances to answer")
    assert caller.get(path="/die").status_code == 502
    answers = [caller.get() for _ in range(20)]
    assert {answer.status_code for answer in answers} == {200}
    eventually(lambda: len(caller.many(2, "/sleep/0.2")) == 2, "it to be there again")


def test_what_nobody_pays_for_is_refused_with_the_reason_of_the_market(live: Live, agent: Path) -> None:
    made = function(initial_scale="0")
    made["spec"]["template"]["metadata"]["annotations"]["walras.dev/max-price"] = "0.01"
    made["spec"]["template"]["spec"]["timeoutSeconds"] = 2
    caller = applied(live, agent, made)
    answer = caller.get()
    assert answer.status_code == 503 and int(answer.headers["retry-after"]) > 0
    (bid,) = live.get(agent, "bids")["items"]
    explanation = bid["status"]["explanation"]
    assert answer.json()["reason"] == explanation["reason"]
    assert explanation["message"] in answer.json()["message"]


def test_a_flood_costs_no_more_than_the_maximum_and_everybody_hears_something(
    live: Live, agent: Path
) -> None:
    caller = applied(live, agent, function(max_scale="2", initial_scale="0", milli=0))
    answers = caller.many(300, "/")
    assert sum(answers.values()) == 300
    assert {status for status, _ in answers} <= {200, 503}
    assert sum(count for (status, _), count in answers.items() if status == 200) >= 200
    assert len(pods(live, agent)) <= 2


def test_clients_that_say_nothing_or_too_much_do_not_hurt_others(live: Live, agent: Path) -> None:
    caller = applied(live, agent, function(min_scale="1", milli=0))
    silent = [socket.create_connection(("127.0.0.1", caller.port)) for _ in range(50)]
    try:
        for each in silent[:25]:
            each.sendall(b"GET / HTTP/1.1\r\nHost: " + caller.host("hello").encode() + b"\r\nX: ")
        assert caller.get().status_code == 200
        assert caller.get(**{"x-long": "y" * 70_000}).status_code == 431
    finally:
        for each in silent:
            each.close()

    def raw(text: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", caller.port), timeout=10) as made:
            made.sendall(text)
            return made.recv(65_536)

    host = caller.host("hello").encode()
    assert b" 400 " in raw(b"GET / HTTP/1.1\r\nHost: %b\r\nHost: other\r\nConnection: close\r\n\r\n" % host)
    assert b" 404 " in raw(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    # Two lengths are one request in two: the server's parser refuses it.
    smuggled = b"POST / HTTP/1.1\r\nHost: %b\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd" % host
    assert b" 400 " in raw(smuggled)
    assert caller.get().status_code == 200


def test_a_cluster_local_function_asks_for_a_token_of_its_cluster(live: Live, agent: Path) -> None:
    made = function(min_scale="1", milli=0)
    made["metadata"]["labels"] = {"networking.knative.dev/visibility": "cluster-local"}
    caller = applied(live, agent, made)
    assert caller.get().status_code == 401
    token = live.kubectl(agent, "create", "token", "default").strip()
    assert caller.get(authorization=f"Bearer {token}").status_code == 200
    other = live.agent("other")
    try:
        stranger = live.kubectl(other, "create", "token", "default").strip()
        assert caller.get(authorization=f"Bearer {stranger}").status_code == 403
    finally:
        live.walras("agent", "delete", "other", "--yes")


def test_pods_call_functions_of_their_own_cluster_by_name(live: Live, agent: Path) -> None:
    made = function(initial_scale="0", milli=0)
    made["metadata"]["labels"] = {"networking.knative.dev/visibility": "cluster-local"}
    applied(live, agent, made)
    address = live.kubectl(agent, "get", "ksvc", "hello", "-o", "jsonpath={.status.address.url}")
    assert address == "http://hello.default.svc.cluster.local"
    script = f"""
import urllib.request, urllib.error
for url in ("{address}", "http://hello.default/", "http://nobody.default.svc.cluster.local/"):
    try:
        print(urllib.request.urlopen(url, timeout=20).read().decode())
    except OSError as error:
        print(error)
request = urllib.request.Request("{address}", headers={{"Host": "hello.default.other"}})
try:
    urllib.request.urlopen(request, timeout=20)
except urllib.error.HTTPError as error:
    print(error.code)
"""
    caller = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "caller"},
        "spec": {
            "restartPolicy": "Never",
            "containers": [{"name": "main", "image": "none", "command": ["python3", "-c", script]}],
        },
    }
    live.apply(agent, caller)
    eventually(lambda: phase(live, agent, "caller") in ("Succeeded", "Failed"), "the caller to be done")
    said = live.kubectl(agent, "logs", "caller").splitlines()
    assert [line.split(" ")[0] for line in said[:2]] == ["one", "one"], said
    assert "not known" in said[2] or "404" in said[2]
    assert said[3] == "404"


def test_a_domain_leads_to_the_function_of_the_agent_that_asked_for_it_first(live: Live, agent: Path) -> None:
    caller = applied(live, agent, function(min_scale="1", milli=0))
    mapping = {
        "apiVersion": "serving.knative.dev/v1beta1",
        "kind": "DomainMapping",
        "metadata": {"name": "www.shop.example"},
        "spec": {"ref": {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "name": "hello"}},
    }
    live.apply(agent, mapping)
    live.kubectl(agent, "wait", "dm/www.shop.example", "--for=condition=Ready", "--timeout=20s")
    assert caller.get(host="www.shop.example").text.startswith("one hello-00001")
    other = live.agent("other", "--balance", "10")
    try:
        live.apply(other, function(says="stolen", min_scale="1", milli=0))
        live.kubectl(other, "wait", "ksvc/hello", "--for=condition=Ready", "--timeout=20s")
        live.apply(other, mapping)
        claimed = "--for=condition=DomainClaimed=False"
        live.kubectl(other, "wait", "dm/www.shop.example", claimed, "--timeout=20s")
        assert caller.get(host="www.shop.example").text.startswith("one ")
        live.kubectl(agent, "delete", "dm", "www.shop.example")
        live.kubectl(other, "wait", "dm/www.shop.example", "--for=condition=Ready", "--timeout=20s")
        assert caller.get(host="www.shop.example").text.startswith("stolen ")
    finally:
        live.walras("agent", "delete", "other", "--yes")
    eventually(lambda: caller.get(host="www.shop.example").status_code == 404, "the domain to be free")


def test_functions_are_there_after_a_restart_of_the_server(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        agent = server.agent("acme", "--balance", "10")
        caller = applied(server, agent, function(min_scale="1"))
        assert caller.get().status_code == 200
        server.stop(signal.SIGKILL)
        server.start("--functions-port", str(caller.port))
        again = Caller(server)
        assert again.port == caller.port
        assert again.get().text.startswith("one hello-00001")
