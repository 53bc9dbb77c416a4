from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Event, Thread

import pytest

from walras.cli.client import Client
from walras.cli.kubeconfig import Connection
from walras.cli.target import Target
from walras.core.errors import Invalid, NotFound, ServiceUnavailable, Timeout, WalrasError
from walras.server.tls import ensure


class Handler(BaseHTTPRequestHandler):
    """Answers as the end of the path says: a status code, or never."""

    silence = Event()

    def do_GET(self) -> None:
        last = self.path.rpartition("/")[2]
        if last == "never":
            self.silence.wait(5)
            return
        reason = {"404": "NotFound", "422": "Invalid", "507": "Unheard"}.get(last, "")
        body = b'{"kind": "Status", "reason": "%s", "message": "it says why"}' % reason.encode()
        self.send_response(int(last))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Server(HTTPServer):
    def handle_error(self, *_: object) -> None:
        """A client that turns away from the certificate is no news."""


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Callable[..., Client]]:
    """Makes clients of a server over TLS whose CA is in tmp_path/mine."""
    certificates = ensure(tmp_path / "mine", "127.0.0.1", time.time_ns() // 1_000_000)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.cert_file, certificates.key_file)
    server = Server(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    Handler.silence.clear()
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    clients: list[Client] = []

    def make(ca_pem: str = certificates.ca_pem, *, insecure: bool = False, timeout_s: float = 5) -> Client:
        base = f"https://127.0.0.1:{server.server_port}"
        access = Connection(f"{base}/clusters/fleet", "token", ca_pem, insecure, "")
        clients.append(Client(Target(base, "fleet", access, tmp_path / "k"), timeout_s=timeout_s))
        return clients[-1]

    yield make
    for client in clients:
        client.__exit__()
    Handler.silence.set()
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_servers_ca_is_trusted_and_no_other(connect: Callable[..., Client], tmp_path: Path) -> None:
    assert connect().get("200")["message"] == "it says why"
    other = ensure(tmp_path / "other", "127.0.0.1", time.time_ns() // 1_000_000)
    for ca_pem in (other.ca_pem, ""):
        with pytest.raises(ServiceUnavailable, match="its certificate is of another CA"):
            connect(ca_pem).get("200")
    assert connect("", insecure=True).get("200")


def test_a_ca_that_is_no_certificate_is_named(connect: Callable[..., Client]) -> None:
    with pytest.raises(ServiceUnavailable, match="is not a PEM certificate"):
        connect("nonsense")


@pytest.mark.parametrize(("code", "kind"), [("404", NotFound), ("422", Invalid), ("507", WalrasError)])
def test_a_status_is_the_error_of_its_reason(
    connect: Callable[..., Client], code: str, kind: type[WalrasError]
) -> None:
    with pytest.raises(WalrasError, match="it says why") as caught:
        connect().get(code)
    assert type(caught.value) is kind


def test_a_server_that_does_not_answer_is_given_up(connect: Callable[..., Client]) -> None:
    with pytest.raises(Timeout, match="does not answer"):
        connect(timeout_s=0.05).get("never")
