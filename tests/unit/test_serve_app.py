"""The application: who gets in, where to, and what becomes of requests that go wrong."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import httpx
import pytest
from support.application import Client, application, asking, client

from walras.core.errors import NotFound, WalrasError
from walras.kube.serve.app import EXTRA_BYTES_MAX
from walras.kube.serve.ports import Asked
from walras.kube.store.sqlite import SqliteStore
from walras.kube.verbs import Verbs

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
PATHS = (
    "", "/api", "/apis", "/apis/apps", "/api/v1", "/apis/apps/v1", "/openapi/v2", "/openapi/v3",
    "/openapi/v3/api/v1", "/walras/v1/cost", "/walras/v1/ledger", "/api/v1/nodes", "/api/v1/namespaces",
    "/api/v1/configmaps",
    "/api/v1/configmaps?watch=true", "/api/v1/namespaces/default", "/api/v1/namespaces/default/configmaps",
    "/api/v1/namespaces/default/configmaps/here", "/api/v1/namespaces/default/secrets",
    "/api/v1/namespaces/default/pods/p/log", "/api/v1/namespaces/default/pods/p/proxy/x",
    "/api/v1/namespaces/default/pods/p/binding", "/api/v1/namespaces/default/pods/p/eviction",
    "/api/v1/namespaces/default/pods/p/status", "/apis/walras.dev/v1alpha1/agents",
    "/apis/walras.dev/v1alpha1/bids",
    "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", "/apis/nonsense/v9/x", "/nonsense",
)  # fmt: skip


@pytest.mark.parametrize(
    "cluster", ["two", "fleet", "*", "%2A", "no-such", "One", "one%00", "%2e%2e", "two%2F.."]
)
def test_an_agents_token_opens_no_other_cluster_by_any_path_or_verb(store: SqliteStore, cluster: str) -> None:
    async def every(http: Client) -> set[tuple[str, str, int]]:
        wrong = set()
        for method in METHODS:
            for path in PATHS:
                answer = await http.request(method, f"/clusters/{cluster}{path}", content=b"{}")
                if answer.status_code not in (400, 403, 404) or "of-" in answer.text:
                    wrong.add((method, path, answer.status_code))
        return wrong

    assert asking(store, "one", every) == set()


def test_nothing_is_left_of_a_request_that_was_refused(store: SqliteStore) -> None:
    """Not even for the collector, which does not look at what it has set aside meanwhile."""
    configs, large = "/clusters/one/api/v1/namespaces/default/configmaps", {"a": "b" * 100_000}
    merge, apply = (
        {"content-type": "application/merge-patch+json"},
        {"content-type": "application/apply-patch+yaml"},
    )

    async def told(http: Client) -> list[int]:
        answers = [
            await http.get(f"{configs}/no-such"),
            await http.post(configs, content=b"{"),
            await http.post(configs, json={"metadata": {"name": "A"}, "data": large}),
            await http.post(configs, json={"metadata": {"name": 5}, "data": large}),
            await http.patch(
                f"{configs}/here", json={"metadata": {"labels": {"-": "-"}}, "data": large}, headers=merge
            ),
            await http.patch(f"{configs}/here", json={"data": [large]}, headers=merge),
            await http.patch(f"{configs}/here?fieldManager=a", json={"data": large}, headers=apply),
            await http.get(f"{configs}?continue=x"),
            await http.get("/clusters/two/api/v1/pods"),
        ]
        return [answer.status_code for answer in answers]

    async def left(http: Client) -> tuple[list[int], list[WalrasError]]:
        await told(http)
        gc.collect()
        gc.disable()
        try:
            codes = await told(http)
            await asyncio.sleep(0)
            return codes, [each for each in gc.get_objects() if isinstance(each, WalrasError)]
        finally:
            gc.enable()

    codes, errors = asking(store, "one", left)
    assert codes == [404, 400, 422, 400, 422, 422, 400, 400, 403]
    assert errors == []


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("bindings", {"metadata": ["name"]}),
        ("bindings", {"metadata": {"name": "p"}, "target": "base"}),
        ("bindings", {"metadata": {"name": "p", "annotations": [1]}, "target": {"name": "base"}}),
        ("pods/p/binding", {"metadata": "p", "target": {"name": "base"}}),
        ("pods/p/binding", {"metadata": {"annotations": {"a": 1}}, "target": {"name": "base"}}),
        ("pods/p/eviction", {"metadata": "p"}),
        ("pods/p/eviction", {"deleteOptions": 5}),
        ("pods/p/eviction", {"metadata": {"name": "p"}, "deleteOptions": {"gracePeriodSeconds": "soon"}}),
    ],
)
def test_what_acts_on_a_pod_is_of_its_type(store: SqliteStore, path: str, body: dict[str, Any]) -> None:
    async def told(http: Client) -> str:
        answer = await http.post(f"/clusters/one/api/v1/namespaces/default/{path}", json=body)
        assert answer.status_code == 400
        return answer.text

    assert "json: cannot unmarshal" in asking(store, "one", told)


def test_a_refusal_does_not_tell_whether_the_cluster_exists(store: SqliteStore) -> None:
    async def both(http: Client) -> list[str]:
        texts = [(await http.get(f"/clusters/{name}/api/v1/pods")).text for name in ("two", "not")]
        return [text.replace("two", "X").replace("not", "X") for text in texts]

    there, absent = asking(store, "one", both)
    assert there == absent


@pytest.mark.parametrize(
    "path",
    [
        "/clusters/one/../two/api/v1/configmaps",
        "/clusters/../two/api/v1/configmaps",
        "/clusters//two/api/v1/pods",
        "/api/v1/../../clusters/two/api/v1/configmaps",
    ],
)
def test_no_trick_with_the_path_leaves_the_cluster(store: SqliteStore, path: str) -> None:
    """Written by hand, since clients normalise paths before they send them."""

    async def run() -> tuple[int, bytes]:
        app = await application(store)
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        scope = {
            "type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"",
            "headers": [(b"authorization", b"Bearer one")],
        }  # fmt: skip
        await app(scope, receive, send)
        return sent[0]["status"], sent[1]["body"]

    status, body = asyncio.run(run())
    assert status in (400, 403, 404) and b"of-" not in body


@pytest.mark.parametrize(
    ("token", "codes"), [("one", [200, 403]), ("operator", [404, 200]), ("", [401, 401])]
)
def test_who_has_one_cluster_alone_need_not_name_it(store: SqliteStore, token: str, codes: list[int]) -> None:
    here = "/api/v1/namespaces/default/configmaps/here"

    async def both(http: Client) -> list[httpx.Response]:
        return [await http.get(here), await http.get(f"/clusters/two{here}")]

    answers = asking(store, token, both)
    assert [answer.status_code for answer in answers] == codes
    if token == "one":
        assert answers[0].json()["data"] == {"secret": "of-one"}


def test_the_operator_opens_every_cluster_and_reads_them_all_at_once(store: SqliteStore) -> None:
    async def ask(http: Client) -> list[Any]:
        return [
            (await http.get(f"/clusters/{name}/api/v1/configmaps")).json() for name in ("one", "fleet", "*")
        ]

    one, fleet, every = asking(store, "operator", ask)
    assert [len(found["items"]) for found in (one, fleet, every)] == [1, 1, 3]
    assert {item["metadata"]["annotations"]["walras.dev/cluster"] for item in every["items"]} == {
        "one",
        "two",
        "fleet",
    }


@pytest.mark.parametrize(
    "authorization", ["", "Bearer", "Bearer ", "Bearer nobody", "Basic b25lOg==", "one", "bearer  one x"]
)
def test_who_has_no_valid_token_is_unauthorized(store: SqliteStore, authorization: str) -> None:
    async def ask(http: Client) -> Any:
        answer = await http.get(
            "/clusters/one/api", headers={"authorization": authorization} if authorization else {}
        )
        return answer.status_code, answer.json()["reason"], "www-authenticate" in answer.headers

    assert asking(store, "", ask) == (401, "Unauthorized", True)


@pytest.mark.parametrize(
    "path", ["/healthz", "/livez", "/readyz", "/clusters/one/readyz", "/version", "/clusters/x/version"]
)
def test_health_and_version_need_no_token(store: SqliteStore, path: str) -> None:
    async def ask(http: Client) -> int:
        return (await http.get(path)).status_code

    assert asking(store, "", ask) == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "reason"),
    [
        ("GET", "/api/v1/namespaces/default/configmaps/nobody", 404, "NotFound"),
        ("GET", "/api/v1/nonsense", 404, "NotFound"),
        ("GET", "/api/v1/namespaces/default/nodes", 404, "NotFound"),
        ("GET", "/api/v1/namespaces/default/configmaps/here/status", 404, "NotFound"),
        ("GET", "/api/v1/namespaces/default/configmaps/here/a/b", 404, "NotFound"),
        ("GET", "/apis/nonsense/v1/x", 404, ""),
        ("GET", "/openapi/v1", 404, ""),
        ("GET", "/walras/v1/prices", 404, "NotFound"),
        ("POST", "/api/v1/configmaps", 405, "MethodNotAllowed"),
        ("DELETE", "/api/v1/configmaps", 405, "MethodNotAllowed"),
        ("DELETE", "/api/v1/namespaces", 405, "MethodNotAllowed"),
        ("PUT", "/api/v1/namespaces/default/configmaps", 405, "MethodNotAllowed"),
        ("BREW", "/api/v1/namespaces/default/configmaps", 405, "MethodNotAllowed"),
        ("POST", "/api", 405, "MethodNotAllowed"),
        ("GET", "/api/v1/configmaps?limit=", 400, "BadRequest"),
        ("GET", "/api/v1/configmaps?limit=x", 400, "BadRequest"),
        ("GET", "/api/v1/configmaps?labelSelector=%3D%3D", 400, "BadRequest"),
        ("GET", "/api/v1/configmaps?resourceVersion=99999", 504, "Timeout"),
        ("GET", "/api/v1/configmaps?watch=1&sendInitialEvents=true", 422, "Invalid"),
        ("GET", "/api/v1/configmaps?watch=1&timeoutSeconds=x", 400, "BadRequest"),
        ("GET", "/api/v1/configmaps?" + "&".join(f"a{i}=1" for i in range(200)), 400, "BadRequest"),
        ("POST", "/api/v1/namespaces/default/configmaps?dryRun=Some", 422, "Invalid"),
        ("POST", "/api/v1/namespaces/default/configmaps?fieldValidation=Loose", 422, "Invalid"),
        ("POST", "/api/v1/namespaces/default/configmaps", 400, "BadRequest"),
        ("PATCH", "/api/v1/namespaces/default/configmaps/here", 415, "UnsupportedMediaType"),
        ("GET", "/api/v1/namespaces/default/pods/p/exec", 404, "NotFound"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_told_as_a_status(
    store: SqliteStore, method: str, path: str, status: int, reason: str
) -> None:
    async def ask(http: Client) -> tuple[int, str]:
        answer = await http.request(method, f"/clusters/one{path}")
        kind = answer.headers["content-type"]
        return answer.status_code, answer.json()["reason"] if kind == "application/json" else ""

    assert asking(store, "one", ask) == (status, reason)


def test_impersonation_is_refused_rather_than_ignored(store: SqliteStore) -> None:
    async def ask(http: Client) -> int:
        answer = await http.get("/clusters/one/api/v1/pods", headers={"Impersonate-User": "agent:two"})
        return answer.status_code

    assert asking(store, "operator", ask) == 403


def test_a_get_gives_the_stored_bytes(store: SqliteStore) -> None:
    async def ask(http: Client) -> tuple[Any, Any]:
        path = "/clusters/one/api/v1/namespaces/default/configmaps/here"
        return (await http.get(path)).json(), (
            await http.get(path, headers={"accept": "application/yaml"})
        ).text

    plain, text = asking(store, "one", ask)
    assert plain["data"] == {"secret": "of-one"} and plain["metadata"]["resourceVersion"]
    assert "secret: of-one" in text


def test_a_long_table_has_the_rows_that_its_pages_have(store: SqliteStore) -> None:
    async def ask(http: Client) -> tuple[Any, list[Any]]:
        path = "/clusters/one/api/v1/namespaces/default/configmaps"
        for number in range(40):
            made = {"metadata": {"name": f"c-{number}"}, "data": {"k": "x" * 1024}}
            assert (await http.post(path, json=made)).status_code == 201
        headers = {"accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
        whole = (await http.get(path, headers=headers)).json()
        token, pages = "", list[Any]()
        while not pages or token:
            page = await http.get(path, headers=headers, params={"limit": "10", "continue": token})
            pages.append(page.json())
            token = pages[-1]["metadata"].get("continue", "")
        return whole, pages

    whole, pages = asking(store, "one", ask)
    assert len(pages) == 5 and len(whole["rows"]) == 41
    assert whole["rows"] == [row for page in pages for row in page["rows"]]
    assert whole["columnDefinitions"] == pages[0]["columnDefinitions"]


@pytest.mark.parametrize(
    ("accepts", "coding"),
    [("gzip", "gzip"), ("br, gzip;q=0.5", "gzip"), ("*", "gzip"), ("gzip;q=0", None), ("identity", None)],
)
def test_a_large_answer_is_compressed_for_who_takes_it(
    store: SqliteStore, accepts: str, coding: str | None
) -> None:
    async def ask(http: Client) -> list[httpx.Response]:
        headers = {"accept-encoding": accepts}
        base = "/clusters/one"
        return [
            await http.get(f"{base}/openapi/v3/api/v1", headers=headers),
            await http.get(f"{base}/api/v1/namespaces/default", headers=headers),
        ]

    large, small = asking(store, "one", ask)
    assert large.headers.get("content-encoding") == coding
    assert large.json()["openapi"].startswith("3.")
    assert (int(large.headers["content-length"]) < len(large.content) // 4) == (coding == "gzip")
    assert "content-encoding" not in small.headers


def test_a_field_given_twice_is_warned_of_or_refused_as_was_asked(store: SqliteStore) -> None:
    body = b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"n"},"data":{"a":"1","a":"2"}}'
    path = "/clusters/one/api/v1/namespaces/default/configmaps?dryRun=All&fieldValidation="

    async def ask(http: Client) -> list[httpx.Response]:
        headers = {"content-type": "application/json"}
        return [
            await http.post(path + mode, content=body, headers=headers)
            for mode in ("Strict", "Warn", "Ignore")
        ]

    strict, warn, ignore = asking(store, "one", ask)
    told = 'ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: '
    assert (strict.status_code, strict.json()["message"]) == (400, told + 'duplicate field "data.a"')
    assert (warn.status_code, warn.headers["warning"]) == (201, '299 - "duplicate field \\"data.a\\""')
    assert (ignore.status_code, "warning" in ignore.headers) == (201, False)


def test_a_key_given_twice_in_yaml_is_told_by_its_line(store: SqliteStore) -> None:
    body = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: it\ndata:\n  a: b\n  a: c\nx: z\n"
    path = "/clusters/one/api/v1/namespaces/default/configmaps"

    async def ask(http: Client) -> list[httpx.Response]:
        created = [
            await http.post(
                f"{path}?fieldValidation={mode}", content=body, headers={"content-type": "application/yaml"}
            )
            for mode in ("Strict", "Warn")
        ]
        applied = [
            await http.patch(
                f"{path}/it?fieldManager=m&force=true&fieldValidation={mode}",
                content=body.removesuffix("x: z\n"),
                headers={"content-type": "application/apply-patch+yaml"},
            )
            for mode in ("Strict", "Warn")
        ]
        return created + applied

    strict, warn, applied, told = asking(store, "one", ask)
    line = 'line 7: key "a" already set in map'
    why = f"yaml: unmarshal errors:\n  {line}"
    assert strict.json()["message"].endswith(f'strict decoding error: {why}, unknown field "x"')
    assert 'line 7: key \\"a\\" already set in map' in warn.headers["warning"]
    assert applied.status_code == 400
    assert applied.json()["message"] == f"error strict decoding YAML: error converting YAML to JSON: {why}"
    assert told.headers["warning"].count("already set") == 1


def test_a_fault_inside_is_an_internal_error_without_its_details(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("the password is swordfish")

    monkeypatch.setattr(Verbs, "list", broken)

    async def ask(http: Client) -> httpx.Response:
        return await http.get("/clusters/one/api/v1/pods")

    answer = asking(store, "one", ask)
    assert (answer.status_code, answer.json()["reason"]) == (500, "InternalError")
    assert "swordfish" not in answer.text
    assert "swordfish" in capsys.readouterr().out


def test_what_others_answer_beside_the_api_is_passed_the_caller_and_the_cluster(store: SqliteStore) -> None:
    async def extra(asked: Asked) -> dict[str, Any]:
        if asked.path != "cost":
            raise NotFound("no such view")
        said = {"for": asked.identity.user, "of": asked.cluster, "by": asked.query["by"]}
        return said | (await asked.body() if asked.method == "POST" else {})

    async def run() -> list[httpx.Response]:
        app = await application(store)
        app.extra = extra
        async with client(app, "one") as http:
            place = "/clusters/one/walras/v1"
            return [
                await http.get(f"{place}/cost?by=pod"),
                await http.get(f"{place}/nothing"),
                await http.post(f"{place}/cost?by=pod", json={"and": 1}),
                await http.post(f"{place}/cost?by=pod", json={"and": "x" * EXTRA_BYTES_MAX}),
                await http.put(f"{place}/cost?by=pod", json={}),
            ]

    cost, nothing, posted, large, put = asyncio.run(run())
    assert cost.json() == {"for": "agent:one", "of": "one", "by": "pod"}
    assert nothing.json()["message"] == "no such view"
    assert posted.json() == {"for": "agent:one", "of": "one", "by": "pod", "and": 1}
    assert (large.status_code, put.status_code) == (413, 405)


def test_openapi_documents_are_not_sent_again_to_who_has_them(store: SqliteStore) -> None:
    async def ask(http: Client) -> None:
        index = (await http.get("/clusters/one/openapi/v3")).json()["paths"]
        named = "/clusters/one" + index["apis/apps/v1"]["serverRelativeURL"]
        first = await http.get(named)
        assert "immutable" in first.headers["cache-control"]
        assert f'"{named.partition("?hash=")[2]}"' == first.headers["etag"]
        for path in (named, "/clusters/one/openapi/v3/apis/apps/v1", "/clusters/one/openapi/v2"):
            whole = await http.get(path)
            assert whole.json()["paths"]
            again = await http.get(path, headers={"if-none-match": whole.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")
        older = await http.get("/clusters/one/openapi/v3/apis/apps/v1?hash=0123")
        assert (older.status_code, older.headers["location"]) == (301, named)

    asking(store, "one", ask)


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/endpoints",
        "/api/v1/namespaces/default/endpoints/nobody",
        "/api/v1/endpoints?watch=1&timeoutSeconds=1",
    ],
)
def test_who_asks_for_a_deprecated_type_is_warned(store: SqliteStore, path: str) -> None:
    async def ask(http: Client) -> tuple[str | None, str | None]:
        told = await http.get(f"/clusters/one{path}")
        other = await http.get("/clusters/one/api/v1/configmaps")
        return told.headers.get("warning"), other.headers.get("warning")

    said = '299 - "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"'
    assert asking(store, "one", ask) == (said, None)


def test_openapi_v2_is_in_the_form_that_is_asked_for_first(store: SqliteStore) -> None:
    path = "/clusters/one/openapi/v2"
    protobuf = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"

    async def ask(http: Client) -> list[httpx.Response]:
        accepts = (protobuf, f"{protobuf}, application/json", f"application/json, {protobuf}", "")
        return [await http.get(path, headers={"accept": accept}) for accept in accepts]

    found = asking(store, "one", ask)
    media = [each.headers["content-type"] for each in found]
    assert (
        media == ["application/com.github.proto-openapi.spec.v2.v1.0+protobuf"] * 2 + ["application/json"] * 2
    )
    assert found[0].content.startswith(b"\n\x032.0") and found[2].json()["swagger"] == "2.0"
    assert all(each.headers["vary"].startswith("Accept") for each in found)
