"""Whatever is sent to what decides about access, it is answered, and nobody gets in by it."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
from hypothesis import given, settings
from hypothesis import strategies as st
from support.access import RBAC, Place, robot, rule, tell

HERE = "/api/v1/namespaces/default"
MAY = "/apis/authorization.k8s.io/v1"
PATHS = [
    f"{RBAC}/clusterroles", f"{RBAC}/clusterrolebindings", f"{RBAC}/namespaces/default/roles",
    f"{RBAC}/namespaces/default/rolebindings", f"{HERE}/serviceaccounts/robot/token",
    f"{MAY}/selfsubjectaccessreviews", f"{MAY}/subjectaccessreviews", f"{MAY}/selfsubjectrulesreviews",
    f"{MAY}/namespaces/default/localsubjectaccessreviews", "/apis/authentication.k8s.io/v1/tokenreviews",
    "/apis/authentication.k8s.io/v1/selfsubjectreviews",
    "/apis/certificates.k8s.io/v1/certificatesigningrequests",
]  # fmt: skip
FIELDS = st.sampled_from([
    "metadata", "name", "namespace", "uid", "spec", "rules", "verbs", "apiGroups", "resources",
    "resourceNames", "nonResourceURLs", "roleRef", "kind", "apiGroup", "subjects",
    "aggregationRule", "clusterRoleSelectors", "matchLabels", "user", "groups", "extra",
    "resourceAttributes", "nonResourceAttributes", "verb", "path", "token", "audiences",
    "expirationSeconds", "boundObjectRef", "apiVersion", "request", "usages", "signerName",
    "status", "conditions", "type",
])  # fmt: skip
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**40), 2**40), st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["", "*", "a", "Role", "ClusterRole", "User", "Pod", "v1", "default", "AAAA", "\x00"]),
)  # fmt: skip
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=4),
    max_leaves=12,
)
BODIES = st.dictionaries(FIELDS, VALUES, max_size=5)
TOKENS = st.one_of(
    st.text(max_size=30),
    st.from_regex(r"[A-Za-z0-9_-]{0,20}\.[A-Za-z0-9_-]{0,20}\.[A-Za-z0-9_-]{0,20}", fullmatch=True),
)


async def asked(place: Place, who: str, path: str, body: Any) -> httpx.Response:
    return await place.ask(who, "POST", path, body)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(PATHS), BODIES), min_size=1, max_size=12))
def test_every_body_is_answered_and_gives_nobody_more(sent: list[tuple[str, dict[str, Any]]]) -> None:
    async def story(place: Place) -> None:
        await place.account()
        every = rule("create", "*", "*")
        await place.role("maker", every)
        await place.bind("maker", robot())
        token = await place.token()
        for path, body in sent:
            for who in (token, "one"):
                answer = await asked(place, who, path, body)
                assert answer.status_code < 500, (path, body, answer.text)
                assert answer.status_code < 300 or answer.json()["kind"] == "Status"
            # What it may do is what it could do before.
            assert await place.get(token, f"{HERE}/secrets") == 403

    tell(story)


@settings(max_examples=60)
@given(st.lists(TOKENS, min_size=1, max_size=10))
def test_no_token_that_was_made_up_is_anybodys(tokens: list[str]) -> None:
    async def story(place: Place) -> None:
        for token in tokens:
            raw = token.encode("utf-8", "surrogatepass").replace(b"\r", b"").replace(b"\n", b"")
            scope = {
                "type": "http", "method": "GET", "path": "/clusters/one/api", "query_string": b"",
                "headers": [(b"authorization", b"Bearer " + raw)],
            }  # fmt: skip
            sent: list[Any] = []

            async def send(message: Any, sent: list[Any] = sent) -> None:
                sent.append(message)

            async def receive() -> Any:
                return {"type": "http.request", "body": b"", "more_body": False}

            if token.strip() not in ("one", "two", "operator"):
                await asyncio.wait_for(place.app(scope, receive, send), 5)
                assert sent[0]["status"] == 401, token

    tell(story)
