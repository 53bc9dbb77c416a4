"""The command line before a server that answers what it was told to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from click.testing import CliRunner, Result

from walras.cli.main import main

Object = dict[str, Any]


@dataclass
class Fake:
    """A server that answers what it was told to, in the shapes of the Kubernetes API."""

    port: int = 0
    # (method, path) -> (code, body), or a list of them to be given one after the other, the last for ever.
    answers: dict[tuple[str, str], Any] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, list[str]], Any, str]] = field(default_factory=list)

    def says(self, method: str, path: str, *bodies: Object | bytes, code: int = 200) -> None:
        self.answers[method, path] = [(code, body) for body in bodies]

    def refuses(self, method: str, path: str, code: int, reason: str, message: str) -> None:
        self.says(method, path, status(code, reason, message), code=code)

    def answer(self, method: str, target: str, body: bytes, token: str) -> tuple[int, bytes]:
        url = urlsplit(target)
        query = parse_qs(url.query)
        sent = json.loads(body) if body else None
        self.requests.append((method, url.path, query, sent, token))
        method = "WATCH" if query.get("watch") == ["true"] else method
        planned = self.answers.get((method, url.path))
        if planned is None:
            planned = [(404, status(404, "NotFound", f"{url.path} not found"))]
        code, answer = planned.pop(0) if len(planned) > 1 else planned[0]
        return code, answer if isinstance(answer, bytes) else json.dumps(answer).encode()


def status(code: int, reason: str, message: str) -> Object:
    return {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}


@pytest.fixture
def fake() -> Iterator[Fake]:
    known = Fake()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def respond(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            token = self.headers.get("Authorization", "")
            code, body = known.answer(self.command, self.path, self.rfile.read(length), token)
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_DELETE = respond  # noqa: N815 - the base class's names

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    known.port = server.server_port
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield known
    server.shutdown()
    server.server_close()
    thread.join()


def kubeconfig(cluster: str, port: int) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": cluster,
        "clusters": [{"name": cluster, "cluster": {"server": f"http://127.0.0.1:{port}/clusters/{cluster}"}}],
        "users": [{"name": cluster, "user": {"token": f"{cluster}-token"}}],
        "contexts": [{"name": cluster, "context": {"cluster": cluster, "user": cluster}}],
    }


@dataclass
class Walras:
    """The command line, on the data directory of the fake server's operator."""

    data: Path

    def __call__(self, *arguments: str, **environment: str) -> Result:
        return CliRunner().invoke(main, arguments, env={"WALRAS_DATA": str(self.data), **environment})

    def ok(self, *arguments: str, **environment: str) -> str:
        result = self(*arguments, **environment)
        assert result.exit_code == 0, result.output
        return result.stdout

    def fails(self, *arguments: str, code: int = 1, **environment: str) -> str:
        """The one line that it says."""
        result = self(*arguments, **environment)
        assert result.exit_code == code, result.output
        assert result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1, result.stderr
        return result.stderr.strip()


@pytest.fixture
def walras(fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Walras:
    for name in ("WALRAS_KUBECONFIG", "WALRAS_DATA", "WALRAS_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kube" / "config"))
    data = tmp_path / "data"
    data.mkdir()
    (data / "operator.kubeconfig").write_text(json.dumps(kubeconfig("fleet", fake.port)))
    return Walras(data)


@pytest.fixture
def as_search(fake: Fake, tmp_path: Path) -> str:
    """The path of the kubeconfig of agent "search"."""
    path = tmp_path / "search.kubeconfig"
    path.write_text(yaml.safe_dump(kubeconfig("search", fake.port)))
    return str(path)
