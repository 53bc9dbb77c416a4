"""Logs, bindings and the proxy to pods."""

from __future__ import annotations

import asyncio
import ssl
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.closed import Closed
from support.webhook import certificate

from walras.core.errors import BadRequest, Conflict, NotFound, ServiceUnavailable, Unclassified
from walras.kube.context import Identity
from walras.kube.serve import pods, proxy
from walras.kube.serve.answers import Answer, Stream
from walras.kube.serve.paths import parse
from walras.kube.serve.requests import Request, parse_query

NOW_MS = 1_700_000_000_000


def pod(*containers: str, node: str = "base", **metadata: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "p", "namespace": "d", **metadata},
        "spec": {
            "nodeName": node,
            "initContainers": [{"name": "init"}],
            "containers": [{"name": name} for name in containers],
        },
    }


class RecordingPods(Closed):
    """Logs that were given to it, and connections to a server that it starts."""

    def __init__(self, *chunks: bytes, fails: Exception | None = None, endless: bool = False) -> None:
        self.chunks, self.fails, self.endless = chunks, fails, endless
        self.asked: dict[str, Any] = {}
        self.closed = False
        self.port = 0

    async def logs(self, cluster: str, pod: Any, container: str, **options: Any) -> AsyncIterator[bytes]:
        self.asked = {"cluster": cluster, "container": container, **options}
        try:
            if self.fails:
                raise self.fails
            for chunk in self.chunks:
                yield chunk
            if self.endless:
                await asyncio.Event().wait()
        finally:
            self.closed = True

    async def dial(
        self, cluster: str, pod: Any, port: int
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self.asked = {"port": port}
        return await asyncio.open_connection("127.0.0.1", self.port)


async def read(outcome: Answer | Stream) -> bytes:
    if isinstance(outcome, Answer):
        return outcome.body
    return b"".join([chunk async for chunk in outcome.chunks])


def log(access: RecordingPods, target: dict[str, Any], query: dict[str, str]) -> bytes:
    async def run() -> bytes:
        return await read(await pods.log(access, "a", target, query, NOW_MS))

    return asyncio.run(run())


def test_a_log_is_streamed_with_what_was_asked() -> None:
    access = RecordingPods(b"one\n", b"two\n")
    query = {"follow": "true", "tailLines": "5", "sinceSeconds": "60", "timestamps": "1", "limitBytes": "9"}
    assert log(access, pod("c"), query) == b"one\ntwo\n"
    assert access.asked == {
        "cluster": "a", "container": "c", "follow": True, "previous": False, "tail_lines": 5,
        "since_seconds": 60, "timestamps": True, "limit_bytes": 9,
    }  # fmt: skip


def test_a_time_is_turned_into_seconds_before_now() -> None:
    access = RecordingPods()
    log(access, pod("c"), {"sinceTime": "2023-11-14T22:13:10Z"})
    assert access.asked["since_seconds"] == 10


def test_a_pod_without_a_node_has_no_log_yet() -> None:
    outcome = asyncio.run(pods.log(RecordingPods(), "a", pod("c", node=""), {}, NOW_MS))
    assert isinstance(outcome, Answer)
    assert (outcome.status, outcome.body) == (204, b"")


def test_an_error_of_the_runtime_is_still_a_status() -> None:
    with pytest.raises(NotFound):
        log(RecordingPods(fails=NotFound("no log")), pod("c"), {})


def test_following_a_silent_log_begins_without_a_line_and_ends_when_it_is_closed() -> None:
    access = RecordingPods(endless=True)

    async def run() -> None:
        outcome = await pods.log(access, "a", pod("c"), {"follow": "true"}, NOW_MS)
        assert isinstance(outcome, Stream)
        waiting = asyncio.ensure_future(anext(outcome.chunks))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait((waiting,))
        await outcome.chunks.aclose()

    asyncio.run(run())
    assert access.closed


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"tailLines": "-1"}, "greater than or equal to 0"),
        ({"tailLines": "x"}, "must be an integer"),
        ({"sinceSeconds": "0"}, "greater than or equal to 1"),
        ({"sinceTime": "yesterday"}, "sinceTime"),
        ({"sinceTime": "2023-11-14T22:13:10Z", "sinceSeconds": "1"}, "at most one of"),
        ({"container": "nobody"}, "container nobody is not valid for pod p"),
    ],
)
def test_nonsense_in_a_log_request_is_a_bad_request(query: dict[str, str], message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        log(RecordingPods(), pod("c"), query)


def test_the_container_is_the_only_one_or_the_default_one_or_must_be_named() -> None:
    assert pods.container_of(pod("c"), "") == "c"
    assert pods.container_of(pod("c", "d"), "init") == "init"
    default = {"kubectl.kubernetes.io/default-container": "d"}
    assert pods.container_of(pod("c", "d", annotations=default), "") == "d"
    with pytest.raises(BadRequest, match=r"choose one of: \[c d init\]"):
        pods.container_of(pod("c", "d"), "")
    debugged = pod("c")
    debugged["spec"]["ephemeralContainers"] = [{"name": "debugger"}]
    assert (pods.container_of(debugged, "debugger"), pods.container_of(debugged, "")) == ("debugger", "c")


def test_a_binding_puts_a_pod_on_its_node_once() -> None:
    target = pod("c", node="")
    wanted = {"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "base"}}
    pods.check_unbound(target)
    pods.bind(target, pods.target(wanted, "p"), {"by": "hand"}, "2023-11-14T22:13:20Z")
    assert target["spec"]["nodeName"] == "base"
    assert target["metadata"]["annotations"] == {"by": "hand"}
    assert target["status"]["conditions"][0]["status"] == "True"
    with pytest.raises(Conflict, match='already assigned to node "base"'):
        pods.check_unbound(target)


@pytest.mark.parametrize(
    "body", [{}, {"target": {}}, {"target": {"kind": "Moon", "name": "x"}}, {"target": "base"}]
)
def test_a_binding_without_a_node_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(Unclassified, match="target"):
        pods.target({"metadata": {"name": "p"}, **body}, "p")
    with pytest.raises(BadRequest, match="name in URL does not match name in Binding object"):
        pods.target(body, "p")


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("p", ("", "p", "")),
        ("p:http", ("", "p", "http")),
        ("http:p:80", ("http", "p", "80")),
        ("http:p:", ("http", "p", "")),
        ("https:p:443", ("https", "p", "443")),
    ],
)
def test_the_proxys_pod_and_port_are_read_from_the_name(name: str, wanted: tuple[str, str, str]) -> None:
    assert proxy.target(name) == wanted


@pytest.mark.parametrize("name", ["a:b:c:d", "ftp:p:80"])
def test_a_proxy_to_what_is_no_http_is_refused(name: str) -> None:
    with pytest.raises(BadRequest):
        proxy.target(name)


def test_a_port_is_a_number_or_a_name_or_the_first_one() -> None:
    target = pod("c")
    assert proxy.port_of(target, "") == 80
    target["spec"]["containers"][0]["ports"] = [
        {"containerPort": 9000},
        {"name": "web", "containerPort": 9001},
    ]
    assert [proxy.port_of(target, asked) for asked in ("", "web", "5")] == [9000, 9001, 5]
    for asked in ("0", "65536", "nobody", "-1"):
        with pytest.raises(BadRequest):
            proxy.port_of(target, asked)


def endpoints(*addresses: tuple[str, str], port: int = 8080) -> dict[str, Any]:
    listed = [{"ip": ip, "targetRef": {"kind": "Pod", "name": name}} for ip, name in addresses]
    return {"subsets": [{"addresses": listed, "ports": [{"name": "web", "port": port}]}]}


def test_a_service_leads_to_a_pod_at_its_own_address_and_to_nothing_else() -> None:
    service = {"metadata": {"name": "s"}, "spec": {"ports": [{"name": "web", "port": 80}]}}
    pods_there = {
        "a": {"status": {"podIPs": [{"ip": "10.244.0.2"}]}},
        "b": {"status": {"podIPs": [{"ip": "10.244.0.3"}]}},
    }
    # Whoever may write Endpoints could name any address.
    found = endpoints(("169.254.169.254", "a"), ("10.244.0.9", "gone"), ("10.244.0.3", "b"))
    for asked in ("80", "web"):
        assert proxy.behind(service, found, asked, pods_there.get) == (pods_there["b"], 8080)
    for asked, where in (
        ("81", found),
        ("none", found),
        ("80", None),
        ("80", endpoints(("10.244.0.9", "a"))),
    ):
        with pytest.raises(ServiceUnavailable):
            proxy.behind(service, where, asked, pods_there.get)


def tls() -> ssl.SSLContext:
    """What a server with a certificate that nobody vouches for speaks."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "both.pem"
        file.write_bytes(b"".join(certificate("pod")))
        context.load_cert_chain(file)
    return context


def proxied(
    answer: bytes,
    path: str = "/x%20y",
    query: bytes = b"q=1",
    body: bytes = b"",
    method: str = "",
    prefix: str = "/clusters/a",
    secure: bool = False,
) -> tuple[Any, bytes, bytes]:
    """The outcome, its body and the request that the pod saw."""
    seen = bytearray()

    async def pod_server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.extend(await reader.readuntil(b"\r\n\r\n"))
        if body:
            seen.extend(await reader.readexactly(len(body)))
        writer.write(answer)
        await writer.drain()
        writer.close()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def run() -> tuple[Any, bytes]:
        server = await asyncio.start_server(pod_server, "127.0.0.1", 0, ssl=tls() if secure else None)
        access = RecordingPods()
        access.port = server.sockets[0].getsockname()[1]
        headers = {b"authorization": b"Bearer secret", b"x-mine": b"kept", b"connection": b"upgrade"}
        route = parse(f"/clusters/a/api/v1/namespaces/d/pods/p/proxy{path}")
        request = Request(
            method or ("POST" if body else "GET"),
            route,
            parse_query(query),
            query.decode(),
            headers,
            receive,
            Identity("u"),
            prefix=prefix,
        )
        try:
            outcome = await proxy.forward(access, "a", pod("c"), 8080, request, secure=secure)
            return outcome, await read(outcome)
        finally:
            server.close()
            await server.wait_closed()

    outcome, text = asyncio.run(run())
    return outcome, text, bytes(seen)


def test_a_request_reaches_the_pod_without_the_callers_token() -> None:
    outcome, text, seen = proxied(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 5\r\n\r\nhello", body=b"data"
    )
    assert (outcome.status, outcome.content_type, text) == (200, b"text/html", b"hello")
    assert seen.startswith(b"POST /x%20y?q=1 HTTP/1.1\r\nhost: localhost:8080\r\n")
    assert b"x-mine: kept" in seen and seen.endswith(b"data")
    assert b"secret" not in seen and b"upgrade" not in seen


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n",
            b"abcde",
        ),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno", b"no"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nabc\r\n", b""),
    ],
)
def test_an_answer_of_any_framing_is_passed_on(answer: bytes, wanted: bytes) -> None:
    assert proxied(answer)[1] == wanted


@pytest.mark.parametrize(
    "answer", [b"", b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 101 Switching\r\n\r\n", b"HTTP/1.1 200"]
)
def test_a_pod_that_does_not_speak_http_is_unavailable(answer: bytes) -> None:
    with pytest.raises(ServiceUnavailable, match="port 8080 of pod p"):
        proxied(answer)


def test_a_pod_that_speaks_tls_is_spoken_to_in_it() -> None:
    outcome, text, seen = proxied(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", secure=True)
    assert (outcome.status, text) == (200, b"ok") and seen.startswith(b"GET /x%20y?q=1 HTTP/1.1")


@pytest.mark.parametrize("prefix", ["", "/clusters/a"])
def test_a_page_leads_below_the_proxy(prefix: str) -> None:
    page = b"<a href='/login'>in</a>"
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/html; charset=utf-8\r\ncontent-length: %d\r\n" % len(page)
    outcome, text, _ = proxied(head + b"\r\n" + page, prefix=prefix)
    base = f"{prefix}/api/v1/namespaces/d/pods/p/proxy".encode()
    assert text == b"<a href='%b/login'>in</a>" % base and b"content-length" not in dict(outcome.headers)
    packed = proxied(head + b"content-encoding: br\r\n\r\n" + page, prefix=prefix)
    assert packed[1] == page


def test_a_page_that_is_too_long_is_passed_on_as_it_is() -> None:
    page = b"<a href='/x'>" + b"." * (1 << 20)
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n\r\n"
    assert proxied(head + page)[1] == page


def test_header_fields_that_are_none_are_not_passed_on() -> None:
    fields = (b"x-good: yes", b"x bad: no", b"x-odd: a\x01b", b"no colon", b"content-length: 0")
    outcome, _, _ = proxied(b"\r\n".join((b"HTTP/1.1 200 OK", *fields)) + b"\r\n\r\n")
    assert dict(outcome.headers) == {b"x-good": b"yes", b"content-length": b"0"}


def test_a_redirect_inside_the_pod_stays_below_the_proxy() -> None:
    outcome, _, _ = proxied(b"HTTP/1.1 302 Found\r\nlocation: /login\r\ncontent-length: 0\r\n\r\n")
    assert dict(outcome.headers)[b"location"] == b"/clusters/a/api/v1/namespaces/d/pods/p/proxy/login"


@pytest.mark.parametrize("prefix", ["", "/clusters/a"])
def test_who_reads_the_proxy_itself_is_sent_below_it_as_its_caller_writes_it(prefix: str) -> None:
    for method in ("GET", "HEAD"):
        outcome, _, seen = proxied(b"", "", method=method, prefix=prefix)
        wanted = f"{prefix}/api/v1/namespaces/d/pods/p/proxy/?q=1".encode()
        assert (outcome.status, dict(outcome.headers)[b"location"], seen) == (301, wanted, b"")


def test_every_other_method_reaches_the_pod_from_the_proxy_itself() -> None:
    done = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
    for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        outcome, text, seen = proxied(done, "", method=method)
        assert (outcome.status, text) == (200, b"ok")
        assert seen.startswith(f"{method} /?q=1 HTTP/1.1".encode())
