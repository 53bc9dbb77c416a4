"""Tokens of service accounts: whose they are, and every way in which one is nobody's."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from support.access import ISSUERS, KEY, Place, robot, rule, tell

from walras.kube.access.keys import TOKEN_BYTES_MAX, SigningKey

ACCOUNT = "/api/v1/namespaces/default/serviceaccounts/robot"
MYSELF = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
DISCOVERY = "/apis"


def segment(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def claims_of(token: str) -> dict[str, Any]:
    found: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return found


def header_of(token: str) -> dict[str, Any]:
    return dict(jwt.get_unverified_header(token))


def resigned(claims: dict[str, Any]) -> str:
    """Signed with the server's own key, as only somebody who has it could."""
    return KEY.sign(claims)


def test_a_token_says_who_it_is_of_and_is_good_for_an_hour() -> None:
    async def story(place: Place) -> None:
        account = await place.account()
        made = await place.must("one", "POST", f"{ACCOUNT}/token", {"spec": {}})
        token, uid = made["status"]["token"], account["metadata"]["uid"]
        claims = claims_of(token)
        now_s = place.clock.now_ms() // 1000
        assert claims["iss"] == f"{ISSUERS}/one" and claims["aud"] == [f"{ISSUERS}/one"]
        assert claims["sub"] == "system:serviceaccount:default:robot"
        assert (claims["iat"], claims["nbf"], claims["exp"]) == (now_s, now_s, now_s + 3600)
        assert claims["kubernetes.io"] == {
            "namespace": "default",
            "serviceaccount": {"name": "robot", "uid": uid},
        }
        assert made["spec"]["expirationSeconds"] == 3600 and made["kind"] == "TokenRequest"
        who = (await place.must(token, "POST", MYSELF, {}))["status"]["userInfo"]
        assert who == {
            "username": "system:serviceaccount:default:robot",
            "uid": uid,
            "groups": ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"],
            "extra": {"authentication.kubernetes.io/credential-id": [f"JTI={claims['jti']}"]},
        }
        place.clock.advance(3_600_000 - 1)
        assert await place.get(token, DISCOVERY) == 200
        place.clock.advance(1)
        assert await place.get(token, DISCOVERY) == 401

    tell(story)


def test_others_can_verify_a_token_with_what_the_cluster_publishes() -> None:
    async def story(place: Place) -> None:
        await place.account()
        token = await place.token(audiences=["vault"])

        own = await place.token()
        configuration = await place.must(own, "GET", "/.well-known/openid-configuration")
        assert configuration["issuer"] == f"{ISSUERS}/one"
        keys = (
            await place.http.get(configuration["jwks_uri"], headers={"authorization": f"Bearer {own}"})
        ).json()
        key = jwt.PyJWK(keys["keys"][0])
        options: Any = {"verify_exp": False, "verify_nbf": False, "verify_iat": False}
        read = jwt.decode(
            token,
            key,
            algorithms=["ES256"],
            audience="vault",
            issuer=configuration["issuer"],
            options=options,
        )
        assert read["sub"] == "system:serviceaccount:default:robot"
        assert header_of(token) == {"alg": "ES256", "kid": keys["keys"][0]["kid"]}

    tell(story)


def test_a_token_of_one_cluster_opens_no_other() -> None:
    async def story(place: Place) -> None:
        for cluster in ("one", "two"):
            await place.account(cluster=cluster)
            await place.role("all", rule("*", "*", "*"), cluster=cluster)
            await place.bind("all", robot(), cluster=cluster)
        token = await place.token(cluster="one")
        assert await place.get(token, "/api/v1/secrets", "one") in (200, 403)
        for other in ("two", "fleet", "*", "none"):
            assert await place.get(token, "/api/v1/secrets", other) == 403
        asked = {"spec": {"token": token}}
        path = "/apis/authentication.k8s.io/v1/tokenreviews"
        here = await place.must("one", "POST", path, asked)
        there = await place.must("two", "POST", path, asked, "two")
        assert here["status"]["authenticated"] and "authenticated" not in there["status"]

    tell(story)


def test_a_token_that_names_another_cluster_than_its_account_is_of_is_nobodys() -> None:
    """Even signed with the right key: the account of that name in the other cluster has another uid."""

    async def story(place: Place) -> None:
        await place.account(cluster="one")
        await place.account(cluster="two")
        claims = claims_of(await place.token(cluster="one"))
        moved = {**claims, "iss": f"{ISSUERS}/two", "aud": [f"{ISSUERS}/two"]}
        assert await place.get(resigned(moved), DISCOVERY, "two") == 401
        assert await place.get(resigned(claims), DISCOVERY, "one") == 200
        for issuer in (
            "",
            "two",
            f"{ISSUERS}/",
            f"{ISSUERS}/*",
            "https://else/clusters/one",
        ):
            assert await place.get(resigned({**claims, "iss": issuer, "aud": [issuer]}), DISCOVERY) == 401

    tell(story)


def test_no_header_chooses_the_algorithm_or_the_key() -> None:
    async def story(place: Place) -> None:
        await place.account()
        token = await place.token()
        header, payload, signature = token.split(".")
        public = jwt.PyJWK(KEY.jwks()["keys"][0]).key.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        foreign = SigningKey.generate()
        mine = header_of(token)

        def hmac_signed(head: dict[str, Any], secret: bytes) -> str:
            start = f"{segment(head)}.{payload}"
            digest = hmac.new(secret, start.encode(), hashlib.sha256).digest()
            return f"{start}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"

        hostile = [
            f"{segment({'alg': 'none'})}.{payload}.",
            f"{segment({**mine, 'alg': 'none'})}.{payload}.{signature}",
            f"{segment({**mine, 'alg': 'NONE'})}.{payload}.",
            hmac_signed({**mine, "alg": "HS256"}, public),
            hmac_signed({"alg": "HS256", "kid": ""}, b""),
            foreign.sign(claims_of(token)),
            f"{header}.{foreign.sign(claims_of(token)).split('.', 1)[1]}",
            f"{segment({**mine, 'kid': '../../dev/null'})}.{payload}.{signature}",
            f"{segment({**mine, 'kid': foreign.id})}.{payload}.{signature}",
            f"{segment({**mine, 'jku': 'https://evil/keys'})}.{payload}.{signature}",
            f"{segment({**mine, 'jwk': foreign.jwks()['keys'][0]})}.{payload}.{signature}",
            f"{segment({**mine, 'crit': ['exp']})}.{payload}.{signature}",
            f"{header}.{segment({**claims_of(token), 'sub': 'system:masters'})}.{signature}",
            f"{header}.{payload}.",
            f"{header}.{payload}",
            f"{header}..{signature}",
            f"{token}.{signature}",
            f"{token}x",
            token[:-2],
            "..",
            ".",
        ]
        for each in hostile:
            assert await place.get(each, DISCOVERY) == 401, each
        assert await place.get(token, DISCOVERY) == 200

    tell(story)


def test_a_token_is_void_once_its_account_is_gone_and_stays_void_when_one_of_the_name_comes_back() -> None:
    async def story(place: Place) -> None:
        await place.account()
        token = await place.token()
        assert await place.get(token, DISCOVERY) == 200
        await place.must("one", "DELETE", ACCOUNT)
        assert await place.get(token, DISCOVERY) == 401
        await place.account()
        assert await place.get(token, DISCOVERY) == 401
        assert await place.get(await place.token(), DISCOVERY) == 200

    tell(story)


@pytest.mark.parametrize(
    ("kind", "path", "body"),
    [
        ("Secret", "/api/v1/namespaces/default/secrets", {}),
        ("Pod", "/api/v1/namespaces/default/pods",
         {"spec": {"serviceAccountName": "robot", "automountServiceAccountToken": False,
                   "containers": [{"name": "c", "image": "i"}]}}),
    ],
)  # fmt: skip
def test_a_token_is_void_once_what_it_is_bound_to_is_gone(kind: str, path: str, body: dict[str, Any]) -> None:
    async def story(place: Place) -> None:
        await place.account()
        await place.must("one", "POST", path, {"metadata": {"name": "it"}, **body})
        reference = {"kind": kind, "apiVersion": "v1", "name": "it"}
        token = await place.token(boundObjectRef=reference)
        assert await place.get(token, DISCOVERY) == 200
        await place.must("one", "DELETE", f"{path}/it?gracePeriodSeconds=0")
        assert await place.get(token, DISCOVERY) == 401
        await place.must("one", "POST", path, {"metadata": {"name": "it"}, **body})
        assert await place.get(token, DISCOVERY) == 401

    tell(story)


def test_a_pod_that_ends_gracefully_keeps_its_token_for_its_grace_and_a_minute() -> None:
    async def story(place: Place) -> None:
        await place.account()
        spec = {"serviceAccountName": "robot", "containers": [{"name": "c", "image": "i"}], "nodeName": "n"}
        pods = "/api/v1/namespaces/default/pods"
        await place.must("one", "POST", pods, {"metadata": {"name": "it"}, "spec": spec})
        token = await place.token(boundObjectRef={"kind": "Pod", "apiVersion": "v1", "name": "it"})
        await place.must("one", "DELETE", f"{pods}/it?gracePeriodSeconds=30")
        place.clock.advance(90_000)
        assert await place.get(token, DISCOVERY) == 200
        place.clock.advance(1_000)
        assert await place.get(token, DISCOVERY) == 401

    tell(story)


def test_a_token_for_somebody_else_is_not_one_for_the_api_server() -> None:
    async def story(place: Place) -> None:
        await place.account()
        token = await place.token(audiences=["vault", "registry"])
        assert await place.get(token, DISCOVERY) == 401
        path = "/apis/authentication.k8s.io/v1/tokenreviews"
        right = await place.must("one", "POST", path, {"spec": {"token": token, "audiences": ["x", "vault"]}})
        assert right["status"]["authenticated"] and right["status"]["audiences"] == ["vault"]
        for audiences in ([], ["x"], [f"{ISSUERS}/one"]):
            wrong = await place.must("one", "POST", path, {"spec": {"token": token, "audiences": audiences}})
            assert "authenticated" not in wrong["status"]

    tell(story)


def test_a_review_does_not_tell_an_agent_of_the_operators_token() -> None:
    async def story(place: Place) -> None:
        path = "/apis/authentication.k8s.io/v1/tokenreviews"
        for token in ("operator", "two", "none"):
            found = await place.must("one", "POST", path, {"spec": {"token": token}})
            assert found["status"] == {"user": {}, "error": "invalid bearer token"}
        own = await place.must("one", "POST", path, {"spec": {"token": "one"}})
        assert own["status"]["user"]["username"] == "walras:agent:one"

    tell(story)


@pytest.mark.parametrize(
    ("spec", "code", "words"),
    [
        ({"expirationSeconds": 599}, 422, "may not specify a duration less than 10 minutes"),
        ({"expirationSeconds": 2**32 + 1}, 422, "may not specify a duration larger than 2^32 seconds"),
        ({"expirationSeconds": "600"}, 400, "must be a whole number"),
        ({"audiences": "vault"}, 400, "must be a list of strings"),
        ({"audiences": ["a"] * 33}, 422, "at most 32 audiences"),
        ({"boundObjectRef": {"kind": "ConfigMap", "apiVersion": "v1", "name": "x"}}, 400,
         "cannot bind token to object of type /v1, Kind=ConfigMap"),
        ({"boundObjectRef": {"kind": "Pod", "apiVersion": "v2", "name": "x"}}, 400, "cannot bind token"),
        ({"boundObjectRef": {"kind": "Secret", "apiVersion": "v1", "name": "none"}}, 404, "not found"),
        ({"boundObjectRef": {"kind": "Secret", "apiVersion": "v1", "name": "s", "uid": "other"}}, 409,
         "does not match the UID in record"),
        ({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "p"}}, 400,
         'cannot bind token for serviceaccount "robot" to pod running with different serviceaccount name'),
    ],
)  # fmt: skip
def test_a_token_request_that_cannot_be_met_says_why(spec: dict[str, Any], code: int, words: str) -> None:
    async def story(place: Place) -> None:
        await place.account()
        space = "/api/v1/namespaces/default"
        await place.must("one", "POST", f"{space}/secrets", {"metadata": {"name": "s"}})
        pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
        await place.account("default")
        await place.must("one", "POST", f"{space}/pods", pod)
        answer = await place.ask("one", "POST", f"{ACCOUNT}/token", {"spec": spec})
        assert answer.status_code == code and words in answer.json()["message"], answer.text

    tell(story)


def test_a_token_request_for_another_than_its_path_says_is_refused() -> None:
    async def story(place: Place) -> None:
        await place.account()
        for metadata, code in (
            ({"name": "root"}, 422),
            ({"namespace": "kube-system"}, 422),
            ({"uid": "x"}, 409),
        ):
            answer = await place.ask("one", "POST", f"{ACCOUNT}/token", {"metadata": metadata, "spec": {}})
            assert answer.status_code == code, answer.text
        big = {"spec": {"audiences": ["a" * 70_000]}}
        assert (await place.ask("one", "POST", f"{ACCOUNT}/token", big)).status_code == 413
        other = {"kind": "Pod", "apiVersion": "v1", "spec": {}}
        assert (await place.ask("one", "POST", f"{ACCOUNT}/token", other)).status_code == 400

    tell(story)


def test_a_token_of_absurd_size_is_refused_unread() -> None:
    async def story(place: Place) -> None:
        await place.account()
        token = await place.token()
        assert await place.get(token + "A" * TOKEN_BYTES_MAX, DISCOVERY) == 401

    tell(story)


def test_nothing_is_kept_of_clusters_that_use_no_bindings_of_their_own() -> None:
    async def story(place: Place) -> None:
        await place.account()
        assert await place.get(await place.token(), DISCOVERY) == 200
        assert not place.app.access.bindings.kept()
        await place.bind("view", robot(), namespace="default")
        assert set(place.app.access.bindings.kept()) == {"one"}
        await place.must(
            "one", "DELETE", "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings/view"
        )
        assert not place.app.access.bindings.kept()
        await place.bind("view", robot(), namespace="default")
        await place.api.delete_cluster("one")
        assert not place.app.access.bindings.kept()

    tell(story)


def test_a_token_and_what_it_may_do_are_the_same_after_its_cluster_has_slept() -> None:
    async def story(place: Place) -> None:
        await place.account()
        await place.bind("view", robot(), namespace="default")
        token = await place.token()
        maps = "/api/v1/namespaces/default/configmaps"
        for _ in range(2):
            await place.api.hibernate(["one"])
            assert place.api.is_asleep("one") and not place.app.access.bindings.kept()
            assert await place.get(token, maps) == 200
            assert await place.get(token, "/api/v1/namespaces/default/secrets") == 403
        await place.must("one", "DELETE", ACCOUNT)
        await place.api.hibernate(["one"])
        assert await place.get(token, maps) == 401

    tell(story)


def test_a_default_that_was_changed_is_still_changed_after_its_cluster_has_slept() -> None:
    async def story(place: Place) -> None:
        await place.account()
        token = await place.token()
        path = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/system:discovery"
        await place.must("one", "PATCH", path, {"subjects": []})
        assert await place.get(token, DISCOVERY) == 403
        await place.api.hibernate(["one"])
        assert await place.get(token, DISCOVERY) == 403
        await place.must("one", "DELETE", path)
        await place.api.hibernate(["one"])
        assert await place.get(token, DISCOVERY) == 200

    tell(story)


def test_false_tokens_wait_for_each_other_and_for_nobody_else() -> None:
    async def story(place: Place) -> None:
        await place.account()
        token = await place.token()
        false = [f"{token[:-8]}{number:08d}" for number in range(300)]
        flood = [asyncio.create_task(place.get(each, DISCOVERY)) for each in false]
        await asyncio.sleep(0)
        assert await place.get("one", DISCOVERY) == 200
        assert sum(task.done() for task in flood) < 200
        assert set(await asyncio.gather(*flood)) <= {401, 429}
        assert await place.get(token, DISCOVERY) == 200

    tell(story)


def test_a_token_that_is_bound_to_a_node_is_void_without_it() -> None:
    async def story(place: Place) -> None:
        await place.account()
        node = {"metadata": {"name": "lease-1"}}
        await place.api.create("one", "nodes", node)
        token = await place.token(boundObjectRef={"kind": "Node", "apiVersion": "v1", "name": "lease-1"})
        who = (await place.must(token, "POST", MYSELF, {}))["status"]["userInfo"]
        assert who["extra"]["authentication.kubernetes.io/node-name"] == ["lease-1"]
        await place.api.delete("one", "nodes", "", "lease-1")
        assert await place.get(token, DISCOVERY) == 401
        await place.api.create("one", "nodes", node)
        assert await place.get(token, DISCOVERY) == 401

    tell(story)
