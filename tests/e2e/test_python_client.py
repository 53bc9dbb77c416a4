"""The official Python client against a real server."""

from __future__ import annotations

import json
import ssl
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from kubernetes import client, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.dynamic import DynamicClient

from walras.core.errors import ServiceUnavailable
from walras.kube.serve.server import serve

pytestmark = pytest.mark.e2e
Server = Any  # the fixture's ApiServer


@pytest.fixture
def api(apiserver: Server) -> Iterator[client.ApiClient]:
    configuration = client.Configuration(
        host=f"{apiserver.url}/clusters/one", api_key={"authorization": "Bearer one"}
    )
    configuration.ssl_ca_cert = str(apiserver.ca)
    configuration.proxy = None
    with client.ApiClient(configuration) as connected:
        yield connected


def config_map(name: str, **data: str) -> client.V1ConfigMap:
    return client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name), data=data)


def test_objects_are_created_read_replaced_patched_and_deleted(api: client.ApiClient) -> None:
    core = client.CoreV1Api(api)
    created = core.create_namespaced_config_map("default", config_map("py", a="1"))
    assert created.metadata.uid and created.metadata.creation_timestamp
    created.data["b"] = "2"
    assert core.replace_namespaced_config_map("py", "default", created).data == {"a": "1", "b": "2"}
    with pytest.raises(ApiException) as stale:
        core.replace_namespaced_config_map("py", "default", created)
    assert (stale.value.status, stale.value.reason) == (409, "Conflict")
    assert core.patch_namespaced_config_map("py", "default", {"data": {"a": None}}).data == {"b": "2"}
    assert [each.metadata.name for each in core.list_namespaced_config_map("default").items] == ["py"]
    assert core.delete_namespaced_config_map("py", "default")["status"] == "Success"
    with pytest.raises(ApiException) as gone:
        core.read_namespaced_config_map("py", "default")
    assert gone.value.status == 404


def test_names_are_generated_and_collections_deleted(api: client.ApiClient) -> None:
    core = client.CoreV1Api(api)
    body = client.V1ConfigMap(metadata=client.V1ObjectMeta(generate_name="gen-", labels={"made": "up"}))
    names = {core.create_namespaced_config_map("default", body).metadata.name for _ in range(3)}
    assert len(names) == 3 and all(len(name) == len("gen-") + 5 for name in names)
    core.delete_collection_namespaced_config_map("default", label_selector="made=up")
    assert core.list_namespaced_config_map("default", label_selector="made=up").items == []


def test_long_lists_come_in_consistent_pages(api: client.ApiClient) -> None:
    core = client.CoreV1Api(api)
    for index in range(5):
        core.create_namespaced_config_map("default", config_map(f"page-{index}"))
    first = core.list_namespaced_config_map("default", limit=2)
    assert (len(first.items), first.metadata.remaining_item_count) == (2, 3)
    core.delete_namespaced_config_map("page-4", "default")
    rest = core.list_namespaced_config_map("default", limit=10, _continue=first.metadata._continue)
    assert [each.metadata.name for each in first.items + rest.items] == [
        f"page-{index}" for index in range(5)
    ]
    assert rest.metadata.resource_version == first.metadata.resource_version
    core.delete_collection_namespaced_config_map("default")


def test_a_watch_goes_on_where_a_list_was_and_ends_when_its_time_is_over(api: client.ApiClient) -> None:
    core = client.CoreV1Api(api)
    since = core.list_namespaced_config_map("default").metadata.resource_version
    core.create_namespaced_config_map("default", config_map("watched"))
    core.delete_namespaced_config_map("watched", "default")
    started = time.monotonic()
    events = [
        (event["type"], event["object"].metadata.name)
        for event in watch.Watch().stream(
            core.list_namespaced_config_map, "default", resource_version=since, timeout_seconds=1
        )
    ]
    assert events == [("ADDED", "watched"), ("DELETED", "watched")]
    assert 0.9 < time.monotonic() - started < 20


def test_jobs_and_deployments_keep_their_defaults(api: client.ApiClient) -> None:
    container = client.V1Container(name="c", image="local", command=["true"])
    template = client.V1PodTemplateSpec(
        metadata=client.V1ObjectMeta(labels={"a": "b"}),
        spec=client.V1PodSpec(containers=[container], restart_policy="Never"),
    )
    batch = client.BatchV1Api(api)
    job = batch.create_namespaced_job(
        "default",
        client.V1Job(metadata=client.V1ObjectMeta(name="job"), spec=client.V1JobSpec(template=template)),
    )
    assert (job.spec.backoff_limit, job.spec.parallelism, job.spec.completions) == (6, 1, 1)
    batch.delete_namespaced_job("job", "default", propagation_policy="Background")
    template.spec.restart_policy = "Sometimes"
    bad = client.V1Job(metadata=client.V1ObjectMeta(name="j"), spec=client.V1JobSpec(template=template))
    with pytest.raises(ApiException) as wrong:
        batch.create_namespaced_job("default", bad)
    assert wrong.value.status == 422 and "Unsupported value" in wrong.value.body


def test_the_dynamic_client_finds_and_uses_walras_own_kinds(api: client.ApiClient) -> None:
    bids = DynamicClient(api).resources.get(api_version="walras.dev/v1alpha1", kind="Bid")
    bid = {
        "apiVersion": "walras.dev/v1alpha1", "kind": "Bid", "metadata": {"name": "b"},
        "spec": {"class": "batch", "packages": [{"maxPrice": "2.50"}]},
    }  # fmt: skip
    created = bids.create(body=bid, namespace="default")
    assert (created.spec.packages[0].devices, created.spec.packages[0].term) == (1, "1m")
    bad = {**bid, "metadata": {"name": "c"}, "spec": {"class": "urgent", "packages": []}}
    with pytest.raises(ApiException) as wrong:
        bids.create(body=bad, namespace="default")
    assert wrong.value.status == 422
    bids.delete(name="b", namespace="default")


def test_access_can_be_asked(api: client.ApiClient) -> None:
    def allowed(verb: str, resource: str) -> bool:
        attributes = client.V1ResourceAttributes(verb=verb, resource=resource, namespace="default")
        spec = client.V1SelfSubjectAccessReviewSpec(resource_attributes=attributes)
        review = client.V1SelfSubjectAccessReview(spec=spec)
        return bool(client.AuthorizationV1Api(api).create_self_subject_access_review(review).status.allowed)

    assert allowed("create", "pods") and not allowed("create", "nodes")


class Hello(BaseHTTPRequestHandler):
    """Stands in for a program in a pod."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = f"hello from {self.path}, authorization {self.headers['authorization']}".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(201)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for half in (body[: len(body) // 2], body[len(body) // 2 :]):
            self.wfile.write(b"%x\r\n%b\r\n" % (len(half), half))
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def program(apiserver: Server) -> Iterator[None]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hello)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    apiserver.pods.port = server.server_port
    yield
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.usefixtures("program")
def test_a_program_in_a_pod_is_reached_through_the_proxy(apiserver: Server, api: client.ApiClient) -> None:
    core = client.CoreV1Api(api)
    spec = client.V1PodSpec(containers=[client.V1Container(name="c", image="local")])
    core.create_namespaced_pod("default", client.V1Pod(metadata=client.V1ObjectMeta(name="web"), spec=spec))
    text = core.connect_get_namespaced_pod_proxy_with_path("web:8080", "default", "a/b")
    assert text == "hello from /a/b, authorization None"
    assert apiserver.pods.asked[-1] == {"cluster": "one", "pod": "web", "port": 8080}
    with apiserver.client() as http:
        sent = b"x" * 300_000
        path = "/clusters/one/api/v1/namespaces/default/pods/web:8080/proxy/echo"
        assert http.post(path, content=sent).content == sent
        apiserver.pods.port = 1
        unreachable = http.get(path)
        assert (unreachable.status_code, unreachable.json()["reason"]) == (503, "ServiceUnavailable")
    core.delete_namespaced_pod("web", "default")


def test_a_body_over_the_limit_is_refused_and_the_server_goes_on(apiserver: Server) -> None:
    path = "/clusters/one/api/v1/namespaces/default/configmaps"
    with apiserver.client() as http:
        answer = http.post(path, content=b"x" * (4 * 2**20), headers={"content-type": "application/json"})
        assert (answer.status_code, answer.json()["reason"]) == (413, "RequestEntityTooLarge")
        assert http.get(path).status_code == 200


def test_a_reader_that_does_not_read_does_not_fill_the_servers_memory(apiserver: Server) -> None:
    """A watch is opened and not read while far more is written than the sockets' buffers hold."""
    path = "/clusters/one/api/v1/namespaces/default/configmaps"
    with apiserver.client() as http, apiserver.client() as slow:
        http.post(path, json={"metadata": {"name": "big"}, "data": {"x": ""}}).raise_for_status()
        with slow.stream("GET", f"{path}?watch=true"):
            for index in range(60):
                patch = {"data": {"x": f"{index}" + "x" * 500_000}}
                media = {"content-type": "application/merge-patch+json"}
                http.patch(f"{path}/big", json=patch, headers=media).raise_for_status()
            open_watches = [each for group in apiserver.api.hub._watches.values() for each in group]
            assert sum(len(each._queue) for each in open_watches) > 10
        http.delete(f"{path}/big").raise_for_status()


def test_two_servers_do_not_share_a_port(apiserver: Server) -> None:
    port = apiserver.running.port
    with pytest.raises(ServiceUnavailable, match=rf"cannot listen on 127\.0\.0\.1:{port}"):
        apiserver.run(serve(apiserver.app, "127.0.0.1", port, apiserver.ca, apiserver.ca))


def test_old_tls_is_refused(apiserver: Server) -> None:
    trust = ssl.create_default_context(cafile=str(apiserver.ca))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        trust.maximum_version = ssl.TLSVersion.TLSv1_1
    with httpx.Client(verify=trust, trust_env=False) as old, pytest.raises(httpx.ConnectError):
        old.get(f"{apiserver.url}/version")


def test_a_server_that_stops_ends_its_watches_in_order(apiserver: Server, tmp_path: Path) -> None:
    server = type(apiserver)(tmp_path)
    server.start()
    path = "/clusters/one/api/v1/namespaces?watch=true"
    with server.client() as http, http.stream("GET", path) as answer:
        lines = answer.iter_lines()
        assert {json.loads(next(lines))["object"]["metadata"]["name"] for _ in range(2)} == {
            "default",
            "kube-system",
        }
        started = time.monotonic()
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        assert list(lines) == []
        stopping.join()
    assert time.monotonic() - started < 10
    with server.client() as http, pytest.raises(httpx.ConnectError):
        http.get("/version")


def test_hundreds_of_watches_run_beside_other_requests(apiserver: Server) -> None:
    path = "/clusters/one/api/v1/namespaces/default/configmaps"
    with ExitStack() as stack:
        http = stack.enter_context(apiserver.client())
        opened = [stack.enter_context(apiserver.client()) for _ in range(3)]
        watches = [
            stack.enter_context(reader.stream("GET", f"{path}?watch=true&fieldSelector=metadata.name=all"))
            for reader in opened
            for _ in range(80)
        ]
        http.post(path, json={"metadata": {"name": "all"}}).raise_for_status()
        events = [json.loads(next(watching.iter_lines()))["object"]["metadata"] for watching in watches]
        assert {event["name"] for event in events} == {"all"} and len(events) == 240
    deadline = time.monotonic() + 20
    while len(apiserver.api.hub):
        assert time.monotonic() < deadline, "watches outlive their clients"
        time.sleep(0.02)
    with apiserver.client() as http:
        http.delete(f"{path}/all").raise_for_status()
