"""kubectl inside pods: exec, cp, attach and port-forward over WebSockets, against a real server."""

from __future__ import annotations

import os
import pty
import re
import select
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from support.live import BIN, Live, eventually

pytestmark = pytest.mark.e2e
Object = dict[str, Any]

SERVER = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = os.environ["GREETING"].encode() * 1000
        self.send_response(200); self.send_header("content-length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *words): pass
http.server.HTTPServer(("127.0.0.1", 8080), Handler).serve_forever()
"""


def pod(name: str, *command: str) -> Object:
    container = {"name": "main", "image": "local", "command": list(command),
                 "env": [{"name": "GREETING", "value": "hello"}]}  # fmt: skip
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": [container]},
    }


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    server = Live(tmp_path_factory.mktemp("exec") / "data")
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def agent(live: Live) -> Path:
    kubeconfig = live.agent("acme")
    live.apply(
        kubeconfig,
        pod("box", "sh", "-c", "while true; do echo tick; sleep 0.2; done"),
        pod("web", "python", "-c", SERVER),
    )
    live.kubectl(kubeconfig, "wait", "--for=condition=Ready", "pod/box", "pod/web", "--timeout=30s")
    return kubeconfig


def test_a_command_runs_inside_with_the_environment_and_tells_how_it_ended(live: Live, agent: Path) -> None:
    said = live.kubectl(agent, "exec", "box", "--", "sh", "-c", "echo $GREETING; hostname; echo oops >&2")
    assert said.split() == ["hello", "box", "oops"]
    failed = live.kubectl(agent, "exec", "box", "--", "sh", "-c", "exit 7", check=False)
    assert "command terminated with exit code 7" in failed
    missing = live.kubectl(agent, "exec", "box", "--", "nonesuch", check=False)
    assert 'exec: "nonesuch": executable file not found' in missing


def test_input_goes_in_and_ends(live: Live, agent: Path) -> None:
    text = "line\n" * 50_000
    assert live.kubectl(agent, "exec", "-i", "box", "--", "wc", "-c", stdin=text).strip() == str(len(text))
    assert live.kubectl(agent, "exec", "-i", "box", "--", "cat", stdin=text) == text


@pytest.mark.parametrize(
    ("words", "signs"),
    [
        (("exec", "-it", "box", "--", "sh"), rb"[$#] $"),
        (("run", "-it", "typed", "--image", "local", "--restart=Never", "--command", "--", "sh"), rb"press"),
    ],
    ids=["entering", "its own"],
)
def test_a_terminal_has_a_size_and_takes_control_c(agent: Path, words: tuple[str, ...], signs: bytes) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [BIN / "kubectl", *words],
        stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "KUBECONFIG": str(agent)},
        start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    heard = b""

    def hears(pattern: bytes) -> None:
        nonlocal heard
        deadline = time.monotonic() + 20
        while not re.search(pattern, heard):
            assert time.monotonic() < deadline, heard
            if select.select([ours], [], [], 0.5)[0]:
                heard += os.read(ours, 4096)

    try:
        hears(signs)
        os.write(ours, b"test -t 0 && echo is-a-$((1+1)); stty size; sleep 100\n")
        hears(rb"is-a-2\r\n\d+ \d+")
        time.sleep(0.5)
        os.write(ours, b"\x03")
        os.write(ours, b"echo interrupted-$((40+2)); exit 3\n")
        hears(rb"interrupted-42")
        assert process.wait(20) == 3
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_a_pod_reads_what_is_piped_into_it(live: Live, agent: Path) -> None:
    text = "line\n" * 50_000
    words = (
        "run",
        "-i",
        "piped",
        "--image",
        "local",
        "--restart=Never",
        "--rm",
        "--quiet",
        "--command",
        "--",
    )
    assert live.kubectl(agent, *words, "wc", "-c", stdin=text).strip() == str(len(text))


def test_files_are_copied_both_ways(live: Live, agent: Path, tmp_path: Path) -> None:
    original = tmp_path / "data.bin"
    original.write_bytes(os.urandom(3_000_000))
    live.kubectl(agent, "cp", str(original), "box:/tmp/data.bin")
    back = tmp_path / "back.bin"
    live.kubectl(agent, "cp", "box:/tmp/data.bin", str(back))
    assert back.read_bytes() == original.read_bytes()


def test_attach_hears_the_main_program(agent: Path) -> None:
    process = subprocess.Popen(
        [BIN / "kubectl", "attach", "box"], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "KUBECONFIG": str(agent)},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "tick\n"
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@contextmanager
def forwarded(kubeconfig: Path, port: int) -> Iterator[int]:
    process = subprocess.Popen(
        [BIN / "kubectl", "port-forward", "web", f":{port}"], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "KUBECONFIG": str(kubeconfig)},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        found = re.search(r"127\.0\.0\.1:(\d+) ->", process.stdout.readline())
        assert found is not None
        yield int(found[1])
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def fetch(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = b""
        with suppress(ConnectionError):
            while data := connection.recv(65_536):
                answer += data
        return answer


def test_a_port_is_forwarded_for_one_connection_after_another(agent: Path) -> None:
    with forwarded(agent, 8080) as port:
        for _ in range(3):
            assert fetch(port).endswith(b"hello" * 1000)


def test_a_port_that_nobody_listens_on_is_told(agent: Path) -> None:
    with forwarded(agent, 9999) as port:
        assert fetch(port) == b""


def test_what_cannot_be_entered_is_said(live: Live, agent: Path) -> None:
    assert "not found" in live.kubectl(agent, "exec", "nobody", "--", "true", check=False)
    live.apply(agent, pod("brief", "true") | {"spec": {**pod("", "true")["spec"], "restartPolicy": "Never"}})
    eventually(lambda: live.get(agent, "pod", "brief")["status"]["phase"] == "Succeeded", "the pod's end")
    said = live.kubectl(agent, "exec", "brief", "--", "true", check=False)
    assert "current phase is Succeeded" in said


def test_another_agent_gets_nowhere(live: Live, agent: Path, tmp_path: Path) -> None:
    stranger = live.agent("evil")
    crossed = tmp_path / "crossed.kubeconfig"
    crossed.write_text(stranger.read_text().replace("/clusters/evil", "/clusters/acme"))
    said = live.kubectl(crossed, "exec", "box", "--", "true", check=False)
    assert "orbidden" in said or "may open only" in said
    del agent


def test_spdy_is_refused_in_words(live: Live, agent: Path) -> None:
    path = "/api/v1/namespaces/default/pods/box/exec?command=true&stdout=1"
    said = live.kubectl(agent, "get", "--raw", path, check=False)
    assert "Upgrade request required" in said
    with live.client(agent) as client:
        answer = client.post(
            "/clusters/acme/api/v1/namespaces/default/pods/box/exec?command=true&stdout=1",
            headers={"upgrade": "SPDY/3.1", "connection": "upgrade"},
        )
        assert answer.status_code == 400
        assert "only WebSocket" in answer.json()["message"]


def test_what_admission_forbids_is_said_to_kubectl_which_tries_spdy_next(live: Live) -> None:
    agent = live.agent("guarded")
    rules = [
        {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CONNECT"], "resources": ["pods/attach"]}
    ]
    group = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": "shut"}}
    policy = {
        "matchConstraints": {"resourceRules": rules},
        "validations": [{"expression": "false", "message": "attaching is not allowed"}],
    }
    bound = {"policyName": "shut", "validationActions": ["Deny"]}
    live.apply(
        agent,
        {**group, "kind": "ValidatingAdmissionPolicy", "spec": policy},
        {**group, "kind": "ValidatingAdmissionPolicyBinding", "spec": bound},
        pod("shut", "sleep", "60"),
    )
    live.kubectl(agent, "wait", "--for=condition=Ready", "pod/shut", "--timeout=30s")
    assert "attaching is not allowed" in live.kubectl(agent, "attach", "shut", check=False)
